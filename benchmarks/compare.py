"""Stock Transformers and this package, side by side: the same weights, the same number of tokens, one run.

    python benchmarks/compare.py [--size small|large|nano] [--lengths 2,5,10] [--batches 1,4,16] [--device cpu|cuda]

Every implementation runs in a process of its own, so that its peak memory is its own. It is given random tokens of the asked
length at each stage; no sampled end makes one of them say less. The machine drifts, so figures of different runs do not
compare: every ratio is to the stock row of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
ONNX = {"implementation": "ours", "engine": "onnxruntime"}
ROWS = {
    "cpu": {
        "stock Transformers, fp32": {"implementation": "stock"},
        "ours, torch fp32": {"implementation": "ours", "engine": "torch"},
        "ours, compiled fp32": {"implementation": "ours", "engine": "compiled", "asked": True},
        "ours, onnxruntime fp32": {**ONNX, "precision": "fp32"},
        "ours, onnxruntime int8": {**ONNX, "precision": "int8"},
        "ours, onnxruntime int8, int8 cache": {**ONNX, "precision": "int8", "cache_precision": "int8"},
        "ours, onnxruntime int4": {**ONNX, "precision": "int4"},
        "ours, onnxruntime int4, int8 cache": {**ONNX, "precision": "int4", "cache_precision": "int8"},
    },
    "cuda": {
        "stock Transformers, bf16": {"implementation": "stock", "precision": "bf16"},
        "ours, torch bf16": {"implementation": "ours", "engine": "torch", "precision": "bf16"},
        "ours, compiled bf16": {"implementation": "ours", "engine": "compiled", "precision": "bf16"},
    },
}
"""What is compared on each kind of device; stock comes first. What must be asked for by `--only` takes minutes to compile."""
BATCHED_SECONDS = 5.0
"""A batch is of sentences, not of whole texts: longer ones would take an hour and show nothing more."""
BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.625}
"""Bytes of a weight, the scales of 4-bit blocks included."""


def make_checkpoint(size: str, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Path:
    """A folder with the released vocabularies and random weights, made on a device; for `nano` the embedded checkpoint."""
    from transformers_bark import BARK_NANO, BarkConfig, BarkGenerationConfig, BarkModel

    if size == "nano":
        return Path(BARK_NANO)
    depth = {"small": (12, 12, 768), "large": (24, 16, 1024)}[size]
    sizes = dict(zip(("num_layers", "num_heads", "hidden_size"), depth, strict=True)) | {"bias": False}
    torch.manual_seed(0)
    config = BarkConfig(
        semantic_config={**sizes, "input_vocab_size": 129_600, "output_vocab_size": 10_048},
        coarse_acoustics_config={**sizes, "input_vocab_size": 12_096, "output_vocab_size": 12_096},
        fine_acoustics_config={**sizes, "input_vocab_size": 1_056, "output_vocab_size": 1_056},
    )
    with torch.device(device):
        model = BarkModel(config)
    model.generation_config = BarkGenerationConfig()
    model.to(dtype).save_pretrained(folder)
    return folder


def build_graphs(job: dict[str, Any], environment: dict[str, str]) -> None:
    """Builds the graphs of a row ahead, in a process of their own, so that their making is neither timed nor weighed."""
    export = ["export", "--model", job["folder"], "--precision", job["precision"]]
    export += ["--cache-precision", job.get("cache_precision", "fp32")]
    command = [sys.executable, "-m", "transformers_bark", *export]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)


def measure(job: dict[str, Any], python: str, environment: dict[str, str]) -> dict[str, Any]:
    """What a worker prints."""
    command = [python, str(HERE / "worker.py"), json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def memory_bandwidth(threads: int, device: str) -> float:
    """Bytes a second that a sum over memory far larger than the caches reads."""
    torch.set_num_threads(threads)
    data = torch.ones(2**30 if device == "cuda" else 2**27, device=device)
    best = 0.0
    for _ in range(4):
        started = time.perf_counter()
        float(data.sum())  # asking for the number waits for the device
        best = max(best, data.numel() * 4 / (time.perf_counter() - started))
    return best


def processor() -> str:
    """The class of the processor, which every figure depends on: its vectors, and whether products of whole numbers are exact."""
    from transformers_bark.engines.kernels import exact_weights

    whole = "int8 exact (VNNI)" if exact_weights("int8") == "int8" else "int8 saturates (no VNNI)"
    return f"{torch.backends.cpu.get_cpu_capability()}, {whole}"


def step_bytes(folder: Path, stage: str, row: dict[str, Any], mean_past: float) -> float:
    """Bytes that one decode step of one row must read: the blocks, the head and the keys and values of its past."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    part = config["semantic_config" if stage == "semantic" else "coarse_acoustics_config"]
    width, depth = part["hidden_size"], part["num_layers"]
    head = part["output_vocab_size"] if stage == "semantic" else 0  # of the coarse head, one codebook: little
    weights = BYTES[row.get("precision", "fp32")]
    own_cache = "bf16" if row.get("precision") == "bf16" else "fp32"  # int8 and int4 are of weights alone
    cache = BYTES[row.get("cache_precision", own_cache)]
    return (12 * width * width * depth + width * head) * weights + 2 * depth * width * cache * mean_past


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    name: str
    batch: int
    seconds: float
    times: dict[str, float]
    tokens: dict[str, int]
    peak_mb: float

    @property
    def total(self) -> float:
        """Compute seconds of the whole chain."""
        return sum(self.times.values())

    @property
    def speed(self) -> float:
        """Seconds of audio, of all rows together, for a second of compute."""
        return self.batch * self.seconds / self.total


