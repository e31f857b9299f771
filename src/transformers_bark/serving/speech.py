"""One request's speech: a text becomes pieces, the pieces become jobs of the scheduler, and their takes speech in order.

What is said is what the library says: a text that fits into one generation is what `BarkModel.generate` gives for it and the seed; a
longer one, or one with marks, what `Narrator` gives, whose rules for voices, seeds, checks and joining are used as they are.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ..narration import Limits, Narrator, Piece, Script, Spoken, read
from ..narration.alignment import Alignment, Word
from ..narration.joining import at_speed
from ..narration.speaking import Finished, Request, Speaker, better, is_known, piece_seed
from ..unknown_text import known_text, says_something
from ..voices import VoicePreset
from .errors import BadValueError, FailedError, LeftError, ServiceError, TookTooLongError
from .scheduler import Job, Options, Scheduler, StoppedError, Take
from .voices import Voices

AHEAD = 4
"""Pieces of one request that are made at once, or wait to be heard, at most; the first is made alone, to be heard soon."""

TRIES = 1
"""How often a piece of a long text that fails its checks is said again."""

SILENCE = 0.3
"""Seconds of a text that has nothing to say."""

TARGET = 0.3
"""Share of a full piece up to which short neighbours join in a long text: the first is heard sooner than with the library's 0.6."""


class SharedTokenizer:
    """A tokenizer that several threads may use: a fast one must not be called while it is called."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._lock = tokenizer, threading.RLock()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with self._lock:
            return self._tokenizer(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class SharedProcessor:
    """A `BarkProcessor` for many threads, whose voices are those of the service: a name never becomes a path."""

    def __init__(self, processor: Any, voices: Voices) -> None:
        self._processor, self._voices = processor, voices
        self._lock = threading.RLock()
        self.tokenizer = SharedTokenizer(processor.tokenizer)
        self.tokenizer._lock = self._lock

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with self._lock:
            return self._processor(*arguments, **options)

    @property
    def max_length(self) -> int:
        return self._processor.max_length

    def load_voice(self, voice: Any) -> VoicePreset | None:
        """As the processor's, of names and presets."""
        return voice if voice is None or isinstance(voice, VoicePreset) else self._voices.get(str(voice))


@dataclass(frozen=True, eq=False)
class Asked:
    """What is to be said, and how.

    Args:
        voice: of the narrator; None for none.
        seed: of the whole.
        speed: how many times as fast, at the same pitch.
        language: of the text, as in "en".
        options: of `BarkModel.generate`.
        words: whether it is asked when each word is said.
        early: whether a text of one generation is to be heard in pieces, as `BarkModel.generate_stream` makes them.
    """

    text: str
    voice: VoicePreset | None
    voice_name: str
    seed: int
    speed: float = 1.0
    language: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    words: bool = False
    early: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of speech: a piece, and the silence before it.

    Args:
        audio: float32 [samples], silence included.
        spoken: the piece in its place; None for silence at the end, and for audio of a piece that is not whole yet.
    """

    audio: np.ndarray
    spoken: Spoken | None = None


@dataclass(eq=False)
class Usage:
    """What a request has used: text tokens, semantic tokens, and samples of speech."""

    input_tokens: int = 0
    output_tokens: int = 0
    samples: int = 0

    def as_dict(self) -> dict[str, int]:
        """As OpenAI's interface tells it."""
        total = self.input_tokens + self.output_tokens
        return {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "total_tokens": total}


