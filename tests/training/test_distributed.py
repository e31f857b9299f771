"""Two processes train as one does with twice the batch, and a run goes on with another number of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def train(folder: Path, stage: str, processes: int, batch_size: int, steps: int, save: int = 99) -> dict[str, Any]:
    """Runs the script in so many processes of this machine's CPU, which talk by gloo."""
    script = [str(ROOT / "tests/training/distributed.py"), str(folder), stage, str(batch_size), str(steps), str(save)]
    # the flag is the launcher's name for several processes of one machine; what they compute on is said by `use_cpu`
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, *(launch if processes > 1 else []), *script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / f"{stage}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_two_processes_are_one_with_twice_the_batch(stage: str, tmp_path: Path) -> None:
    one = train(tmp_path / "one", stage, 1, 4, 6)
    two = train(tmp_path / "two", stage, 2, 2, 6)
    assert len(one["losses"]) == 6 and len(set(one["losses"])) == 6
    assert two["losses"] == pytest.approx(one["losses"], abs=2e-4)  # they are logged with four digits
    assert two["total"] == pytest.approx(one["total"], abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(first: int, then: int, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", "coarse", 1, 4, 7)
    train(tmp_path / "split", "coarse", first, 4 // first, 4, save=4)
    assert (tmp_path / "split/coarse/checkpoint-4").is_dir()
    split = train(tmp_path / "split", "coarse", then, 4 // then, 7, save=4)
    assert split["losses"] == pytest.approx(whole["losses"], abs=2e-4)
    assert split["total"] == pytest.approx(whole["total"], abs=1e-2)
