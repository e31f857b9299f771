"""Batches under Ray: the same audio as without, also while workers die or run out of memory."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch_faults import workers_of
from transformers_bark.batch import Settings, run
from transformers_bark.batch import worker as workers
from transformers_bark.batch.on_ray import Cluster, RayWorker
from transformers_bark.batch.plan import Bucket
from transformers_bark.batch.rows import Row
from transformers_bark.cli import main

ray = pytest.importorskip("ray")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    texts = ["hello my dog", "the quick cat is cooler than you", "my cat", "hello"]
    lines = [{"id": f"r{n}", "text": texts[n % 4], "seed": n} for n in range(40)]
    lines += [{"id": "bad", "text": "hello", "voice": "nobody"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "rows.jsonl"


@pytest.fixture
def settings(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    return Settings(str(tmp_path / "out"), str(checkpoint), engine="torch", batch_size=4, tries=0)


def hashes(out: str) -> dict[str, str | None]:
    lines = (Path(out) / "manifest.jsonl").read_text().splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == len(lines)
    return {entry["id"]: entry.get("sha256") for entry in map(json.loads, lines)}


@pytest.mark.ray
def test_a_worker_that_is_killed_loses_nothing(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    alone = replace(settings, out=str(tmp_path / "alone"))
    run(str(manifest), alone, progress=False)
    killed: list[int] = []

    def kill() -> None:
        parts = Path(settings.out) / workers.PARTS
        while not (parts.is_dir() and len(list(parts.glob("*.jsonl"))) >= 2):
            time.sleep(0.01)
        killed.append(workers_of(os.getpid())[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    summary = run(str(manifest), settings, Cluster(workers=2), progress=False)
    thread.join()
    assert killed and summary.made == 40 and [entry["id"] for entry in summary.failures] == ["bad"]
    assert hashes(settings.out) == hashes(alone.out)
    assert not ray.is_initialized()


@pytest.mark.ray
def test_the_command_starts_a_cluster_and_ends_it(
    manifest: Path, settings: Settings, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", str(manifest), "--out", settings.out, "--model", str(checkpoint), "--engine", "torch"]
    assert main([*command, "--ray", "local", "--workers", "1", "--format", "parquet"]) == 3
    said = capfd.readouterr()
    assert "40 of 41 rows" in said.out and "there is no voice 'nobody'" in said.err
    assert set(hashes(settings.out)) == {*(f"r{n}" for n in range(40)), "bad"}
    with pytest.raises(SystemExit):
        main([*command, "--ray", "local", "--workers", "0"])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere.invalid:6379"])
def test_where_nobody_listens_there_is_no_cluster(
    address: str, manifest: Path, settings: Settings, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    command = ["batch", str(manifest), "--out", settings.out, "--model", str(checkpoint), "--engine", "torch"]
    assert main([*command, "--ray", address]) == 1
    assert f"there is no Ray cluster at '{address}'" in capfd.readouterr().err


def test_a_worker_without_memory_makes_room_for_another(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a row alone is too much for what is left, the process ends, and its bucket stays marked as begun."""
    ended: list[int] = []

    def leave(status: int) -> None:
        ended.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)
    worker = RayWorker(settings.as_json())

    def full(rows: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(worker._worker, "_speak_together", full)
    bucket = Bucket("b", (Row(1, "a", "hello", None, 1, None), Row(2, "b", "hello", None, 2, None)), ("k", "l"), 1.0)
    for _ in range(workers.DEATHS):
        with pytest.raises(SystemExit):
            worker({"bucket": [bucket.as_json()]})
    assert ended == [137] * workers.DEATHS
    assert len(worker._worker.store.sizes(workers.ATTEMPTS)) == workers.DEATHS


@pytest.mark.parametrize(
    ("values", "said"),
    [({"workers": 0}, "`workers` must be at least 1"), ({"cpus": 0}, "at least 1 core"), ({"gpus": -1.0}, "0 GPUs")],
)
def test_a_cluster_makes_sense(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cluster(**values)


def test_results_come_as_they_are_made(manifest: Path, settings: Settings) -> None:
    """The driver takes each bucket by its name, in whatever order."""
    order: list[str] = []

    def make(told: Settings, buckets: Any) -> Iterator[Any]:
        worker = workers.Worker(told)
        for bucket in reversed(buckets):
            order.append(bucket.name)
            yield bucket, worker.make(bucket)

    assert run(str(manifest), settings, make, progress=False).made == 40
    assert len(set(order)) == len(order)
