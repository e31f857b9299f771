"""Help is quick: it needs nothing that is slow to load."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
