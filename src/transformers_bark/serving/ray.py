"""The service under Ray Serve: `serve run transformers_bark.serving.ray:app`.

An ingress holds the same FastAPI application as `bark-tts serve`, without a model: it reads texts, joins pieces and encodes. Its jobs
go to replicas that each hold a model and the scheduler that shares its batches. A job is a function of its seed, so one whose replica
dies is given to another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from .scheduler import Job, Scheduler, StoppedError, Take
from .service import Service, ServiceLimits

logger = logging.getLogger("transformers_bark.serving")

RETRIES = 3
"""Replicas that may die under one job before it has failed."""

_THREADS = 64  # jobs of one ingress whose answers are waited for
_DEFAULT = "default"


class Arguments(BaseModel):
    """What `serve run … KEY=VALUE` and `args` of a config file may say."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="folder or Hub name; the checkpoint in the package by default")
    models: dict[str, str] = Field({}, description="more of them, by the name that requests give as `model`")
    models_per_replica: int = Field(1, ge=1, description="that a replica holds at once; the least used one goes first")
    slots: int = Field(8, ge=1, description="generations at once in a replica")
    queue: int = Field(64, ge=0, description="requests that wait in an ingress")
    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(2, ge=1)
    target_jobs: float | None = Field(
        None, gt=0, description="jobs a replica above which another is started: the slots"
    )
    upscale_delay: float = Field(10.0, ge=0, description="seconds")
    downscale_delay: float = Field(300.0, ge=0, description="seconds")
    drain: float = Field(60.0, ge=0, description="seconds that a replica that goes may take for what it has begun")
    cpus: int = Field(1, ge=1, description="of a replica")
    gpus: float = Field(0.0, ge=0)
    device: str | None = Field(None, description="cuda where a replica has a GPU, else cpu")
    engine: str = "auto"
    precision: str | None = None
    voices: Path | None = Field(
        None, description="folder of stored voices, that every ingress reaches; none by default"
    )
    api_key_file: Path | None = None

    def sources(self) -> dict[str, str]:
        """Models by the name that callers use; the first is the one of requests that name none."""
        from .. import BARK_NANO
        from .server import model_name

        first = self.model or BARK_NANO
        return {model_name(first): first} | self.models


class Replica:
    """Holds models, each with a scheduler, and runs jobs."""

    async def __init__(self, arguments: Arguments) -> None:  # type: ignore[misc]  # Serve awaits it
        self._arguments, self._sources = arguments, arguments.sources()
        import torch

        torch.set_num_threads(arguments.cpus)
        await self.load(next(iter(self._sources)))  # no job comes before it is there

    async def load(self, name: str) -> _Loaded:
        """A model by name, kept as `multiplexed` says."""
        return await asyncio.to_thread(_Loaded, self._sources[name], self._arguments)

    async def speak(self, name: str, job: Mapping[str, Any]) -> Take:
        """Runs a job to its end; where its caller gives it up, it leaves its batch before the next step."""
        loaded = await self.load(name)
        asked = Job(**job)
        loaded.scheduler.submit(asked)
        try:
            return await asyncio.wrap_future(asked.result)
        except asyncio.CancelledError:
            loaded.scheduler.cancel([asked])
            raise

    async def align(self, name: str, *given: Any) -> Any:
        """Finds the words of a generation; None where the checkpoint cannot."""
        loaded = await self.load(name)
        if loaded.aligner is None:
            return None
        return await asyncio.wrap_future(loaded.scheduler.call(lambda: loaded.aligner(*given)))

    async def process(self) -> int:
        """Its process, for those who look at it or end it."""
        return os.getpid()


class _Loaded:
    """A model in a replica."""

    def __init__(self, source: str, arguments: Arguments) -> None:
        from ..engines import EngineChoice
        from ..engines.onnx_session import share_threads
        from ..low_memory import load_with_engine
        from ..modeling_bark import BarkModel
        from ..narration.alignment import Aligner
        from ..processing_bark import BarkProcessor

        share_threads()
        device = arguments.device or ("cuda" if arguments.gpus else "cpu")
        model = load_with_engine(BarkModel, source, device, EngineChoice(arguments.engine, arguments.precision))
        self.aligner: Any = Aligner.of(model, BarkProcessor.from_pretrained(source))
        self.scheduler = Scheduler(model, arguments.slots).start()
        self.scheduler.call(self.scheduler.warm_codec)

    def __del__(self) -> None:
        """Serve lets go of a model that others need the room of."""
        with suppress(AttributeError):
            threading.Thread(target=self.scheduler.stop, daemon=True).start()


