"""A service on a port of this machine, with a tiny model or the embedded checkpoint."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import uvicorn

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor
from transformers_bark.serving.app import create_app
from transformers_bark.serving.auth import Keys
from transformers_bark.serving.server import Server
from transformers_bark.serving.service import Service, ServiceLimits
from transformers_bark.serving.voices import Voices


class Running:
    """A service that answers."""

    def __init__(self, service: Service, url: str, model: BarkModel, processor: BarkProcessor) -> None:
        self.service, self.url, self.model, self.processor = service, url, model, processor
        self.http = httpx.Client(base_url=url, timeout=120)

    def client(self, key: str = "any") -> openai.OpenAI:
        """OpenAI's own client."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def speak(self, text: str, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/audio/speech", json={"input": text, "response_format": "pcm", **fields})

    def settle(self, seconds: float = 20.0) -> None:
        """Waits until no request has a place."""
        self.until(lambda: not self.service.taken and not self.service.scheduler.working, seconds)

    @staticmethod
    def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.005)


@contextlib.contextmanager
def running(
    model: BarkModel,
    processor: BarkProcessor,
    folder: Path | None = None,
    keys: Keys | None = None,
    limits: ServiceLimits | None = None,
    slots: int | None = None,
    origins: tuple[str, ...] = (),
    most_voices: int = 3,
    log_text: bool = False,
) -> Iterator[Running]:
    """A real server in a thread."""
    voices = Voices(processor, model.generation_config, folder, most_voices)
    service = Service(model, processor, "tiny", voices, limits, slots)
    config = uvicorn.Config(create_app(service, keys, origins, log_text), log_config=None, timeout_graceful_shutdown=2)
    server = Server(config, service)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        one = Running(service, f"http://127.0.0.1:{listening.getsockname()[1]}", model, processor)
        try:
            one.until(lambda: service.is_ready, 60)
            yield one
        finally:
            one.http.close()
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


Serve = Callable[..., contextlib.AbstractContextManager[Running]]


@pytest.fixture
def serve(checkpoint: Path) -> Serve:
    """Starts a service of the tiny model with settings of a test's own."""
    model = BarkModel.from_pretrained(checkpoint).eval()
    processor = BarkProcessor.from_pretrained(checkpoint)
    return lambda **settings: running(model, processor, **settings)


@pytest.fixture(scope="module")
def tiny(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service of the tiny model, for a whole module."""
    model = BarkModel.from_pretrained(checkpoint).eval()
    processor = BarkProcessor.from_pretrained(checkpoint)
    with running(model, processor, tmp_path_factory.mktemp("voices")) as one:
        yield one


@pytest.fixture(scope="module")
def nano() -> Iterator[Running]:
    """A service of the embedded checkpoint."""
    model, processor = BarkModel.from_pretrained(BARK_NANO).eval(), BarkProcessor.from_pretrained(BARK_NANO)
    with running(model, processor) as one:
        yield one
