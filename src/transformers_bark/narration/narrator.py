"""Speech of any length: `Narrator(model, processor)(text)`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from .. import output_files
from ..audio_streams import AudioStream, Tags, check_ending, open_audio
from ..voices import VoicePreset
from .joining import Joiner, Spoken, audio_of, final_pause, pause_after
from .limits import Limits
from .pieces import Piece, Script
from .readers import read
from .speaking import Finished, Request, Speaker, Verify, is_known, longer, usable
from .subtitles import By, SubtitleFile
from .work import Memory, Store, WorkFolder

Continuity = Literal["preset", "carry"]
Split = Literal["piece", "chapter"]

_WINDOW = 2  # batches among which pieces are sorted by length
_VOICE_SECONDS = 3.0  # of text, for a first piece to be a voice
_CARRIED_SECONDS = 10.0


class Narrator:
    """Speaks texts of any length with a model.

    Args:
        model: a `BarkModel`.
        processor: its `BarkProcessor`.
        batch_size: pieces generated together; by default 8 on a CPU, 32 on a GPU.
        limits: what fits into a piece; by default what the checkpoint's configs say.
        verify: a folder of a faster-whisper model, or a function, that checks the words of every piece.

    Raises:
        ValueError: a batch size below 1.
        FileNotFoundError: `verify` is a folder that is not there.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        batch_size: int | None = None,
        limits: Limits | None = None,
        verify: str | os.PathLike[str] | Verify | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        if isinstance(verify, str | os.PathLike):
            from .recogniser import Recogniser

            verify = Recogniser(verify)
        self.model, self.processor = model, processor
        self.batch_size = batch_size
        self.limits = limits or Limits.of(processor, model.generation_config)
        self.verify: Verify | None = verify

    def __call__(
        self,
        text: str | os.PathLike[str] | Script | Sequence[Piece],
        voice: Any = None,
        *,
        seed: int | None = None,
        continuity: Continuity = "preset",
        tries: int = 2,
        cast: Mapping[str, str] | None = None,
        language: str | None = None,
        loudness: float | None = None,
        max_speed: float = 1.0,
        work: str | os.PathLike[str] | None = None,
        resume: bool = False,
        only: Collection[int] = (),
        progress: bool | None = None,
        **options: Any,
    ) -> Narration:
        """Gets ready to speak a text; pieces are made as the result is iterated or written.

        Args:
            text: a text, the `Path` of a file in any of the formats of `read`, a `Script`, or pieces.
            voice: the narrator's, as the processor takes it; without one, the first piece's generation is the voice.
            seed: of the whole; each piece draws its own from it and its number. Without one it is drawn, and kept in `work`.
            continuity: "preset", every piece from the voice, in batches; "carry", each goes on from the one before.
            tries: how often a piece that fails its checks is said again, at most; the best is taken.
            cast: names of speakers to voices.
            language: of the text, as in "en".
            loudness: LUFS of every piece, such as -18; `None` leaves levels alone.
            max_speed: how much a subtitle cue's speech may be sped up to end before the next begins.
            work: a folder for finished pieces.
            resume: go on with the pieces that are in `work`: those whose text, voice, options and seed are the same are taken.
            only: numbers of pieces in `work` to make anew, with `seed`; all others stay.
            progress: show a bar, in seconds of audio; by default where standard error is a terminal.
            options: of `BarkModel.generate`.

        Raises:
            ValueError: nothing to say, a bad value, or a work folder that holds pieces without `resume`.
            TypeError: an unknown option.
        """
        if continuity not in ("preset", "carry"):
            raise ValueError(f'`continuity` is "preset" or "carry", got {continuity!r}')
        if tries < 0 or (seed is not None and seed < 0):
            raise ValueError(f"`tries` and `seed` must not be negative, got {tries} and {seed}")
        script = self._script(text, voice, cast, language)
        if only and work is None:
            raise ValueError("`only` makes pieces of a work folder anew: give `work`")
        unknown = sorted(set(only) - {piece.number for piece in script})
        if unknown:
            raise ValueError(f"`only` names {', '.join(map(str, unknown))}; the pieces are 1 to {len(script)}")
        joiner = Joiner(self.model.generation_config.sample_rate, loudness, max_speed)
        speaker = self._speaker(tries)
        asked = _Asked(voice, seed, continuity, frozenset(only), dict(options))
        return Narration(script, speaker, joiner, asked, work, resume or bool(only), progress)

    def _speaker(self, tries: int) -> Speaker:
        """What says the pieces."""
        return Speaker(self.model, self.processor, self.limits, self.batch_size, tries, self.verify)

    def _script(self, text: Any, voice: Any, cast: Mapping[str, str] | None, language: str | None) -> Script:
        if isinstance(text, Script):
            script = text
        elif isinstance(text, str | os.PathLike):
            name = voice if isinstance(voice, str) else None
            source = text if isinstance(text, str) else Path(text)
            script = read(source, cast=cast, voice=name, language=language, limits=self.limits)
        else:
            script = Script(tuple(text))
        if not len(script):
            raise ValueError("there is nothing to say in the text")
        if not any(is_known(self.processor.tokenizer, piece.text) for piece in script):
            raise ValueError(f"the tokenizer knows nothing of the text, which begins {script[0].text[:40]!r}")
        return script


