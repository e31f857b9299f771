"""The voices that can be asked for: those of the checkpoint, and those that callers have stored.

Names are looked up and never made into a path. A stored voice is checked as the processor checks one, and written anew from
its tokens under a name that the service makes up; nothing of an upload is kept as it came.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import tempfile
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from .. import output_files
from ..voices import VoicePreset
from .errors import BadValueError, FullError, NotFoundError, TooLongError

DEFAULT, RANDOM = "default", "random"
"""The checkpoint's first voice; no voice, so that the seed decides."""

_ID = re.compile(r"voice_[0-9a-f]{24}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}")
_MOST_LOADED = 32
_LARGEST_PART = 4_000_000  # bytes of one array: 271 real voices have 70 kB at most
_PARTS = 16  # files in an .npz


@dataclass(frozen=True)
class Voice:
    """A voice as it is listed.

    Args:
        id: what `voice` of a request may be, beside the name.
        created_at: seconds since 1970; 0 for those of the checkpoint.
    """

    id: str
    name: str
    created_at: int
    stored: bool


class Voices:
    """All voices of a service.

    Args:
        processor: a `BarkProcessor`, whose voices are listed first.
        config: the model's generation config, which every voice is checked against.
        folder: of the stored voices, made when one is stored; None stores none.
        most: how many may be stored.
    """

    def __init__(self, processor: Any, config: Any, folder: Path | None = None, most: int = 100) -> None:
        self._processor, self._config, self._folder, self.most = processor, config, folder, most
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, VoicePreset] = OrderedDict()
        self._listed = {name: Voice(name, name, 0, False) for name in processor.available_voice_presets}
        self._stored = {voice.id: voice for voice in self._read_folder()}

    def _read_folder(self) -> Iterator[Voice]:
        if self._folder is None or not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("voice_*.safetensors")):
            if _ID.fullmatch(path.stem):
                try:
                    with safetensors.safe_open(path, "np") as file:
                        said = json.loads((file.metadata() or {}).get("voice", "{}"))
                    yield Voice(path.stem, str(said["name"]), int(said["created_at"]), True)
                except (safetensors.SafetensorError, ValueError, KeyError, OSError):
                    continue  # none of ours

    def __iter__(self) -> Iterator[Voice]:
        with self._lock:
            return iter([*self._listed.values(), *sorted(self._stored.values(), key=lambda voice: voice.created_at)])

    def names(self) -> list[str]:
        """Everything that `voice` of a request may be."""
        voices = list(self)
        own = [name for voice in voices for name in dict.fromkeys((voice.id, voice.name))]
        return list(dict.fromkeys([DEFAULT, RANDOM, *own]))

    def get(self, name: str) -> VoicePreset | None:
        """The voice of a name or id; None for no voice.

        Raises:
            BadValueError: there is none of that name.
        """
        if name == RANDOM or name == DEFAULT and not self._listed:
            return None
        if name == DEFAULT:
            name = next(iter(self._listed))
        with self._lock:
            found = self._find(name)
            if found is None:
                raise BadValueError(f"there is no voice {name[:80]!r}; GET /v1/audio/voices lists them", "voice")
            if found.id not in self._loaded:
                self._loaded[found.id] = self._load(found)
            self._loaded.move_to_end(found.id)
            while len(self._loaded) > _MOST_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[found.id]

    def _find(self, name: str) -> Voice | None:
        if name in self._listed or name in self._stored:
            return self._listed.get(name) or self._stored[name]
        return next((voice for voice in self._stored.values() if voice.name == name), None)

    def _load(self, voice: Voice) -> VoicePreset:
        if voice.stored:
            return VoicePreset.load(self._path(voice.id)).check(self._config)
        preset = self._processor.load_voice(voice.name)
        assert isinstance(preset, VoicePreset)
        return preset

    def _path(self, voice_id: str) -> Path:
        assert self._folder is not None and _ID.fullmatch(voice_id)
        return self._folder / f"{voice_id}.safetensors"

    def add(self, name: str, data: bytes) -> Voice:
        """Stores a voice: the bytes of an .npz or .safetensors file.

        Raises:
            BadValueError: a name of other signs or one that is taken, or data that is no voice of this checkpoint.
            FullError: as many are stored as may be.
            NotFoundError: voices are not stored here.
        """
        if self._folder is None:
            raise NotFoundError("no voices are stored here")
        if not _NAME.fullmatch(name):
            raise BadValueError(
                "a voice's name has 1 to 64 letters, digits, spaces, and _ . -, and begins with a letter or digit",
                "name",
            )
        preset = read_voice(data, self._config)
        with self._lock:
            if name in (DEFAULT, RANDOM) or self._find(name) is not None:
                raise BadValueError(f"there is a voice {name!r} already", "name")
            if len(self._stored) >= self.most:
                raise FullError(f"{self.most} voices are stored: delete one first", code="too_many_voices")
            voice = Voice(f"voice_{secrets.token_hex(12)}", name, int(time.time()), True)
            parts = {key: part.contiguous() for key, part in preset.as_dict().items()}
            with output_files.open_output(self._path(voice.id), make_folder=True) as file:
                file.write(safetensors.torch.save(parts, {"voice": json.dumps(asdict(voice))}))
            self._stored[voice.id] = voice
        return voice

    def remove(self, voice_id: str) -> Voice:
        """Deletes a stored voice.

        Raises:
            NotFoundError: there is none of that id.
        """
        with self._lock:
            voice = self._stored.pop(voice_id, None)
            self._loaded.pop(voice_id, None)
            if voice is None:
                raise NotFoundError("there is no stored voice of that id", "voice_id")
            self._path(voice.id).unlink(missing_ok=True)
        return voice


def read_voice(data: bytes, config: Any) -> VoicePreset:
    """The voice in the bytes of an .npz or .safetensors file.

    Raises:
        BadValueError: what the bytes hold is no voice, or none of this checkpoint.
        TooLongError: arrays larger than any voice's.
    """
    is_zip = data.startswith(b"PK")
    # read by what reads a user's files, from a file of our own
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "voice.npz" if is_zip else "voice.safetensors")
        path.write_bytes(data)
        try:
            if is_zip:
                _check_archive(path)
            return VoicePreset.load(path).check(config)
        except ValueError as error:
            said = str(error).replace(f"{path}: ", "").replace(str(path), "the file").removeprefix("voice preset ")
            raise BadValueError(f"the file is no voice of this model: {said}", "file") from error


def _check_archive(path: Path) -> None:
    """Refuses what would unpack to more than a voice, before it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _PARTS or any(entry.file_size > _LARGEST_PART for entry in entries):
                raise TooLongError("the arrays of the file are larger than those of a voice", "file")
            for entry in entries:
                with archive.open(entry) as file:
                    _check_head(file)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"it is damaged ({error})") from error


def _check_head(file: Any) -> None:
    """Refuses an array whose head claims more than a voice has: room is made for what it claims before it is read."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
    except ValueError:
        return  # what it is says whoever reads it
    except Exception as error:  # damaged streams raise whatever reads them raises
        raise ValueError(f"it is damaged ({error})") from error
    if math.prod(shape) * max(1, kind.itemsize) > _LARGEST_PART or any(size < 0 for size in shape):
        raise TooLongError("the arrays of the file are larger than those of a voice", "file")
