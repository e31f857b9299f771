"""The HTTP interface: OpenAI's `POST /v1/audio/speech`, and what belongs to it."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, Request, Response, UploadFile, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from .. import __version__
from ..narration.subtitles import Cue, cues_of
from . import metrics, schemas
from .audio import MEDIA_TYPES, encode
from .auth import Keys
from .conversation import converse
from .errors import LeftError, NotFoundError, NotReadyError, ServiceError, TooLongError, bad_value
from .gate import DETECT_PATH, Gate
from .recordings import Recordings
from .schemas import BatchRequest, ErrorOut, SpeechRequest, Spoken, TimestampsRequest
from .service import Made, Service, Visit
from .speech import Asked
from .streams import Streamed, all_of, events_of, failure, parts_of, unless_left

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Names of OpenAI's models, which clients have built in: here they are the one that is served."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorOut, "description": "the body is not JSON"},
    401: {"model": ErrorOut, "description": "no key, or a wrong one"},
    403: {"model": ErrorOut, "description": "a page of another site calls"},
    408: {"model": ErrorOut, "description": "the body took too long"},
    413: {"model": ErrorOut, "description": "too long"},
    422: {"model": ErrorOut, "description": "a bad value; `param` names the field"},
}
_SPEECH_ERRORS = _ERRORS | {
    404: {"model": ErrorOut, "description": "there is no such model"},
    429: {"model": ErrorOut, "description": "all places are taken: see `Retry-After`"},
    503: {"model": ErrorOut, "description": "the service is starting or shutting down"},
    504: {"model": ErrorOut, "description": "it took longer than a request may"},
}
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["speech.audio.delta", "speech.audio.done", "error"]},
        "data": {"type": "string", "description": "a JSON object: its `audio` is base64, its `usage` counts tokens"},
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_AUDIO: dict[str, Any] = {
    "description": "the audio, as it is made; or events",
    "content": {kind: _BINARY for kind in MEDIA_TYPES.values()} | {"text/event-stream": {"schema": _EVENT}},
}


def create_app(
    service: Service, keys: Keys | None = None, origins: Collection[str] = (), log_text: bool = False
) -> Any:
    """The application of a service, which it starts and stops.

    Args:
        keys: that are let in; by default everybody is.
        origins: of pages on other sites that may call.
        log_text: whether the log holds what is said.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="transformers-bark",
        version=__version__,
        summary="Speech by a Bark model, behind OpenAI's interface",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.service = service
    _add_errors(app)
    _add_state(app, service)
    _add_speech(app, service)
    _add_more_speech(app, service)
    _add_conversation(app, service)
    _add_voices(app, service)
    _add_detection(app, service)
    app.openapi = lambda: _openapi(app, service, keys)  # type: ignore[method-assign]
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])
    return Gate(app, service, keys or Keys(), origins, log_text)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ServiceError)
    async def known(request: Request, error: ServiceError) -> Response:
        request.state.record.outcome = error.code
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(LeftError)
    async def left(request: Request, error: LeftError) -> Response:
        request.state.record.outcome = "left"
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(RequestValidationError)
    async def bad(request: Request, error: RequestValidationError) -> Response:
        found = bad_value(error.errors())
        request.state.record.outcome = found.code
        return JSONResponse(found.body(), found.status)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        kind = "invalid_request_error" if error.status_code < 500 else "server_error"
        body = {"error": {"message": str(error.detail), "type": kind, "param": None, "code": None}}
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the router names the methods of one route
            routes = [route for route in app.routes if isinstance(route, Route)]
            methods = {
                name for route in routes if route.path_regex.match(request.url.path) for name in route.methods or ()
            }
            headers["Allow"] = ", ".join(sorted(methods))
        return JSONResponse(body, error.status_code, headers)

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        return JSONResponse(failure(error).body(), 500)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["state"], response_model=schemas.StateOut, responses={503: {"model": ErrorOut}})
    async def health() -> Any:
        """Whether the service lives."""
        if not service.scheduler.is_alive:
            raise ServiceError("the model's thread has ended", code="dead")
        return {"status": "ok"}

    @app.get("/ready", tags=["state"], response_model=schemas.StateOut, responses={503: {"model": ErrorOut}})
    async def ready() -> Any:
        """Whether it takes requests: after a warm-up, and before it shuts down."""
        if not service.is_ready or service.is_closing:
            raise NotReadyError("the service is shutting down" if service.is_closing else "the model is getting ready")
        return {"status": "ready"}

    @app.get(
        "/metrics",
        tags=["state"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: _ERRORS[401]},
    )
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/v1/models", tags=["models"], response_model=schemas.ModelsOut, responses={401: _ERRORS[401]})
    async def models() -> Any:
        """The model that is served, and the names of OpenAI's that stand for it."""
        return {"data": [{"id": name, "created": service.started} for name in (service.name, *OPENAI_MODELS)]}


