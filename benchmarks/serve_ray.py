"""Ray Serve on this machine: the load test with a replica killed; and whether stages should be deployments of their own.

    python benchmarks/serve_ray.py load [--callers 8] [--each 6]      two replicas; one of them is killed while they work
    python benchmarks/serve_ray.py stages [--callers 8] [--each 4]    two whole replicas beside one a stage

Processes of a cluster on this machine; figures of one run compare with each other and with no other run's.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from typing import Any

import httpx2 as httpx
import psutil
from load import RATE, SENTENCES

PORT = 8765


def start(cores: int) -> Any:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    import ray

    ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
    return ray


def replicas(name: str) -> list[psutil.Process]:
    """Processes of replicas: ":Replica" of that deployment of the application "bark", "-" of all "bark-…" applications."""
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if f"ServeReplica:bark{name}" in " ".join(one.info["cmdline"] or [])]


async def speak(client: httpx.AsyncClient, number: int) -> dict[str, Any]:
    """One request, whatever becomes of it."""
    asked = {"input": SENTENCES[number % len(SENTENCES)], "voice": "default", "seed": number, "response_format": "pcm"}
    began, first, total, size = time.monotonic(), 0.0, hashlib.sha256(), 0
    try:
        async with client.stream("POST", "/v1/audio/speech", json=asked) as answer:
            async for part in answer.aiter_raw():
                first = first or time.monotonic() - began
                size += len(part)
                total.update(part)
        status = str(answer.status_code)
    except httpx.HTTPError as error:
        status = type(error).__name__
    return {
        "number": number,
        "status": status,
        "first": first,
        "seconds": time.monotonic() - began,
        "audio": size / 2 / RATE if status == "200" else 0.0,
        "digest": total.hexdigest(),
    }


async def crowd(callers: int, each: int, kill_after: int | None) -> dict[str, Any]:
    """So many callers; after so many answers a replica is killed."""
    done: list[dict[str, Any]] = []
    killed: list[float] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=300) as client:

        async def one(caller: int) -> None:
            for turn in range(each):
                done.append(await speak(client, caller * each + turn))
                if kill_after is not None and len(done) == kill_after:
                    random.choice(replicas(":Replica")).kill()
                    killed.append(time.monotonic() - began)

        began = time.monotonic()
        await asyncio.gather(*map(one, range(callers)))
        seconds = time.monotonic() - began
    good = [call for call in done if call["status"] == "200"]
    return {
        "callers": callers,
        "killed_at": [round(when, 1) for when in killed],
        "statuses": dict(Counter(call["status"] for call in done)),
        "seconds": round(seconds, 1),
        "audio_per_second": round(sum(call["audio"] for call in good) / seconds, 2),
        "first_median": round(statistics.median(call["first"] for call in good), 2),
        "longest": round(max(call["seconds"] for call in done), 2),
        "digests": {call["number"]: call["digest"] for call in good},
    }


def load(options: argparse.Namespace) -> None:
    ray = start(2)
    from ray import serve

    from transformers_bark.serving.ray import Arguments, app

    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(app(Arguments(min_replicas=2, max_replicas=2)), name="bark")
    while httpx.get(f"http://127.0.0.1:{PORT}/ready").status_code != 200 or len(replicas(":Replica")) < 2:
        time.sleep(0.5)
    results = []
    for kill_after in (0, None, options.callers * options.each // 3):  # the first warms up
        results.append(asyncio.run(crowd(options.callers, 1 if kill_after == 0 else options.each, kill_after or None)))
        digests = results[-1].pop("digests")
        if kill_after is None:
            calm = digests
        elif kill_after:
            results[-1]["same_audio"] = sum(calm[number] == digest for number, digest in digests.items())
        if kill_after != 0:
            print(json.dumps(results[-1]), flush=True)
    serve.shutdown()
    ray.shutdown()


class Stages:
    """A model of which a replica runs one stage, or all, on batches that Serve puts together."""

    def __init__(self, stage: str) -> None:
        import torch

        from transformers_bark import BARK_NANO, BarkModel, BarkProcessor

        torch.set_num_threads(1)
        self.stage = stage
        self.model = BarkModel.from_pretrained(BARK_NANO).eval()
        self.model.set_engine("onnxruntime")
        self.processor = BarkProcessor.from_pretrained(BARK_NANO)
        self.voice = self.processor.load_voice("en_heart")

    def check_health(self) -> None:
        """Replicas that compute for long are alive."""

    from ray import serve as _serve

    @_serve.batch(max_batch_size=8, batch_wait_timeout_s=0.02)
    async def handle(self, asked: list[tuple[int, Any]]) -> list[Any]:
        """Seeds and what the stage before gave -> what this one gives."""
        return await asyncio.to_thread(self._run, asked)

    def _run(self, asked: list[tuple[int, Any]]) -> list[Any]:
        import torch

        from transformers_bark import codec
        from transformers_bark.generation.options import coarse_options, fine_options, semantic_options
        from transformers_bark.generation.progress import Reporter
        from transformers_bark.generation.speech import StageRun

        seeds, given = [seed for seed, _ in asked], [one for _, one in asked]
        config = self.model.generation_config
        parts = (config.semantic_config, config.coarse_acoustics_config, config.fine_acoustics_config)
        report = Reporter(False, None)
        run = StageRun.of(config, [self.voice] * len(seeds), len(seeds), 1, self.model.device, seeds, report)
        with torch.no_grad():
            if self.stage in ("semantic", "all"):
                inputs = self.processor(given)
                ids = (inputs["input_ids"], inputs["attention_mask"])
                given = run.semantic(self.model.semantic, *ids, parts[0], semantic_options(parts[0], {}))
            if self.stage in ("coarse", "all"):
                options = coarse_options(parts[1], {})
                given = run.coarse(self.model.coarse_acoustics, given, parts[0], parts[1], options)
            if self.stage in ("fine", "all"):
                codes = run.fine(self.model.fine_acoustics, given, parts[2], fine_options(parts[2], {}))
                given = [row.numpy() for row in codec.decode(self.model.codec_model, codes)]
        return given

    async def process(self) -> int:
        return os.getpid()


async def chain(handles: list[Any], seed: int, text: str) -> int:
    """A text through all stages -> samples."""
    given: Any = text
    for handle in handles:
        given = await handle.handle.remote((seed, given))
    return len(given)


async def through(handles: list[Any], callers: int, each: int) -> dict[str, float]:
    waits: list[float] = []
    samples = 0

    async def one(caller: int) -> None:
        nonlocal samples
        for turn in range(each):
            number = caller * each + turn
            began = time.monotonic()
            made = await chain(handles, number, SENTENCES[number % len(SENTENCES)])
            samples += made  # not in one line: others add to it meanwhile
            waits.append(time.monotonic() - began)

    began = time.monotonic()
    await asyncio.gather(*map(one, range(callers)))
    seconds = time.monotonic() - began
    return {
        "callers": callers,
        "audio_per_second": round(samples / RATE / seconds, 2),
        "median": round(statistics.median(waits), 2),
        "longest": round(max(waits), 2),
    }


def stages(options: argparse.Namespace) -> None:
    """The same two cores: two replicas of everything; or a process a stage, whose three share them."""
    ray = start(2)
    from ray import serve

    def deployed(stage: str, count: int, cores: float) -> Any:
        settings = {"num_cpus": cores}
        kind = serve.deployment(
            Stages, name=stage, num_replicas=count, ray_actor_options=settings, max_ongoing_requests=64
        )
        return serve.run(kind.bind(stage), name=f"bark-{stage}", route_prefix=None)

    layouts = {
        "two whole": lambda: [deployed("all", 2, 1)],
        "a stage each": lambda: [deployed("semantic", 1, 0.6), deployed("coarse", 1, 0.7), deployed("fine", 1, 0.7)],
    }
    for name, make in layouts.items():
        handles = make()
        asyncio.run(through(handles, options.callers, 1))  # warm
        memory = sum(one.memory_info().rss for one in replicas("-"))
        for callers in (1, options.callers):
            found = asyncio.run(through(handles, callers, options.each))
            print(json.dumps({"layout": name, "memory_mb": memory >> 20, **found}), flush=True)
        for stage in ("all",) if name == "two whole" else ("semantic", "coarse", "fine"):
            serve.delete(f"bark-{stage}")
    serve.shutdown()
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "stages"))
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--each", type=int, default=6)
    options = parser.parse_args()
    {"load": load, "stages": stages}[options.what](options)


if __name__ == "__main__":
    sys.exit(main())
