"""The same workers under Ray Data: buckets are a data set, workers a pool of actors that load the model once.

Ray starts an actor again that was killed, and gives its bucket to another; what a worker has written counts, not what it has answered.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ..engines.onnx_session import share_threads
from .plan import Bucket
from .settings import Settings
from .worker import Entry, OutOfMemoryError, Worker

logger = logging.getLogger(__name__)

LOCAL = "local"
_MOST_BLOCKS = 20_000
"""Tasks that the driver keeps count of: of more buckets some share one."""

_NO_MEMORY = 137  # the exit status of a process that the kernel has killed for its memory

_PATIENCE = 10.0  # seconds for a cluster's machine to answer at all

_OBJECT_STORE = 200_000_000  # bytes: only texts and entries go through it


@dataclass(frozen=True)
class Cluster:
    """Where the workers are.

    Args:
        address: of a cluster, as `ray.init` takes it, or "local" for one on this machine that ends with the run.
        workers: at once; None for as many as there is room for when the run begins.
        cpus, gpus: of a worker; a share of a GPU is taken too.
    """

    address: str = LOCAL
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"`workers` must be at least 1, got {self.workers}")
        if self.cpus < 1 or self.gpus < 0:
            raise ValueError(f"a worker has at least 1 core and no less than 0 GPUs, got {self.cpus} and {self.gpus}")

    def __call__(self, settings: Settings, buckets: Sequence[Bucket]) -> Iterator[tuple[Bucket, list[Entry]]]:
        """Makes buckets: each with its entries, as they are made.

        Raises:
            ImportError: Ray is not there.
            ConnectionError: there is no cluster at the address.
            RuntimeError: what a worker could not do for any row, such as to load the model or to write.
        """
        ray = _import_ray()
        mine = not ray.is_initialized()
        if mine:
            self._connect(ray)
        try:
            yield from self._made(ray, settings, buckets)
        finally:
            if mine:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.address != LOCAL:
            _check_somebody_listens(self.address)
            ray.init(address=self.address, **quiet)
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        cores = (self.workers or max(1, (os.cpu_count() or 1) // self.cpus)) * self.cpus
        ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=_OBJECT_STORE, **quiet)

    def _room(self, ray: Any) -> int:
        """Workers for which there are cores and GPUs."""
        there = ray.cluster_resources()
        room = there.get("CPU", 0.0) / self.cpus
        if self.gpus:
            room = min(room, there.get("GPU", 0.0) / self.gpus)
        if room < 1:
            raise ValueError(f"no machine has {self.cpus} cores and {self.gpus:g} GPUs: {there}")
        return math.floor(room)

    def _made(self, ray: Any, settings: Settings, buckets: Sequence[Bucket]) -> Iterator[tuple[Bucket, list[Entry]]]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        workers = min(self.workers or self._room(ray), len(buckets))
        told = replace(settings, threads=settings.threads or self.cpus)
        rows = [{"bucket": bucket.as_json()} for bucket in buckets]
        # with blocks of one bucket a kill costs one, and progress is told for each
        made = ray.data.from_items(
            rows, override_num_blocks=min(len(rows), _MOST_BLOCKS)
        ).map_batches(
            RayWorker,
            fn_constructor_args=(told.as_json(),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=self.cpus,
            num_gpus=self.gpus or None,
        )  # such actors are started again, and their tasks given to others, without end: a worker counts what a bucket ended
        by_name = {bucket.name: bucket for bucket in buckets}
        try:
            for row in made.iter_rows():
                yield by_name[row["name"]], json.loads(row["entries"])
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"a worker failed: {_cause(error)}") from error


class RayWorker:
    """A worker as an actor of Ray Data."""

    def __init__(self, settings: str) -> None:
        share_threads()
        self._worker = Worker(Settings.from_json(settings), is_replaced=True)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        buckets = [Bucket.from_json(str(text)) for text in batch["bucket"]]
        try:
            entries = [json.dumps(self._worker.make(bucket)) for bucket in buckets]
        except OutOfMemoryError:
            logger.warning("a worker is out of memory: another takes its place")
            os._exit(_NO_MEMORY)  # what holds the memory is not known: a new process has all of it
        return {"name": [bucket.name for bucket in buckets], "entries": entries}


def _check_somebody_listens(address: str) -> None:
    """Ray itself goes on trying for minutes.

    Raises:
        ConnectionError: nobody answers at the host and port of the address.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.port is None:  # as in "auto", where Ray looks for itself
        return
    try:
        socket.create_connection((place.hostname or "", place.port), timeout=_PATIENCE).close()
    except OSError as error:
        raise ConnectionError(f"there is no Ray cluster at {address!r}: {error.strerror or error}") from error


def _cause(error: BaseException) -> str:
    """The last line of what Ray tells."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).strip().splitlines()[-1:]) or type(cause).__name__


def _import_ray() -> Any:
    try:
        import ray
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ImportError("--ray needs Ray: pip install 'transformers-bark[ray]'") from error
    return ray
