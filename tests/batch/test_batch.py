"""`bark-tts batch` in one process: what is made, that it is what the library makes alone, and that nothing is made twice."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from transformers_bark import BarkModel, BarkProcessor
from transformers_bark.batch import Settings, Summary, run
from transformers_bark.batch import worker as workers
from transformers_bark.batch.plan import Bucket
from transformers_bark.batch.progress import Progress
from transformers_bark.batch.rows import file_stem
from transformers_bark.batch.worker import ATTEMPTS, DEATHS, PARTS, Worker, is_out_of_memory
from transformers_bark.cli import main
from transformers_bark.narration import Narrator

VOICE = "v2/en_speaker_0"
TEXTS = {
    "one": "hello my dog",
    "two": "the quick cat is cooler than you",
    "three": "hello",
    "long": "hello my dog is cooler than you. " * 3,
    "a/b": "my cat",
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = [{"id": name, "text": text, "voice": VOICE if name != "one" else None} for name, text in TEXTS.items()]
    lines += [{"id": "bad", "text": "hello", "voice": "/etc/passwd"}, {"id": "unknown", "text": "zzz"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def settings(checkpoint: Path, tmp_path: Path) -> Settings:
    return Settings(str(tmp_path / "out"), str(checkpoint), engine="torch", batch_size=3, tries=0)


def entries(settings: Settings) -> dict[str, dict[str, Any]]:
    lines = (Path(settings.out) / "manifest.jsonl").read_text().splitlines()
    return {entry["id"]: entry for entry in map(json.loads, lines)}


def go(manifest: Path, settings: Settings, **more: Any) -> Summary:
    return run(str(manifest), settings, progress=False, **more)


def files(folder: str) -> dict[str, int]:
    found = [path for path in Path(folder).rglob("*") if path.is_file() and path.suffix in (".flac", ".parquet")]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def test_a_row_is_what_the_narrator_says_alone(manifest: Path, settings: Settings, checkpoint: Path) -> None:
    settings = replace(settings, tries=1)
    summary = go(manifest, settings)
    assert (summary.rows, summary.made, len(summary.failures)) == (7, 5, 2)
    narrator = Narrator(BarkModel.from_pretrained(checkpoint).eval(), BarkProcessor.from_pretrained(checkpoint))
    for name, entry in entries(settings).items():
        if name not in TEXTS:
            continue
        alone = narrator(TEXTS[name], entry["voice"], seed=entry["seed"], tries=1, progress=False)
        wanted = np.rint(alone.audio() * 32768).clip(-32768, 32767).astype(np.int16)
        path = Path(settings.out) / entry["file"]
        got, rate = soundfile.read(path, dtype="int16")
        assert np.array_equal(got, wanted), name
        assert entry["samples"] == len(wanted) and entry["seconds"] == pytest.approx(len(wanted) / rate, abs=1e-3)
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entry["samples_sha256"] == hashlib.sha256(wanted.tobytes()).hexdigest()
    assert (Path(settings.out) / "audio" / f"{file_stem('one')}.flac").is_file()
    assert not list(Path(settings.out).rglob("*.part")) and not (Path(settings.out) / workers.WORK).exists()


def test_what_cannot_be_made_says_why(manifest: Path, settings: Settings) -> None:
    failures = {entry["id"]: entry["error"] for entry in go(manifest, settings).failures}
    assert failures["bad"] == f"there is no voice '/etc/passwd'; the checkpoint has {VOICE}"
    assert failures["unknown"] == "the model knows no word of the text"
    assert "error" not in entries(settings)["one"]


def test_a_mark_in_a_text_opens_no_file(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "m", "text": "[voice:/etc/passwd.npz] hello my dog"}))
    (failure,) = go(tmp_path / "rows.jsonl", settings).failures
    assert "passwd" in failure["error"]


def test_a_second_run_makes_nothing(manifest: Path, settings: Settings) -> None:
    go(manifest, settings)
    before, said = files(settings.out), entries(settings)
    summary = go(manifest, settings)
    assert summary.made == 0 and files(settings.out) == before and entries(settings) == said


def test_only_what_has_changed_is_made_anew(manifest: Path, settings: Settings) -> None:
    go(manifest, settings)
    before, old = files(settings.out), entries(settings)
    lines = manifest.read_text().replace('"hello my dog"', '"hello my cat"').splitlines()
    manifest.write_text("\n".join([*lines, json.dumps({"id": "new", "text": "a b c"})]))
    (Path(settings.out) / old["three"]["file"]).write_bytes(b"cut short")
    assert go(manifest, settings).made == 3
    after = files(settings.out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {old["one"]["file"], old["three"]["file"]} and len(after) == len(before) + 1
    assert entries(settings)["three"]["sha256"] == old["three"]["sha256"]
    assert entries(settings)["one"]["sha256"] != old["one"]["sha256"]
    assert go(manifest, replace(settings, options={"temperature": 0.5})).made == 6


@pytest.mark.parametrize("size", [1, 16])
def test_the_batch_size_changes_no_audio(size: int, manifest: Path, settings: Settings, tmp_path: Path) -> None:
    go(manifest, settings)
    other = replace(settings, out=str(tmp_path / "other"), batch_size=size)
    go(manifest, other)
    hashes = [{name: entry.get("sha256") for name, entry in entries(one).items()} for one in (settings, other)]
    assert hashes[0] == hashes[1]


class StopError(Exception):
    """The driver dies here."""


def stopping(after: int) -> Callable[..., Iterator[Any]]:
    def make(settings: Settings, buckets: Any) -> Iterator[Any]:
        worker = Worker(settings)
        for number, bucket in enumerate(buckets):
            if number == after:
                raise StopError
            yield bucket, worker.make(bucket)

    return make


@pytest.mark.parametrize("format", ["flac", "parquet"])
def test_a_driver_that_dies_loses_nothing(format: str, manifest: Path, settings: Settings) -> None:
    settings = replace(settings, format=format)
    with pytest.raises(StopError):
        run(str(manifest), settings, stopping(1), progress=False)
    before = files(settings.out)
    assert before
    summary = go(manifest, settings)
    assert 0 < summary.made < 5
    if format == "flac":
        assert {name: files(settings.out)[name] for name in before} == before
    assert {name for name, entry in entries(settings).items() if "error" not in entry} == set(TEXTS)


def test_a_bucket_that_was_written_is_not_made_again(manifest: Path, settings: Settings) -> None:
    """A worker that was killed after its work and before its answer."""
    seen: list[Bucket] = []

    def make(told: Settings, buckets: Any) -> Iterator[Any]:
        worker = Worker(told)
        for bucket in buckets:
            seen.append(bucket)
            first = worker.make(bucket)
            worker._speak = None  # type: ignore[assignment, method-assign]
            assert worker.make(bucket) == first
            del worker._speak
            yield bucket, first

    run(str(manifest), settings, make, progress=False)
    assert len(seen) > 1


def test_rows_that_end_their_worker_are_found_alone(manifest: Path, settings: Settings, checkpoint: Path) -> None:
    """A row whose text kills the process: the others of its bucket are made, and it fails when it has done so often enough."""

    class DeathError(BaseException):
        """As a SIGKILL: nothing catches it."""

    deaths = 0

    class Fragile(Worker):
        def _speak_together(self, rows: Any) -> Any:
            if any(row.id == "two" for row in rows):
                raise DeathError
            return super()._speak_together(rows)

    def make(told: Settings, buckets: Any) -> Iterator[Any]:
        nonlocal deaths
        model, processor = BarkModel.from_pretrained(checkpoint).eval(), BarkProcessor.from_pretrained(checkpoint)
        for bucket in buckets:
            while True:
                try:
                    made = Fragile(told, model, processor).make(bucket)
                except DeathError:
                    deaths += 1
                    continue
                yield bucket, made
                break

    summary = run(str(manifest), settings, make, progress=False)
    assert deaths == 2 * DEATHS
    failures = {entry["id"]: entry["error"] for entry in summary.failures}
    assert failures["two"] == f"it ended its worker {DEATHS} times (out of memory, or a crash)"
    assert summary.made == 4
    assert go(manifest, settings).made == 1  # a next run tries it again
    assert "error" not in entries(settings)["two"]


def test_memory_that_runs_out_halves_the_batch(
    manifest: Path, settings: Settings, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(manifest, settings)
    together = Worker._speak_together

    def short(self: Worker, rows: Any) -> Any:
        if len(rows) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return together(self, rows)

    monkeypatch.setattr(Worker, "_speak_together", short)
    other = replace(settings, out=str(tmp_path / "other"))
    go(manifest, other)
    assert {k: e.get("sha256") for k, e in entries(other).items()} == {
        k: e.get("sha256") for k, e in entries(settings).items()
    }
    monkeypatch.setattr(Worker, "_speak_together", lambda self, rows: np.zeros(2**50))
    failed = go(manifest, replace(settings, out=str(tmp_path / "none"))).failures
    assert len(failed) == 7 and all("out of memory" in entry["error"] for entry in failed)
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("a bad value"))


def test_an_error_of_one_row_stops_no_other(
    manifest: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Worker._speak_together

    def fragile(self: Worker, rows: Any) -> Any:
        if any(row.id == "three" for row in rows):
            raise IndexError("token out of range")
        return together(self, rows)

    monkeypatch.setattr(Worker, "_speak_together", fragile)
    failures = {entry["id"]: entry["error"] for entry in go(manifest, settings).failures}
    assert failures["three"] == "IndexError: token out of range" and len(failures) == 3


def test_a_full_disk_ends_the_run(manifest: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no row's fault: what is there stays, and the next run goes on."""
    write = workers.Store.write

    def full(self: Any, name: str, data: bytes) -> None:
        if name.endswith(".flac"):
            raise OSError(28, "No space left on device", name)
        write(self, name, data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(workers.Store, "write", full)
        go(manifest, settings)
    assert go(manifest, settings).made == 5


def test_two_runs_do_not_work_in_one_folder(manifest: Path, settings: Settings) -> None:
    def make(told: Settings, buckets: Any) -> Iterator[Any]:
        with pytest.raises(ValueError, match="another run works in"):
            go(manifest, settings)
        worker = Worker(told)
        yield from ((bucket, worker.make(bucket)) for bucket in buckets)

    run(str(manifest), settings, make, progress=False)


def test_parquet_and_its_card_are_a_data_set(manifest: Path, settings: Settings, tmp_path: Path) -> None:
    go(manifest, settings)
    parquet = replace(settings, out=str(tmp_path / "shards"), format="parquet", shard_bytes=1)
    go(manifest, parquet, card=True)
    assert len(list((tmp_path / "shards/data").glob("train-*.parquet"))) == 2  # a bucket each
    data = datasets.load_dataset(parquet.out, split="train", cache_dir=str(tmp_path / "cache"))
    assert data.features["audio"] == datasets.Audio(sampling_rate=24_000)
    found = {row["id"]: row for row in data.cast_column("audio", datasets.Audio(decode=False))}
    wanted = {name: entry for name, entry in entries(settings).items() if "error" not in entry}
    assert set(found) == set(wanted)
    for name, row in found.items():
        assert row["sha256"] == wanted[name]["sha256"] == hashlib.sha256(row["audio"]["bytes"]).hexdigest()
        assert soundfile.info(io.BytesIO(row["audio"]["bytes"])).frames == wanted[name]["samples"]
        assert row["text"] == TEXTS[name] and row["seed"] == wanted[name]["seed"]
    card = (tmp_path / "shards/README.md").read_text()
    assert "All of it is synthetic" in card and "5 recordings" in card and str(tmp_path) not in card
    manifest.write_text(manifest.read_text() + "\n" + json.dumps({"id": "new", "text": "a b c"}))
    before = files(parquet.out)
    assert go(manifest, parquet).made == 1
    assert {name: when for name, when in files(parquet.out).items() if name in before} == before
    assert len(datasets.load_dataset(parquet.out, split="train", cache_dir=str(tmp_path / "again"))) == 6
    manifest.write_text(json.dumps({"id": "new", "text": "the cat"}))
    with pytest.raises(ValueError, match="holds row 'new' with another text"):
        go(manifest, parquet)


def test_a_folder_of_files_with_a_card_is_a_data_set(manifest: Path, settings: Settings) -> None:
    """`datasets` reads it as an `audiofolder`, for whose files it needs torchcodec: here what it would read is looked at."""
    go(manifest, settings, card=True)
    builder = datasets.load_dataset_builder(settings.out)
    assert "AudioFolder" in [kind.__name__ for kind in type(builder).__mro__]
    found = {Path(name).name for name in builder.config.data_files["train"]}
    assert found == {"metadata.jsonl", *(Path(name).name for name in files(settings.out))} and len(found) == 6
    folder = Path(settings.out) / "audio"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert {row["id"]: row["text"] for row in rows} == TEXTS
    for row in rows:
        assert row["sha256"] == hashlib.sha256((folder / row["file_name"]).read_bytes()).hexdigest()


@pytest.mark.parametrize("kill", ["merge", "manifest"])
def test_a_kill_while_shards_are_written_loses_nothing(
    kill: str, manifest: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = replace(settings, format="parquet", shard_bytes=1)
    upload, write = workers.Store.upload, workers.Store.write

    def dying_upload(self: Any, local: Path, name: str) -> None:
        upload(self, local, name)
        if kill == "merge":
            raise StopError

    def dying_write(self: Any, name: str, data: bytes) -> None:
        if kill == "manifest" and name == "manifest.jsonl":
            raise StopError
        write(self, name, data)

    with monkeypatch.context() as patch, pytest.raises(StopError):
        patch.setattr(workers.Store, "upload", dying_upload)
        patch.setattr(workers.Store, "write", dying_write)
        go(manifest, parquet)
    assert go(manifest, parquet).made == 0
    data = datasets.load_dataset("parquet", data_files=f"{parquet.out}/data/*.parquet", cache_dir=str(tmp_path / "c"))
    assert sorted(data["train"].remove_columns("audio")["id"]) == sorted(TEXTS)


def test_an_address_as_output(manifest: Path, settings: Settings) -> None:
    import fsspec

    memory = replace(settings, out="memory://corpus/speech")
    go(manifest, settings)
    assert go(manifest, memory, card=True).made == 5
    assert go(manifest, memory).made == 0
    fs = fsspec.filesystem("memory")
    for entry in entries(settings).values():
        if "error" not in entry:
            assert fs.cat_file(f"/corpus/speech/{entry['file']}") == (Path(settings.out) / entry["file"]).read_bytes()
    names = [name.rpartition("/")[2] for name in fs.find("/corpus/speech")]
    assert "manifest.jsonl" in names and not any(name.endswith(".part") for name in names)
    assert not fs.exists(f"/corpus/speech/{PARTS}") and not fs.exists(f"/corpus/speech/{ATTEMPTS}")


def test_progress_tells_rows_hours_rate_rest_and_failures() -> None:
    now = [0.0]
    said = io.StringIO()
    shown = Progress(10, 100.0, 5, True, said, lambda: now[0])
    now[0] = 36.0
    shown.add([{"seconds": 1800.0}, {"error": "no"}], 25.0)
    assert said.getvalue() == "7/15 rows, 0.50 h of audio, 50.0 h an hour, 0:01:48 left, 1 failed\n"


def test_the_command(manifest: Path, settings: Settings, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["batch", str(manifest), "--out", settings.out, "--model", str(checkpoint), "--engine", "torch"]
    assert main([*command, "--tries", "0", "--card"]) == 3
    told = capsys.readouterr()
    assert "row 6, 'bad': there is no voice" in told.err and "5 of 7 rows" in told.out and "5 made in" in told.out
    manifest.write_text(json.dumps({"id": "one", "text": "hello my dog"}))
    assert main([*command, "--tries", "0"]) == 0
    assert "1 of 1 rows" in (said := capsys.readouterr().out) and "0 made in" in said
    with pytest.raises(SystemExit):
        main([*command, "--workers", "2"])
    assert "--workers is of workers under Ray" in capsys.readouterr().err
    assert main([*command, "--format", "doc"]) == 1
    assert "`format` is 'doc'; expected one of wav, flac" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sigkill_of_the_process(manifest: Path, settings: Settings, checkpoint: Path) -> None:
    """As the system ends it for its memory, at any moment: here after the first part."""
    lines = [{"id": f"r{n}", "text": "hello my dog is cooler than you"} for n in range(16)]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    command = [sys.executable, "-m", "transformers_bark", "batch", str(manifest), "--out", settings.out]
    command += ["--model", str(checkpoint), "--engine", "torch", "--batch-size", "2", "--tries", "0", "--quiet"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    parts = Path(settings.out) / PARTS
    while process.poll() is None and not (parts.is_dir() and any(parts.glob("*.jsonl"))):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = [json.loads(line)["file"] for part in parts.glob("*.jsonl") for line in part.read_text().splitlines()]
    kept = {name: when for name, when in files(settings.out).items() if name in done}
    assert 0 < len(kept) < 16
    assert subprocess.run(command, check=False).returncode == 0
    assert {name: files(settings.out)[name] for name in kept} == kept
    assert len(entries(settings)) == len(files(settings.out)) == 16