@dataclass(frozen=True)
class _Asked:
    """What a caller asks of all pieces."""

    voice: Any
    seed: int | None
    continuity: Continuity
    only: frozenset[int]
    options: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        files: the audio files.
        seconds: of audio.
        pieces: how many there are.
        made: how many of them were made in this run.
        doubtful: those that may not have been said as they should, with their `doubts`; without audio.
        seed: of the whole.
    """

    files: tuple[Path, ...]
    seconds: float
    pieces: int
    made: int
    doubtful: tuple[Spoken, ...]
    seed: int


class Narration:
    """A text being spoken: iterate it for its pieces, or `write` it.

    Each iteration speaks the whole; with a work folder, what is finished is taken from there.
    """

    def __init__(
        self,
        script: Script,
        speaker: Speaker,
        joiner: Joiner,
        asked: _Asked,
        work: str | os.PathLike[str] | None,
        resume: bool,
        progress: bool | None,
    ) -> None:
        self.script = script
        self._speaker, self._joiner, self._asked = speaker, joiner, asked
        self._work, self._resume, self._progress = work, resume, progress
        self.seed = int(torch.randint(2**31, ())) if asked.seed is None else asked.seed
        """Of the whole; with `only`, of the pieces that are made anew."""
        self.made = 0
        """Pieces that the last iteration has made."""
        self.voice: VoicePreset | None = None
        """The narrator's, once a piece is spoken: as given, else what the first piece's generation gave."""

    @property
    def estimate(self) -> float:
        """About how many seconds the whole lasts."""
        return sum(self._expected(piece) for piece in self.script)

    def __len__(self) -> int:
        return len(self.script)

    def __iter__(self) -> Iterator[Spoken]:
        """Finished pieces in order, as they are made."""
        store: Store = Memory()
        if self._work is not None:
            store = WorkFolder(self._work, fingerprint(self._speaker.model), self._joiner.sampling_rate, self._resume)
            if self._asked.seed is None and not self._asked.only:
                self.seed = store.seed if store.seed is not None else self.seed
            if not self._asked.only or store.seed is None:
                store.begin(self.seed)
            self._resume = True  # a second iteration goes on with the first
        run = _Run(self, store)
        show = None if self._progress is None else not self._progress
        expected = done = 0.0
        try:
            with tqdm(total=round(self.estimate, 1), unit="s", disable=show, desc="speech") as bar:
                for spoken in self._joiner.join(run.finished(), self.script.lead_pause or 0.0):
                    self.made, self.voice = run.made, run.voice
                    yield spoken
                    expected += self._expected(spoken.piece)
                    done += spoken.silence_before + spoken.seconds
                    bar.total = round(done + (self.estimate - expected) * done / expected, 1)
                    bar.update(round(done - bar.n, 1))
        finally:
            self.made = run.made
            store.close()

    def _expected(self, piece: Piece) -> float:
        return self._speaker.limits.seconds_of(piece.text) + pause_after(piece)

    def audio(self) -> np.ndarray:
        """The whole, float32 [samples]."""
        return np.concatenate(
            [*audio_of(self), np.zeros(round(self.final_pause * self._joiner.sampling_rate), np.float32)]
        )

    @property
    def final_pause(self) -> float:
        """Seconds of silence behind the last piece: those of a mark in the text."""
        return final_pause(self.script[-1])

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        subtitles: str | os.PathLike[str] | None = None,
        subtitles_by: By = "sentence",
        split: Split | None = None,
        tags: bool | Tags = True,
    ) -> Report:
        """Writes audio as it is made, in the format that the ending of the path names.

        Args:
            path: WAV, FLAC, MP3, OGG, Opus, or M4A and M4B with chapters (extra `audio`).
            subtitles: an .srt or .vtt file to write too.
            subtitles_by: "sentence", or "word".
            split: a file a piece or chapter in place of one; their numbers are added to the name.
            tags: whether files say their title, software and model, and that they are synthetic; or what they say.

        Raises:
            ValueError: an ending that no format has.
            OSError: a file cannot be written; with a work folder, what is finished stays there.
        """
        path = Path(path)
        if os.fspath(path) != output_files.STANDARD_OUTPUT:
            check_ending(path)
            output_files.check_writable(path)
        if split not in (None, "piece", "chapter"):
            raise ValueError(f'`split` is "piece" or "chapter", got {split!r}')
        titles = SubtitleFile(subtitles, subtitles_by) if subtitles is not None else None
        if isinstance(tags, bool):
            tags = Tags.synthetic(self._model_name(), self.script.title, self.script.author) if tags else Tags()
        doubtful, end = [], 0.0
        with _Files(path, self._joiner.sampling_rate, split, tags, self._work is not None) as files:
            for spoken in self:
                files.add(spoken)
                end = spoken.end
                if titles is not None:
                    titles.add(spoken)
                if spoken.is_doubtful:
                    doubtful.append(
                        replace(spoken, audio=np.zeros(0, np.float32), words=None)
                    )  # no view: it would hold all
            files.silence(self.final_pause)
        if titles is not None:
            titles.save()
        return Report(
            tuple(files.written), end + self.final_pause, len(self.script), self.made, tuple(doubtful), self.seed
        )

    def _model_name(self) -> str:
        return str(self._speaker.model.config._name_or_path or "unnamed")


class _Run:
    """One pass over the pieces: which voice each has, and in which order they are made."""

    def __init__(self, narration: Narration, store: Store) -> None:
        self._script, self._speaker = narration.script, narration._speaker
        self._asked, self._store = narration._asked, store
        self._new_seed = narration.seed
        self._seed = store.seed if isinstance(store, WorkFolder) and store.seed is not None else narration.seed
        self._preset = self._speaker.processor.load_voice(self._asked.voice)
        self._loaded: dict[str, VoicePreset] = {}
        self._made_voices: dict[str, VoicePreset | None] = {}
        self._firsts: dict[str | None, Piece] = {}
        self.made = 0

    @property
    def voice(self) -> VoicePreset | None:
        """The narrator's voice, as far as it is known."""
        if self._preset is not None:
            return self._preset
        return self._made_voices.get("") or next((one for one in self._made_voices.values() if one is not None), None)

    def finished(self) -> Iterator[tuple[Piece, Finished]]:
        """Pieces in order."""
        if self._asked.continuity == "carry":
            yield from self._carried()
            return
        pieces, size = list(self._script), self._speaker.batch_size
        start = 0
        while start < len(pieces):
            window = pieces[start : start + (size if start == 0 else _WINDOW * size)]  # the first is heard soon
            start += len(window)
            requests = [self._request(piece) for piece in window]
            waiting = {request.piece.number for request in requests if not self._is_there(request)}
            said = self._say([request for request in requests if request.piece.number in waiting])
            for request in requests:
                while request.piece.number in waiting:
                    waiting.remove(next(said))
                yield request.piece, self._store.take(request)

    def _carried(self) -> Iterator[tuple[Piece, Finished]]:
        """One after the other; each speaker goes on from what he said last."""
        config = self._speaker.model.generation_config
        past: dict[tuple[str | None, str | None], VoicePreset | None] = {}
        for piece in self._script:
            chain = (piece.voice, None if piece.voice else piece.speaker)
            if chain not in past:
                past[chain] = self._given(piece)
            request = self._asked_of(piece, past[chain])
            if not self._is_there(request, with_voice=True):
                list(self._say([request], with_voice=True))
            one = self._store.take(request)
            if one.voice is not None:
                past[chain] = usable(longer(past[chain], one.voice, _CARRIED_SECONDS, config), config) or past[chain]
            self._made_voices[piece.speaker or ""] = past[chain]
            yield piece, one

    def _is_there(self, request: Request, with_voice: bool = False) -> bool:
        if request.piece.number in self._asked.only:
            return False
        return self._store.find(request, self._speaker.tries, self._speaker.verify is not None)

    def _say(self, requests: Sequence[Request], with_voice: bool = False) -> Iterator[int]:
        """Makes pieces; each is kept as soon as it is finished, and its number told."""
        for request, one in self._speaker.say(requests):
            again = request.piece.number in self._asked.only
            self._store.keep(request, one, self._speaker.verify is not None, with_voice, again)
            self.made += 1
            yield request.piece.number

    def _request(self, piece: Piece) -> Request:
        voice = self._given(piece)
        if voice is not None:
            return self._asked_of(piece, voice)
        first = self._first(piece)
        voice = self._made(first)
        if piece.number != first.number or piece.number in self._asked.only:
            return self._asked_of(piece, voice)
        anew = self._asked_of(piece, voice)  # said again by `only`, in the voice that it gave
        return anew if self._is_there(anew) else self._asked_of(piece, None)

    def _asked_of(self, piece: Piece, voice: VoicePreset | None) -> Request:
        options = {**self._asked.options, **piece.options}
        if piece.number in self._asked.only:
            return Request(replace(piece, seed=None), voice, self._new_seed, options)
        return Request(piece, voice, self._seed, options)

    def _given(self, piece: Piece) -> VoicePreset | None:
        """The voice that the script or the caller names."""
        if piece.voice is None:
            return self._preset
        if piece.voice not in self._loaded:
            try:
                self._loaded[piece.voice] = self._speaker.processor.load_voice(piece.voice)
            except ValueError as error:
                where = f"{self._script.source or 'the text'}, line {piece.line}: " if piece.line else ""
                raise ValueError(f"{where}{error}") from error
        return self._loaded[piece.voice]

    def _first(self, piece: Piece) -> Piece:
        """The first piece of a speaker without a voice that is long enough to be one, else the longest."""
        if piece.speaker not in self._firsts:  # looked for once: every piece of a book asks
            own = [one for one in self._script if one.voice is None and one.speaker == piece.speaker]
            seconds = self._speaker.limits.seconds_of
            long = (one for one in own if seconds(one.text) >= _VOICE_SECONDS)
            self._firsts[piece.speaker] = next(long, None) or max(own, key=lambda one: seconds(one.text))
        return self._firsts[piece.speaker]

    def _made(self, first: Piece) -> VoicePreset | None:
        """The voice of a speaker who has none: the generation of this piece."""
        name = first.speaker or ""
        if name not in self._made_voices:
            request = Request(first, None, self._seed, {**self._asked.options, **first.options})
            voice = self._store.voice(name, request)
            if voice is None:
                ((_, one),) = self._speaker.say([request])
                voice = one.voice
                if voice is not None:
                    self._store.keep_voice(name, request, voice)
                self._store.keep(request, one, self._speaker.verify is not None, False)
                self.made += 1
            config = self._speaker.model.generation_config
            self._made_voices[name] = None if voice is None else usable(voice, config)
        return self._made_voices[name]


