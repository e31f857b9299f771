"""The service without HTTP: who is let in, and the threads in which speech is made.

Each request has a thread that reads its text, waits for its jobs and encodes their audio; the model computes on the scheduler's
thread. The event loop only passes bytes on.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .audio import Encoder
from .errors import ClosingError, FailedError, FullError, LeftError, NotReadyError, ServiceError, TooLongError
from .metrics import Metrics
from .scheduler import Scheduler, StoppedError
from .schemas import Spoken, Streamed
from .speech import Asked, Part, Reader, Speech, Talk, Usage
from .voices import Voices

logger = logging.getLogger(__name__)

WARM_UP = "Good morning. How are you today?"

_BUFFERED = 16  # items that a thread is ahead of its client
_T = TypeVar("_T")
Made = Generator[_T, None, None]


@dataclass(frozen=True)
class ServiceLimits:
    """What one caller, and all of them, may ask for.

    Args:
        characters: of a text.
        queue: requests that wait beside those that have a place.
        seconds: of one request.
        batch: texts in one request.
        body, upload, recording: bytes of a request, of a voice, and of a recording to judge.
        recording_seconds: that a recording may last.
        body_seconds: until a request must be there.
    """

    characters: int = 4096
    queue: int = 64
    seconds: float = 300.0
    batch: int = 32
    body: int = 2_000_000
    upload: int = 4_000_000
    recording: int = 25_000_000
    recording_seconds: float = 3600.0
    body_seconds: float = 30.0

    def check_text(self, text: str, field: str = "input") -> None:
        """Raises `TooLongError` for a text of more characters."""
        if len(text) > self.characters:
            raise TooLongError(
                f"the text has {len(text)} characters, {self.characters} are taken", field, "string_too_long"
            )


class Items(Generic[_T]):
    """What a thread makes and a coroutine takes: bounded, and ended from either side."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[_T | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(_BUFFERED)
        self._closed = threading.Event()

    def put(self, item: _T, deadline: float) -> None:
        """Waits until the client has taken enough of what was before.

        Raises:
            LeftError: nobody takes anything any more.
        """
        if not self._room.acquire(timeout=max(0.0, deadline - time.monotonic())) or self._closed.is_set():
            raise LeftError
        self._send(item)

    def end(self, error: BaseException | None) -> None:
        """Nothing follows, because of an error or because all is there."""
        # without its frames, which hold what holds the error
        self._send(error and error.with_traceback(None))

    def _send(self, item: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop has ended
            raise LeftError from None

    def close(self) -> None:
        """Nothing more is taken."""
        self._closed.set()
        self._room.release(_BUFFERED)

    async def take(self) -> _T | None:
        """The next item, None behind the last one.

        Raises:
            what the thread has raised.
        """
        item = await self._queue.get()
        if isinstance(item, BaseException):
            try:
                raise item
            finally:
                del item
        self._room.release()
        return item


class Service:
    """Speaks for many callers.

    Args:
        model, processor: a `BarkModel` and its `BarkProcessor`, used by nobody else.
        name: of the model, for its callers.
        slots: generations at once.
        scheduler: what runs the model; by default one in this process.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        voices: Voices,
        limits: ServiceLimits | None = None,
        slots: int | None = None,
        scheduler: Any = None,
    ) -> None:
        self.name, self.voices, self.limits = name, voices, limits or ServiceLimits()
        self.metrics = Metrics()
        self.reader = Reader(model, processor, voices)
        self.scheduler: Any = scheduler or Scheduler(model, slots, self.metrics.observe_step)
        self.started = int(time.time())
        self.is_ready = self.is_closing = False
        self._callers = itertools.count(1)
        self._lock = threading.Lock()
        self._taken = 0
        self._pace = 1.0
        """Seconds that a request has taken lately, from its place on."""

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.reader.rate

    @property
    def places(self) -> int:
        """Requests at once, those that wait included."""
        return self.scheduler.slots + self.limits.queue

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._taken

    def ask(self, spoken: Spoken, words: bool = False) -> Asked:
        """What a request asks for; in a thread, as a voice is read from its file.

        Raises:
            BadValueError: there is no such voice.
        """
        options: dict[str, Any] = {}
        if spoken.temperature is not None:  # as on the command line, it turns sampling on
            options = {"temperature": spoken.temperature, "semantic_do_sample": True, "coarse_do_sample": True}
        voice = self.voices.get(spoken.voice_name)
        seed = secrets.randbelow(2**31) if spoken.seed is None else spoken.seed
        early = isinstance(spoken, Streamed) and spoken.early
        return Asked(spoken.input, voice, spoken.voice_name, seed, spoken.speed, spoken.language, options, words, early)

    def start(self) -> None:
        """Starts the model's thread, and warms up on another."""
        self.scheduler.start()
        threading.Thread(target=self._warm_up, name="bark-warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        talk = Talk(self.scheduler, 0, 600.0)
        try:
            for _ in Speech(self.reader, Asked(WARM_UP, self.voices.get("default"), "default", 1), talk):
                pass
            talk.call(self.scheduler.warm_codec)
        except LeftError:
            return
        except ServiceError as error:  # a text that this model cannot say is no reason not to serve others
            logger.warning("the warm-up failed: %s", error.message)
            if isinstance(error, FailedError):
                return
        except StoppedError:
            return
        self.is_ready = True

    def stop(self) -> None:
        """Ends the model's thread."""
        self.is_closing = True
        self.scheduler.stop()

    def enter(self, count: int = 1) -> Visit:
        """A place for a request of so many texts.

        Raises:
            ClosingError, NotReadyError: none is given now.
            FullError: all are taken.
        """
        if self.is_closing:
            raise ClosingError("the service is shutting down", headers={"Retry-After": "5", "Connection": "close"})
        if not self.is_ready:
            raise NotReadyError("the model is getting ready", headers={"Retry-After": "2"})
        count = min(count, self.places)
        with self._lock:
            if self._taken + count > self.places:
                wait = min(60, max(1, round(self._taken / self.scheduler.slots * self._pace)))
                raise FullError(
                    f"all {self.places} places are taken: try again in about {wait} s",
                    headers={"Retry-After": str(wait)},
                )
            self._taken += count
        return Visit(self, next(self._callers), count)

    def leave(self, visit: Visit, seconds: float | None) -> None:
        """Gives a request's places back."""
        with self._lock:
            self._taken -= visit.places
            if seconds is not None:
                self._pace += 0.2 * (seconds - self._pace)


class Visit:
    """A request that has a place, until `leave`."""

    def __init__(self, service: Service, caller: int, places: int) -> None:
        self.service, self.caller, self.places = service, caller, places
        self.began = time.monotonic()
        self.deadline = self.began + service.limits.seconds
        self.usage = Usage()
        self._talks: list[Talk] = []
        self._items: list[Items[Any]] = []
        self._running = 0
        self._lock = threading.Lock()
        self._left = False
        self._first: float | None = None
        self.error: ServiceError | None = None

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.leave()

    def leave(self) -> None:
        """The caller is served, or has hung up: what is still made for him ends. His place is free when his threads have ended."""
        with self._lock:
            if self._left:
                return
            self._left = True
        for items in self._items:
            items.close()
        for talk in self._talks:
            talk.cancel()
        self._free()

    def _free(self) -> None:
        with self._lock:
            if not self._left or self._running:
                return
            self._running = -1  # once
        seconds = time.monotonic() - self.began
        heard = self.usage.samples / self.service.rate
        metrics = self.service.metrics
        metrics.whole.observe(seconds)
        metrics.audio.inc(heard)
        if heard and self.error is None:
            metrics.factor.observe(seconds / heard)
        self.service.leave(self, seconds if heard else None)

    @property
    def first_audio(self) -> float | None:
        """Seconds until the first audio."""
        return self._first

    def speech(self, asked: Asked) -> Speech:
        """The speech of a text, to be iterated in a thread of `run`."""
        talk = Talk(self.service.scheduler, self.caller, self.deadline - time.monotonic())
        with self._lock:
            if self._left:
                raise LeftError
            self._talks.append(talk)
        return Speech(self.service.reader, asked, talk)

    def run(self, make: Callable[[], Made[_T]]) -> Items[_T]:
        """Runs a generator in a thread: what it gives, for the event loop that calls this."""
        items: Items[_T] = Items(asyncio.get_running_loop())
        with self._lock:
            if self._left:
                raise LeftError
            self._items.append(items)
            self._running += 1
        name = f"bark-request-{self.caller}-{secrets.token_hex(2)}"
        threading.Thread(target=self._work, args=(make, items), name=name, daemon=True).start()
        return items

    def _work(self, make: Callable[[], Made[_T]], items: Items[_T]) -> None:
        error: BaseException | None = None
        try:
            with closing(make()) as made:
                for item in made:
                    items.put(item, self.deadline)
        except LeftError as left:
            error = left
        except ServiceError as known:
            error = self.error = known
        except StoppedError:
            error = self.error = ClosingError("the service is shutting down")
        except Exception as unknown:
            logger.exception("a request failed")
            error = self.error = FailedError(f"the request failed: {type(unknown).__name__}")
        try:
            items.end(error)
        except LeftError:
            pass
        finally:
            with self._lock:
                self._running -= 1
            self._free()

    def encoded(self, asked: Asked, format: str) -> Made[bytes]:
        """A text's audio as it is made, encoded; for `run`."""
        speech = self.speech(asked)
        encoder: Encoder | None = None
        try:
            for part in speech:
                if encoder is None:
                    encoder = Encoder(format, self.service.rate, speech.length)
                self.note(speech, part)
                if data := encoder.add(part.audio):
                    yield data
            assert encoder is not None
            yield encoder.finish()
        finally:
            if encoder is not None:
                encoder.close()
            self.count(speech)

    def note(self, speech: Speech, part: Part) -> None:
        """Audio is there."""
        if self._first is None:
            self._first = time.monotonic() - self.began
            self.service.metrics.first.observe(self._first)

    def count(self, speech: Speech) -> None:
        """Adds what a speech has used. It is over, and so is what is still made for it."""
        speech.talk.cancel()
        with self._lock:
            for name in ("input_tokens", "output_tokens", "samples"):
                setattr(self.usage, name, getattr(self.usage, name) + getattr(speech.usage, name))
            if speech.talk in self._talks:
                self._talks.remove(speech.talk)
