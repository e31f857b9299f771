"""What `gpu.py` runs in processes of their own: each task reads a job and gives results one by one, so that none is lost.

    python benchmarks/gpu_tasks.py '{"task": "environment", "device": "cuda"}'

A result is a line of JSON with `kind`, which says what it is.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compare import make_checkpoint, memory_bandwidth
from torch import Tensor
from worker import Stages, load, measure, token_counts

Report = Callable[[dict[str, Any]], None]
PACKAGES = ("torch", "transformers", "triton", "numpy", "accelerate", "safetensors", "pytest", "matplotlib")


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], Any], device: str, repeats: int = 1) -> float:
    """Median time of a call, waiting for the device before and after."""
    times = []
    for _ in range(repeats):
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def environment(job: dict[str, Any], report: Report) -> None:
    """The machine, and what it reaches: bandwidth of memory, products of matrices."""
    device = job["device"]
    facts: dict[str, Any] = {"python": platform.python_version(), "CPU cores": os.cpu_count(), "device": device}
    for name in PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = "none"
    facts["C compiler"] = shutil.which("gcc") or shutil.which("cc") or "none"
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "GPU": properties.name,
            "GPU memory, GB": round(properties.total_memory / 1e9, 1),
            "multiprocessors": properties.multi_processor_count,
            "CUDA of torch": torch.version.cuda,
            **nvidia_smi(),
        }
    report({"kind": "environment", **facts})
    report({"kind": "ceilings", **ceilings(device)})


def nvidia_smi() -> dict[str, str]:
    """Driver, clocks and power as the machine has them now."""
    asked = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {"driver_version": "unknown: nvidia-smi does not answer"}
    return dict(zip(asked, (part.strip() for part in done.stdout.split(",")), strict=False))


def ceilings(device: str) -> dict[str, float]:
    """What no kernel passes: bytes a second read, bytes a second copied (read and written), operations a second in bf16."""
    threads = torch.get_num_threads()
    n_bytes, size = (2**31, 8192) if device == "cuda" else (2**26, 256)
    data = torch.rand(n_bytes // 4, device=device)
    other = torch.empty_like(data)
    copied = seconds_of(lambda: other.copy_(data), device, 7)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = seconds_of(lambda: a @ b, device, 7)
    return {
        "read_bytes_s": memory_bandwidth(threads, device),
        "copy_bytes_s": 2 * n_bytes / copied,
        "bf16_flop_s": 2 * size**3 / product,
    }


def checkpoint(job: dict[str, Any], report: Report) -> None:
    """Random weights of a size in bf16, which every process of the benchmark reads."""
    started, folder, where = time.perf_counter(), Path(job["folder"]), job["device"]
    try:
        make_checkpoint(job["size"], folder, where, torch.bfloat16)
    except RuntimeError as error:  # slower, and as good
        print(error, file=sys.stderr)
        where = "cpu"
        make_checkpoint(job["size"], folder, where, torch.bfloat16)
    seconds = time.perf_counter() - started
    report({"kind": "checkpoint", "size": job["size"], "made_on": where, "seconds": seconds})


def speed(job: dict[str, Any], report: Report) -> None:
    """Times of every case of a job, and of the first streamed piece where the job asks for it."""
    facts = {key: job[key] for key in ("name", "size")}
    measure(job, lambda result: report({"kind": "speed", **facts, **result}))
    if job.get("stream"):
        stream(job, report)


@torch.no_grad()
def stream(job: dict[str, Any], report: Report) -> None:
    """Seconds to the first piece of a streamed sentence and to its end: the first call of a process, and the third."""
    model, _ = load(job)
    config = model.generation_config
    length = config.semantic_config.max_input_semantic_length
    ids = torch.randint(1, 90, (1, min(20, length)), generator=torch.Generator().manual_seed(0)).to(job["device"])
    count = round(job["stream"] * config.semantic_config.semantic_rate_hz)
    options = {"seed": 1, "max_new_tokens": count, "allow_early_stop": False}
    times = []
    for _ in range(3):
        wait(job["device"])
        started, marks, n_samples = time.perf_counter(), [], 0
        for piece in model.generate_stream(ids, **options):
            n_samples += len(piece.cpu())
            marks.append(time.perf_counter() - started)
        times.append((marks[0], marks[-1]))
    report(
        {
            **{"kind": "stream", "name": job["name"], "size": job["size"], "audio_s": n_samples / config.sample_rate},
            **{"first_call": times[0][0], "first_piece": times[-1][0], "whole": times[-1][1], "pieces": len(marks)},
        }
    )


@torch.no_grad()
def parity(job: dict[str, Any], report: Report) -> None:
    """Greedy tokens of every stage beside stock's, and how far either's logits in bf16 are from stock's in fp32."""
    for precision in ("fp32", "bf16"):
        base = {**job, "greedy": True, "precision": precision}
        said: dict[str, dict[str, Tensor]] = {}
        for name, own in job["rows"].items():
            stages = Stages({**base, **own})
            counts = token_counts(stages, job["seconds"])
            # stock's coarse stage alternates between two codebooks, however many there are
            is_stocks = stages.configs["coarse"].n_coarse_codebooks == 2
            compared = [stage for stage in job["stages"] if stage != "coarse" or is_stocks]
            said[name] = {stage: getattr(stages, stage)(2, counts[stage])().cpu() for stage in compared}
            del stages
        stock, *others = said
        for name in others:
            for stage, theirs in said[stock].items():
                ours = said[name][stage]
                same = ours == theirs if ours.shape == theirs.shape else torch.zeros(1, dtype=torch.bool)
                report(
                    {
                        **{"kind": "parity", "size": job["size"], "name": name, "precision": precision, "stage": stage},
                        **{"tokens": same.numel(), "equal": int(same.sum()), "until": common_start(same)},
                    }
                )
    report({"kind": "logits", "size": job["size"], **logit_errors(job)})


