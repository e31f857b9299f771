"""The command `bark-tts`: one module a command.

A command is a module here with `build_parser()` and `run(arguments, clock)`, and a line in `COMMANDS`. Nothing that is imported before
a command works imports torch or Transformers, so help, versions and bad usage answer at once.

The parser is argparse's with a parser a command. typer, which the Hub's own command line uses, was weighed and left out: what
comes first here may be a text as well as a command, which click's groups do not know; the original library's options
(`--silent [BOOL]`, `--text_temp`) are argparse's; and its import takes 0.07 s of the 0.1 s that `--help` takes without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .running import INTERRUPTED, Clock, was_interrupted

COMMANDS = {
    "say": "speak a text or a file (what `bark-tts` does unless another command is named)",
    "voices": "list the voices of a checkpoint, or hear one",
    "batch": "speak the rows of a manifest, on this machine or on many with Ray",
    "detect": "tell whether Bark made a recording",
    "studio": "open a page to speak texts, compare and keep what was made",
    "serve": "put a model behind OpenAI's interface, for many callers at once",
    "export": "build the graphs that --engine onnxruntime loads",
}
"""Commands, each a module of this package, and what they do."""

SPINS = "30000"
"""How often PyTorch's threads under Linux (GNU's OpenMP) look for each other before they sleep: for about a millisecond.

Its own 300 000 are some ten milliseconds, which operators of microseconds wait where another program has one of the cores.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: by default those of the process.

    Returns:
        0 when it worked, 1 when it failed, 130 when it was interrupted.

    Raises:
        SystemExit: with 2 for bad usage, with 0 for help.
    """
    clock = Clock(of_process=arguments is None)
    if arguments is None and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS  # read when PyTorch is loaded, which nothing has done yet
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        command = words.pop(0) if words and words[0] in COMMANDS else None
        module = import_module(f".{command or 'say'}", __name__)
        if command is None:
            return module.run(words, clock, named=False)
        return module.run(words, clock)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:
        # a module that is interrupted while it is imported may fail with an error of its own
        if was_interrupted(error):
            return INTERRUPTED
        raise


__all__ = ["COMMANDS", "main"]
