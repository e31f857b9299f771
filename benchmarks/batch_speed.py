"""What `bark-tts batch` makes a core, alone and under Ray, and what Ray itself takes.

    python benchmarks/batch_speed.py [--rows 64] [--runs runs/speed]

Sentences of the embedded checkpoint's corpus. Beside the time that passed it counts the processor's seconds of every process below the
command, since those do not grow where other work shares the cores: the workers' (their start, with the model, apart), and all others'.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import random
import shutil
import sys
import time
from pathlib import Path

import psutil
from batch_faults import start, wait

CORPUS = Path(__file__).parents[1] / "recipes/nano/corpus.txt.gz"


def write_manifest(path: Path, rows: int) -> None:
    with gzip.open(CORPUS, "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file if 20 <= len(line) <= 110]
    chosen = random.Random(5).sample(lines, rows)
    rows_of = (json.dumps({"id": f"r{n:04d}", "text": text, "voice": "en_heart"}) for n, text in enumerate(chosen))
    path.write_text("\n".join(rows_of) + "\n", encoding="utf-8")


def processes(above: int) -> dict[int, tuple[str, float]]:
    """Names and processor seconds of a process and all below it."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        whole = psutil.Process(above)
        for one in [whole, *whole.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                found[one.pid] = (" ".join(one.cmdline()[:1]), times.user + times.system)
    return found


def measure(name: str, manifest: Path, out: Path, *more: str) -> dict[str, object]:
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    process = start(manifest, out, *more)
    last: dict[int, tuple[str, float]] = {}
    loaded: dict[int, float] = {}
    first = 0.0
    while process.poll() is None:
        last |= processes(process.pid)
        attempts = out / ".bark-batch" / "attempts"
        if not first and attempts.is_dir() and any(attempts.iterdir()):  # a first bucket is begun: the model is there
            first = time.monotonic() - began
            loaded = {pid: seconds for pid, (_, seconds) in last.items()}
        time.sleep(0.2)
    said = wait(process)
    if process.returncode:
        raise RuntimeError(said)
    passed = time.monotonic() - began
    entries = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    audio = sum(entry["seconds"] for entry in entries)
    in_ray = bool(more)
    work = {pid: seconds for pid, (label, seconds) in last.items() if "MapWorker" in label or not in_ray}
    starting = sum(loaded.get(pid, 0.0) for pid in work)
    return {
        "run": name,
        "rows": len(entries),
        "audio": round(audio, 1),
        "passed": round(passed, 1),
        "until_first_bucket": round(first, 1),
        "workers_cpu": round(sum(work.values()), 1),
        "of_it_start": round(starting, 1),
        "others_cpu": round(sum(seconds for pid, (_, seconds) in last.items() if pid not in work), 1),
        "audio_per_cpu_second": round(audio / (sum(work.values()) - starting), 2),
        "audio_per_second_after_start": round(audio / (passed - first), 2),
        "bytes_per_audio_second": round(sum(entry["bytes"] for entry in entries) / audio),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--runs", type=Path, default=Path("runs/speed"))
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    manifest = options.runs / "rows.jsonl"
    write_manifest(manifest, options.rows)
    layouts = {"no Ray, one core": (), "Ray, 1 worker": ("--workers", "1"), "Ray, 2 workers": ("--workers", "2")}
    for name, more in layouts.items():
        arguments = ("--ray", "local", *more) if more else ()
        print(json.dumps(measure(name, manifest, options.runs / name.replace(" ", "-"), *arguments)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
