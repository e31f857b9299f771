"""`bark-tts batch` under kills: 500 rows on two workers of Ray, whose results are those of a run without Ray.

    python benchmarks/batch_faults.py [--rows 500] [--runs runs/faults] [--seed 0] [--only "SIGKILL 1" driver]

With `--only` some of them, and the reference of an earlier call if it is there.

A worker is killed (SIGKILL) at a random moment, three times over; the driver is killed, and the same command started again; a
worker gets no more memory (its address space is limited to what it has, so that the next larger allocation fails). After each: as
many results as rows, no id twice, every SHA-256 that of the reference, and no file that was finished at the kill written again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

WORDS = "the sea was calm and two old boats went slowly home before night with bread for all of them"
LIMIT = 20 << 20  # bytes of address space that a worker may still take: less than one batch does


def write_manifest(path: Path, rows: int) -> None:
    """Rows of two to five words, some in a voice of the embedded checkpoint."""
    draw, words = random.Random(1), WORDS.split()
    lines = ["id,text,voice"]
    for number in range(rows):
        text = " ".join(draw.choice(words) for _ in range(draw.randint(2, 5))).capitalize()
        voice = {0: "en_heart", 5: "en_bright"}.get(number % 10, "")  # a voice is a long prompt, for so short a text
        lines.append(f"r{number:04d},{text}.,{voice}")
    path.write_text("\n".join(lines) + "\n")


def start(manifest: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "transformers_bark", "batch", str(manifest), "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    # on a machine that does other things too, workers as nice as Ray makes them (15) would wait for those
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate()
    return said


def workers_of(driver: int) -> list[int]:
    """Processes of the pool that hold a model, below the driver."""
    found = []
    for one in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "MapWorker" in " ".join(one.cmdline()):
                found.append(one.pid)
    return found


def finished(out: Path) -> dict[str, int]:
    """Audio files of parts that are written, and when they were."""
    files = {}
    for part in (out / ".bark-batch" / "parts").glob("*.jsonl"):
        for line in part.read_text().splitlines():
            name = json.loads(line).get("file")
            if name and (out / name).is_file():
                files[name] = (out / name).stat().st_mtime_ns
    return files


def entries(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


@dataclass
class Case:
    """One fault: what was done, and what came of it."""

    name: str
    out: Path
    at: float
    hit: str = ""
    before: int = 0

    def check(self, reference: dict[str, dict], kept: dict[str, int], seconds: float, said: str) -> str:
        found = entries(self.out)
        ids = [entry["id"] for entry in found]
        same = sum(entry.get("sha256") == reference[entry["id"]]["sha256"] for entry in found)
        again = sum((self.out / name).stat().st_mtime_ns != when for name, when in kept.items())
        drafts = len(list(self.out.rglob("*.part")))
        good = len(set(ids)) == len(ids) == len(reference) == same and not again and not drafts
        if not good:
            print(said, file=sys.stderr)
        return (
            f"| {self.name} | {self.hit} at {self.at:.0%} | {len(ids)} | {len(ids) - len(set(ids))} | {same} "
            f"| {again} of {len(kept)} | {seconds:.0f} s | {'yes' if good else 'NO'} |"
        )


def until(share: float, rows: int, out: Path, process: subprocess.Popen[str]) -> None:
    """Until so many rows are finished."""
    while process.poll() is None and len(finished(out)) < share * rows:
        time.sleep(0.05)


def kill_worker(case: Case, process: subprocess.Popen[str]) -> None:
    victim = random.choice(workers_of(process.pid))
    os.kill(victim, signal.SIGKILL)
    case.hit = "a worker killed"


def starve_worker(case: Case, process: subprocess.Popen[str]) -> None:
    victim = random.choice(workers_of(process.pid))
    size = int(Path(f"/proc/{victim}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(victim, resource.RLIMIT_AS, (size + LIMIT, size + LIMIT))
    case.hit = "a worker without memory"


def kill_driver(case: Case, process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    case.hit = "the driver killed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--runs", type=Path, default=Path("runs/faults"))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", nargs="*", help="names of runs: 'SIGKILL 1' to 3, driver, memory")
    options = parser.parse_args()
    random.seed(options.seed)
    options.runs.mkdir(parents=True, exist_ok=True)
    manifest = options.runs / "rows.csv"
    write_manifest(manifest, options.rows)
    began = time.monotonic()
    if options.only is None or not (options.runs / "reference" / "manifest.jsonl").is_file():
        shutil.rmtree(options.runs / "reference", ignore_errors=True)
        print(wait(start(manifest, options.runs / "reference")), file=sys.stderr)
    reference = {entry["id"]: entry for entry in entries(options.runs / "reference")}
    print(f"seed {options.seed}; reference without Ray: {len(reference)} rows in {time.monotonic() - began:.0f} s")
    print("| run | fault, at rows finished | results | twice | SHA-256 equal | written again | in all | holds |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    faults: list[tuple[str, Callable[[Case, subprocess.Popen[str]], None]]]
    faults = [(f"SIGKILL {number}", kill_worker) for number in (1, 2, 3)]
    faults += [("driver", kill_driver), ("memory", starve_worker)]
    lines = []
    for name, fault in faults:
        if options.only is not None and name not in options.only:
            continue
        case = Case(name, options.runs / name.replace(" ", "-"), random.uniform(0.1, 0.9))
        shutil.rmtree(case.out, ignore_errors=True)
        began = time.monotonic()
        more = ("--ray", "local", "--workers", "2")
        process = start(manifest, case.out, *more)
        until(case.at, options.rows, case.out, process)
        kept = finished(case.out)
        if process.poll() is not None:
            raise RuntimeError(f"the run ended before its fault, with {process.returncode}:\n{wait(process)}")
        fault(case, process)
        said = wait(process)
        if fault is kill_driver:
            time.sleep(5)  # until the cluster has noticed
            kept = finished(case.out)
            said = wait(start(manifest, case.out, *more))
        lines.append(case.check(reference, kept, time.monotonic() - began, said))
        print(lines[-1], flush=True)
    return 0 if all(line.endswith("yes |") for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
