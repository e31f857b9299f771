"""A worker: loads the model once, and makes buckets of rows one after the other.

What a bucket gave is written as its part, a line a row, after the audio; a worker that is given a bucket whose part is there makes
nothing. So a bucket may be tried again, by anybody, whatever became of those who tried it before.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import audio_streams
from ..audio_files import as_int16
from ..audio_streams import Tags
from ..narration import Limits, Narrator, Piece, Script, Spoken, read
from ..narration.joining import Joiner, audio_of, final_pause
from ..narration.speaking import Finished, Request, Speaker, is_known
from ..voices import VoicePreset
from .plan import Bucket
from .rows import Row, RowError, file_stem
from .settings import PARQUET, Settings
from .store import Store

logger = logging.getLogger(__name__)

WORK = ".bark-batch"
"""Folder of what is not finished; it is gone when all is."""

PARTS, ATTEMPTS = f"{WORK}/parts", f"{WORK}/attempts"

DEATHS = 3
"""Times that a bucket may end its worker before its rows are tried one by one, and a row alone before it has failed."""

Entry = dict[str, Any]
"""What is said of a row in the output's manifest."""


class OutOfMemoryError(MemoryError):
    """A worker has no memory for a row alone."""


@dataclass(frozen=True, eq=False)
class Made:
    """A row that is spoken: int16 [samples], its pieces' takes, and what speaks against them."""

    audio: np.ndarray
    spoken: Sequence[Spoken]

    @property
    def checks(self) -> list[dict[str, Any]]:
        return [
            {"piece": one.piece.number, "kind": doubt.kind, "reason": doubt.reason, "weight": doubt.weight}
            for one in self.spoken
            for doubt in one.doubts
        ]