def run(options: argparse.Namespace, folder: Path, home: Path) -> list[Line]:
    """Every implementation on every case; stock alone says one sentence at a time.

    Single sentences and batches have processes of their own: memory is then that of either. Stock is timed before the others and
    after them, and the faster counts: a machine that was slow at first would make the others look fast.
    """
    lines = []
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HOME": str(home)}
    single = [(1, seconds) for seconds in options.lengths]
    short = [seconds for seconds in options.lengths if seconds <= BATCHED_SECONDS] or [min(options.lengths)]
    batched = [(batch, seconds) for seconds in short for batch in options.batches if batch > 1]
    rows = {
        name: row
        for name, row in ROWS[options.device].items()
        if (any(word in name for word in options.only.split(",")) if options.only else not row.get("asked"))
    }
    again = [name for name, row in rows.items() if row["implementation"] == "stock" and len(rows) > 1]
    for name in [*rows, *again]:
        row = rows[name]
        stock = row["implementation"] == "stock"
        job = {**row, "folder": str(folder), "threads": options.threads, "device": options.device}
        print(f"{name} …", file=sys.stderr, flush=True)
        if row.get("engine") == "onnxruntime":
            build_graphs(job, environment)
        for cases in filter(None, [single, [] if stock else batched]):
            python = options.peer_python if stock else sys.executable
            done = measure({**job, "cases": cases}, python, environment)
            lines += [Line(name, peak_mb=done["peak_mb"], **case) for case in done["results"]]
    return faster_of_each(lines)


def faster_of_each(lines: list[Line]) -> list[Line]:
    """Of lines of one name and case the faster, in the first one's place."""
    kept: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        case = (line.name, line.batch, line.seconds)
        kept[case] = min(kept.get(case, line), line, key=lambda one: one.total)
    return list(kept.values())