class Talk:
    """A request's jobs: they end with it, at the latest when its time is over.

    Args:
        caller: whose jobs they are.
        seconds: that it may take.
    """

    def __init__(self, scheduler: Scheduler, caller: int, seconds: float) -> None:
        self.scheduler, self.caller = scheduler, caller
        self.deadline = time.monotonic() + seconds
        self.is_cancelled = False
        # by what ends: a job that its own future led back to would live on, with its audio, until garbage is collected
        self._jobs: dict[Future[Take], Job] = {}
        self._ended: queue.SimpleQueue[Future[Take] | np.ndarray | None] = queue.SimpleQueue()
        self._lock = threading.Lock()

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def submit(self, inputs: Any, voice: VoicePreset | None, options: Options, seed: int, early: bool = False) -> Job:
        """Lines up a generation of what the processor gives for one text; `early` for `pieces`.

        Raises:
            LeftError: the caller has hung up.
            StoppedError: the service has.
        """
        text = (inputs["input_ids"], inputs.get("attention_mask"))
        job = Job(self.caller, *text, voice, options, seed, early, self._ended.put)
        with self._lock:
            if self.is_cancelled:
                raise LeftError
            self._jobs[job.result] = job
            self.scheduler.submit(job)
        job.result.add_done_callback(self._ended.put)
        return job

    def next(self) -> tuple[Job, Take]:
        """The next job that ends.

        Raises:
            LeftError, TookTooLongError, FailedError, StoppedError: instead of it.
        """
        while isinstance(ended := self._take(), np.ndarray):
            pass
        with self._lock:
            job = self._jobs.pop(ended, None)
        if job is None:
            raise LeftError
        return job, _result(ended, 0.0)

    def pieces(self) -> Iterator[np.ndarray]:
        """Audio of the one job that there is as it is made, float32 [samples] each, up to its end.

        Raises:
            LeftError, TookTooLongError, FailedError, StoppedError: the rest is not made.
        """
        n_given = 0
        while isinstance(item := self._take(), np.ndarray):
            n_given += len(item)
            yield item
        rest = _result(item, 0.0).audio[n_given:]
        if len(rest):
            yield rest

    def _take(self) -> Future[Take] | np.ndarray:
        try:
            item = self._ended.get(timeout=max(0.0, self.seconds_left))
        except queue.Empty:
            raise TookTooLongError("the request took longer than it may") from None
        if item is None or self.is_cancelled:
            raise LeftError
        return item

    def call(self, function: Callable[[], Any]) -> Any:
        """What a function gives that needs the model."""
        return _result(self.scheduler.call(function), self.seconds_left)

    def cancel(self) -> None:
        """Ends all jobs before their next step; whoever waits for one gets `LeftError`."""
        with self._lock:
            self.is_cancelled = True
            jobs, self._jobs = list(self._jobs.values()), {}
        self.scheduler.cancel(jobs)
        with suppress(queue.Empty):
            while True:
                self._ended.get_nowait()
        self._ended.put(None)


def _result(future: Future[Any], seconds: float) -> Any:
    try:
        return future.result(timeout=max(0.0, seconds))
    except CancelledError:
        raise LeftError from None
    except TimeoutError:
        raise TookTooLongError("the request took longer than it may") from None
    except (ServiceError, StoppedError):
        raise
    except Exception as error:
        raise FailedError(f"the model failed: {error}") from error


class ScheduledSpeaker(Speaker):
    """Says pieces by jobs: the next ones are made while the first is heard, and no further ahead."""

    def __init__(self, talk: Talk, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._talk = talk
        self.output_tokens = 0
        aligner = self.aligner
        if aligner is not None:  # it computes with the model, which is the scheduler's
            self.aligner = lambda *given: talk.call(partial(aligner, *given))  # type: ignore[assignment]

    def say(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Finished]]:
        """Says all, in order as far as may be, and again what fails."""
        unfinished = dict.fromkeys(range(len(requests)))
        best: dict[int, Finished] = {}
        running: dict[Job, tuple[int, int]] = {}
        begun = 0
        while unfinished:
            first = next(iter(unfinished))
            while begun < min(len(requests), first + (AHEAD if first else 1)):
                request = requests[begun]
                if is_known(self.processor.tokenizer, request.piece.text):
                    running[self._begin(request, 0)] = (begun, 0)
                else:
                    del unfinished[begun]
                    yield request, self.unknown()
                begun += 1
            if not running:
                continue
            job, take = self._talk.next()
            place, attempt = running.pop(job)
            self.output_tokens += len(take.made.semantic_prompt)
            finished = self.check(requests[place], take.audio, take.made, job.seed)
            best[place] = better(best.get(place), finished, attempt)
            if self.is_to_be_said_again(best[place], attempt):
                running[self._begin(requests[place], attempt + 1)] = (place, attempt + 1)
            else:
                del unfinished[place]
                yield requests[place], best.pop(place)

    def _begin(self, request: Request, attempt: int) -> Job:
        inputs = self.processor([request.piece.text])
        options = Options.of(self.model, request.options)
        return self._talk.submit(inputs, request.voice, options, piece_seed(request.seed, request.piece, attempt))


