"""Writing of files: regular files whole or not at all; pipes and devices are written to, never replaced.

Every file that the package writes goes through here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

STANDARD_OUTPUT = "-"
"""The path that stands for standard output."""

_MAX_LINKS = 40
_IN_MEMORY = 1 << 26
"""Bytes for a pipe that are held in memory; more go to a temporary file first."""


@contextlib.contextmanager
def open_output(
    path: str | os.PathLike[str], make_folder: bool = False, draft: str | None = None
) -> Iterator[IO[bytes]]:
    """A seekable binary file whose content is at `path` once the block has ended without an error.

    A regular file is replaced in one step, by a file beside it; symbolic links are followed and stay. A new file's mode
    follows the umask, an old one's is kept. A pipe, a device or an open file under `/proc` gets the bytes at the end.

    Args:
        path: the file; `-` is standard output.
        make_folder: make the folder where it is missing.
        draft: the regular file's name until it is whole; what a killed process has left under it is written over. By default a
            new one.

    Raises:
        FileNotFoundError: the folder does not exist.
        PermissionError: the file is read-only, or the folder cannot be written to.
        OSError: any other reason for which the file could not be written, with the file's name.
    """
    with _errors_name(path):
        if is_standard_output(path):
            opened: Any = _standard_output()
        else:
            place = _place(path)
            opened = _replaced(place, make_folder, draft) if _is_replaceable(place) else _in_place(place)
        with opened as file:
            yield file


def write_bytes(path: str | os.PathLike[str], content: bytes, make_folder: bool = False) -> None:
    """Writes a file as `open_output` does."""
    with open_output(path, make_folder) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], content: str, make_folder: bool = False) -> None:
    """Writes text as UTF-8, as `open_output` does."""
    write_bytes(path, content.encode(), make_folder)


def write_json(path: str | os.PathLike[str], content: Any, sort_keys: bool = False) -> None:
    """Writes indented JSON, as `open_output` does."""
    write_text(path, json.dumps(content, indent=2, sort_keys=sort_keys) + "\n")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Says beforehand what would keep `open_output` from writing.

    Raises:
        OSError: as `open_output`, where it can be known without writing.
    """
    if not is_standard_output(path):
        with _errors_name(path):
            place = _place(path)
            if _is_replaceable(place):
                _check_replaceable(place)


def is_standard_output(path: str | os.PathLike[str]) -> bool:
    """Whether the path is `-` or leads to this process's standard output, as `/dev/stdout` does."""
    if os.fspath(path) == STANDARD_OUTPUT:
        return True
    return str(_place(path)) in (f"/proc/{os.getpid()}/fd/1", "/dev/fd/1", "/dev/stdout")


def _place(path: str | os.PathLike[str]) -> Path:
    """Where the symbolic links of a path lead; those under `/proc` are open files and no places, and are not followed."""
    place = os.path.abspath(path)
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(place)
        place = os.path.join(os.path.realpath(folder), name)
        if place.startswith("/proc/") or not os.path.islink(place):
            return Path(place)
        place = os.path.join(os.path.dirname(place), os.readlink(place))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))


def _is_replaceable(place: Path) -> bool:
    """Whether there is a regular file, or nothing yet."""
    if str(place).startswith(("/proc/", "/dev/fd/")):
        return False
    return not place.exists() or place.is_file()


def _check_replaceable(place: Path) -> None:
    if not place.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"folder {place.parent} does not exist", str(place))
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"folder {place.parent} is not writable", str(place))
    # root may write to read-only files; whoever made one so did not want it replaced
    if place.exists() and not (place.stat().st_mode & 0o222 and os.access(place, os.W_OK)):
        raise PermissionError(errno.EACCES, "the file is read-only", str(place))


@contextlib.contextmanager
def _replaced(place: Path, make_folder: bool, name: str | None) -> Iterator[IO[bytes]]:
    """A file beside `place` that takes its name at the end, and vanishes when something fails."""
    if make_folder:
        place.parent.mkdir(parents=True, exist_ok=True)
    _check_replaceable(place)
    draft = place.parent / (name or f".{secrets.token_hex(8)}.part")
    how = os.O_TRUNC if name else os.O_EXCL
    # not `tempfile`, whose files are for their owner alone: here the umask decides
    handle = os.open(draft, os.O_RDWR | os.O_CREAT | how | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        if place.exists():
            shutil.copymode(place, draft)
        os.replace(draft, place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _in_place(place: Path) -> Iterator[IO[bytes]]:
    """A temporary file that is copied into a pipe, a device or an open file at the end."""
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        yield file  # type: ignore[misc]
        file.seek(0)
        with open(os.open(place, os.O_WRONLY | getattr(os, "O_BINARY", 0)), "wb", buffering=0) as target:
            shutil.copyfileobj(file, target)


@contextlib.contextmanager
def _standard_output() -> Iterator[IO[bytes]]:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed", STANDARD_OUTPUT)
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        yield file  # type: ignore[misc]
        file.seek(0)
        sys.stdout.flush()
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def _errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lets errors of the system name the file that was asked for: those of a write name none, those of a draft another."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        name = "standard output" if os.fspath(path) == STANDARD_OUTPUT else os.fspath(path)
        raise OSError(error.errno, error.strerror, name) from error
