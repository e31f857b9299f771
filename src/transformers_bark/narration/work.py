"""A work folder: finished pieces and a manifest, so that work goes on after any kill.

    manifest.jsonl      a line for each finished piece: what was asked, what was made
    pieces/             its audio, 16-bit FLAC; its tokens where another piece goes on from them

Every file is whole or not there, and a line is written after its files. A line that a kill or a full disk has cut off is
dropped. A piece counts as finished if a line has the same text, voice, options, model and seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from filelock import FileLock, Timeout

from .. import audio_files
from ..voices import VoicePreset
from .alignment import Word
from .checks import Doubt
from .speaking import Finished, Request, digest

MANIFEST = "manifest.jsonl"
_FORMAT = 1


class Memory:
    """Finished pieces of a run that keeps nothing: each is given away once."""

    seed: int | None = None

    def __init__(self) -> None:
        self._finished: dict[int, Finished] = {}

    def find(self, request: Request, tries: int, verified: bool) -> bool:
        """Whether the piece is there."""
        return request.piece.number in self._finished

    def keep(self, request: Request, finished: Finished, verified: bool, with_voice: bool, again: bool = False) -> None:
        """Keeps a piece until it is taken."""
        audio = audio_files.as_int16(finished.audio)  # half of the memory
        self._finished[request.piece.number] = replace(
            finished, audio=audio, voice=finished.voice if with_voice else None
        )

    def take(self, request: Request) -> Finished:
        """The piece, which is then forgotten."""
        finished = self._finished.pop(request.piece.number)
        return replace(finished, audio=finished.audio.astype(np.float32) / np.float32(32768))

    def voice(self, name: str, request: Request) -> VoicePreset | None:
        """A voice that was made before: none."""
        return None

    def keep_voice(self, name: str, request: Request, voice: VoicePreset) -> None:
        """Keeps nothing."""

    def close(self) -> None:
        """Nothing is open."""


class WorkFolder:
    """Finished pieces in a folder; one process at a time.

    Args:
        folder: made if it is not there.
        model: what tells the checkpoint from others.
        resume: whether pieces that are there count.

    Raises:
        ValueError: the folder holds pieces and `resume` is False, or another process works in it.
    """

    def __init__(self, folder: str | os.PathLike[str], model: str, sampling_rate: int, resume: bool) -> None:
        self.folder = Path(folder)
        self._pieces = self.folder / "pieces"
        self._pieces.mkdir(parents=True, exist_ok=True)
        self._model, self._rate = model, sampling_rate
        self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another process works in {self.folder}") from None
        self._path = self.folder / MANIFEST
        try:
            lines = _read_lines(self._path)
            if any("text" in line for line in lines) and not resume:
                raise ValueError(f"{self.folder} holds pieces of an earlier run: resume it, or name another folder")
        except BaseException:
            self._lock.release()
            raise
        self.seed: int | None = next((line["seed"] for line in lines if "format" in line), None)
        self._entries: dict[str, list[dict[str, Any]]] = defaultdict(list)  # by text: a book has thousands
        for line in lines:
            if "text" in line and line["model"] == model:
                self._entries[line["text"]].append(line)
        self._voices = [line for line in lines if "made_voice" in line and line["model"] == model]
        self._used: dict[int, dict[str, Any]] = {}
        for draft in self._pieces.iterdir():  # what a kill has left
            if draft.is_dir():
                shutil.rmtree(draft)
            elif draft.suffix == ".part":
                draft.unlink()

    def begin(self, seed: int) -> None:
        """Notes the seed of the run, for one that goes on without naming it."""
        if self.seed != seed:
            self._append({"format": _FORMAT, "seed": seed})
            self.seed = seed

    def find(self, request: Request, tries: int, verified: bool) -> bool:
        """Whether the piece is there; `take` then gives it."""
        number, key = request.piece.number, request.key()
        taken = {id(entry) for other, entry in self._used.items() if other != number}
        alike = [
            entry
            for entry in reversed(self._entries[key["text"]])
            if all(entry[name] == value for name, value in key.items())
            and id(entry) not in taken
            and (not entry["doubts"] or not _weight(entry) or entry["takes"] > tries)
            and (entry["verified"] or not verified)
            and (entry["again"] and entry["number"] == number or entry["base"] == _base(request))
        ]
        # made anew by number; then under this number; then a piece that has moved
        alike.sort(key=lambda entry: (not entry["again"], entry["number"] != number))
        for entry in alike:
            if self._is_whole(entry):
                self._used[number] = entry
                return True
        return False

    def keep(self, request: Request, finished: Finished, verified: bool, with_voice: bool, again: bool = False) -> None:
        """Writes a piece and its line.

        Raises:
            OSError: the disk is full; what was there before stays.
        """
        number = request.piece.number
        stem = f"{number:05d}-{digest_of(request, finished.seed)}"
        if len(finished.audio):  # FLAC cannot hold nothing
            _write_flac(self._pieces / f"{stem}.flac", finished.audio, self._rate)
        has_voice = with_voice and finished.voice is not None and len(finished.voice.semantic_prompt) > 0
        if has_voice and finished.voice is not None:
            finished.voice.save(self._pieces / f"{stem}.npz")
        entry = {
            "number": number,
            **request.key(),
            "model": self._model,
            "base": _base(request),
            "again": again,
            "file": stem,
            "has_voice": has_voice,
            "samples": len(finished.audio),
            "seed": finished.seed,
            "takes": finished.takes,
            "verified": verified,
            "doubts": [asdict(doubt) for doubt in finished.doubts],
            "words": finished.words
            and [[word.text, round(word.start, 4), round(word.end, 4)] for word in finished.words],
        }
        self._append(entry)
        self._entries[request.piece.text].append(entry)
        self._used[number] = entry

    def take(self, request: Request) -> Finished:
        """A piece that `find` or `keep` has said to be there."""
        entry = self._used[request.piece.number]
        samples = np.zeros(0, np.int16)
        if entry["samples"]:
            samples, _ = soundfile.read(self._pieces / f"{entry['file']}.flac", dtype="int16")
        voice = self._pieces / f"{entry['file']}.npz"
        return Finished(
            samples.astype(np.float32) / np.float32(32768),
            None if entry["words"] is None else tuple(Word(*word) for word in entry["words"]),
            tuple(Doubt(**doubt) for doubt in entry["doubts"]),
            entry["seed"],
            entry["takes"],
            VoicePreset.load(voice) if entry["has_voice"] else None,
        )

    def voice(self, name: str, request: Request) -> VoicePreset | None:
        """The voice that an earlier run made of the same first piece."""
        for line in reversed(self._voices):
            path = self._pieces / f"{line['file']}.npz"
            if line["made_voice"] == name and line["of"] == _origin(request) and path.is_file():
                return VoicePreset.load(path)
        return None

    def keep_voice(self, name: str, request: Request, voice: VoicePreset) -> None:
        """Keeps the voice that was made of a first piece."""
        file = f"voice-{digest(voice)}"
        if len(voice.semantic_prompt):
            voice.save(self._pieces / f"{file}.npz")
        line = {"made_voice": name, "of": _origin(request), "model": self._model, "file": file}
        self._append(line)
        self._voices.append(line)

    def close(self) -> None:
        """Lets another process work here."""
        self._lock.release()

    def _is_whole(self, entry: Mapping[str, Any]) -> bool:
        """Whether the files of a line are there, audio of the length that it says among them."""
        path = self._pieces / f"{entry['file']}.flac"
        if entry["has_voice"] and not path.with_suffix(".npz").is_file():
            return False
        if not entry["samples"]:
            return True
        try:
            return soundfile.info(path).frames == entry["samples"]
        except (soundfile.SoundFileError, OSError):
            return False

    def _append(self, line: Mapping[str, Any]) -> None:
        """Writes a line whole, or cuts it off again."""
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        with open(self._path, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                if file.write(data) != len(data):
                    raise OSError(28, "No space left on device", str(self._path))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise


def digest_of(request: Request, seed: int) -> str:
    """A short name of what was asked, for files: what is made anew does not overwrite what was there."""
    return hashlib.sha256(json.dumps([request.key(), seed], sort_keys=True).encode()).hexdigest()[:10]


def _base(request: Request) -> list[int]:
    """The seed that the piece's own are drawn from: its own, or that of all pieces."""
    return [1, request.piece.seed] if request.piece.seed is not None else [0, request.seed]


def _origin(request: Request) -> dict[str, Any]:
    return {**request.key(), "number": request.piece.number, "base": _base(request)}


def _weight(entry: Mapping[str, Any]) -> float:
    return sum(doubt["weight"] for doubt in entry["doubts"])


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a manifest; one that was cut off is taken out of the file.

    Raises:
        ValueError: the manifest of a later release.
    """
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
    lines = []
    for line in data[:whole].splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # what a failing disk has left
            continue
    newest = max((line["format"] for line in lines if "format" in line), default=_FORMAT)
    if newest > _FORMAT:
        raise ValueError(f"{path} was written by a later release: format {newest}, known is {_FORMAT}")
    return lines


def _write_flac(path: Path, audio: np.ndarray, sampling_rate: int) -> None:
    audio_files.write_audio(path, audio_files.as_int16(audio), sampling_rate)


Store = Memory | WorkFolder

__all__ = ["MANIFEST", "Memory", "Store", "WorkFolder"]