def _check(service: Service, model: str | None) -> None:
    if model is not None and model not in (service.name, *OPENAI_MODELS):
        raise NotFoundError(f"there is no model {model[:80]!r}; {service.name!r} is served", "model", "model_not_found")


def _told(request: Request, spoken: Spoken, visit: Visit) -> None:
    """Notes for the log what is asked for."""
    record = request.state.record
    record.text = spoken.input
    record.details |= {"characters": len(spoken.input), "format": spoken.response_format}


def _add_speech(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/audio/speech",
        tags=["speech"],
        response_class=Response,
        responses={200: _AUDIO, **_SPEECH_ERRORS},
    )
    async def speech(body: SpeechRequest, request: Request) -> Response:
        """Speaks a text. The answer begins with the first audio, while the rest is still to be made."""
        _check(service, body.model)
        service.limits.check_text(body.input)
        seed = secrets.randbelow(2**31) if body.seed is None else body.seed
        body = body.model_copy(update={"seed": seed})
        visit = service.enter()
        try:
            _told(request, body, visit)
            items = visit.run(lambda: visit.encoded(service.ask(body), body.response_format))
            first = await unless_left(request, items.take())
        except BaseException:
            visit.leave()
            raise
        headers = {"X-Seed": str(seed), "Cache-Control": "no-store"}
        request.state.record.details["first"] = f"{visit.first_audio or 0.0:.3f}s"
        if body.stream_format == "sse":
            return Streamed(visit, events_of(first or b"", items, visit.usage.as_dict), "text/event-stream", headers)
        return Streamed(visit, parts_of(first or b"", items), MEDIA_TYPES[body.response_format], headers)


def _add_more_speech(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/audio/speech/batch",
        tags=["speech"],
        response_model=schemas.BatchOut,
        responses=_SPEECH_ERRORS,
    )
    async def batch(body: BatchRequest, request: Request) -> Any:
        """Speaks several texts at once. What is wrong with one is told in its place, and the others are made."""
        _check(service, body.model)
        if len(body.items) > service.limits.batch:
            raise TooLongError(f"{len(body.items)} texts are given, {service.limits.batch} are taken at once", "items")
        with service.enter(len(body.items)) as visit:
            works = [visit.run(partial(_one_of_batch, service, visit, item)) for item in body.items]

            async def finish() -> list[Any]:
                return [await _result_of(index, items) for index, items in enumerate(works)]

            data = await unless_left(request, finish())
            return {"data": data, "usage": visit.usage.as_dict()}

    @app.post(
        "/v1/audio/speech/timestamps",
        tags=["speech"],
        response_model=schemas.TimestampsOut,
        responses=_SPEECH_ERRORS,
    )
    async def timestamps(body: TimestampsRequest, request: Request) -> Any:
        """Speaks a text, and says when each word or sentence is said."""
        _check(service, body.model)
        service.limits.check_text(body.input)
        with service.enter() as visit:
            _told(request, body, visit)
            items = visit.run(lambda: _timed(service, visit, body))
            (found,) = await unless_left(request, all_of(items))
            return found | {"usage": visit.usage.as_dict()}


def _add_conversation(app: FastAPI, service: Service) -> None:
    @app.websocket("/v1/audio/speech/stream")
    async def stream(socket: WebSocket) -> None:
        """Text as it comes, audio sentence by sentence."""
        await converse(service, socket)


async def _result_of(index: int, items: Any) -> dict[str, Any]:
    try:
        (found,) = await all_of(items)
        return {"index": index, **found}
    except ServiceError as error:
        return {"index": index, **error.body()}


def _one_of_batch(service: Service, visit: Visit, item: Any) -> Made[dict[str, Any]]:
    """One text of a batch, whole."""
    try:
        spoken = Spoken.model_validate(item)
    except ValidationError as error:
        raise bad_value(error.errors()) from error
    service.limits.check_text(spoken.input)
    yield whole(service, visit, service.ask(spoken), spoken.response_format)[0]