class _ScheduledNarrator(Narrator):
    """A `Narrator` of one request."""

    def __init__(self, talk: Talk, model: Any, processor: Any, limits: Limits) -> None:
        # all pieces are one batch, of which the speaker sees to it how many are made at once
        super().__init__(model, processor, batch_size=2**30, limits=limits)
        self._talk = talk
        self.speaker: ScheduledSpeaker | None = None

    def _speaker(self, tries: int) -> Speaker:
        sizes = (self.model, self.processor, self.limits, self.batch_size, tries, self.verify)
        self.speaker = ScheduledSpeaker(self._talk, *sizes)
        return self.speaker


class Speech:
    """The speech of one request, made as it is iterated.

    Args:
        reader: reads texts, and knows the model's limits.
    """

    def __init__(self, reader: Reader, asked: Asked, talk: Talk) -> None:
        self._reader, self.asked, self.talk = reader, asked, talk
        self.usage = Usage()
        self.length: int | None = None
        """Samples in all, where they are known before the first part is given."""

    def __iter__(self) -> Iterator[Part]:
        """Parts in order.

        Raises:
            BadValueError: a text that cannot be said.
            LeftError, TookTooLongError, FailedError, StoppedError: the rest is not made.
        """
        reader, asked = self._reader, self.asked
        self.usage.input_tokens = reader.count_tokens(asked.text)
        script = reader.script(asked)
        if not len(script) and not reader.has_sounds(asked.text):
            parts = self._silence()
        else:
            parts = self._at_once(script) if script.is_plain or not len(script) else self._narrated(script)
        for part in parts:
            part = _at_speed(part, reader.rate, asked.speed)
            if self.length is not None:
                self.length = len(part.audio)
            self.usage.samples += len(part.audio)
            yield part

    def _silence(self) -> Iterator[Part]:
        """A text of signs alone, such as a line of stars: a pause."""
        self.length = round(SILENCE * self._reader.rate)
        yield Part(np.zeros(self.length, np.float32))

    def _at_once(self, script: Script) -> Iterator[Part]:
        """A text in one generation."""
        reader, asked = self._reader, self.asked
        inputs = reader.inputs(asked.text)
        options = Options.of(reader.model, asked.options)
        job = self.talk.submit(inputs, asked.voice, options, asked.seed, asked.early)
        is_told = asked.early and asked.speed == 1  # what is stretched must be whole
        if is_told:
            yield from map(Part, self.talk.pieces())
            take = job.result.result()
        else:
            _, take = self.talk.next()
        self.usage.output_tokens = len(take.made.semantic_prompt)
        if not len(take.audio):
            raise BadValueError("the model ended before it said anything: try another seed", "input", "nothing_said")
        if is_told:
            return
        self.length = len(take.audio)
        if not len(script):  # signs that have a name for this model
            yield Part(take.audio)
            return
        words = self._words(script[0], take) if asked.words else None
        spoken = Spoken(script[0], take.audio, reader.rate, 0.0, 0.0, words, (), job.seed, 1)
        yield Part(take.audio, spoken)

    def _words(self, piece: Piece, take: Take) -> tuple[Word, ...] | None:
        aligner = self._reader.aligner
        if aligner is None:
            return None
        align = partial(aligner, piece.text, take.made.semantic_prompt, self.asked.voice)
        alignment: Alignment = self.talk.call(align)
        return alignment.words

    def _narrated(self, script: Script) -> Iterator[Part]:
        """A longer text, or one with marks."""
        reader, asked = self._reader, self.asked
        narrator = _ScheduledNarrator(self.talk, reader.model, reader.processor, reader.limits)
        narration = narrator(script, asked.voice, seed=asked.seed, tries=TRIES, progress=False, **asked.options)
        for spoken in narration:
            assert narrator.speaker is not None
            self.usage.output_tokens = narrator.speaker.output_tokens
            silence = np.zeros(round(spoken.silence_before * reader.rate), np.float32)
            yield Part(np.concatenate([silence, spoken.audio]), spoken)
        end = np.zeros(round(narration.final_pause * reader.rate), np.float32)
        if len(end):
            yield Part(end)


