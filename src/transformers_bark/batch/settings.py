"""What a run is asked to do, and what tells its audio from that of others."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import audio_files
from ..narration.speaking import batch_size_on

PARQUET = "parquet"
FORMATS = (*(ending.removeprefix(".") for ending in audio_files.FORMATS), PARQUET)

_HEAD = 1 << 20  # bytes of a weights file that are looked at, at either end: shapes, names and some of the values


@dataclass(frozen=True)
class Settings:
    """A run, as JSON can hold it: a worker on another machine is told the same.

    Args:
        out: folder of the results, a path or an fsspec address that every worker reaches.
        format: an ending of audio files, or "parquet".
        model: folder or Hub name, found by every worker.
        voice: of rows that name none, as the processor takes it; None lets the seed decide.
        language: of rows that name none.
        tries: how often a piece that fails its checks is said again.
        batch_size: generations together; None takes the narrator's.
        threads: of a worker's processor; None leaves them alone.
        options: of `BarkModel.generate`.
        shard_bytes: of a Parquet file, about.
    """

    out: str
    model: str
    format: str = "flac"
    voice: str | None = None
    language: str | None = None
    tries: int = 2
    batch_size: int | None = None
    device: str = "cpu"
    engine: str = "auto"
    precision: str | None = None
    cache_precision: str | None = None
    dtype: str = "float32"
    threads: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    shard_bytes: int = 500_000_000

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"`format` is {self.format!r}; expected one of {', '.join(FORMATS)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}")
        if self.tries < 0:
            raise ValueError(f"`tries` must not be negative, got {self.tries}")

    @property
    def together(self) -> int:
        """Generations in a full batch."""
        return self.batch_size or batch_size_on(self.device.partition(":")[0])

    @property
    def model_name(self) -> str:
        """What the checkpoint is called outside of this machine."""
        from .. import BARK_NANO

        if self.model == BARK_NANO:
            return "bark-nano"
        return Path(self.model).name if os.path.isdir(self.model) else self.model

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        return cls(**json.loads(text))

    def run_key(self) -> str:
        """A short name of model and options: a row whose audio was made under another is made anew."""
        same = ("format", "voice", "language", "tries", "precision", "cache_precision", "dtype")
        parts = [identity(self.model), {name: getattr(self, name) for name in same}, dict(self.options)]
        if self.voice is not None and os.path.isfile(self.voice):
            parts.append(hashlib.sha256(Path(self.voice).read_bytes()).hexdigest())
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()[:20]


def identity(source: str) -> str:
    """What tells a checkpoint from others, without loading it: the commit on the Hub, or a folder's configs and ends of weights."""
    if not os.path.isdir(source):
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(source)
        return f"{source}@{getattr(config, '_commit_hash', None)}"
    total = hashlib.sha256()
    names = sorted(path for pattern in ("*.json", "*.safetensors", "*.bin") for path in Path(source).glob(pattern))
    for path in names:
        total.update(path.name.encode())
        size = path.stat().st_size
        with path.open("rb") as file:
            total.update(str(size).encode() + file.read(_HEAD))
            file.seek(max(0, size - _HEAD))
            total.update(file.read(_HEAD))
    return total.hexdigest()
