"""The service under Ray Serve: what its callers get, also while replicas die and go."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import psutil
import pytest
import torch
import yaml

from transformers_bark import BarkModel, BarkProcessor
from transformers_bark.audio_files import as_int16

pytest.importorskip("ray")

from transformers_bark.serving.ray import Arguments, ManyModels, app  # noqa: E402

ROOT = Path(__file__).parents[2]
TEXT = "hello my dog"


@pytest.mark.parametrize("path", sorted((ROOT / "examples/ray").glob("*.yaml")), ids=lambda path: path.name)
def test_config_files_say_what_there_is(path: Path) -> None:
    for application in yaml.safe_load(path.read_text()).get("applications", []):
        assert application["import_path"] == "transformers_bark.serving.ray:app"
        app(application["args"])


def test_the_command_gives_its_arguments_as_text() -> None:
    app({"slots": "4", "max_replicas": "3"})
    for wrong in ({"slotz": "1"}, {"slots": "0"}, {"slots": "many"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            app(wrong)


def ask(app: Any, path: str, body: bytes | None = None, method: str = "POST") -> tuple[int, bytes]:
    """One request to an ASGI application, its body in two parts."""
    scope = {"type": "http", "path": path, "method": method, "headers": []}
    half = len(body or b"") // 2
    parts = [(body or b"")[:half], (body or b"")[half:]]
    told = iter([{"type": "http.request", "body": part, "more_body": part is parts[0]} for part in parts])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(told)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def named(name: str) -> Any:
    """An application that says its name, and what it was sent."""

    async def one(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/v1/models":
            body = json.dumps({"data": [{"id": name, "object": "model"}, {"id": "tts-1"}]}).encode()
        else:
            body = name.encode() + b" "
            while True:
                message = await receive()
                body += message["body"]
                if not message["more_body"]:
                    break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return one


def test_a_request_goes_to_the_model_that_it_names() -> None:
    both = ManyModels({"small": named("small"), "large": named("large")})
    for body, name in (
        (b'{"model": "large", "input": "x"}', b"large"),
        (b'{"model": "small"}', b"small"),
        (b'{"model": "other"}', b"small"),
        (b'{"input": "x"}', b"small"),
        (b"[1]", b"small"),
        (b"not json", b"small"),
        (b'{"model": "large", "input": "' + b"x" * 3_000_000 + b'"}', b"small"),  # it says that this is too large
    ):
        assert ask(both, "/v1/audio/speech", body) == (200, name + b" " + body)
    status, listed = ask(both, "/v1/models", method="GET")
    assert [one["id"] for one in json.loads(listed)["data"]] == ["small", "large", "tts-1"]


class Cluster:
    """An application of Serve that answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=120)

    def speak(self, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/audio/speech", json={"input": TEXT, "response_format": "pcm", **fields})

    def replicas(self) -> list[int]:
        """Processes of the model's replicas."""
        found = psutil.process_iter(["cmdline"])
        return [one.pid for one in found if "ServeReplica:bark:Replica" in " ".join(one.info["cmdline"] or [])]

    def until(self, holds: Any, seconds: float = 300.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(checkpoint: Path) -> Iterator[Cluster]:
    """Two replicas of one core, each with room for one of two models."""
    import ray
    from ray import serve

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        settings = Arguments(model=str(checkpoint), models={"other": str(checkpoint)}, min_replicas=2, engine="torch")
        serve.run(app(settings), name="bark")
        one = Cluster(f"http://127.0.0.1:{port}")
        one.until(lambda: one.http.get("/ready").status_code == 200)
        one.until(lambda: len(one.replicas()) == 2)
        yield one
        one.http.close()
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.ray
def test_openai_s_client_gets_what_generate_gives(cluster: Cluster, checkpoint: Path) -> None:
    client = openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="any", max_retries=0)
    model, processor = BarkModel.from_pretrained(checkpoint).eval(), BarkProcessor.from_pretrained(checkpoint)
    audio = model.generate(**processor(TEXT, voice_preset="v2/en_speaker_0"), seed=5)[0]
    wanted = as_int16(audio.numpy()).tobytes()
    name = checkpoint.name
    for asked in (name, "tts-1", "other"):
        speech = client.audio.speech.create(
            model=asked, voice="default", input=TEXT, response_format="pcm", extra_body={"seed": 5}
        )
        assert speech.content == wanted, asked
    assert [one.id for one in client.models.list()][:2] == [name, "other"]
    with pytest.raises(openai.NotFoundError, match="there is no model 'nosuch'"):
        client.audio.speech.create(model="nosuch", voice="default", input=TEXT)
    with pytest.raises(openai.UnprocessableEntityError, match="there is no voice"):
        client.audio.speech.create(model="tts-1", voice="/etc/passwd", input=TEXT)
    pieces = list(model.generate_stream(**processor(TEXT, voice_preset="v2/en_speaker_0"), seed=5))
    early = cluster.speak(seed=5, early=True, voice="v2/en_speaker_0")
    assert early.content == as_int16(torch.cat(pieces).numpy()).tobytes()


@pytest.mark.ray
def test_answers_are_streamed(cluster: Cluster) -> None:
    """The first piece of a long text is there before the last is made."""
    text = "hello my dog is cooler than you. " * 12
    came: list[float] = []
    asked = {"input": text, "response_format": "pcm", "seed": 1}
    with cluster.http.stream("POST", "/v1/audio/speech", json=asked) as answer:
        for _ in answer.iter_raw():
            came.append(time.monotonic())
    assert answer.status_code == 200 and len(came) > 3 and came[-1] - came[0] > 0.1
    words = cluster.http.post("/v1/audio/speech/timestamps", json={"input": TEXT, "seed": 1})
    assert words.status_code == 200 and words.json()["segments"]


@pytest.mark.ray
def test_a_replica_that_dies_costs_no_request(cluster: Cluster) -> None:
    """Accepted requests are given to the other replica; the same seed gives the same audio there."""
    cluster.until(lambda: len(cluster.replicas()) == 2)
    wanted = {seed: hashlib.sha256(cluster.speak(seed=seed).content).hexdigest() for seed in range(4)}
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(cluster.speak, seed=number % 4) for number in range(48)]
        cluster.until(lambda: sum(one.done() for one in answers) >= 8)
        os.kill(cluster.replicas()[0], signal.SIGKILL)
        got = [(number % 4, answer.result()) for number, answer in enumerate(answers)]
    assert [answer.status_code for _, answer in got] == [200] * 48
    assert all(hashlib.sha256(answer.content).hexdigest() == wanted[seed] for seed, answer in got)
    cluster.until(lambda: len(cluster.replicas()) == 2)  # Serve starts another


@pytest.mark.ray
def test_requests_are_answered_while_all_is_replaced(cluster: Cluster, checkpoint: Path) -> None:
    """Other arguments: Serve starts new replicas and a new ingress, and the old ones finish what they have begun."""
    from ray import serve

    wanted = cluster.speak(seed=1).content
    settings = Arguments(
        model=str(checkpoint), models={"other": str(checkpoint)}, min_replicas=2, engine="torch", slots=4
    )
    going = threading.Thread(target=serve.run, args=(app(settings),), kwargs={"name": "bark"})
    going.start()
    answers = []
    while going.is_alive():
        answers.append(cluster.speak(seed=1))
    going.join()
    assert len(answers) > 5 and {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {wanted}