def common_start(same: Tensor) -> int:
    """Tokens until the first that differs, in the row or frame line where that is soonest: same [batch, ...]."""
    rows = same.flatten(1) if same.ndim > 1 else same[None]
    return min(int(row.long().cumprod(0).sum()) for row in rows)


@torch.no_grad()
def logit_errors(job: dict[str, Any]) -> dict[str, float]:
    """Norm of the difference from stock in fp32, as a part of its norm: the semantic model on the same random tokens."""
    ids = torch.randint(0, 500, (1, 300), generator=torch.Generator().manual_seed(0)).to(job["device"])
    found = {}
    for name, own in job["rows"].items():
        for precision in ("fp32", "bf16"):
            model = load({**job, **own, "precision": precision})[0].semantic
            found[f"{name}, {precision}"] = model(ids).logits.float().cpu()
            del model
    exact = next(iter(found.values()))
    return {name: float((logits - exact).norm() / exact.norm()) for name, logits in found.items()}


@torch.no_grad()
def kernels(job: dict[str, Any], report: Report) -> None:
    """One decode step: recorded as it is and compiled by inductor first, what that costs ahead, and which kernels it is made of."""
    from transformers_bark.engines.compiled_engine import CompiledCausal

    model = load({**job, "implementation": "ours", "engine": "torch", "precision": "bf16"})[0].semantic
    embed = model.get_input_embeddings()
    n_prompt = min(257, model.config.block_size // 2)
    for n_rows in job["batches"]:
        prompts = [embed(torch.arange(n_prompt, device=job["device"]))] * n_rows
        for backend in job["backends"]:
            wait(job["device"])
            started = time.perf_counter()
            engine = CompiledCausal(model, backend)
            logits, state = engine.prefill(prompts, job["steps"] + 1)
            token = logits.argmax(-1).clamp_max(9)
            _, state = engine.step(state, token)
            wait(job["device"])
            ahead = time.perf_counter() - started

            states = [state]  # one after the other: none is used twice

            def steps(engine: Any = engine, states: list[Any] = states, token: Tensor = token) -> None:
                for _ in range(job["steps"] // 2):
                    states.append(engine.step(states.pop(), token)[1])

            each = seconds_of(steps, job["device"]) / (job["steps"] // 2)
            result = {"kind": "step", "size": job["size"], "rows": n_rows, "backend": backend}
            report({**result, "ahead": ahead, "seconds": each, "kernels": profile(steps, job)})


def profile(call: Callable[[], Any], job: dict[str, Any]) -> list[dict[str, Any]]:
    """The kernels that take longest: name, calls a step and microseconds a step."""
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU, activity.CUDA] if job["device"] == "cuda" else [activity.CPU]
    with torch.profiler.profile(activities=kinds) as profiler:
        call()
        wait(job["device"])
    n_steps = job["steps"] // 2
    field = "self_device_time_total" if job["device"] == "cuda" else "self_cpu_time_total"
    events = [event for event in profiler.key_averages() if getattr(event, field, 0) > 0]
    if job["device"] == "cuda":  # not what started them
        events = [event for event in events if str(event.device_type).endswith("CUDA")]
    events.sort(key=lambda event: -getattr(event, field))
    return [
        {"name": event.key[:100], "calls": event.count / n_steps, "us": getattr(event, field) / n_steps}
        for event in events[:12]
    ]


TASKS = {task.__name__: task for task in (environment, checkpoint, speed, parity, kernels)}


def main() -> None:
    """Runs the job of the first argument."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    TASKS[job["task"]](job, lambda result: print(json.dumps(result), flush=True))


if __name__ == "__main__":
    main()
