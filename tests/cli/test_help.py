"""What a command does before it works: help is quick and needs nothing that is slow to load, and threads are told how to wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from transformers_bark.cli import SPINS, main

SLOW = ("torch", "transformers", "gradio", "fastapi", "ray", "datasets")


@pytest.mark.parametrize("command", ["", "detect", "narrate", "batch", "serve", "studio"])
def test_help_needs_no_large_library(command: str) -> None:
    program = (
        "import sys; from transformers_bark.cli import main\n"
        f"try: main({[*command.split(), '--help']!r})\n"
        f"finally: print([name for name in {SLOW} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("own", "arguments", "expected"),
    [
        ({}, None, SPINS),
        ({"GOMP_SPINCOUNT": "7"}, None, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None, None),
        ({}, ["voices", "--help"], None),  # called by a program: the process is not ours
    ],
)
def test_threads_do_not_wait_long_for_one_that_has_no_core(
    own: dict[str, str], arguments: list[str] | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bark-tts", "voices", "--help"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    monkeypatch.setattr(os, "environ", environment | own)
    with pytest.raises(SystemExit):
        main(arguments)
    assert os.environ.get("GOMP_SPINCOUNT") == expected
