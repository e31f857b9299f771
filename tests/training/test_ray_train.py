"""The example of Ray Train: workers share a run, and another number of them goes on with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny_model
from tests.training.distributed import rows
from transformers_bark import BarkModel

ROOT = Path(__file__).parents[2]


@pytest.mark.ray
def test_another_number_of_workers_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    rows().save_to_disk(tmp_path / "encoded")
    tiny_model().save_pretrained(tmp_path / "tiny")

    def train(workers: int, steps: int) -> str:
        command = [sys.executable, str(ROOT / "examples/ray/train.py"), str(tmp_path / "encoded")]
        command += ["--model", str(tmp_path / "tiny"), "--output", str(tmp_path / "runs"), "--save-steps", "2"]
        command += ["--workers", str(workers), "--batch-size", str(4 // workers), "--steps", str(steps)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert "step 2: loss" in train(2, 2)
    assert (tmp_path / "runs/checkpoints/checkpoint-2").is_dir()
    assert "step 4: loss" in train(1, 4)
    BarkModel.from_pretrained(tmp_path / "runs/checkpoints/model")
