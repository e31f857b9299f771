"""One take: text, voice and seed become speech, and what happens meanwhile is told.

A text that fits into one generation is what `BarkModel.generate` gives for it and the seed, or, to be heard while it is made, what
`BarkModel.generate_stream` gives. A longer one, or one with marks or speakers, is what `Narrator` gives, piece by piece, cut as
the service cuts it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..generation.progress import StageProgress
from ..narration import Cast, Limits, Narrator, Script, Spoken, read
from ..narration.alignment import Aligner, Word
from ..narration.speaking import Finished, Request, Speaker, is_known
from ..serving.errors import ServiceError
from ..serving.scheduler import Options
from ..serving.speech import TARGET, TRIES, SharedProcessor
from ..serving.voices import DEFAULT, RANDOM
from ..unknown_text import known_text
from ..voices import VoicePreset
from .takes import Session, StudioLimits, Take, shortened

KINDS = {"Text": "text", "Script": "script"}
"""How a text may be read, by the names on the page."""

STAGES = ("semantic", "coarse", "fine")

MOST_SEED = 2**53 - 1
"""The largest whole number that a browser keeps exactly."""


class StoppedError(Exception):
    """Somebody has pressed stop, or the time is over."""


class FieldError(ValueError):
    """A value that cannot be used, and the field that holds it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, eq=False)
class Wish:
    """What is to be said, checked.

    Args:
        voice: None for none: the seed decides.
        streamed: to be heard while it is made.
        options: of sampling, where they are not those of the checkpoint.
        unknown: characters that the model cannot say.
    """

    text: str
    script: Script
    voice: VoicePreset | None
    voice_name: str
    seed: int
    streamed: bool
    options: Mapping[str, Any]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How far a take is.

    Args:
        stage: of the piece being made.
        share: of the stage that is done, as far as that can be foretold.
        done: pieces that are finished, of `pieces`.
        filled: share of the fine stage that is done where it goes along with the coarse one.
    """

    stage: str
    share: float
    done: int
    pieces: int
    filled: float = 0.0


@dataclass(frozen=True, eq=False)
class Heard:
    """Audio that is there, float32 [samples]: what follows the last one."""

    audio: np.ndarray


class Studio:
    """A model for many visitors: one take is made at a time.

    Args:
        model, processor: a `BarkModel` and its `BarkProcessor`.
        name: of the model, for the page.
    """

    def __init__(self, model: Any, processor: Any, name: str, limits: StudioLimits | None = None) -> None:
        self.model, self.name, self.limits = model, name, limits or StudioLimits()
        self.config = model.generation_config
        self.rate = int(self.config.sample_rate)
        self.first_session = Session(processor, self.config)
        self.shared = SharedProcessor(processor, self.first_session.voices)
        self.once = Limits.of(self.shared, self.config)
        self.pieces = Limits.of(self.shared, self.config, target=TARGET)
        self.aligner = Aligner.of(model, self.shared)
        self.temperatures = _temperatures(model)
        """Of each stage, as the checkpoint says; 0 where nothing is sampled."""
        self.working = threading.Lock()

    def wish(
        self,
        session: Session,
        text: Any,
        kind: str = "Text",
        cast: str = "",
        voice: str = DEFAULT,
        seed: Any = None,
        streamed: bool = True,
        temperatures: Mapping[str, Any] | None = None,
    ) -> Wish:
        """Checks what is asked.

        Raises:
            FieldError: a value that cannot be used.
        """
        said = self._check_text(text)
        preset = _voice(session, voice, "voice")
        script = self._script(session, said, kind, cast, voice)
        unknown = known_text(self.shared.tokenizer, " ".join(said.split()))[1]
        drawn = int(torch.randint(2**31, ())) if seed is None or str(seed).strip() == "" else _seed(seed)
        options = self._options(temperatures or {})
        return Wish(said, script, preset, voice, drawn, bool(streamed), options, tuple(unknown))

    def _check_text(self, text: Any) -> str:
        if not isinstance(text, str) or not text.strip():
            raise FieldError("text", "There is nothing to say yet: type a text.")
        if len(text) > self.limits.characters:
            raise FieldError(
                "text", f"The text has {len(text):,} characters; up to {self.limits.characters:,} are taken."
            )
        return text

    def _script(self, session: Session, text: str, kind: str, cast: str, voice: str) -> Script:
        if kind not in KINDS:
            raise FieldError("kind", f"{kind!r} is none of {', '.join(KINDS)}.")
        given = _cast(cast)
        for one in given.values():
            _voice(session, one, "cast")
        try:
            script = read(text, KINDS[kind], cast=given, voice=voice, limits=self.once)
            if not script.is_plain:
                script = read(text, KINDS[kind], cast=given, voice=voice, limits=self.pieces)
        except ValueError as error:
            field = "cast" if "is not in the cast" in str(error) else "text"
            raise FieldError(field, f"{_sentence(str(error))}") from error
        if not len(script):
            raise FieldError("text", f"There is nothing to say in {_short(text)}: no letter and no digit.")
        if not any(is_known(self.shared.tokenizer, piece.text) for piece in script):
            raise FieldError("text", f"This model knows no character of {_short(text)}.")
        for name in script.voices:
            if name is not None:
                _voice(session, name, "text")
        return script

    def _options(self, temperatures: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `generate` for the stages whose temperature is another than the checkpoint's."""
        options: dict[str, Any] = {}
        for stage in STAGES:
            value = temperatures.get(stage, self.temperatures[stage])
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
                raise FieldError(f"{stage}_temperature", f"A temperature is a number from 0 to 2; this is {value!r}.")
            if abs(value - self.temperatures[stage]) < 1e-9:
                continue
            if value == 0:
                options[f"{stage}_do_sample"] = False
            else:
                options[f"{stage}_temperature"] = float(value)
                if stage != "fine":
                    options[f"{stage}_do_sample"] = True
        return options


