"""The benchmarks run and count equal work; what they time is no test's business."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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
    assert result["results"][0]["tokens"] == {"semantic": 20, "coarse": 60, "fine": 20, "codec": 20}
    assert min(result["results"][0]["times"].values()) > 0


def test_precision_compares_next_tokens(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "one.txt").write_text("Good morning.\n", encoding="utf-8")
    rows = [line.split(" | ") for line in run("precision.py", "--sentences", "one.txt").splitlines() if "%" in line]
    assert [row[0].strip("| ") for row in rows] == [
        name for name in ("int8", "int8, int8 cache", "int4", "int4, int8 cache") for _ in range(3)
    ]
    assert all(0.5 < float(row[2].rstrip("%")) / 100 <= 1 and 0 <= float(row[3].strip(" |")) < 1 for row in rows)
    assert min(float(row[2].rstrip("%")) for row in rows[:3]) > 85  # int8 says nearly what fp32 says


@pytest.mark.slow
def test_load_serves_measures_and_compares(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    options = ["--callers", "1,3", "--aborts", "4", "--soak", "0.3", "--sample", "8", "--engine", "torch"]
    printed = run("load.py", *options)
    kept = json.loads((tmp_path / "runs/load/results.json").read_text())
    assert [line["callers"] for line in kept["crowds"]] == [1, 3]
    assert all(line["errors"] == 0 and 0 < line["first_median"] <= line["first_p95"] for line in kept["crowds"])
    assert kept["exit_status"] == 0 and "exit status 0" in printed
    soak, sample = kept["soak"], kept["sample"]
    assert not [name for name in soak["statuses"] if name.split()[-1].startswith("5")]
    assert soak["slots_left"] == 0 and soak["open_after"]["threads"] <= soak["open_before"]["threads"] + 4
    assert 0 < sample["compared"] == sample["equal"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of `make gpu`."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def gpu_run(gpu: ModuleType, folder: Path, *arguments: str) -> tuple[Any, list[Any]]:
    """An empty run on the CPU and its parts."""
    small = ["--device", "cpu", "--sizes", "nano", "--rows", "1,2", "--seconds", "0.4", "--threads", "1"]
    options = gpu.build_parser().parse_args([*small, "--output", str(folder), *arguments])
    folders = {"nano": BARK_NANO}
    return gpu.Run(options, folders), gpu.plan(options, folders)


def test_gpu_measures_everything_into_one_folder(gpu: ModuleType, tmp_path: Path) -> None:
    tasks, checks = importlib.import_module("gpu_tasks"), importlib.import_module("tests.gpu.run")
    few = {name: checks.CHECKS[name] for name in ("draws_are_the_rows_own", "logits_are_those_of_the_cpu[torch-fp32]")}

    def launch(command: list[str], seconds: float, take: Any) -> str:
        """In this process: what is tested is not how long Python takes to start."""
        if "tests.gpu.run" in command:
            checks.run(few, "cpu", lambda result: gpu.take_line(json.dumps(result), take, None))
        else:
            job = json.loads(command[-1])
            tasks.TASKS[job["task"]](job, lambda result: gpu.take_line(json.dumps(result), take, None))
        return "done"

    run, parts = gpu_run(gpu, tmp_path)
    gpu.carry_out(run, parts, launch, 1e6, lambda: 0.0)
    assert {part["status"] for part in run.data["parts"]} == {"done"} and len(parts) == 10
    kept = json.loads((tmp_path / "results.json").read_text())
    kinds = [result["kind"] for result in kept["results"]]
    assert set(kinds) == {*("environment", "ceilings", "check", "speed", "stream", "parity", "logits", "step")}
    assert kinds.count("speed") == 5 * 2  # implementations and numbers of rows
    equal = [result for result in kept["results"] if result["kind"] == "parity" and result["precision"] == "fp32"]
    assert [result["stage"] for result in equal] == ["semantic", "fine"]  # stock has no third coarse codebook
    assert all(0 < result["equal"] == result["tokens"] for result in equal)
    report = (tmp_path / "report.md").read_text()
    assert "a trial on a CPU" in report and "2 of 2 that ran hold" in report
    assert re.search(
        r"nano: one sentence against stock, bf16 \| at least 8 x \| 20 x \| [\d.]+ x \| (not )?met", report
    )
    assert re.search(r"audio seconds a second, 64 rows .*not measured", report)
    assert len(re.findall(r"^\| (?:ours|stock).* \| [12] \| 0.4 s .* x \|$", report, re.M)) == 10
    assert len(list(tmp_path.iterdir())) <= 8 and (tmp_path / "speed.png").stat().st_size > 5000


def test_gpu_leaves_out_what_its_budget_does_not_hold(gpu: ModuleType, tmp_path: Path) -> None:
    now, launched = [0.0], []

    def launch(command: list[str], seconds: float, take: Any) -> str:
        launched.append(seconds)
        now[0] += 70.0
        return "done"

    run, parts = gpu_run(gpu, tmp_path)
    gpu.carry_out(run, parts, launch, 200.0, lambda: now[0])
    ended = {part["name"]: part["status"] for part in run.data["parts"]}
    assert len(ended) == len(parts) and launched == [200.0, 130.0, 60.0]
    assert ended["environment"] == ended["checks"] == "done"
    assert ended["parity nano"] == "left out: it takes about 45 s, and 0 s are left"
    assert (tmp_path / "report.md").read_text().count("left out: it takes about") == len(parts) - 3


def test_gpu_keeps_what_a_process_gave_before_it_was_stopped(gpu: ModuleType, tmp_path: Path) -> None:
    run, _ = gpu_run(gpu, tmp_path)
    launch = gpu.start_process(tmp_path / "log.txt", {})
    gives = "import time; print('{\"kind\": \"speed\"}', flush=True); print('a word', flush=True); "
    taken: list[Any] = []
    endings = {"time.sleep(60)": "stopped: ", "raise SystemExit(3)": "failed with code 3", "pass": "done"}
    for code, ending in endings.items():
        limit = 4.0 if "sleep" in code else 50.0
        assert launch([sys.executable, "-c", gives + code], limit, taken.append).startswith(ending)
    assert taken == [{"kind": "speed"}] * 3
    assert (tmp_path / "log.txt").read_text().count("a word\n") == 3
    run.take({"kind": "check", "check": "one", "passed": True})
    assert json.loads((tmp_path / "results.json").read_text())["results"][0]["check"] == "one"


def test_gpu_is_one_command_that_installs_nothing(tmp_path: Path) -> None:
    """Where there is no time for any part, it still says so."""
    settings = f"--device cpu --sizes nano --minutes 0.1 --output {tmp_path}"
    command = ["make", "gpu", f"PYTHON={sys.executable}", f"GPU={settings}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip" not in done.stdout + done.stderr and "left out" in done.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.md", "results.json"]
