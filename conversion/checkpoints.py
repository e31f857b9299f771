"""Reading checkpoints of others without running their code, and writing folders whole or not at all.

Tensors are memory-mapped: what is not asked for, such as an optimizer's state, is never read into memory.
"""

from __future__ import annotations

import _codecs
import contextlib
import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from transformers_bark import output_files

scalar = np.float64(0).__reduce__()[0]
"""numpy's function that makes a number from bytes; its module's name depends on numpy's version."""

SAFE_GLOBALS: list[Any] = [
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
    (np.dtype, "numpy.dtype"),
    (_codecs.encode, "_codecs.encode"),
    # no pickle names these two: they are the classes of the dtypes that `numpy.dtype` makes, which torch checks as well
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
]
"""What a checkpoint may name beside torch's own tensors and OrderedDict: enough for a numpy number, and nothing more."""

_ZIP_MAGIC = b"PK\x03\x04"
_CHUNK = 1 << 20
"""Elements that are cast and written at a time."""

_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
}


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message names the file and says why."""


@dataclass(frozen=True)
class SunoCheckpoint:
    """What is used of one of the original's `.pt` files.

    Args:
        model: parameter name -> tensor, memory-mapped.
        model_args: sizes of the model.
        best_val_loss: None where the file has none.
    """

    model: dict[str, Tensor]
    model_args: dict[str, Any]
    best_val_loss: float | None


def read_torch(path: str | os.PathLike[str], checksums: bool = True) -> Any:
    """Loads a `torch.save` file with `weights_only=True`, memory-mapped where its format allows.

    Files of torch before 1.6 cannot be mapped and are read whole.

    Args:
        checksums: compare every record with its checksum first (reads the file once, in small pieces).

    Raises:
        ConversionError: no such file, a truncated or damaged one, or one that names anything outside `SAFE_GLOBALS`.
    """
    path = Path(path)
    if not path.is_file():
        raise ConversionError(f"{path}: no such file")
    with path.open("rb") as file:
        is_zip = file.read(4) == _ZIP_MAGIC
    if is_zip:
        _check_zip(path, checksums)
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # the unpickler raises whatever a broken or hostile stream makes it raise
        unsafe = _unsafe_globals(path) if is_zip else []
        if unsafe:
            raise ConversionError(
                f"{path}: refused, nothing of it was run: it asks for {', '.join(unsafe)}, which no checkpoint needs"
            ) from error
        reason = str(error).strip().splitlines()
        if "GLOBAL" in str(error):
            reason = [line for line in reason if "GLOBAL" in line]
        raise ConversionError(
            f"{path}: not a checkpoint, damaged, or unsafe ({reason[0] if reason else type(error).__name__})"
        ) from error


def _check_zip(path: Path, checksums: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
            bad = packed[0] if packed else archive.testzip() if checksums else None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise ConversionError(f"{path}: truncated or damaged ({error})") from error
    if bad is not None:
        raise ConversionError(
            f"{path}: damaged, the record {bad} {'is compressed' if packed else 'does not match its checksum'}"
        )


def _unsafe_globals(path: Path) -> list[str]:
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a stream too broken to list its names is reported as damaged
        return []


def tensor_state(value: Any, origin: str) -> dict[str, Tensor]:
    """`value` as a state dict.

    Raises:
        ConversionError: it is something else than a mapping from names to dense tensors.
    """
    if not isinstance(value, Mapping) or not value:
        raise ConversionError(f"{origin}: expected a state dict, got {type(value).__name__}")
    bad = [str(name) for name, tensor in value.items() if not (isinstance(name, str) and _is_dense(tensor))]
    if bad:
        raise ConversionError(f"{origin}: not tensors: {', '.join(bad[:8])}")
    return dict(value)


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def read_suno(path: str | os.PathLike[str], checksums: bool = True) -> SunoCheckpoint:
    """One of the original's `.pt` files. Only `model`, `model_args` and `best_val_loss` are looked at.

    Raises:
        ConversionError: as `read_torch`, and when one of the first two is missing or of another kind.
    """
    content = read_torch(path, checksums)
    if not isinstance(content, Mapping) or "model" not in content or not isinstance(content.get("model_args"), Mapping):
        raise ConversionError(f"{path}: not a Bark checkpoint: it must be a mapping with `model` and `model_args`")
    loss = content.get("best_val_loss")
    try:
        loss = None if loss is None else float(loss)
    except (TypeError, ValueError) as error:
        raise ConversionError(f"{path}: `best_val_loss` is not a number") from error
    return SunoCheckpoint(tensor_state(content["model"], f"{path}: `model`"), dict(content["model_args"]), loss)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], metadata: Mapping[str, str]
) -> int:
    """Writes a safetensors file piece by piece, so that casting needs next to no memory, and returns its tensors' bytes.

    `safetensors.torch.save_file` needs all cast tensors at once.

    Args:
        dtypes: dtype of each tensor in the file.

    Raises:
        ConversionError: a value that is finite in the source and not in its new dtype.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    # the format wants no alignment, but readers that map the file are faster with widest types first
    order = sorted(tensors, key=lambda name: (-dtypes[name].itemsize, name))
    for name in order:
        start, end = end, end + tensors[name].numel() * dtypes[name].itemsize
        header[name] = {
            "dtype": _DTYPE_NAMES[dtypes[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with output_files.open_output(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            _write_cast(file, name, tensors[name], dtypes[name])
    return end


def _write_cast(file: Any, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    for piece in tensor.detach().contiguous().view(-1).split(_CHUNK):
        cast = piece.to(dtype)
        if cast.is_floating_point() and cast is not piece and bool((~cast.isfinite() & piece.isfinite()).any()):
            raise ConversionError(f"{name} has values that {dtype} cannot hold; choose another --dtype")
        file.write(cast.view(torch.uint8).numpy().data)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """A draft folder that becomes `path` when the block ends, and vanishes when it raises.

    Raises:
        ConversionError: `path` is a file, or a folder with something in it and `overwrite` is False.
    """
    target = Path(os.path.realpath(path))  # a link to a folder stays
    if target.exists() and not target.is_dir():
        raise ConversionError(f"{target}: exists and is not a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ConversionError(f"{target}: the folder is not empty; --overwrite replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        draft = workplace / target.name  # the model card shows the folder's name
        draft.mkdir()
        yield draft
        if target.exists():
            shutil.copymode(target, draft)
            target.rename(workplace / "replaced")
        draft.rename(target)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


class FolderWeights:
    """Weights of a model folder, safetensors or `pytorch_model.bin`, in one file or in shards; read when asked for.

    Args:
        folder: holds the weights.

    Raises:
        ConversionError: there are none, or the index is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        for stem in ("model.safetensors", "pytorch_model.bin"):
            if (self.folder / stem).is_file():
                self.files = [self.folder / stem]
                return
            if (self.folder / f"{stem}.index.json").is_file():
                self.files = self._shards(self.folder / f"{stem}.index.json")
                return
        raise ConversionError(f"{self.folder}: no model.safetensors or pytorch_model.bin, in one file or in shards")

    def _shards(self, index: Path) -> list[Path]:
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConversionError(f"{index}: damaged ({error})") from error
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise ConversionError(f"{index}: shard outside the folder: {outside[0]}")
        return [self.folder / name for name in names]

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose name begins with `prefix`, without it.

        Raises:
            ConversionError: a missing or damaged file.
        """
        found: dict[str, Tensor] = {}
        for file in self.files:
            if file.suffix == ".safetensors":
                with open_safetensors(file) as content:
                    for name in content.keys():  # noqa: SIM118 - not a mapping
                        if name.startswith(prefix):
                            found[name.removeprefix(prefix)] = content.get_tensor(name)
            else:
                state = tensor_state(read_torch(file), str(file))
                found.update({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})
        return found

    def metadata(self, key: str) -> str | None:
        """The first value that a safetensors file has for `key` in its header."""
        for file in self.files:
            if file.suffix == ".safetensors":
                with open_safetensors(file) as content:
                    value = (content.metadata() or {}).get(key)
                if value is not None:
                    return value
        return None


def open_safetensors(path: Path) -> Any:
    """`safetensors.safe_open`, with errors that name the file."""
    try:
        return safetensors.safe_open(path, "pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise ConversionError(f"{path}: missing or damaged ({error})") from error


def own_storage(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in `dtype`, with a storage of its own size: `torch.save` writes whole storages."""
    cast = tensor.to(dtype).contiguous()
    return cast.clone() if cast.untyped_storage().nbytes() != math.prod(cast.shape) * dtype.itemsize else cast
