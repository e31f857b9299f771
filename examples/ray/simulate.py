"""What so many hours of audio take on so many workers, and where it bends: a simulation to change.

    python examples/ray/simulate.py [--hours 1000] [--workers 1 10 100 1000] [--speed 2.9] [--loss 0.05] …

Every number has a default that was measured or is said to be assumed (docs/scaling.md), and an option. A worker loads the model,
then takes buckets, the longest first, as `bark-tts batch` plans them; writes each result to a store that all share; and may be lost,
with the bucket that it had begun.
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Assumed:
    """Of one worker, the store and the driver.

    Measured on two cores of a Zen 3 (AVX2), embedded checkpoint, ONNX Runtime in fp32: `row`, `speed`, `start`,
    `bytes`, `fetch`. Assumed: the rest.
    """

    hours: float = 1000.0
    """Of audio, in all."""
    row: float = 4.6
    """Seconds of audio of a row, on average; lengths are spread as those of read sentences are."""
    rows: int = 8
    """In a bucket."""
    speed: float = 2.9
    """Seconds of audio that a worker makes in a second, once it has loaded."""
    start: float = 10.0
    """Seconds from a machine that is there to the first bucket: Python, Ray, the model."""
    fetch: float = 29e6
    """Bytes of the checkpoint, which each machine fetches once."""
    workers_per_machine: int = 16
    network: float = 1.25e9
    """Bytes a second from the store to all machines together when they start, and back."""
    bytes: float = 25.7e3
    """Of a second of audio as FLAC."""
    put: float = 0.05
    """Seconds until the store has taken a small file."""
    puts: float = 3500.0
    """Files a second that the store takes under one prefix."""
    files: float = 11.0
    """Files that a bucket writes: a recording a row, its part, and the mark that it was begun (`parquet`: 3)."""
    ray: float = 0.01
    """Seconds of the driver for a bucket: it hands them out one by one. Measured: less than 0.1, polling included."""
    slow: float = 0.05
    """Share of workers that are slower."""
    slower: float = 2.0
    """How many times."""
    loss: float = 0.01
    """Workers that are lost in an hour, each; another takes its place."""
    replace: float = 60.0
    """Seconds until it does."""
    price: float = 0.04
    """Of a worker for an hour, in any currency."""


def lengths(count: int, mean: float, draw: random.Random) -> list[float]:
    """Seconds of audio of so many rows."""
    return [draw.lognormvariate(0.0, 0.5) * mean / 1.133 for _ in range(count)]  # its mean is exp(0.5 ** 2 / 2)


def simulate(assumed: Assumed, workers: int, seed: int = 0) -> dict[str, float]:
    """One run -> hours that it takes, and where the workers' time went, as shares."""
    draw = random.Random(seed)
    n_rows = max(1, round(assumed.hours * 3600 / assumed.row))
    fine = max(400_000, 20 * assumed.rows * workers)  # a worker's last bucket must be little of its work
    each = max(1, n_rows // fine)  # a simulated row stands for several where there are very many, and so does a bucket
    rows = sorted(lengths(max(1, n_rows // each), assumed.row, draw), reverse=True)
    buckets = [each * sum(rows[first : first + assumed.rows]) for first in range(0, len(rows), assumed.rows)]
    machines = -(-workers // assumed.workers_per_machine)
    start = assumed.start + assumed.fetch * machines / assumed.network
    pace = [assumed.slower if draw.random() < assumed.slow else 1.0 for _ in range(workers)]
    # the store takes so many files and bytes a second from all of them: when they want more, they wait in turn
    files, mean = assumed.files * each, assumed.row * assumed.rows * each
    wanted = workers / (mean / assumed.speed + assumed.put * files)  # buckets a second, of all workers
    limit = min(assumed.puts / files, assumed.network / (mean * assumed.bytes), 1 / (assumed.ray * each))
    crowded = max(1.0, wanted / limit)
    free = [(start, worker) for worker in range(workers)]
    heapq.heapify(free)
    busy = lost = end = 0.0
    pending = buckets[::-1]
    while pending:
        when, worker = heapq.heappop(free)
        length = pending.pop()
        work = length / assumed.speed * pace[worker]
        taken = (work + assumed.put * files) * crowded
        dies = draw.expovariate(assumed.loss / 3600) if assumed.loss else float("inf")
        if dies < taken:  # what it had begun goes to another; of several buckets that stand together, half are finished
            done = 0.5 if each > 1 else 0.0
            pending.append(length * (1 - done))
            lost += dies * (1 - done)
            heapq.heappush(free, (when + dies + assumed.replace + start, worker))
            continue
        busy += work
        end = max(end, when + taken)
        heapq.heappush(free, (when + taken, worker))
    total = workers * end
    return {
        "hours": end / 3600,
        "worker_hours": total / 3600,
        "useful": busy / total,
        "starting": min(1.0, workers * start / total),
        "lost": lost / total,
        "store": max(0.0, 1 - 1 / crowded),
        "price": total / 3600 * assumed.price,
    }


def table(assumed: Assumed, sizes: list[int]) -> str:
    """A line for each number of workers."""
    lines = [
        "| workers | hours | audio h an hour | worker-hours | useful | starting | lost | waits for store or driver | price |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for workers in sizes:
        got = simulate(assumed, workers)
        shares = " | ".join(f"{got[name]:.1%}" for name in ("useful", "starting", "lost", "store"))
        rate = assumed.hours / got["hours"]
        lines.append(
            f"| {workers:,} | {got['hours']:,.2f} | {rate:,.0f} | {got['worker_hours']:,.0f} | {shares} | {got['price']:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 1000])
    for one in fields(Assumed):
        kind = type(one.default)
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, default=one.default, metavar="N")
    options = vars(parser.parse_args())
    sizes = options.pop("workers")
    print(table(replace(Assumed(), **options), sizes))


if __name__ == "__main__":
    main()