def _at_speed(part: Part, rate: int, speed: float) -> Part:
    """A part so many times as fast, the silence in it too."""
    if speed == 1:
        return part
    if part.spoken is None:
        return Part(part.audio[: round(len(part.audio) / speed)])
    spoken = part.spoken
    audio = at_speed(spoken.audio, rate, speed)
    silence = np.zeros(round(spoken.silence_before * rate / speed), np.float32)
    words = spoken.words and tuple(
        replace(word, start=word.start / speed, end=word.end / speed) for word in spoken.words
    )
    fast = replace(
        spoken,
        audio=audio,
        start=spoken.start / speed,
        silence_before=spoken.silence_before / speed,
        words=words,
        speed=spoken.speed * speed,
    )
    return Part(np.concatenate([silence, audio]), fast)


class Reader:
    """Reads texts of requests, in the threads of requests.

    Args:
        model: a `BarkModel`, of which only the configs are used here.
        processor: its processor.
    """

    def __init__(self, model: Any, processor: Any, voices: Voices) -> None:
        from ..narration.alignment import Aligner

        self.model, self.rate = model, int(model.generation_config.sample_rate)
        self.processor = SharedProcessor(processor, voices)
        self._once = Limits.of(self.processor, model.generation_config)
        self.limits = Limits.of(self.processor, model.generation_config, target=TARGET)
        self.aligner = Aligner.of(model, self.processor)

    def count_tokens(self, text: str) -> int:
        return len(self.processor.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def has_sounds(self, text: str) -> bool:
        """Whether the model reads any letter or digit in a text: signs may have names."""
        tokenizer = self.processor.tokenizer
        return says_something(tokenizer, known_text(tokenizer, text)[0])

    def inputs(self, text: str) -> Any:
        """What the model is given for a text that fits into one generation."""
        length = self.model.generation_config.semantic_config.max_input_semantic_length
        try:
            return self.processor([text], max_length=length)
        except ValueError as error:
            raise BadValueError(str(error), "input") from error

    def script(self, asked: Asked) -> Script:
        """The pieces of a text.

        Raises:
            BadValueError: words of which the model knows none, a mark that is none, or a voice that there is not.
        """
        try:
            script = read(asked.text, voice=asked.voice_name, language=asked.language, limits=self._once)
            if not script.is_plain:
                script = read(asked.text, voice=asked.voice_name, language=asked.language, limits=self.limits)
        except ValueError as error:
            raise BadValueError(str(error), "input") from error
        tokenizer = self.processor.tokenizer
        if len(script) and not any(is_known(tokenizer, piece.text) for piece in script):
            raise BadValueError("this model knows no word of the text", "input", "unknown_text")
        for name in script.voices:
            if name is not None:
                try:
                    self.processor.load_voice(name)
                except BadValueError as error:
                    raise BadValueError(error.message, "input") from error
        return script
