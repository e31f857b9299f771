"""The simulation of docs/scaling.md: what must hold of it, whatever its numbers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "examples/ray/simulate.py"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulate"] = module
    spec.loader.exec_module(module)
    return module


def test_without_losses_it_is_the_division(simulation: ModuleType) -> None:
    """One even worker with a free store takes the audio by its speed, after its start."""
    plain = simulation.Assumed(hours=10, speed=4.0, start=36.0, fetch=0, put=0, ray=1e-9, puts=1e9, slow=0, loss=0)
    plain = replace(plain, network=1e15)
    got = simulation.simulate(plain, 1)
    assert got["hours"] == pytest.approx(2.5 + 0.01, rel=0.03)  # lengths are drawn
    assert got["useful"] == pytest.approx(1 - 0.01 / 2.51, abs=1e-3) and got["lost"] == got["store"] == 0
    ten = simulation.simulate(plain, 10)
    assert got["hours"] / 10 < ten["hours"] < got["hours"] / 10 + 0.02


def test_every_number_bends_it_as_it_should(simulation: ModuleType) -> None:
    base = simulation.Assumed(hours=100)
    usual = simulation.simulate(base, 50)
    for name, worse in {
        "speed": 2.0,
        "start": 600.0,
        "fetch": 1e12,
        "put": 5.0,
        "puts": 2.0,
        "ray": 5.0,
        "slow": 0.9,
        "loss": 30.0,
        "bytes": 1e8,
    }.items():
        assert simulation.simulate(replace(base, **{name: worse}), 50)["hours"] > usual["hours"] * 1.05, name


def test_the_script_takes_its_numbers(simulation: ModuleType) -> None:
    command = [sys.executable, str(PATH), "--hours", "5", "--workers", "1", "4", "--speed", "8"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 4 and said[2].startswith("| 1 |") and said[3].startswith("| 4 |")
