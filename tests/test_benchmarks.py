"""The benchmarks run and count equal work; what they time is no test's business."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from transformers_bark import BARK_NANO

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]
    def command(name: str, *arguments: str) -> str:
        script = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
        return subprocess.run(script, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    return command


def test_compare_sets_every_row_beside_stock(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    printed = run(
        "compare.py",
        *["--size", "nano", "--lengths", "0.5", "--batches", "1,2", "--only", "stock,int8 cache", "--threads", "1"],
    )
    kept = json.loads((tmp_path / "runs/benchmarks/nano.json").read_text())
    names = [(line["name"], line["batch"]) for line in kept["lines"]]
    assert names == [
        ("stock Transformers, fp32", 1),
        ("ours, onnxruntime int8, int8 cache", 1),
        ("ours, onnxruntime int8, int8 cache", 2),
        ("ours, onnxruntime int4, int8 cache", 1),
        ("ours, onnxruntime int4, int8 cache", 2),
    ]
    assert len({json.dumps(line["tokens"]) for line in kept["lines"]}) == 1
    assert all(min(line["times"].values()) > 0 and 100 < line["peak_mb"] < 5000 for line in kept["lines"])
    assert len(re.findall(r"\d x \|", printed)) == 5 and "memory bandwidth, measured" in printed
    assert (tmp_path / "runs/benchmarks/nano.png").stat().st_size > 5000


@pytest.mark.parametrize("implementation", ["stock", "ours"])
def test_a_worker_runs_in_bf16(run, implementation: str) -> None:  # type: ignore[no-untyped-def]
    """What is compared on a GPU, here on the CPU."""
    job = {"implementation": implementation, "engine": "torch", "precision": "bf16", "device": "cpu", "threads": 1}
    result = json.loads(run("worker.py", json.dumps({**job, "folder": BARK_NANO, "cases": [[1, 0.5]]})))
    assert result["results"][0]["tokens"]["fine"] == 20 and min(result["results"][0]["times"].values()) > 0


def test_precision_compares_next_tokens(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "one.txt").write_text("Good morning.\n", encoding="utf-8")
    rows = [line.split(" | ") for line in run("precision.py", "--sentences", "one.txt").splitlines() if "%" in line]
    assert [row[0].strip("| ") for row in rows] == [
        name for name in ("int8", "int8, int8 cache", "int4", "int4, int8 cache") for _ in range(3)
    ]
    assert all(0.5 < float(row[2].rstrip("%")) / 100 <= 1 and 0 <= float(row[3].strip(" |")) < 1 for row in rows)
    assert min(float(row[2].rstrip("%")) for row in rows[:3]) > 85  # int8 says nearly what fp32 says
