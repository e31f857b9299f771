"""The WebSocket of a virtual assistant: text as a language model writes it, audio sentence by sentence.

A client sends JSON objects:

    {"type": "start", …}              if it wants other than the defaults: the fields of a speech request but its text
    {"type": "text", "text": …}       as often as it likes
    {"type": "flush"}                 where a sentence has no end
    {"type": "end"}                   behind the last

It gets audio as binary messages, and JSON objects:

    {"type": "sentence", "index": …, "text": …, "start": …}    before the audio of each sentence; seconds
    {"type": "done", "usage": {…}}                             behind the last
    {"type": "error", "error": {…}}                            in place of what is left
"""

from __future__ import annotations

import asyncio
import json
import queue
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import sentencex
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..narration import Piece
from ..narration.speaking import is_known, piece_seed
from .audio import Encoder
from .errors import BadValueError, LeftError, ServiceError, TookTooLongError, bad_value
from .schemas import Streamed
from .service import Items, Made, Service, Visit

IDLE = 120.0
"""Seconds after which a client that sends nothing is left."""

_BEFORE_TEXT = "the text comes in messages of its own"
_NORMAL, _POLICY, _INTERNAL = 1000, 1008, 1011  # codes of RFC 6455


class Sentences:
    """Text that comes in bits of any size -> its sentences, each as soon as another has begun behind it."""

    def __init__(self, language: str) -> None:
        self._language, self._text = language, ""

    def __len__(self) -> int:
        return len(self._text)

    def add(self, text: str) -> list[str]:
        """More text: the sentences that have ended with it."""
        self._text += text
        parts = [part for part in sentencex.segment(self._language, self._text) if part]
        if "".join(parts) != self._text or len(parts) < 2:
            return []
        self._text = parts[-1]
        return [part.strip() for part in parts[:-1] if part.strip()]

    def flush(self) -> list[str]:
        """What is left, as one sentence."""
        rest, self._text = self._text.strip(), ""
        return [rest] if rest else []


async def converse(service: Service, socket: WebSocket) -> None:
    """Serves one client."""
    record = socket.state.record
    await socket.accept()
    try:
        with service.enter() as visit:
            await _serve(service, socket, visit)
            record.outcome = "ok"
    except WebSocketDisconnect:
        record.outcome = "left"
    except LeftError:
        record.outcome = "left"
    except ServiceError as error:
        record.outcome = error.code
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_json({"type": "error", **error.body()})
            await socket.close(_INTERNAL if error.status >= 500 else _POLICY)


async def _serve(service: Service, socket: WebSocket, visit: Visit) -> None:
    message = await _message(socket)
    settings = _settings(message if message["type"] == "start" else {})
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    items = visit.run(lambda: _speech(service, visit, settings, said))
    reading = asyncio.ensure_future(_read(service, socket, settings, said, message))
    sending = asyncio.ensure_future(_send(socket, items))
    try:
        await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_EXCEPTION)
        for one in (reading, sending):
            if one.done():
                one.result()
        await socket.send_json({"type": "done", "usage": visit.usage.as_dict()})
        await socket.close(_NORMAL)
    finally:
        said.put(None)
        for one in (reading, sending):
            one.cancel()
        await asyncio.gather(reading, sending, return_exceptions=True)


async def _message(socket: WebSocket) -> dict[str, Any]:
    try:
        text = await asyncio.wait_for(socket.receive_text(), IDLE)
    except TimeoutError:
        raise TookTooLongError(f"nothing came for {IDLE:g} s") from None
    except KeyError:
        raise BadValueError("a message is text, not bytes") from None
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or message.get("type") not in ("start", "text", "flush", "end"):
        raise BadValueError('a message is a JSON object whose "type" is start, text, flush or end', "type")
    return message


def _settings(message: dict[str, Any]) -> Streamed:
    given = {name: value for name, value in message.items() if name not in ("type", "model")}
    if "input" in given:
        raise BadValueError(_BEFORE_TEXT, "input")
    try:
        return Streamed.model_validate({"response_format": "pcm", **given, "input": _BEFORE_TEXT})
    except ValidationError as error:
        raise bad_value(error.errors()) from error


async def _read(
    service: Service, socket: WebSocket, settings: Streamed, said: queue.SimpleQueue[str | None], first: dict[str, Any]
) -> None:
    """Passes on sentences until the client ends."""
    sentences = Sentences(settings.language or "en")
    message = first if first["type"] != "start" else await _message(socket)
    while message["type"] != "end":
        found: list[str] = []
        if message["type"] == "text":
            text = message.get("text")
            if not isinstance(text, str):
                raise BadValueError('"text" is a string', "text")
            service.limits.check_text(text, "text")
            found = sentences.add(text)
            service.limits.check_text(" " * len(sentences), "text")
        elif message["type"] == "flush":
            found = sentences.flush()
        else:
            raise BadValueError("start comes first", "type")
        for sentence in found:
            said.put(sentence)
        message = await _message(socket)
    for sentence in sentences.flush():
        said.put(sentence)
    said.put(None)


def _speech(
    service: Service, visit: Visit, settings: Streamed, said: queue.SimpleQueue[str | None]
) -> Made[bytes | dict[str, Any]]:
    """In a thread: each sentence's notice and its audio."""
    asked, seconds = service.ask(settings), 0.0
    encoder = Encoder(settings.response_format, service.rate)
    index = 0
    try:
        while (sentence := said.get()) is not None:
            if not is_known(service.reader.processor.tokenizer, sentence):
                continue
            yield {"type": "sentence", "index": index, "text": sentence, "start": round(seconds, 3)}
            visit.deadline = time.monotonic() + service.limits.seconds  # each sentence has its own time
            seed = piece_seed(asked.seed, Piece(index + 1, sentence))
            speech = visit.speech(replace(asked, text=sentence, seed=seed))
            try:
                for part in speech:
                    visit.note(speech, part)
                    seconds += len(part.audio) / service.rate
                    if data := encoder.add(part.audio):
                        yield data
            finally:
                visit.count(speech)
            index += 1
        if data := encoder.finish():
            yield data
    finally:
        encoder.close()


async def _send(socket: WebSocket, items: Items[bytes | dict[str, Any]]) -> None:
    while (item := await items.take()) is not None:
        if isinstance(item, bytes):
            await socket.send_bytes(item)
        else:
            await socket.send_json(item)