def table(lines: list[Line]) -> str:
    """Markdown: milliseconds a token of each stage, real-time factor, memory, and the ratio to stock."""
    out = [
        "| implementation | rows | audio | semantic ms/token | coarse ms/token | fine s | codec s | compute s per audio s "
        "| peak MB | against stock |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    stock = {(line.batch, line.seconds): line for line in lines if line.name.startswith("stock")}
    for line in lines:  # on a CPU stock says one sentence at a time
        base = stock.get((line.batch, line.seconds)) or stock.get((1, line.seconds))
        cells = [
            *(line.name, line.batch, f"{line.seconds:g} s"),
            f"{1e3 * line.times['semantic'] / line.tokens['semantic']:.1f}",
            f"{1e3 * line.times['coarse'] / line.tokens['coarse']:.1f}",
            *(
                f"{line.times['fine']:.2f}",
                f"{line.times['codec']:.2f}",
                f"{1 / line.speed:.2f}",
                f"{line.peak_mb:.0f}" + (f" ({line.peak_mb / base.peak_mb:.2f} x)" if base and line.batch == 1 else ""),
            ),
            f"{line.speed / base.speed:.1f} x" if base else "",
        ]
        out.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(out)


def roofline(lines: list[Line], folder: Path, rows: dict[str, Any], bandwidth: float) -> str:
    """How near single rows come to the time that reading a step's bytes takes."""
    prompt = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    start = prompt["semantic_config"]["max_input_semantic_length"]
    out = [
        f"memory bandwidth, measured: {bandwidth / 1e9:.1f} GB/s; least time of a step of one row, and what is reached "
        "(over 100%: several tokens are read in one step):"
    ]
    for line in lines:
        if line.batch == 1 and line.seconds == min(other.seconds for other in lines):
            for stage in ("semantic", "coarse"):
                count = line.tokens[stage]
                least = step_bytes(folder, stage, rows[line.name], start + count / 2) / bandwidth
                reached = line.times[stage] / count
                out.append(
                    f"- {line.name}, {stage}: {1e3 * least:.2f} ms of {1e3 * reached:.2f} ms ({least / reached:.0%})"
                )
    return "\n".join(out)


def chart(lines: list[Line], path: Path, title: str) -> None:
    """Bars: seconds of audio for a second of compute."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.35 * len(lines) + 1.2))
    labels = [f"{line.name}, {line.seconds:g} s" + (f" x {line.batch}" if line.batch > 1 else "") for line in lines]
    bars = axes.barh(labels[::-1], [line.speed for line in lines[::-1]], color="tab:blue")
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel("seconds of audio for a second of compute")
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""

    def numbers(text: str) -> list[float]:
        return [float(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "large", "nano"), default="small")
    parser.add_argument("--lengths", type=numbers, default=[2.0, 5.0, 10.0], help="seconds of audio")
    parser.add_argument("--batches", type=lambda text: [int(n) for n in numbers(text)], default=[1, 4, 16])
    parser.add_argument("--device", choices=tuple(ROWS), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", help="rows whose name has one of these words, with commas between them")
    parser.add_argument("--peer-python", default=sys.executable, help="another environment's Python, for the stock row")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for JSON and chart")
    return parser


def main() -> None:
    """Runs the comparison, prints it and keeps it."""
    options = build_parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary, "home")
        folder = make_checkpoint(options.size, Path(temporary, "model"))
        bandwidth = memory_bandwidth(options.threads, options.device)
        lines = run(options, folder, home)
        versions = f"torch {torch.__version__}, numpy {np.__version__}"
        print(f"\n{options.size}, {options.device}, {options.threads} threads, {processor()}, {versions}\n")
        print(table(lines))
        print("\n" + roofline(lines, folder, ROWS[options.device], bandwidth))
    options.output.mkdir(parents=True, exist_ok=True)
    name = options.size if options.device == "cpu" else f"{options.size}-{options.device}"
    kept = {key: getattr(options, key) for key in ("size", "device", "threads")}
    kept |= {"processor": processor(), "bandwidth": bandwidth, "lines": [vars(line) for line in lines]}
    (options.output / f"{name}.json").write_text(json.dumps(kept, indent=2), encoding="utf-8")
    chart(
        lines, options.output / f"{name}.png", f"Bark {options.size}, {options.device}, {options.threads} CPU threads"
    )


if __name__ == "__main__":
    main()
