"""What is around the speech: voices, keys, origins, figures, the log, the WebSocket, and the end."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
import pytest
from openai.types.audio import Voice, VoiceDeleted
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.serving.conftest import Running, Serve
from tests.tiny import tiny_voice
from transformers_bark.serving import server
from transformers_bark.serving.auth import Keys
from transformers_bark.serving.conversation import Sentences
from transformers_bark.serving.service import ServiceLimits

ROOT = Path(__file__).parents[2]


def voice_bytes(folder: Path, seed: int = 1, ending: str = "npz") -> bytes:
    tiny_voice(seed=seed).save(folder / f"voice.{ending}")
    return (folder / f"voice.{ending}").read_bytes()


def upload(one: Running, name: str, data: bytes, filename: str = "voice.npz") -> httpx.Response:
    return one.http.post("/v1/audio/voices", data={"name": name}, files={"file": (filename, data)})


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_stored_voice_speaks_as_the_preset_does(serve: Serve, tmp_path: Path, ending: str) -> None:
    """By its id and its name; another process finds it again; deleted, it is gone."""
    data = voice_bytes(tmp_path, ending=ending)
    with serve(folder=tmp_path / "kept") as one:
        voice = Voice.model_validate(upload(one, "mine", data).json())
        spoken = one.speak("hello my dog", voice=voice.id, seed=3).content
        assert one.speak("hello my dog", voice={"id": "mine"}, seed=3).content == spoken
        inputs = one.processor("hello my dog", voice_preset=tiny_voice(seed=1))
        audio = one.model.generate(**inputs, seed=3, progress=False)[0].numpy()
        assert spoken == np.rint(audio * 32768).clip(-32768, 32767).astype("<i2").tobytes()
    with serve(folder=tmp_path / "kept") as one:
        listed = one.http.get("/v1/audio/voices").json()["data"]
        assert [entry["name"] for entry in listed] == ["v2/en_speaker_0", "mine"]
        assert one.speak("hello my dog", voice="mine", seed=3).content == spoken
        gone = one.client().audio.voices.delete(voice.id)
        assert isinstance(gone, VoiceDeleted) and gone.deleted
        assert one.speak("hello", voice="mine").status_code == 422
        assert one.http.delete(f"/v1/audio/voices/{voice.id}").status_code == 404
    assert not list((tmp_path / "kept").iterdir())


def hostile(kind: str, folder: Path) -> bytes:
    """Uploads that are no voices, or mean harm."""
    good = voice_bytes(folder)
    if kind == "cut":
        return good[: len(good) // 2]
    if kind == "text":
        return b"hello"
    if kind == "empty":
        return b""
    buffer = io.BytesIO()
    if kind == "pickled":
        np.savez(
            buffer, semantic_prompt=np.array([print], object), coarse_prompt=np.ones((2, 3)), fine_prompt=np.ones(3)
        )
        return buffer.getvalue()
    arrays: dict[str, Any] = {name: part.numpy() for name, part in tiny_voice().as_dict().items()}
    if kind == "other model":
        arrays["semantic_prompt"] = arrays["semantic_prompt"] + 1000
    if kind == "bomb":
        arrays["semantic_prompt"] = np.zeros(1_000_000, np.int64)
    np.savez_compressed(buffer, **arrays)
    if kind == "claims":  # a head of a few bytes that asks for terabytes
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("semantic_prompt.npy", head.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["cut", "text", "empty", "pickled", "other model", "bomb", "claims"])
def test_what_is_no_voice_is_refused(tiny: Running, tmp_path: Path, kind: str) -> None:
    answer = upload(tiny, "bad", hostile(kind, tmp_path))
    assert answer.status_code in (413, 422) and answer.json()["error"]["param"] == "file"
    assert str(tmp_path) not in answer.text and "/tmp" not in answer.text
    assert "bad" not in tiny.service.voices.names()


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/b", ".hidden", "", "a" * 65, "a\nb", "a\x00", "default", "v2/en_speaker_0"]
)
def test_names_are_names(tiny: Running, tmp_path: Path, name: str) -> None:
    """Not paths, and not those that there are."""
    answer = upload(tiny, name, voice_bytes(tmp_path))
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "name"


def test_voices_and_uploads_are_limited(serve: Serve, tmp_path: Path) -> None:
    with serve(folder=tmp_path / "kept", most_voices=2, limits=ServiceLimits(upload=20_000)) as one:
        data = voice_bytes(tmp_path)
        assert [upload(one, f"v{number}", data).status_code for number in range(3)] == [200, 200, 429]
        assert upload(one, "v0", data).status_code == 422  # taken
        assert upload(one, "large", data + bytes(30_000)).status_code == 413
        assert upload(one, "larger", bytes(300_000)).status_code == 413
    with serve(folder=None) as one:
        assert upload(one, "mine", data).status_code == 404


@pytest.mark.parametrize("path", ["../secret", "..%2fsecret", "%2e%2e/secret", "voice_" + "0" * 24, "x" * 2000])
def test_no_path_of_a_request_reaches_the_file_system(tiny: Running, path: str) -> None:
    secret = tiny.service.voices._folder
    assert secret is not None
    (secret.parent / "secret.safetensors").write_bytes(b"secret")
    answer = tiny.http.delete(f"/v1/audio/voices/{path}")
    assert answer.status_code in (404, 405)
    assert (secret.parent / "secret.safetensors").read_bytes() == b"secret"


def test_keys_are_needed_where_there_are_keys(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\n\nfirst-key\n  second-key \n")
    with serve(keys=Keys.read(tmp_path / "keys")) as one:
        asked: dict[str, Any] = {"model": "tts-1", "voice": "default", "input": "hello my dog"}
        for key in ("first-key", "second-key"):
            assert one.client(key).audio.speech.create(**asked).content
        for key in ("first-ke", "# ours", "first-key ", " "):
            with pytest.raises((openai.AuthenticationError, openai.APIConnectionError)):
                one.client(key + "x").audio.speech.create(**asked)
        for path in ("/v1/models", "/v1/audio/voices", "/metrics", "/docs", "/openapi.json", "/nothing"):
            answer = one.http.get(path)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key", path
        assert one.http.get("/health").status_code == one.http.get("/ready").status_code == 200
        assert one.http.get("/v1/models", headers={"Authorization": "Basic first-key"}).status_code == 401
        with pytest.raises(InvalidStatus):
            connect(one.url.replace("http", "ws") + "/v1/audio/speech/stream")
    (tmp_path / "none").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no key"):
        Keys.read(tmp_path / "none")


def test_pages_of_other_sites_are_refused_unless_named(serve: Serve) -> None:
    with serve(origins=("https://friend.example",)) as one:
        for origin, status in (("https://foe.example", 403), ("https://friend.example", 200), (one.url, 200)):
            answer = one.http.post("/v1/audio/speech", json={"input": "hello my dog"}, headers={"Origin": origin})
            assert answer.status_code == status, origin
        ask = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
        assert one.http.options("/v1/audio/speech", headers=ask).headers["access-control-allow-origin"]


def test_models_state_and_unknown_paths(tiny: Running) -> None:
    assert tiny.client().models.list().data[0].id == "tiny"
    assert tiny.http.get("/health").json() == {"status": "ok"} and tiny.http.get("/ready").json() == {"status": "ready"}
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/audio/speech", 405),
        ("PUT", "/v1/models", 405),
    ):
        answer = tiny.http.request(method, path)
        assert answer.status_code == status and answer.json()["error"]["type"] == "invalid_request_error"
    assert "POST" in tiny.http.get("/v1/audio/speech").headers["allow"]
    page = tiny.http.get("/openapi.json").json()
    voice = page["components"]["schemas"]["SpeechRequest"]["properties"]["voice"]
    assert "v2/en_speaker_0" in voice["anyOf"][0]["enum"]
    assert tiny.http.get("/docs").status_code == 200


def test_it_is_ready_only_after_its_warm_up(serve: Serve) -> None:
    with serve() as one:
        one.service.is_ready = False
        assert one.http.get("/ready").status_code == 503 and one.http.get("/health").status_code == 200
        refused = one.speak("hello")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "2"
        one.service.is_ready = True


def figures(one: Running) -> dict[str, float]:
    lines = one.http.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_figures_count_what_happened(serve: Serve) -> None:
    with serve() as one:
        samples = len(one.speak("hello my dog", seed=1).content) // 2
        one.speak("hello", voice="nobody")
        one.settle()
        found = figures(one)
        speech = 'bark_requests_total{endpoint="/v1/audio/speech",outcome='
        assert found[speech + '"ok"}'] == 1 and found[speech + '"invalid_value"}'] == 1
        assert found["bark_audio_seconds_total"] == pytest.approx(samples / 24_000)
        assert found["bark_time_to_first_audio_seconds_count"] == found["bark_real_time_factor_count"] == 1
        assert found["bark_batch_size_count"] > 10 and found["bark_queue_length"] == 0
        one.http.get("/" + "x" * 500)
        assert found.keys() | {'bark_requests_total{endpoint="other",outcome="http_404"}'} <= figures(one).keys()


@pytest.mark.parametrize("log_text", [False, True])
def test_the_log_has_a_line_a_request_and_no_text(
    serve: Serve, caplog: pytest.LogCaptureFixture, log_text: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    with serve(log_text=log_text) as one:
        answer = one.speak("hello my secret dog", seed=1)
        one.speak("hello my secret dog", voice="nobody")
        one.http.post(
            "/v1/audio/speech", content=b'{"input": ["secret"]}', headers={"content-type": "application/json"}
        )
        one.http.get("/a%0Ab")
    lines = [record.getMessage() for record in caplog.records if record.name == "transformers_bark.serving"]
    assert len(lines) == 4 and all("\n" not in line for line in lines)
    assert answer.headers["x-request-id"] in lines[0]
    assert re.search(r"POST '/v1/audio/speech' 200 ok \d+\.\d+s characters=19 ", lines[0])
    assert ("secret" in caplog.text) is log_text


def socket_to(one: Running) -> ClientConnection:
    return connect(one.url.replace("http", "ws") + "/v1/audio/speech/stream")


def test_a_conversation_is_heard_sentence_by_sentence(nano: Running) -> None:
    """The first sentence is heard before the last is written; all together are one stream."""
    with socket_to(nano) as it:
        it.send(json.dumps({"type": "start", "voice": "en_heart", "seed": 4, "response_format": "wav"}))
        for bit in ("Good morn", "ing. How are", " you?"):
            it.send(json.dumps({"type": "text", "text": bit}))
        first = json.loads(it.recv(30))
        assert first == {"type": "sentence", "index": 0, "text": "Good morning.", "start": 0.0}
        received = [it.recv(30)]
        it.send(json.dumps({"type": "text", "text": " The dog is here"}))
        it.send(json.dumps({"type": "end"}))
        received += list(it)
    events = [json.loads(one) for one in received if isinstance(one, str)]
    audio = b"".join(one for one in received if isinstance(one, bytes))
    assert [event["text"] for event in events[:-1]] == ["How are you?", "The dog is here"]
    assert events[-1]["type"] == "done" and events[-1]["usage"]["output_tokens"] > 50
    heard = np.frombuffer(audio[44:], "<i2")
    assert audio[:4] == b"RIFF" and audio.count(b"RIFF") == 1
    starts = [0.0, *(event["start"] for event in events[:-1]), len(heard) / 24_000]
    assert starts == sorted(starts) and all(end - start > 0.2 for start, end in zip(starts, starts[1:], strict=False))
    nano.settle()


@pytest.mark.parametrize(
    "messages, param",
    [
        (["no json"], "type"),
        ([{"type": "other"}], "type"),
        ([{"type": "start", "speed": 9}], "speed"),
        ([{"type": "start", "voice": "nobody"}], "voice"),
        ([{"type": "start", "input": "hello"}], "input"),
        ([{"type": "text", "text": 3}], "text"),
        ([{"type": "text", "text": "a" * 5000}], "text"),
        ([{"type": "text", "text": "a" * 3000}, {"type": "text", "text": "a" * 3000}], "text"),
        ([{"type": "text", "text": "hello"}, {"type": "start"}], "type"),
    ],
)
def test_a_conversation_that_goes_wrong_says_why(tiny: Running, messages: list[Any], param: str) -> None:
    with socket_to(tiny) as it:
        for message in messages:
            it.send(message if isinstance(message, str) else json.dumps(message))
        error = json.loads(it.recv(20))
        assert error["type"] == "error" and error["error"]["param"] == param
        with pytest.raises(Exception, match="1008|policy"):
            it.recv(20)
    tiny.settle()


def test_who_leaves_a_conversation_frees_his_place(tiny: Running) -> None:
    it = socket_to(tiny)
    it.send(json.dumps({"type": "text", "text": "hello my dog. " * 100}))
    tiny.until(lambda: tiny.service.taken == 1)
    it.socket.close()
    tiny.settle()


def test_sentences_are_found_as_they_end() -> None:
    found, one = [], Sentences("en")
    for character in "Dr. Smith is here. Is he? Yes! And":
        found += one.add(character)
    assert found == ["Dr. Smith is here.", "Is he?", "Yes!"] and one.flush() == ["And"] and one.flush() == []


def test_a_connection_that_says_nothing_is_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST", 0.5)
    with serve() as one:
        url = httpx.URL(one.url)
        with (
            socket.create_connection((url.host, url.port)) as silent,
            socket.create_connection((url.host, url.port)) as slow,
        ):
            slow.sendall(b"GET /health HTTP/1.1\r\nHost:")  # and never its end
            for connection in (silent, slow):
                connection.settimeout(20)
                assert connection.recv(1) == b""
        assert one.speak("hello my dog").status_code == 200


def test_who_takes_nothing_loses_his_place(serve: Serve) -> None:
    """At the latest when his request's time is over, also where his connection stays open."""
    with serve(limits=ServiceLimits(seconds=1.5)) as one:
        url, body = (
            httpx.URL(one.url),
            json.dumps({"input": "hello my dog. " * 250, "response_format": "pcm", "speed": 0.25}),
        )
        with socket.create_connection((url.host, url.port)) as it:
            it.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            it.sendall(f"{head}\r\n\r\n{body}".encode())
            one.until(lambda: one.service.taken == 1)
            one.settle(20)