class RemoteScheduler:
    """What the service takes for its `Scheduler`: it hands jobs to replicas.

    Args:
        slots: generations at once in all replicas.
    """

    def __init__(self, handle: DeploymentHandle, name: str, slots: int) -> None:
        self._handle = handle.options(multiplexed_model_id=name)
        self.name, self.slots = name, slots
        self._pool = ThreadPoolExecutor(_THREADS, "bark-job")
        self._calls = ThreadPoolExecutor(8, "bark-call")
        self._lock = threading.Lock()
        self._running: dict[Job, Any] = {}
        self._waiting = 0
        self.is_alive = True

    def start(self) -> RemoteScheduler:
        return self

    def stop(self) -> None:
        """Ends what runs; jobs that are not finished fail with `StoppedError`."""
        with self._lock:
            self.is_alive = False
            running = list(self._running.items())
        for _, response in running:
            response.cancel()
        for pool in (self._pool, self._calls):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a thread here; how many wait in replicas is Serve's to tell."""
        return self._waiting

    @property
    def working(self) -> int:
        return len(self._running)

    def submit(self, job: Job) -> Job:
        """Hands a job on.

        Raises:
            StoppedError: after `stop`.
        """
        if not self.is_alive:
            raise StoppedError("the service is shutting down")
        with self._lock:
            self._waiting += 1
        self._pool.submit(self._run, job)
        return job

    def _run(self, job: Job) -> None:
        with self._lock:
            self._waiting -= 1
        fields = ("caller", "input_ids", "attention_mask", "voice", "options", "seed", "early")
        told = {name: getattr(job, name) for name in fields}
        for attempt in range(RETRIES + 1):
            if job.result.cancelled():
                return
            try:
                result = self._ask(job, told)
            except RayActorError as error:
                if attempt < RETRIES and self.is_alive:
                    logger.warning("a replica died under a job: it is given to another")
                    continue
                _fail(job, error)
            except Exception as error:
                _fail(job, error if self.is_alive else StoppedError("the service is shutting down"))
            else:
                with suppress(Exception):  # its caller has left
                    job.result.set_result(result)
            return

    def _ask(self, job: Job, told: Mapping[str, Any]) -> Take:
        response = self._handle.speak.remote(self.name, told)
        with self._lock:
            self._running[job] = response
        try:
            return response.result()
        finally:
            with self._lock:
                self._running.pop(job, None)

    def cancel(self, jobs: Iterable[Job]) -> None:
        """Takes jobs out of their replicas' batches."""
        for job in jobs:
            job.result.cancel()
            with self._lock:
                response = self._running.get(job)
            if response is not None:
                response.cancel()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Runs what asks a replica."""
        if not self.is_alive:
            raise StoppedError("the service is shutting down")
        return self._calls.submit(function)

    def align(self, *given: Any) -> Any:
        """The alignment that a replica finds."""
        return self._handle.align.remote(self.name, *given).result()


def _fail(job: Job, error: Exception) -> None:
    kinds = (RayError, BackPressureError, DeploymentUnavailableError)
    told: Exception = RuntimeError(type(error).__name__) if isinstance(error, kinds) else error
    with suppress(Exception):
        job.result.set_exception(told)


class RemoteModel:
    """A model as the service's texts need it: configs and shapes, without weights."""

    def __init__(self, source: str, scheduler: RemoteScheduler) -> None:
        import torch

        from ..low_memory import skeleton
        from ..modeling_bark import BarkModel

        whole = skeleton(BarkModel, source)
        self.config, self.generation_config = whole.config, whole.generation_config
        self.semantic, self.coarse_acoustics = whole.semantic, whole.coarse_acoustics
        self.fine_acoustics = whole.fine_acoustics
        self.device = torch.device("cpu")
        heads = getattr(whole.config.semantic_config, "alignment_heads", None)
        self.aligner = scheduler.align if heads else None


class RemoteService(Service):
    """A service that is ready from the start: a job waits in Serve until a replica has loaded, and there may be none yet."""

    def start(self) -> None:
        self.scheduler.start()
        self.is_ready = True


class Ingress:
    """HTTP: the service's application, whose model is elsewhere."""

    def __init__(self, replicas: DeploymentHandle, arguments: Arguments) -> None:
        self._services: dict[str, Service] = {}
        for name, source in arguments.sources().items():
            self._services[name] = self._service(name, source, replicas, arguments)
        self._keys = arguments.api_key_file

    def _service(self, name: str, source: str, replicas: DeploymentHandle, arguments: Arguments) -> Service:
        from ..processing_bark import BarkProcessor
        from .voices import Voices

        scheduler = RemoteScheduler(replicas, name, arguments.slots * arguments.max_replicas)
        model = RemoteModel(source, scheduler)
        processor = BarkProcessor.from_pretrained(source)
        voices = Voices(processor, model.generation_config, arguments.voices and arguments.voices / name)
        return RemoteService(model, processor, name, voices, ServiceLimits(queue=arguments.queue), scheduler=scheduler)

    def __serve_build_asgi_app__(self) -> Any:  # noqa: N807 - the name is Serve's
        from .app import create_app
        from .auth import Keys

        keys = Keys() if self._keys is None else Keys.read(self._keys)
        apps = {name: create_app(service, keys) for name, service in self._services.items()}
        return apps.popitem()[1] if len(apps) == 1 else ManyModels(apps)


