"""Files that are read: what is wrong with one, said with its name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors

_POINTER = b"version https://git-lfs"
_KNOWN = (OSError, ValueError, TypeError, RuntimeError, ImportError)
"""Errors that say themselves what is wrong."""


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuses what no reader could read: a Git LFS pointer, damaged JSON, a safetensors file that is cut short.

    Raises:
        ValueError: it names the file and says what is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file")
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the file itself: get that with `git lfs pull`")
    if path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, "pt"):
                pass
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is damaged or cut short: {error}") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ValueError: it holds something else; the error names the file.
    """
    content = Path(path).read_bytes()
    if content.startswith(_POINTER):
        check_file(path)
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold an object, got {type(value).__name__}")
    return value


@contextmanager
def errors_name_files(source: str | os.PathLike[str], *patterns: str) -> Iterator[None]:
    """Where a folder cannot be read, says which of its files is to blame.

    Args:
        source: the folder or the name on the Hub that is read.
        patterns: names of the files that are read, as for `Path.glob`.

    Raises:
        ValueError: a file is damaged, or the reader failed with an error that says nothing.
    """
    try:
        yield
    except Exception as error:
        if os.path.isdir(source):
            for path in sorted(path for pattern in patterns for path in Path(source).glob(pattern)):
                try:
                    check_file(path)
                except ValueError as reason:
                    raise reason from error
        if isinstance(error, safetensors.SafetensorError):
            raise ValueError(f"the weights of {source} are damaged or cut short: {error}") from error
        if isinstance(error, _KNOWN) and not isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            raise
        said = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else str(error)
        raise ValueError(f"{source} cannot be read: {said or type(error).__name__}") from error