def whole(service: Service, visit: Visit, asked: Asked, format: str) -> tuple[dict[str, Any], list[Any]]:
    """A text's audio as one file, and its pieces."""
    speech, parts, pieces = visit.speech(asked), [], []
    try:
        for part in speech:
            visit.note(speech, part)
            parts.append(part.audio)
            pieces.append(part.spoken)
    finally:
        visit.count(speech)
    audio = np.concatenate(parts)
    data = base64.b64encode(encode(format, audio, service.rate)).decode()
    found = {"audio": data, "format": format, "seconds": len(audio) / service.rate, "seed": asked.seed}
    return found, [piece for piece in pieces if piece is not None]


def _timed(service: Service, visit: Visit, body: TimestampsRequest) -> Made[dict[str, Any]]:
    found, pieces = whole(service, visit, service.ask(body, words=True), body.response_format)
    cues: list[Cue] = [cue for piece in pieces for cue in cues_of(piece, body.timestamps)]
    segments = [{"text": cue.text, "start": round(cue.start, 3), "end": round(cue.end, 3)} for cue in cues]
    yield found | {"timestamps": body.timestamps, "segments": segments}


def _add_voices(app: FastAPI, service: Service) -> None:
    @app.get("/v1/audio/voices", tags=["voices"], response_model=schemas.VoicesOut, responses={401: _ERRORS[401]})
    async def voices() -> Any:
        """The voices of the model, and those that are stored."""
        return {"data": [vars(voice) for voice in service.voices]}

    stored: dict[int | str, dict[str, Any]] = {
        404: {"model": ErrorOut, "description": "there is none, or none are stored here"}
    }

    @app.post(
        "/v1/audio/voices",
        tags=["voices"],
        response_model=schemas.VoiceOut,
        responses=_ERRORS | stored | {429: {"model": ErrorOut, "description": "as many are stored as may be"}},
    )
    def add(
        name: Annotated[str, Form(min_length=1, max_length=64, description="letters, digits, spaces, and _ . -")],
        file: Annotated[UploadFile, File(description="a voice preset, .npz or .safetensors")],
    ) -> Any:
        """Stores a voice: tokens of earlier speech, checked against the model. Recordings are not taken."""
        data = file.file.read(service.limits.upload + 1)
        if len(data) > service.limits.upload:
            raise TooLongError(f"the file is larger than {service.limits.upload} bytes", "file")
        return vars(service.voices.add(name, data))

    @app.delete(
        "/v1/audio/voices/{voice_id}",
        tags=["voices"],
        response_model=schemas.VoiceDeletedOut,
        responses=stored | {401: _ERRORS[401], 422: _ERRORS[422]},
    )
    def remove(voice_id: str) -> Any:
        """Deletes a stored voice."""
        return {"id": service.voices.remove(voice_id).id, "deleted": True}


def _add_detection(app: FastAPI, service: Service) -> None:
    recordings = Recordings(service.limits.recording_seconds)

    @app.post(DETECT_PATH, tags=["detection"], response_model=schemas.DetectionOut, responses=_ERRORS)
    def detect(file: Annotated[UploadFile, File(description="a recording in any usual format")]) -> Any:
        """Tells whether Bark's codec made a recording, for the whole and for each second."""
        data = file.file.read(service.limits.recording + 1)
        if len(data) > service.limits.recording:
            raise TooLongError(f"the file is larger than {service.limits.recording} bytes", "file")
        found = recordings.judge(data)
        seconds = [round(float(one), 4) for one in found.seconds]
        return {
            "probability": found.probability,
            "words": found.words,
            "duration": found.duration,
            "seconds": seconds,
        }


def _openapi(app: FastAPI, service: Service, keys: Keys | None) -> dict[str, Any]:
    """The page as FastAPI makes it, with the names that there are."""
    page = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    parts = page["components"]["schemas"]
    for name in ("SpeechRequest", "TimestampsRequest", "BatchRequest"):
        fields = parts[name]["properties"]
        fields["model"]["anyOf"][0] = {"type": "string", "enum": [service.name, *OPENAI_MODELS]}
        if "voice" in fields:
            fields["voice"]["anyOf"][0] = {"type": "string", "enum": service.voices.names()}
        if "input" in fields:  # no `maxLength`: too long a text is 413, not 422
            fields["input"]["description"] = f"the text, of up to {service.limits.characters} characters"
    parts["VoiceReference"]["properties"]["id"] = {"type": "string", "enum": service.voices.names()}
    if keys is not None and keys.are_needed:
        page["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in page["paths"].items():
            for method in methods.values():
                if path not in ("/health", "/ready"):
                    method["security"] = [{"key": []}]
    return page
