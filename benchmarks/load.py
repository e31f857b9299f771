"""How the service bears many callers: throughput, waiting, hanging up, and a long run of everything at once (`make load`).

A server process and a process of callers. Figures of one run compare with each other and with no other run's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil

RATE = 24_000

SENTENCES = (
    "Good morning, how are you today?",
    "The boat is here, and you see the dog.",
    "It is a long way to the town.",
    "We shall rest here for a while.",
    "Shall we go now, or a little later?",
    "The others are waiting for us there.",
    "It was late when the boat came home.",
    "You may take the book if you like it.",
)
LONG = " ".join(SENTENCES)


@dataclass
class Call:
    """One request as its caller sees it: seconds until its first byte and its end, and what came."""

    status: int
    first: float = 0.0
    seconds: float = 0.0
    audio: float = 0.0
    digest: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


class Server:
    """`bark-tts serve` in a process of its own."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("w+", encoding="utf-8")
        command = [sys.executable, "-m", "transformers_bark", "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stderr=self._log)
        self.url = self._address()
        self.stats = psutil.Process(self.process.pid)
        while httpx.get(f"{self.url}/ready").status_code != 200:
            time.sleep(0.1)

    def _address(self) -> str:
        while self.process.poll() is None:
            self._log.seek(0)
            found = re.search(r"http://\S+", self._log.read())
            if found:
                return found[0]
            time.sleep(0.1)
        raise RuntimeError(f"the server ended with {self.process.returncode}; see {self._log.name}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


async def speak(client: httpx.AsyncClient, fields: dict[str, Any], leave_after: int | None = None) -> Call:
    """One request; with `leave_after`, hung up after so many bytes."""
    began, call, size, total = time.perf_counter(), Call(0, fields=fields), 0, hashlib.sha256()
    async with client.stream("POST", "/v1/audio/speech", json={"response_format": "pcm", **fields}) as answer:
        call.status = answer.status_code
        async for part in answer.aiter_raw():
            call.first = call.first or time.perf_counter() - began
            size += len(part)
            total.update(part)
            if leave_after is not None and size >= leave_after:
                break
    call.seconds, call.audio, call.digest = time.perf_counter() - began, size / 2 / RATE, total.hexdigest()
    return call


async def crowd(url: str, n_callers: int, n_each: int, early: bool = False) -> tuple[list[Call], float]:
    """So many callers, who each ask one thing after the other: their calls, and the seconds that all took."""
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=httpx.Limits(max_connections=None)) as client:

        async def one(caller: int) -> list[Call]:
            made = []
            for turn in range(n_each):
                number = caller + turn * n_callers
                text = SENTENCES[number % len(SENTENCES)]
                fields = {"input": text, "voice": "default", "seed": number, "early": early}
                made.append(await speak(client, fields))
            return made

        began = time.perf_counter()
        calls = [call for made in await asyncio.gather(*map(one, range(n_callers))) for call in made]
        return calls, time.perf_counter() - began


def summary(n_callers: int, early: bool, calls: list[Call], seconds: float) -> dict[str, Any]:
    good = [call for call in calls if call.status == 200]
    firsts = sorted(call.first for call in good)
    waits = [call.seconds for call in good]
    return {
        "callers": n_callers,
        "early": early,
        "requests": len(calls),
        "errors": len(calls) - len(good),
        "audio_per_second": sum(call.audio for call in good) / seconds,
        "requests_per_second": len(good) / seconds,
        "first_median": statistics.median(firsts),
        "first_p95": firsts[max(0, -(-len(firsts) * 95 // 100) - 1)],
        "longest_by_mean": max(waits) / statistics.mean(waits),
    }


def measure_crowds(server: Server, sizes: list[int]) -> list[dict[str, Any]]:
    """Each number of callers with the audio whole, and with `early`."""
    lines = []
    for early in (False, True):
        asyncio.run(crowd(server.url, 1, 2, early))
        for n_callers in sizes:
            n_each = 8 if n_callers == 1 else max(2, 32 // n_callers)
            calls, seconds = asyncio.run(crowd(server.url, n_callers, n_each, early))
            lines.append(summary(n_callers, early, calls, seconds))
            print(json.dumps(lines[-1]), flush=True)
    return lines


async def hang_up(url: str, count: int) -> dict[str, float]:
    """So many requests in a row that are hung up, some before and some after the first audio; then one that is heard."""
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        alone = [await speak(client, {"input": SENTENCES[0], "voice": "default", "seed": 1}) for _ in range(3)]
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        for number in range(count):
            if number % 2:
                await speak(client, {"input": SENTENCES[0], "voice": "default", "seed": number}, leave_after=1)
            else:
                with_limit = speak(client, {"input": LONG, "voice": "default", "seed": number})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(with_limit, 0.05 * (1 + number % 5))
        after = await speak(client, {"input": SENTENCES[0], "voice": "default", "seed": 1})
    before = statistics.median(call.first for call in alone)
    return {"aborts": count, "first_alone": before, "first_after": after.first, "later_by": after.first - before}


class Soak:
    """Good, bad, huge, slow and aborted requests for some minutes."""

    def __init__(self, server: Server, minutes: float, seed: int) -> None:
        self.server, self.minutes, self.random = server, minutes, random.Random(seed)
        self.statuses: Counter[str] = Counter()
        self.heard: list[Call] = []
        self.memory: list[tuple[float, int]] = []

    async def run(self, n_callers: int = 12) -> dict[str, Any]:
        began = time.monotonic()
        first = self._open()
        async with httpx.AsyncClient(base_url=self.server.url, timeout=300) as client:
            kinds: list[tuple[float, Callable[[httpx.AsyncClient], Awaitable[None]]]] = [
                (0.5, self._good),
                (0.15, self._bad),
                (0.05, self._huge),
                (0.1, self._slow),
                (0.2, self._aborted),
            ]

            async def caller() -> None:
                while time.monotonic() - began < 60 * self.minutes:
                    kind = self.random.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
                    try:
                        await kind(client)
                    except httpx.HTTPError as error:
                        self.statuses[f"{kind.__name__[1:]} {type(error).__name__}"] += 1

            async def watch() -> None:
                while time.monotonic() - began < 60 * self.minutes:
                    self.memory.append((time.monotonic() - began, self.server.stats.memory_info().rss))
                    await asyncio.sleep(2)

            await asyncio.gather(watch(), *(caller() for _ in range(n_callers)))
        await asyncio.sleep(3)
        return self._report(first, self._open())

    def _open(self) -> dict[str, int]:
        return {"files": self.server.stats.num_fds(), "threads": self.server.stats.num_threads()}

    def _report(self, first: dict[str, int], last: dict[str, int]) -> dict[str, Any]:
        page = httpx.get(f"{self.server.url}/metrics").text
        slots = sum(
            float(value) for value in re.findall(r"^bark_(?:queue_length|generations_in_work) (\S+)", page, re.M)
        )
        settled = [rss for when, rss in self.memory if 60 <= when < 75] or [self.memory[0][1]]
        ended = [rss for when, rss in self.memory if when > self.memory[-1][0] - 15]
        return {
            "minutes": self.minutes,
            "statuses": dict(sorted(self.statuses.items())),
            "memory_mb": [round(statistics.mean(part) / 2**20) for part in (settled, ended)],
            "memory_growth": statistics.mean(ended) / statistics.mean(settled) - 1,
            "open_before": first,
            "open_after": last,
            "slots_left": slots,
            "heard": len(self.heard),
        }

    def _count(self, kind: str, status: int) -> None:
        self.statuses[f"{kind} {status}"] += 1

    async def _good(self, client: httpx.AsyncClient) -> None:
        voice = self.random.choice(["en_heart", "en_bright", "random"])
        fields = {"input": self.random.choice(SENTENCES), "voice": voice, "seed": self.random.randrange(10_000)}
        if self.random.random() < 0.2:
            fields["temperature"] = self.random.choice([0.2, 0.5])
        fields["early"] = self.random.random() < 0.2
        if self.random.random() < 0.1:
            fields["input"] = LONG
        call = await speak(client, fields)
        self._count("good", call.status)
        if call.status == 200 and fields["input"] != LONG:
            self.heard.append(call)

    async def _bad(self, client: httpx.AsyncClient) -> None:
        bodies: list[Any] = [
            {},
            {"input": ""},
            {"input": "hello", "voice": "../x"},
            {"input": "hello", "speed": 99},
            [1],
            "…",
        ]
        answer = await client.post("/v1/audio/speech", json=self.random.choice(bodies))
        self._count("bad", answer.status_code)

    async def _huge(self, client: httpx.AsyncClient) -> None:
        size = self.random.choice([5_000, 1_900_000, 9_000_000])
        answer = await client.post("/v1/audio/speech", json={"input": "a" * size})
        self._count("huge", answer.status_code)

    async def _slow(self, client: httpx.AsyncClient) -> None:
        """Reads slowly."""
        fields = {"input": LONG, "voice": "default", "response_format": "wav"}
        async with client.stream("POST", "/v1/audio/speech", json=fields) as answer:
            async for _ in answer.aiter_raw(4096):
                await asyncio.sleep(0.01)
        self._count("slow", answer.status_code)

    async def _aborted(self, client: httpx.AsyncClient) -> None:
        try:
            await asyncio.wait_for(speak(client, {"input": LONG, "voice": "default"}), self.random.uniform(0.01, 2.0))
            self._count("aborted", 200)
        except TimeoutError:
            self.statuses["aborted left"] += 1


def compare(calls: list[Call], most: int, engine: str) -> dict[str, int]:
    """How many of the calls gave, byte for byte, what `generate` gives for their text and seed, or early `generate_stream`."""
    import torch

    from transformers_bark import BARK_NANO, BarkProcessor
    from transformers_bark.cli.models import load_model
    from transformers_bark.engines import EngineChoice
    from transformers_bark.serving.audio import as_int16

    model = load_model(BARK_NANO, "float32", torch.device("cpu"), EngineChoice(engine), aligned=True)
    processor = BarkProcessor.from_pretrained(BARK_NANO)
    chosen = random.Random(0).sample(calls, min(most, len(calls)))
    equal = 0
    for call in chosen:
        fields = dict(call.fields)
        voice = {"default": "en_heart", "random": None}.get(fields["voice"], fields["voice"])
        options: dict[str, Any] = {}
        if "temperature" in fields:
            options = {"temperature": fields["temperature"], "semantic_do_sample": True, "coarse_do_sample": True}
        inputs = processor(fields["input"], voice_preset=voice)
        options["seed"] = fields["seed"]
        if fields["early"]:
            audio = torch.cat(list(model.generate_stream(**inputs, **options)))
        else:
            audio = model.generate(**inputs, **options, progress=False)[0]
        equal += hashlib.sha256(as_int16(audio.numpy()).tobytes()).hexdigest() == call.digest
    return {"compared": len(chosen), "equal": equal}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", default="1,8,16,32", help="numbers of callers to measure; empty for none")
    parser.add_argument("--aborts", type=int, default=50)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="then everything at once, so long")
    parser.add_argument(
        "--sample", type=int, default=200, help="speeches of the soak that are compared with `generate`"
    )
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--output", type=Path, default=Path("runs/load"))
    return parser


def main() -> None:
    options = build_parser().parse_args()
    results: dict[str, Any] = {"cores": os.cpu_count()}
    server = Server(["--engine", options.engine, "--queue", "64"], options.output / "server.log")
    try:
        sizes = [int(size) for size in options.callers.split(",") if size]
        results["crowds"] = measure_crowds(server, sizes)
        if options.aborts:
            results["aborts"] = asyncio.run(hang_up(server.url, options.aborts))
            print(json.dumps(results["aborts"]), flush=True)
        if options.soak:
            soak = Soak(server, options.soak, 1)
            results["soak"] = asyncio.run(soak.run())
            print(json.dumps(results["soak"]), flush=True)
    finally:
        results["exit_status"] = server.stop()
    if options.soak:
        results["sample"] = compare(soak.heard, options.sample, options.engine)
        print(json.dumps(results["sample"]), flush=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"exit status {results['exit_status']}")


if __name__ == "__main__":
    main()
