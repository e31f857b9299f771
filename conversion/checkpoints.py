"""Reading and writing of foreign checkpoint files: no code is run, nothing is read that is not needed."""

from __future__ import annotations

import codecs
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

try:
    from numpy._core.multiarray import scalar as _scalar
except ImportError:  # numpy 1
    from numpy.core.multiarray import scalar as _scalar  # type: ignore[no-redef]

_ALLOWED = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (np.dtype, "numpy.dtype"),
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
    (codecs.encode, "_codecs.encode"),
]
"""What the pickles of the original files name besides tensors: `best_val_loss` is a numpy scalar."""


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a `.pt` or `.th` file memory-mapped, so that what is not used is not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or one that asks for anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(f"checkpoint {path} is refused or damaged: {str(error).splitlines()[0]}") from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"checkpoint {path} is damaged: {str(error).splitlines()[0] if str(error) else error!r}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"checkpoint {path} must hold a dict, got {type(checkpoint).__name__}")
    return checkpoint


@contextmanager
def finished_folder(path: str | Path, overwrite: bool) -> Iterator[Path]:
    """A folder to write into that takes its name only when everything is written.

    Raises:
        FileExistsError: `path` exists with something in it, and `overwrite` is not set.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())) and not overwrite:
        raise FileExistsError(f"{path} exists and is not empty; use --overwrite to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield draft
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        draft.chmod(0o755)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