class ManyModels:
    """Applications of several models: a request goes to the one that its `model` names, else to the first.

    What has no body to name a model in goes to the first, and so does a body that names none of them, which is told there is none.
    """

    def __init__(self, apps: Mapping[str, Any]) -> None:
        self._apps = dict(apps)
        self._first = next(iter(self._apps.values()))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/v1/models" and scope["method"] == "GET":
            await self._list(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v1/audio/speech"):
            await self._choose(scope, receive, send)
        else:
            await self._first(scope, receive, send)

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        """Starts and stops all: each gets the messages, and one answers."""
        queues = [asyncio.Queue[Any]() for _ in self._apps]
        answers: asyncio.Queue[Any] = asyncio.Queue()
        tasks = [
            asyncio.ensure_future(app(dict(scope), queue.get, answers.put))
            for app, queue in zip(self._apps.values(), queues, strict=True)
        ]
        for _ in ("startup", "shutdown"):
            message = await receive()
            for queue in queues:
                queue.put_nowait(message)
            told = [await answers.get() for _ in tasks]
            await send(next((one for one in told if one["type"].endswith("failed")), told[0]))
        await asyncio.gather(*tasks)

    async def _list(self, scope: Any, receive: Any, send: Any) -> None:
        """All models, as the first one's application lists its own; what that refuses stays refused."""
        parts: list[Any] = []

        async def kept(message: Any) -> None:
            parts.append(message)

        await self._first(scope, receive, kept)
        if parts[0]["status"] == 200:
            body = json.loads(b"".join(part.get("body", b"") for part in parts[1:]))
            names = list(self._apps)[1:]
            body["data"][1:1] = [{**body["data"][0], "id": name} for name in names]
            content = json.dumps(body).encode()
            headers = [one for one in parts[0]["headers"] if one[0].lower() != b"content-length"]
            parts[0]["headers"] = [*headers, (b"content-length", str(len(content)).encode())]
            parts[1:] = [{"type": "http.response.body", "body": content}]
        for part in parts:
            await send(part)

    async def _choose(self, scope: Any, receive: Any, send: Any) -> None:
        """Looks into the body, and hands it on as it came."""
        most, seen, size = ServiceLimits().body, [], 0
        while size <= most:  # of a larger one the application says that it is too large
            message = await receive()
            seen.append(message)
            size += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        name = None
        with suppress(ValueError, AttributeError, RecursionError):
            whole = b"".join(message.get("body", b"") for message in seen) if size <= most else b""
            name = json.loads(whole).get("model")
        waiting = iter(seen)

        async def again() -> Any:
            message = next(waiting, None)
            return await receive() if message is None else message

        app = self._apps.get(name, self._first) if isinstance(name, str) else self._first
        await app(scope, again, send)


def app(args: Arguments | dict[str, Any]) -> Any:
    """The application that `serve run` and config files name.

    Args:
        args: a dict from those two, whose values may be text.

    Raises:
        ValueError: an argument is unknown or has no sense.
    """
    args = Arguments.model_validate(args)
    # the decorator takes its number when the class is made, and the number is an argument
    load = serve.multiplexed(max_num_models_per_replica=args.models_per_replica)(Replica.load)
    replicas = serve.deployment(
        type("Replica", (Replica,), {"load": load}),
        name="Replica",
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": args.gpus},
        # more than the slots, so that the scheduler has the next job there when a place is free
        max_ongoing_requests=2 * args.slots,
        autoscaling_config={
            "min_replicas": args.min_replicas,
            "max_replicas": max(args.max_replicas, args.min_replicas),
            "target_ongoing_requests": args.target_jobs or args.slots,
            "upscale_delay_s": args.upscale_delay,
            "downscale_delay_s": args.downscale_delay,
        },
        graceful_shutdown_timeout_s=args.drain,
    )
    ingress = serve.deployment(
        serve.ingress()(Ingress),
        name="Ingress",
        ray_actor_options={"num_cpus": 0},  # it waits and encodes; replicas have the cores
        max_ongoing_requests=10_000,  # the service itself refuses what it has no place for
        graceful_shutdown_timeout_s=args.drain,
    )
    return ingress.bind(replicas.bind(args), args)