def fingerprint(model: Any) -> str:
    """What tells a checkpoint, and the precision it runs in, from others: its configs and some of its weights."""
    configs = [model.config.to_dict(), model.generation_config.to_dict()]
    configs += [value for config in configs for value in config.values() if isinstance(value, dict)]
    for config in configs:
        for name in ("_name_or_path", "dtype", "transformers_version"):
            config.pop(name, None)
    total = hashlib.sha256(json.dumps(configs, sort_keys=True, default=repr).encode())
    choice = model.engine_choice
    total.update(repr((choice.precision, choice.cache_precision, str(model.dtype))).encode())
    for part in (model.semantic, model.coarse_acoustics):
        for weight in (part.position_embeds_layer.weight, part.lm_head.weight):
            total.update(weight[:8].detach().float().cpu().numpy().tobytes())
    return total.hexdigest()[:16]


class _Files:
    """The files of a narration: one, or one a piece or chapter."""

    def __init__(self, path: Path, sampling_rate: int, split: Split | None, tags: Tags, goes_on: bool) -> None:
        self._path, self._rate, self._split, self._tags = path, sampling_rate, split, tags
        self._goes_on = goes_on  # after a kill: then the draft that it leaves is to be used again
        self._open = ExitStack()
        self._stream: AudioStream | None = None
        self._chapter: str | None = None
        self.written: list[Path] = []

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def add(self, spoken: Spoken) -> None:
        """Appends a piece and the silence before it; in a file of its own, without that."""
        chapter = spoken.piece.chapter
        is_new = self._stream is None or (self._split == "chapter" and chapter != self._chapter)
        if is_new or self._split == "piece":
            self._next(chapter)
            if self._split is None:
                self.silence(spoken.silence_before)
        else:
            self.silence(spoken.silence_before)
        assert self._stream is not None
        if self._split is None and chapter and chapter != self._chapter:
            self._stream.chapter(chapter)
        self._chapter = chapter
        self._stream.write(spoken.audio)

    def silence(self, seconds: float) -> None:
        """Appends silence."""
        rest = round(seconds * self._rate)
        while rest and self._stream is not None:
            length = min(rest, self._rate)
            self._stream.write(np.zeros(length, np.float32))
            rest -= length

    def _next(self, chapter: str | None) -> None:
        self._open.close()
        self._open = ExitStack()
        path, tags = self._path, self._tags
        if self._split is not None:
            digits = 3 if self._split == "chapter" else 5
            path = path.with_name(f"{path.stem}-{len(self.written) + 1:0{digits}d}{path.suffix}")
            if self._split == "chapter" and chapter and tags.as_dict():
                tags = replace(tags, title=chapter)
        draft = f".{path.name}.part" if self._goes_on else None
        self._stream = self._open.enter_context(open_audio(path, self._rate, tags, draft))
        self.written.append(path)
