"""Ctrl-C while the command is still being imported, which takes seconds: it ends at once, without a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

_COMMAND = "bark-tts"
_INTERRUPTED = 130
"""Exit status of a command that was interrupted: 128 and the number of the signal."""


def leave_quietly_while_importing() -> None:
    """Until `as_usual` is called an interrupt ends the process, if this is the command and nobody else handles interrupts."""
    handled = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    if _is_command() and not handled and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _leave)


def as_usual() -> None:
    """Interrupts raise `KeyboardInterrupt` again."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command() -> bool:
    """Whether the process is `bark-tts` or `python -m transformers_bark`, and no program that imports the package."""
    if sys.argv and sys.argv[0] == "-m":  # what it is until the module is found
        options = sys.orig_argv[1:]
        return "-m" in options and options[options.index("-m") + 1].split(".")[0] == __package__
    return bool(sys.argv) and os.path.basename(sys.argv[0]).removesuffix(".exe") == _COMMAND


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)  # an exception would be caught, or turned into another, by what is being imported


leave_quietly_while_importing()