class ListedVoices:
    """A `BarkProcessor` whose voices are those that the checkpoint lists: a name in a manifest never becomes a path."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.tokenizer = processor.tokenizer

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._processor(*arguments, **options)

    @property
    def max_length(self) -> int:
        return self._processor.max_length

    def load_voice(self, voice: Any) -> VoicePreset | None:
        if voice is None or isinstance(voice, VoicePreset):
            return voice
        listed = self._processor.available_voice_presets
        if voice not in listed:
            some = ", ".join(listed[:8]) + (" …" if len(listed) > 8 else "")
            raise RowError(f"there is no voice {str(voice)[:60]!r}; the checkpoint has {some or 'none'}")
        return self._processor.load_voice(voice)


class Worker:
    """Makes buckets.

    Args:
        settings: of the run.
        model, processor: by default those that the settings name.
        is_replaced: whether another process takes the place of one that has no memory left; else the row has failed.
    """

    def __init__(self, settings: Settings, model: Any = None, processor: Any = None, is_replaced: bool = False) -> None:
        from ..processing_bark import BarkProcessor

        self.settings, self.store, self._is_replaced = settings, Store(settings.out), is_replaced
        self.model = model if model is not None else load(settings)
        processor = processor or BarkProcessor.from_pretrained(settings.model)
        self.processor = ListedVoices(processor)
        self.limits = Limits.of(self.processor, self.model.generation_config)
        self.voice: VoicePreset | None = processor.load_voice(settings.voice)
        self.speaker = Speaker(self.model, self.processor, self.limits, settings.together, settings.tries, None)
        self.rate = int(self.model.generation_config.sample_rate)
        self.tags = Tags.synthetic(settings.model_name)

    def make(self, bucket: Bucket) -> list[Entry]:
        """Makes a bucket, or finds it made.

        Raises:
            OSError: the results cannot be written.
            OutOfMemoryError: there is none for a row alone, and `is_replaced`.
        """
        part = f"{PARTS}/{bucket.name}.jsonl"
        written = self.store.read(part)
        if written is not None:
            return [json.loads(line) for line in written.splitlines()]
        deaths = self._begin(bucket)
        if deaths >= DEATHS and len(bucket.rows) > 1:
            logger.warning("a bucket ended its worker %d times: its rows are tried one by one", deaths)
            entries = [entry for single in _singles(bucket) for entry in self.make(single)]
        else:
            made: dict[int, Made | str]
            if deaths >= DEATHS:
                made = {bucket.rows[0].number: f"it ended its worker {deaths} times (out of memory, or a crash)"}
            else:
                made = self._speak(bucket.rows)
            entries = self._keep(bucket, made)
            self.store.write(part, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        self._end(bucket)
        return entries

    def _begin(self, bucket: Bucket) -> int:
        """Notes that the bucket is begun; how often it was begun before and not ended."""
        deaths = 0
        while self.store.read(f"{ATTEMPTS}/{bucket.name}-{deaths}") is not None:
            deaths += 1
        self.store.write(f"{ATTEMPTS}/{bucket.name}-{deaths}", b"\n")
        return deaths

    def _end(self, bucket: Bucket) -> None:
        for attempt in range(DEATHS + 1):
            self.store.remove(f"{ATTEMPTS}/{bucket.name}-{attempt}")

    def _keep(self, bucket: Bucket, made: dict[int, Made | str]) -> list[Entry]:
        """Writes the audio of a bucket -> its entries."""
        entries, records = [], []
        ending = ".flac" if self.settings.format == PARQUET else f".{self.settings.format}"
        for row, key in zip(bucket.rows, bucket.keys, strict=True):
            one = made[row.number]
            entry = self._entry(row, key, one)
            if isinstance(one, Made):
                content = audio_streams.encode_audio(ending, one.audio, self.rate, self.tags)
                stem = file_stem(row.id)
                entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                if self.settings.format == PARQUET:
                    entry["file"] = f"{PARTS}/{bucket.name}.parquet"
                    records.append((entry, {"bytes": content, "path": f"{stem.rpartition('/')[2]}{ending}"}))
                else:
                    entry["file"] = f"audio/{stem}{ending}"
                    self.store.write(entry["file"], content)
            entries.append(entry)
        if records:
            from .shards import part_bytes

            self.store.write(f"{PARTS}/{bucket.name}.parquet", part_bytes(records, self.rate))
        return entries

    def _entry(self, row: Row, key: str, made: Made | str) -> Entry:
        voice = row.voice if row.voice is not None else self.settings.voice
        language = row.language or self.settings.language
        entry: Entry = {"id": row.id, "key": key, "row": row.number, "text": row.text, "voice": voice}
        entry |= {"language": language, "seed": row.seed}
        if isinstance(made, str):
            return entry | {"error": made}
        return entry | {
            "seconds": round(len(made.audio) / self.rate, 3),
            "samples": len(made.audio),
            "sampling_rate": self.rate,
            "takes": max((one.takes for one in made.spoken), default=1),
            "checks": made.checks,
            "samples_sha256": hashlib.sha256(made.audio.astype("<i2").tobytes()).hexdigest(),
        }

    def _speak(self, rows: Sequence[Row]) -> dict[int, Made | str]:
        """Speaks rows; what fails for several is tried for fewer, until what cannot be made is alone."""
        try:
            return self._speak_together(rows)
        except RowError as error:
            reason = str(error)
        except OutOfMemoryError:
            raise
        except Exception as error:  # of any library below: it is told with the row, and the others go on
            if self._is_replaced and len(rows) == 1 and is_out_of_memory(error):
                raise OutOfMemoryError(str(error)) from error
            kind = "out of memory" if is_out_of_memory(error) else type(error).__name__
            reason = f"{kind}: {' '.join(str(error).split())[:300]}".rstrip(": ")
        if len(rows) == 1:
            return {rows[0].number: reason}
        logger.warning("%d rows failed together (%s): they are tried in halves", len(rows), reason)
        half = len(rows) // 2
        return self._speak(rows[:half]) | self._speak(rows[half:])

    def _speak_together(self, rows: Sequence[Row]) -> dict[int, Made | str]:
        made: dict[int, Made | str] = {}
        scripts: dict[int, Script] = {}
        requests: dict[Request, int] = {}
        for row in rows:
            try:
                scripts[row.number] = script = self._script(row)
                voices = [self._voice(row, piece) for piece in script]
            except ValueError as error:
                made[row.number] = str(error)
                scripts.pop(row.number, None)
                continue
            if len(script) == 1 or all(voice is not None for voice in voices):
                for piece, voice in zip(script, voices, strict=True):
                    options = {**self.settings.options, **piece.options}
                    requests[Request(piece, voice, row.seed, options)] = row.number
        finished: dict[int, list[tuple[Piece, Finished]]] = {}
        for request, one in self.speaker.say(list(requests)):
            finished.setdefault(requests[request], []).append((request.piece, one))
        for row in rows:
            if row.number in scripts:
                made[row.number] = self._joined(row, scripts[row.number], finished.get(row.number))
        return made

    def _script(self, row: Row) -> Script:
        script = read(row.text, language=row.language or self.settings.language, limits=self.limits)
        if not len(script):
            raise RowError("there is nothing to say in the text")
        if not any(is_known(self.processor.tokenizer, piece.text) for piece in script):
            raise RowError("the model knows no word of the text")
        return script

    def _voice(self, row: Row, piece: Piece | None = None) -> VoicePreset | None:
        if piece is not None and piece.voice is not None:
            return self.processor.load_voice(piece.voice)
        return self.voice if row.voice is None else self.processor.load_voice(row.voice)

    def _joined(self, row: Row, script: Script, pieces: list[tuple[Piece, Finished]] | None) -> Made | str:
        """A row's pieces as one speech, as `Narrator` gives it; it also finds a voice where a text of several pieces has none."""
        spoken: list[Spoken]
        if pieces is None:
            narrator = Narrator(self.model, self.processor, batch_size=self.settings.together, limits=self.limits)
            settings: dict[str, Any] = {"seed": row.seed, "tries": self.settings.tries, "progress": False}
            spoken = list(narrator(script, self._voice(row), **settings, **self.settings.options))
        else:
            pieces.sort(key=lambda one: one[0].number)
            spoken = list(Joiner(self.rate).join(pieces, script.lead_pause or 0.0))
        if not any(len(one.audio) for one in spoken):
            return f"nothing was said: {'; '.join(doubt.reason for one in spoken for doubt in one.doubts)}"
        audio = np.concatenate([*audio_of(spoken), np.zeros(round(final_pause(script[-1]) * self.rate), np.float32)])
        return Made(as_int16(audio), spoken)


def _singles(bucket: Bucket) -> Iterator[Bucket]:
    for row, key in zip(bucket.rows, bucket.keys, strict=True):
        yield Bucket(f"{key}-alone", (row,), (key,), bucket.seconds / len(bucket.rows))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was the reason: NumPy, torch and ONNX Runtime have an error each."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        word in said for word in ("out of memory", "bad_alloc", "can't allocate memory", "failed to allocate")
    )


def load(settings: Settings) -> Any:
    """The model that the settings name, whole.

    Raises:
        ValueError: one that lacks weights, or an engine that it cannot have.
    """
    import torch

    from ..engines import EngineChoice
    from ..low_memory import load_with_engine
    from ..modeling_bark import BarkModel

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    choice = EngineChoice(settings.engine, settings.precision, cache_precision=settings.cache_precision)
    return load_with_engine(BarkModel, settings.model, settings.device, choice, dtype=getattr(torch, settings.dtype))
