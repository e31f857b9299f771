"""What stands before the application: keys, origins, limits on bodies, and a line of log for each request."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .auth import Keys
from .errors import NotAllowedError, ServiceError
from .service import Service

logger = logging.getLogger("transformers_bark.serving")

OPEN_PATHS = ("/health", "/ready")
"""Paths that need no key: a supervisor asks there."""

VOICES_PATH = "/v1/audio/voices"
DETECT_PATH = "/v1/audio/detect"

_FORM = 100_000  # bytes of a form around its file

_NAMED = (
    "/v1/audio/speech",
    "/v1/audio/speech/batch",
    "/v1/audio/speech/timestamps",
    "/v1/audio/speech/stream",
    VOICES_PATH,
    DETECT_PATH,
    "/v1/models",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/docs",
)


class ForeignError(ServiceError):
    """A page of another site calls."""

    status, type, code = 403, "permission_error", "origin_not_allowed"


@dataclass
class Record:
    """What is said of a request when it has ended."""

    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(8)}")
    outcome: str | None = None
    status: int = 0
    details: dict[str, object] = field(default_factory=dict)
    text: str | None = None


class Gate:
    """Lets requests in, one by one.

    Args:
        app: what is behind it.
        origins: of pages on other sites that may call; "*" for all.
        log_text: whether the log holds what is said.
    """

    def __init__(
        self, app: ASGIApp, service: Service, keys: Keys, origins: Collection[str] = (), log_text: bool = False
    ) -> None:
        self._app, self._service, self._keys = app, service, keys
        self._origins, self._log_text = origins, log_text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        record = Record()
        scope.setdefault("state", {})["record"] = record
        began = time.monotonic()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.id.encode())]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._limited(scope, receive) if scope["type"] == "http" else receive, noted)
        except ServiceError as error:
            record.outcome = error.code
            await _refuse(scope, receive, noted, error)
        finally:
            self._log(scope, record, time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        """Raises what speaks against a request."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
        if is_foreign and not {"*", origin} & set(self._origins):
            raise ForeignError("pages of other sites may not call: see --allow-origin")
        asks = scope["type"] == "http" and scope["method"] == "OPTIONS"  # a browser's question before a call
        if scope["path"] not in OPEN_PATHS and not asks and not self._keys.let_in(headers.get("authorization")):
            raise NotAllowedError("a key is needed: Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"})

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """A body that is not too large and does not take too long."""
        limits = self._service.limits
        files = {VOICES_PATH: limits.upload, DETECT_PATH: limits.recording}
        most = files[scope["path"]] + _FORM if scope["path"] in files else limits.body
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        left, is_whole = most, False
        deadline = time.monotonic() + limits.body_seconds

        async def limited() -> Message:
            nonlocal left, is_whole
            if is_whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise HTTPException(408, f"the body was not there after {limits.body_seconds:g} s") from None
            left -= len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if left < 0:
                raise HTTPException(413, f"the body is larger than {most} bytes")
            return message

        return limited

    def _log(self, scope: Scope, record: Record, seconds: float) -> None:
        path = scope["path"]
        named = VOICES_PATH if path.startswith(VOICES_PATH) else path if path in _NAMED else "other"
        outcome = record.outcome or ("ok" if 200 <= record.status < 400 else f"http_{record.status}")
        if scope["type"] == "websocket" and record.outcome is None:
            outcome = "ok"
        self._service.metrics.requests.labels(named, outcome).inc()
        method = scope.get("method", "WS")
        details = "".join(f" {name}={value}" for name, value in record.details.items())
        text = f" text={record.text!r}" if self._log_text and record.text is not None else ""
        # quoted, as a path may hold the end of a line
        logger.info("%s %s %r %s %s %.3fs%s%s", record.id, method, path, record.status, outcome, seconds, details, text)


def _too_large(most: int) -> ServiceError:
    error = ServiceError(f"the body is larger than {most} bytes", None, "too_large")
    error.status, error.type = 413, "invalid_request_error"
    return error


async def _refuse(scope: Scope, receive: Receive, send: Send, error: ServiceError) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.message[:100]})
        return
    await JSONResponse(error.body(), error.status, error.headers)(scope, receive, send)
