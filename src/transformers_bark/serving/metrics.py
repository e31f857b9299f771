"""What is counted, for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 300.0)
_FACTORS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"namespace": "bark", "registry": self.registry}
        self.requests = Counter("requests", "Requests by what became of them", ["endpoint", "outcome"], **made)
        self.queue = Gauge("queue_length", "Generations that wait for a place", **made)
        self.working = Gauge("generations_in_work", "Generations that have a place", **made)
        self.batch = Histogram("batch_size", "Rows decoded together, at each step", buckets=_ROWS, **made)
        self.audio = Counter("audio_seconds", "Seconds of speech that were made", **made)
        self.factor = Histogram(
            "real_time_factor", "Seconds a request took for each second of its speech", buckets=_FACTORS, **made
        )
        self.first = Histogram(
            "time_to_first_audio_seconds", "From a request's arrival to its first audio", buckets=_SECONDS, **made
        )
        self.whole = Histogram("request_seconds", "From a request's arrival to its end", buckets=_SECONDS, **made)

    def observe_step(self, rows: int, waiting: int) -> None:
        """Told by the scheduler at each step."""
        self.queue.set(waiting)
        self.working.set(rows)
        if rows:
            self.batch.observe(rows)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)