def _temperatures(model: Any) -> dict[str, float]:
    options = Options.of(model, {})
    found = {}
    for stage in STAGES:
        of_stage = getattr(options, stage)
        found[stage] = float(of_stage.temperature or 0.0) if of_stage.do_sample else 0.0
    return found


def _seed(seed: Any) -> int:
    expected = f"A seed is a whole number of 0 or more, or empty; this is {str(seed)[:40]!r}."
    try:
        number = int(seed.strip()) if isinstance(seed, str) else int(seed)
    except (TypeError, ValueError, OverflowError):
        raise FieldError("seed", expected) from None
    if (not isinstance(seed, str) and number != seed) or number < 0:
        raise FieldError("seed", expected)
    if number > MOST_SEED:
        raise FieldError("seed", f"The largest seed is {MOST_SEED}; this is {number}.")
    return number


def _voice(session: Session, name: Any, field: str) -> VoicePreset | None:
    try:
        return session.voices.get(str(name))
    except ServiceError as error:
        raise FieldError(field, f"There is no voice {str(name)[:80]!r}: choose one of the list.") from error
    except (ValueError, OSError) as error:
        raise FieldError(field, _sentence(str(error))) from error


def _cast(lines: str) -> Cast:
    given = [line.strip() for line in (lines or "").splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        return Cast.from_options(given)
    except ValueError as error:
        raise FieldError("cast", _sentence(str(error))) from error


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?", "!")) else ".")


def _short(text: str) -> str:
    return repr(shortened(text, 40))


class _KeepingSpeaker(Speaker):
    """Keeps the tokens of every take: a narration gives its audio alone."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made: dict[tuple[int, int], VoicePreset] = {}

    def check(self, request: Request, audio: np.ndarray, made: VoicePreset, seed: int) -> Finished:
        parts = (part.cpu() for part in made.as_dict().values())
        self.made[request.piece.number, seed] = VoicePreset(*parts)
        return super().check(request, audio, made, seed)


class _KeepingNarrator(Narrator):
    speaker: _KeepingSpeaker

    def _speaker(self, tries: int) -> Speaker:
        sizes = (self.model, self.processor, self.limits, self.batch_size, tries, self.verify)
        self.speaker = _KeepingSpeaker(*sizes)
        return self.speaker


@dataclass(eq=False)
class Making:
    """A take that is being made, on a thread of its own: `events` gives `Progress`, `Heard`, and at last the `Take`.

    Whoever leaves the iteration early ends the work.
    """

    studio: Studio
    session: Session
    wish: Wish
    _queue: queue.Queue[Any] = field(default_factory=queue.Queue)
    _left: threading.Event = field(default_factory=threading.Event)
    _done: int = 0
    _coarse_share: float = 0.0
    _filled: float = 0.0

    def events(self) -> Generator[Progress | Heard | Take, None, None]:
        """What happens, in order.

        Raises:
            StoppedError: the rest is not made.
            ValueError: the model said nothing, or what it said are no numbers.
        """
        self.session.stop.clear()
        self._began = time.monotonic()
        self._first_audio = 0.0
        thread = threading.Thread(target=self._work, name="bark-studio-take", daemon=True)
        thread.start()
        try:
            while True:
                event = self._queue.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Take):
                    return
        finally:
            self._left.set()
            thread.join()

    def _work(self) -> None:
        try:
            with self.studio.working, torch.no_grad():
                self._queue.put(self._take())
        except BaseException as error:
            self._queue.put(error)

    def _take(self) -> Take:
        wish = self.wish
        parts = self._at_once() if wish.script.is_plain else self._narrated()
        audio, spoken, tokens = parts
        if not any(len(one.audio) for one in spoken):
            raise ValueError("The model ended before it said anything: try another seed.")
        number = self.session.next_number()
        taken = time.monotonic() - self._began
        return Take(
            number,
            wish.text,
            " + ".join(dict.fromkeys(one.piece.voice or wish.voice_name for one in spoken)),
            wish.seed,
            wish.options,
            wish.streamed,
            audio,
            self.studio.rate,
            tuple(_as_parts(spoken, audio)),
            tuple(tokens),
            taken,
            self._first_audio,
        )

    def _at_once(self) -> tuple[np.ndarray, list[Spoken], list[VoicePreset]]:
        """One generation."""
        wish, studio = self.wish, self.studio
        length = self.studio.config.semantic_config.max_input_semantic_length
        inputs = studio.shared([wish.text], max_length=length).to(studio.model.device)
        history = {} if wish.voice is None else {"history_prompt": wish.voice}
        given = {**inputs, **history, **wish.options, "seed": wish.seed, "stage_callback": self._on_stage}
        made = self._streamed(given) if wish.streamed else self._whole(given)
        if made is None:
            return np.zeros(0, np.float32), [], []
        audio, tokens = made
        words = None if not len(audio) else self._words(tokens)
        one = Spoken(wish.script[0], audio, studio.rate, 0.0, 0.0, words, (), wish.seed, 1)
        return audio, [one], [tokens]

    def _whole(self, given: Mapping[str, Any]) -> tuple[np.ndarray, VoicePreset]:
        output = self.studio.model.generate(**given, progress=False, return_dict_in_generate=True)
        audio = output.audio[0][: int(output.audio_lengths[0])].float().cpu().numpy()
        self._hear(audio)
        return audio, output.voice_preset(0).to("cpu")

    def _streamed(self, given: Mapping[str, Any]) -> tuple[np.ndarray, VoicePreset] | None:
        pieces = []
        for piece in self.studio.model.generate_stream(**given, return_dict_in_generate=True):
            pieces.append(piece)
            self._filled = self._coarse_share
            self._hear(piece.audio.float().cpu().numpy())
        if not pieces:
            return None
        codes = torch.cat([piece.fine_codes for piece in pieces], dim=1).cpu()
        n_coarse = self.studio.config.coarse_acoustics_config.n_coarse_codebooks
        tokens = VoicePreset(pieces[0].semantic_tokens.cpu(), codes[:n_coarse], codes)
        return np.concatenate([piece.audio.float().cpu().numpy() for piece in pieces]), tokens

    def _words(self, tokens: VoicePreset) -> tuple[Word, ...] | None:
        if self.studio.aligner is None:
            return None
        return self.studio.aligner(self.wish.script[0].text, tokens.semantic_prompt, self.wish.voice).words

    def _narrated(self) -> tuple[np.ndarray, list[Spoken], list[VoicePreset]]:
        """Piece by piece; several at once where nobody waits to hear the first."""
        wish, studio = self.wish, self.studio
        processor = SharedProcessor(studio.shared, self.session.voices)
        narrator = _KeepingNarrator(
            studio.model, processor, batch_size=1 if wish.streamed else None, limits=studio.pieces
        )
        options = {**wish.options, "stage_callback": self._on_stage}
        narration = narrator(wish.script, wish.voice, seed=wish.seed, tries=TRIES, progress=False, **options)
        spoken, parts = [], []
        for one in narration:
            self._done += 1
            audio = np.concatenate([np.zeros(round(one.silence_before * studio.rate), np.float32), one.audio])
            self._hear(audio)
            spoken.append(one)
            parts.append(audio)
        end = np.zeros(round(narration.final_pause * studio.rate), np.float32)
        if len(end):
            self._hear(end)
        made = narrator.speaker.made
        said = [one for one in spoken if (one.piece.number, one.seed) in made]
        return np.concatenate([*parts, end]), said, [made[one.piece.number, one.seed] for one in said]

    def _hear(self, audio: np.ndarray) -> None:
        self._check_stop()
        if len(audio):
            self._first_audio = self._first_audio or time.monotonic() - self._began
            self._queue.put(Heard(audio))

    def _on_stage(self, at: StageProgress) -> None:
        """Told at every step of a stage; the way out for who does not want to wait."""
        self._check_stop()
        total = at.total
        if at.stage == "semantic":  # it ends when the text is said, long before the most that it could say
            piece = self.wish.script[min(self._done, len(self.wish.script) - 1)]
            expected = self.studio.once.seconds_of(piece.text) * self.studio.config.semantic_config.semantic_rate_hz
            total = max(1, min(total, round(expected)))
        share = min(1.0, at.done / max(1, total))
        if at.stage == "coarse":
            self._coarse_share = share
        self._queue.put(Progress(at.stage, share, self._done, len(self.wish.script), self._filled))

    def _check_stop(self) -> None:
        if self.session.stop.is_set() or self._left.is_set():
            raise StoppedError("Stopped.")
        if time.monotonic() - self._began > self.studio.limits.seconds:
            raise StoppedError(f"Stopped: a take may take {self.studio.limits.seconds:g} s.")


def _as_parts(spoken: list[Spoken], audio: np.ndarray) -> Iterator[Spoken]:
    """Pieces whose audio are views of the whole, so that it is kept once."""
    for one in spoken:
        start = round(one.start * one.sampling_rate)
        yield replace(one, audio=audio[start : start + len(one.audio)])


__all__ = ["DEFAULT", "RANDOM", "FieldError", "Heard", "Making", "Progress", "StoppedError", "Studio", "Wish"]
