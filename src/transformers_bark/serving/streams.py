"""Answers that are sent as they are made."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .errors import FailedError, LeftError, ServiceError
from .service import Items, Visit

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_GRACE = 1.0  # seconds, in which the thread says that the time is over


async def unless_left(request: Request, work: Awaitable[_T]) -> _T:
    """What work gives; its request's body must have been read.

    Raises:
        LeftError: the client has hung up before.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_hung_up(request.receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise LeftError
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def all_of(items: Items[_T]) -> list[_T]:
    """All items."""
    found = []
    while (item := await items.take()) is not None:
        found.append(item)
    return found


class Streamed(StreamingResponse):
    """An answer whose parts come from a thread; it ends with the visit, and without its last chunk where something fails.

    So a client that reads to the end knows that it has everything.

    Args:
        parts: the body. An error that it raises after the first part cuts the answer off.
    """

    def __init__(self, visit: Visit, parts: AsyncIterator[bytes], media_type: str, headers: dict[str, str]) -> None:
        super().__init__(parts, headers=headers)
        self.headers["content-type"] = media_type
        self._visit = visit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            watch = asyncio.ensure_future(_hung_up(receive))
            body = asyncio.ensure_future(self.stream_response(send))
            try:
                # a client that takes nothing any more holds its place no longer than a request may
                seconds = max(0.0, self._visit.deadline - time.monotonic()) + _GRACE
                await asyncio.wait({watch, body}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if not body.done():
                    raise LeftError
                body.result()
            finally:
                for one in (watch, body):
                    one.cancel()
                await asyncio.gather(watch, body, return_exceptions=True)
        except LeftError:
            scope["state"]["record"].outcome = "left"
        except ServiceError as error:
            scope["state"]["record"].outcome = error.code or "failed"
        finally:
            self._visit.leave()
            heard = self._visit.usage.samples / self._visit.service.rate
            scope["state"]["record"].details["audio"] = f"{heard:.2f}s"


async def parts_of(first: bytes, items: Items[bytes]) -> AsyncIterator[bytes]:
    """A first part, and those that follow."""
    yield first
    while (part := await items.take()) is not None:
        if part:
            yield part


async def events_of(first: bytes, items: Items[bytes], usage: Callable[[], dict[str, int]]) -> AsyncIterator[bytes]:
    """OpenAI's events: `speech.audio.delta` for each part, `speech.audio.done` behind the last; or `error`."""
    yield event({"type": "speech.audio.delta", "audio": base64.b64encode(first).decode()})
    try:
        while (part := await items.take()) is not None:
            if part:
                yield event({"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()})
    except ServiceError as error:
        yield event({"type": "error", **error.body()}, "error")
        return
    yield event({"type": "speech.audio.done", "usage": usage()})


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    """A server-sent event."""
    head = f"event: {name or data['type']}\n"
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def failure(error: BaseException) -> ServiceError:
    """An error as a caller is told it."""
    if isinstance(error, ServiceError):
        return error
    logger.error("a request failed", exc_info=error)
    return FailedError(f"the request failed: {type(error).__name__}")
