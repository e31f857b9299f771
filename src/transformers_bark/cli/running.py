"""What commands share while they run: errors in one line, printing, the time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

INTERRUPTED = 130
"""Exit status of a command that was interrupted: 128 and the number of the signal."""

_LONGEST_START = 10.0
"""Seconds between a process's start and `main`; more are those of a shell whose process became this one (`exec bark-tts`)."""


class Clock:
    """Seconds that a command has taken.

    Args:
        of_process: count from the process's start, as a shell's `time` does, and not from now. Where the system does not tell that
            (outside Linux), from now.
    """

    def __init__(self, of_process: bool) -> None:
        before = _process_age() if of_process else 0.0
        self._start = time.perf_counter() - (before if 0 <= before <= _LONGEST_START else 0.0)

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._start


def _process_age() -> float:
    """Seconds since this process was started; 0 where that is not known."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # the name before it may hold anything
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an interrupt from the keyboard is behind an error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def quiet_interrupts() -> Iterator[None]:
    """While modules are imported, Ctrl-C ends the process at once: an exception might be caught there, or turned into another.

    Nothing is written then that could be left unfinished. A program that handles interrupts itself, and any thread but the
    main one, is left alone.
    """
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def guarded(action: Callable[..., None], *arguments: Any) -> int:
    """Runs `action`; the errors that users can cause become a message on standard error."""
    try:
        action(*arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if was_interrupted(error):
            return INTERRUPTED
        # safetensors' error has no other parent
        known = (ValueError, TypeError, OSError, RuntimeError, ImportError)
        if not isinstance(error, known) and type(error).__name__ != "SafetensorError":
            raise
        complain(message(error))
        return 1
    return 0


def message(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def complain(line: str) -> None:
    """Prints a line to standard error."""
    print(f"bark-tts: {line}", file=sys.stderr)


def say_line(line: str, file: Any = None) -> None:
    """Prints a line to standard output, or to `file`.

    Raises:
        OSError: nobody reads it.
    """
    file = file or sys.stdout
    try:
        print(line, file=file, flush=True)
    except OSError as error:
        # what is left in the buffer would fail once more when the interpreter ends
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), file.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error
