"""A GPU in one command: facts, checks, equality with stock Transformers, and speed beside it, within a budget of minutes.

    python benchmarks/gpu.py [--minutes 9] [--sizes small,large,nano] [--rows 1,8,16,64] [--output runs/gpu]

Takes the Python that it is run with, and no network. What matters most comes first; a part that the rest of the budget does not
hold is left out, and the report says so. Results are written as they come, so that a run that is stopped loses nothing. With
`--device cpu --sizes nano --rows 1,2 --seconds 0.5` it can be tried without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_report

HERE = Path(__file__).resolve().parent
MARGIN_S = 25.0
"""Seconds of the budget that are kept for `make`, for starting, for the report and its pictures."""
NAMES = {
    "stock bf16": ("stock Transformers, bf16", {"implementation": "stock", "precision": "bf16"}),
    "ours bf16": ("ours, compiled bf16", {"implementation": "ours", "engine": "compiled", "precision": "bf16"}),
    "torch bf16": ("ours, torch bf16", {"implementation": "ours", "engine": "torch", "precision": "bf16"}),
    "stock fp32": ("stock Transformers, fp32", {"implementation": "stock", "precision": "fp32"}),
    "ours fp32": ("ours, compiled fp32", {"implementation": "ours", "engine": "compiled", "precision": "fp32"}),
}
"""What is compared, by a short name: the name in tables, and what a worker is told."""

Take = Callable[[dict[str, Any]], None]
Launch = Callable[[list[str], float, Take], str]
"""Runs a command for so many seconds at most, gives on what it prints, line by line, and says how it ended."""


@dataclass(frozen=True)
class Part:
    """One process of the run; `estimate` is in seconds, about what it takes on a GPU of a data centre."""

    name: str
    estimate: float
    command: list[str]


def task(what: str, options: argparse.Namespace, **job: Any) -> list[str]:
    """The command of a task of `gpu_tasks.py`."""
    job = {"task": what, "device": options.device, "threads": options.threads, **job}
    return [sys.executable, str(HERE / "gpu_tasks.py"), json.dumps(job)]


def own_engine(row: dict[str, Any], device: str) -> dict[str, Any]:
    """On a CPU, where a run is only tried, nothing is compiled."""
    return {**row, "engine": "torch"} if device == "cpu" and row.get("engine") == "compiled" else row


def plan(options: argparse.Namespace, folders: dict[str, str]) -> list[Part]:
    """All parts, the most important first."""
    first, *others = options.sizes
    parts = [
        Part("environment", 20, task("environment", options)),
        Part("checks", 60, [sys.executable, "-m", "tests.gpu.run", "--device", options.device]),
    ]
    parts += [*_weights(options, first, folders), *_speed(options, first, folders, ("ours bf16", "stock bf16"))]
    parts.append(_parity(options, first, folders))
    for size in others:
        parts += [*_weights(options, size, folders), *_speed(options, size, folders, ("ours bf16", "stock bf16"))]
    parts.append(_kernels(options, first, folders, "none"))
    parts += _speed(options, first, folders, ("torch bf16", "ours fp32", "stock fp32"))
    parts += [_parity(options, size, folders) for size in others if size == "nano"]
    parts.append(_kernels(options, first, folders, "eager" if options.device == "cpu" else "inductor"))
    return [part for part in parts if any(word in part.name for word in options.parts)]


def _weights(options: argparse.Namespace, size: str, folders: dict[str, str]) -> list[Part]:
    """Those of `nano` are there."""
    if size == "nano":
        return []
    command = task("checkpoint", options, size=size, folder=folders[size])
    return [Part(f"weights {size}", 30.0 if size == "large" else 20.0, command)]


def _speed(options: argparse.Namespace, size: str, folders: dict[str, str], rows: tuple[str, ...]) -> list[Part]:
    """One sentence first, then the largest batch, then the others: those only of what is mainly compared."""
    batches = sorted(options.rows, key=lambda n: (n != 1, n != max(options.rows), n))
    parts = []
    for short in rows:
        name, row = NAMES[short]
        is_stock = row["implementation"] == "stock"
        own = {} if is_stock else {"stream": min(2.5, options.seconds), "repeats": 2}
        is_main = short in ("ours bf16", "stock bf16")
        cases = [(batch, options.seconds) for batch in (batches if is_main else batches[:2])]
        job = {**own_engine(row, options.device), **own, "name": name, "size": size, "folder": folders[size]}
        estimate = (50.0 if is_stock else 30.0) * (1.5 if size == "large" else 1.0)
        parts.append(Part(f"speed {size} {short}", estimate, task("speed", options, cases=cases, **job)))
    return parts


def _parity(options: argparse.Namespace, size: str, folders: dict[str, str]) -> Part:
    rows = {"stock": {"implementation": "stock"}, "ours, torch": {"implementation": "ours", "engine": "torch"}}
    if options.device != "cpu":
        rows["ours, compiled"] = {"implementation": "ours", "engine": "compiled"}
    job = {"size": size, "folder": folders[size], "rows": rows, "seconds": min(1.0, options.seconds)}
    stages = ["semantic", "coarse", "fine"]
    return Part(f"parity {size}", 45, task("parity", options, stages=stages, **job))


def _kernels(options: argparse.Namespace, size: str, folders: dict[str, str], backend: str) -> Part:
    rows = sorted({1, max(options.rows)}) if backend == "none" else [1]
    job = {"size": size, "folder": folders[size], "batches": rows, "backends": [backend]}
    steps = 100 if options.device == "cuda" else 8
    return Part(f"kernels {backend}", 30 if backend == "none" else 70, task("kernels", options, steps=steps, **job))


class Run:
    """The results so far, and the folder that they are kept in."""

    def __init__(self, options: argparse.Namespace, folders: dict[str, str]) -> None:
        self.output: Path = options.output
        self.output.mkdir(parents=True, exist_ok=True)
        settings = {key: getattr(options, key) for key in ("device", "minutes", "sizes", "rows", "seconds", "threads")}
        self.data: dict[str, Any] = {"settings": settings, "parts": [], "results": []}
        self.folders = folders

    def take(self, result: dict[str, Any]) -> None:
        """Keeps one result at once."""
        self.data["results"].append(result)
        self._keep()

    def _keep(self) -> None:
        """Writes what is known as JSON, whole: the run may be stopped at any time."""
        draft = self.output / "results.json.part"
        draft.write_text(json.dumps(self.data, indent=1), encoding="utf-8")
        draft.replace(self.output / "results.json")

    def finish_part(self, part: Part, status: str, seconds: float) -> None:
        """Notes how a part ended, and writes the report anew."""
        self.data["parts"].append(
            {"name": part.name, "status": status, "seconds": round(seconds, 1), "estimate": part.estimate}
        )
        print(f"{part.name}: {status}, {seconds:.0f} s", file=sys.stderr, flush=True)
        self.write()

    def write(self) -> None:
        """Everything that is known, as JSON, tables and pictures."""
        self._keep()
        (self.output / "report.md").write_text(gpu_report.markdown(self.data, self.folders), encoding="utf-8")
        gpu_report.pictures(self.data, self.output)


def carry_out(run: Run, parts: list[Part], launch: Launch, budget_s: float, clock: Callable[[], float]) -> None:
    """Runs the parts one after the other, as long as the budget holds them; `clock` gives the seconds since the start."""
    for part in parts:
        left = budget_s - clock()
        if part.estimate > left:
            run.finish_part(
                part, f"left out: it takes about {part.estimate:.0f} s, and {max(0, left):.0f} s are left", 0
            )
            continue
        started = clock()
        status = launch(part.command, left, run.take)
        run.finish_part(part, status, clock() - started)


def start_process(log: Path, environment: dict[str, str]) -> Launch:
    """A `Launch` that starts a process, whose errors go to the log."""

    def launch(command: list[str], seconds: float, take: Take) -> str:
        with log.open("a", encoding="utf-8") as errors:
            errors.write(f"\n$ {' '.join(command)}\n")
            errors.flush()
            # a session of its own, so that what it starts ends with it
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
            )
            late = threading.Event()

            def stop() -> None:
                late.set()
                os.killpg(process.pid, signal.SIGKILL)

            timer = threading.Timer(max(1.0, seconds), stop)
            timer.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    take_line(line, take, errors)
                code = process.wait()
            except BaseException:
                stop()
                raise
            finally:
                timer.cancel()
        if late.is_set():
            return "stopped: the budget was spent; what it had given is kept"
        return "done" if code == 0 else f"failed with code {code}: see {log.name}"

    return launch


def take_line(line: str, take: Take, errors: Any) -> None:
    """A line of JSON is a result; whatever else is printed goes to the log."""
    try:
        result = json.loads(line)
    except ValueError:
        result = None
    if isinstance(result, dict):
        take({"kind": "check", **result} if "check" in result else result)
    else:
        errors.write(line)


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""

    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="of the whole run (default 9)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--sizes", type=words, default=["small", "large", "nano"], help="the first one is looked at closely"
    )
    parser.add_argument("--rows", type=lambda text: [int(n) for n in words(text)], default=[1, 8, 16, 64])
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio a row")
    parser.add_argument("--parts", type=words, default=[""], help="only parts whose name has one of these words")
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    return parser


def environment_of(root: Path) -> dict[str, str]:
    """For the processes: this package from `src/`, no network."""
    paths = [str(root / "src"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **own, "PYTHONUNBUFFERED": "1"}


def main() -> int:
    """Carries out the run; 0 unless a part failed or a check did not hold."""
    started = time.monotonic()
    options = build_parser().parse_args()
    unknown = set(options.sizes) - {"small", "large", "nano"}
    if unknown:
        raise SystemExit(f"`--sizes` must be of small, large, nano, got {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; what was measured is kept"))
    with tempfile.TemporaryDirectory() as temporary:
        folders = {size: gpu_report.folder_of(size, temporary) for size in options.sizes}
        run = Run(options, folders)
        launch = start_process(run.output / "log.txt", environment_of(HERE.parent))
        budget = 60 * options.minutes - MARGIN_S
        carry_out(run, plan(options, folders), launch, budget, lambda: time.monotonic() - started)
    print((run.output / "report.md").read_text(encoding="utf-8"))
    failed = [part for part in run.data["parts"] if part["status"].startswith("failed")]
    wrong = [result for result in run.data["results"] if result["kind"] == "check" and not result["passed"]]
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