class Process:
    """`bark-tts serve` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "transformers_bark", "serve", "--port", "0", "--engine", "torch", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        Running.until(lambda: bool(self.lines) or self.process.poll() is not None, 120)
        found = re.search(r"http://\S+", self.lines[0])
        assert found, self.lines
        self.url = found[0]
        Running.until(lambda: httpx.get(f"{self.url}/ready").status_code == 200, 60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(line.rstrip("\n") for line in iter(self.process.stderr.readline, ""))


def test_sigterm_finishes_what_runs_refuses_what_comes_and_exits_0(checkpoint: Path, tmp_path: Path) -> None:
    one = Process("--model", str(checkpoint), "--voices", str(tmp_path), "--slots", "2")
    text = "hello my dog. " * 6

    def ask(number: int) -> tuple[int, int]:
        answer = httpx.post(
            f"{one.url}/v1/audio/speech", json={"input": text, "seed": number, "response_format": "pcm"}, timeout=120
        )
        return answer.status_code, len(answer.content)

    def working() -> float:
        found = re.search(r"^bark_generations_in_work (\S+)", httpx.get(f"{one.url}/metrics").text, re.M)
        return float(found[1]) if found else 0.0

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, number) for number in range(6)]
        one_socket = socket.create_connection(("127.0.0.1", int(one.url.rsplit(":", 1)[1])))
        Running.until(lambda: working() == 2)
        time.sleep(0.3)  # the others are there, too
        one.process.send_signal(signal.SIGTERM)
        Running.until(lambda: httpx.get(f"{one.url}/ready").status_code == 503)
        refused = httpx.post(f"{one.url}/v1/audio/speech", json={"input": "hello"})
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "shutting_down"
        answers = [answer.result() for answer in asked]
    assert all(status == 200 and size > 48_000 for status, size in answers), answers
    one_socket.close()
    assert one.process.wait(20) == 0
    assert not [line for line in one.lines if "Traceback" in line]


def test_serve_is_a_command_whose_help_needs_nothing() -> None:
    code = "import sys; from transformers_bark.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'fastapi', 'uvicorn', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    for arguments in (["serve", "--help"], ["--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]" and "serve" in done.stdout


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--port", "70000"], "70000"),
        (["--slots", "0"], "slots"),
        (["--api-key-file", "nowhere"], "nowhere"),
        (["--max-charcters", "3"], "max-characters"),
    ],
)
def test_serve_says_what_is_wrong(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers_bark.cli import main

    try:
        status = main(["serve", *arguments])
    except SystemExit as error:
        status = int(error.code or 0)
    assert status and said in capsys.readouterr().err
