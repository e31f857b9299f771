"""An hour is written as it is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def peak(minutes: float, ending: str, work: str) -> float:
    """Peak memory in MB of a process that speaks so long."""
    command = [sys.executable, "-m", "tests.narration.hour", str(minutes), ending, work]
    root = Path(__file__).parents[2]
    return float(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=root).stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "work"), [(".wav", "none"), (".m4b", "none"), (".wav", "work")])
def test_an_hour_takes_the_memory_of_a_minute(ending: str, work: str) -> None:
    assert peak(60, ending, work) <= peak(1, ending, work) + 150
