"""The interface as OpenAI's own client uses it, and what is known to break in servers of its kind."""

from __future__ import annotations

import base64
import gc
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
import pytest
import torch
from openai._streaming import SSEDecoder

from tests.serving.conftest import Running, Serve
from tests.serving.test_audio import FORMATS, decode
from transformers_bark import Narrator, VoicePreset
from transformers_bark.audio_files import as_int16
from transformers_bark.serving.scheduler import Take
from transformers_bark.serving.service import ServiceLimits
from transformers_bark.serving.speech import TARGET, TRIES

SHORT = "Good morning."
LONG = "The dog is tired now. We shall rest here.\n\nShall we go? [pause:500ms] It is late."


@pytest.fixture(scope="module")
def narrated(nano: Running) -> bytes:
    """The long text as the library's narrator says it, as PCM."""
    limits = nano.service.reader.limits
    assert limits.target == TARGET
    narration = Narrator(nano.model, nano.processor, limits=limits)(
        LONG, "en_heart", seed=8, tries=TRIES, progress=False
    )
    assert len(narration) >= 3
    return as_int16(narration.audio()).tobytes()


def generated(one: Running, text: str, seed: int, voice: str | None, **options: Any) -> bytes:
    """What the library gives, as PCM."""
    inputs = one.processor(text, voice_preset=voice)
    audio = one.model.generate(**inputs, seed=seed, progress=False, **options)[0]
    return as_int16(audio.numpy()).tobytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_official_client_gets_every_format(tiny: Running, format: Any, streamed: bool) -> None:
    text, voice = "hello my dog", "v2/en_speaker_0"
    expected = len(generated(tiny, text, 5, voice)) // 2
    assert expected > 4_800
    asked: dict[str, Any] = {"model": "tts-1", "voice": voice, "input": text, "extra_body": {"seed": 5}}
    speech = tiny.client().audio.speech
    if streamed:
        with speech.with_streaming_response.create(**asked, response_format=format) as answer:
            data = b"".join(answer.iter_bytes())
    else:
        data = speech.create(**asked, response_format=format).content
    over = len(decode(format, data)) - expected
    assert -1 <= over <= 0.030 * 24_000


def test_audio_is_what_generate_gives(nano: Running) -> None:
    for seed, voice, fields, options in (
        (1, "en_heart", {}, {}),
        (2, "en_bright", {"voice": {"id": "en_bright"}}, {}),
        (3, None, {"voice": "random"}, {}),
        (
            4,
            "en_heart",
            {"temperature": 0.7},
            {"temperature": 0.7, "semantic_do_sample": True, "coarse_do_sample": True},
        ),
    ):
        answer = nano.speak(SHORT, **{"voice": voice, "seed": seed, **fields})
        assert answer.status_code == 200 and answer.headers["x-seed"] == str(seed)
        assert answer.content == generated(nano, SHORT, seed, voice, **options), seed


@pytest.mark.parametrize("seed", [1, 2])
def test_early_audio_is_what_generate_stream_gives(nano: Running, seed: int) -> None:
    """In pieces, of which the first comes before the last; whole where it is stretched."""
    inputs = nano.processor(SHORT, voice_preset="en_heart")
    pieces = list(nano.model.generate_stream(**inputs, seed=seed))
    expected = as_int16(torch.cat(pieces).numpy()).tobytes()
    assert len(pieces) > 1
    parts = []
    fields = {"input": SHORT, "voice": "en_heart", "seed": seed, "response_format": "pcm", "early": True}
    with nano.http.stream("POST", "/v1/audio/speech", json=fields) as answer:
        for part in answer.iter_raw():
            parts.append((time.monotonic(), part))
    assert b"".join(part for _, part in parts) == expected
    assert parts[-1][0] - parts[0][0] > 0.01
    fast = nano.speak(SHORT, voice="en_heart", seed=seed, early=True, speed=2.0)
    assert len(fast.content) == pytest.approx(len(expected) / 2, rel=0.01)


def test_audio_is_freed_when_it_is_over(nano: Running) -> None:
    """At once, and not when garbage is collected, which takes a process of many objects hours."""

    def kept() -> list[Take]:
        return [one for one in gc.get_objects() if isinstance(one, Take)]

    nano.settle()
    gc.collect()
    assert not kept()
    gc.disable()
    try:
        for fields in ({}, {"early": True}, {"response_format": "wav", "stream_format": "sse"}):
            assert nano.speak(SHORT, **fields).status_code == 200
        assert nano.speak(LONG).status_code == 200
        asked = {"input": LONG, "response_format": "pcm"}
        with nano.http.stream("POST", "/v1/audio/speech", json=asked) as answer:
            next(answer.iter_raw())
        nano.http.post("/v1/audio/speech/batch", json={"items": [{"input": SHORT}, {"input": ""}]})
        nano.http.post("/v1/audio/speech/timestamps", json={"input": SHORT})
        nano.settle()
        nano.until(lambda: not kept(), 5)
    finally:
        gc.enable()


def test_a_long_text_is_what_the_narrator_gives(nano: Running, narrated: bytes) -> None:
    """Streamed piece by piece, in order, with no piece of another request and no seam that clicks."""
    parts = []
    fields = {"input": LONG, "voice": "en_heart", "seed": 8, "response_format": "pcm"}
    with nano.http.stream("POST", "/v1/audio/speech", json=fields) as answer:
        for part in answer.iter_raw():
            parts.append((time.monotonic(), part))
    assert b"".join(part for _, part in parts) == narrated
    assert len(parts) >= 3 and parts[-1][0] - parts[0][0] > 0.05  # as it is made
    heard = np.frombuffer(narrated, "<i2").astype(np.float32) / 32768
    quiet = np.convolve(heard != 0, np.ones(48), "valid") == 0  # 2 ms of nothing
    ends = np.flatnonzero(quiet[:-1] & ~quiet[1:])
    starts = np.flatnonzero(~quiet[:-1] & quiet[1:])
    assert len(ends) >= 2 and np.abs(heard[ends + 48]).max() < 0.01 and np.abs(heard[starts]).max() < 0.01


def test_callers_at_once_get_their_own_audio(tiny: Running) -> None:
    words = ["hello", "my", "dog", "the quick cat", "you", "cooler"]
    asked = [
        (f"{first} {second}", {"seed": number, "temperature": 0.5 + number / 10, "voice": voice})
        for number, (first, second, voice) in enumerate(
            zip(words * 2, words[::-1] * 2, ["v2/en_speaker_0", "random"] * 6, strict=True)
        )
    ]
    alone = [tiny.speak(text, **fields).content for text, fields in asked]
    assert len(set(alone)) == 12
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda one: tiny.speak(one[0], **one[1]).content, asked))
    assert together == alone


def test_events_parse_with_the_clients_own_types(nano: Running, narrated: bytes) -> None:
    fields = {"input": LONG, "seed": 8, "voice": "en_heart", "response_format": "pcm", "stream_format": "sse"}
    with nano.http.stream("POST", "/v1/audio/speech", json=fields) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [(sse.event, sse.json()) for sse in SSEDecoder().iter_bytes(answer.iter_bytes())]
    assert all(name == data["type"] for name, data in events)
    assert [data["type"] for _, data in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
    audio = b"".join(base64.b64decode(data["audio"]) for _, data in events[:-1])
    assert audio == narrated
    usage = events[-1][1]["usage"]
    assert events[-1][1]["type"] == "speech.audio.done"
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"] > 50


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5, 4.0])
def test_speed_changes_the_length_and_not_the_pitch(nano: Running, speed: float) -> None:
    plain = np.frombuffer(nano.speak(SHORT, seed=1, voice="en_heart").content, "<i2")
    fast = np.frombuffer(nano.speak(SHORT, seed=1, voice="en_heart", speed=speed).content, "<i2")
    assert abs(len(fast) - len(plain) / speed) <= 1
    centre = [
        float(np.abs(np.fft.rfft(part.astype(float))) ** 2 @ np.fft.rfftfreq(len(part), 1 / 24_000))
        / float((np.abs(np.fft.rfft(part.astype(float))) ** 2).sum())
        for part in (plain, fast)
    ]
    assert 0.75 < centre[1] / centre[0] < 1.33


@pytest.mark.parametrize("stage", ["waits for the first audio", "hears it"])
def test_a_client_that_hangs_up_frees_its_place(nano: Running, stage: str) -> None:
    """Within a step: the scheduler has nothing left to do for it."""
    nano.settle()
    fields = {"input": (SHORT + " ") * 60, "response_format": "pcm", "voice": "en_heart"}
    with (
        nano.http.stream("POST", "/v1/audio/speech", json=fields) if stage == "hears it" else _sent(nano, fields) as it
    ):
        if stage == "hears it":
            next(it.iter_raw(100))
        else:
            nano.until(lambda: nano.service.scheduler.working > 0)
    turns: list[int] = []
    scheduler = nano.service.scheduler
    observe = scheduler._observe
    scheduler._observe = lambda rows, waiting: turns.append(rows) or observe(rows, waiting)  # type: ignore[func-returns-value]
    nano.settle(5)
    scheduler._observe = observe
    assert scheduler.waiting == 0 and nano.service.taken == 0
    nano.until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("bark-request")], 5)


class _sent:  # noqa: N801 - stands where a context manager does
    """A request that is sent, and whose answer nobody waits for."""

    def __init__(self, one: Running, fields: dict[str, Any]) -> None:
        import socket

        url = httpx.URL(one.url)
        self.socket = socket.create_connection((url.host, url.port))
        body = json.dumps(fields).encode()
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    def __enter__(self) -> _sent:
        return self

    def __exit__(self, *error: Any) -> None:
        self.socket.close()


def test_more_requests_than_places_wait_or_are_told_to(serve: Serve) -> None:
    with serve(slots=2, limits=ServiceLimits(queue=2)) as one:
        held = threading.Event()
        fill, waiting = one.service.scheduler._fill, threading.Event()

        def slow() -> None:
            waiting.set()
            held.wait(20)
            fill()

        one.service.scheduler._fill = slow  # type: ignore[method-assign]
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(one.speak, "hello my dog", seed=number) for number in range(4)]
            one.until(lambda: one.service.taken == 4)
            refused = one.speak("hello")
            assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 60
            assert refused.json()["error"]["code"] == "queue_full"
            with pytest.raises(openai.RateLimitError):
                one.client().audio.speech.create(model="tts-1", voice="default", input="hello")
            held.set()
            assert [answer.result().status_code for answer in answers] == [200] * 4
        one.settle()
        assert one.speak("hello", seed=1).status_code == 200


def test_a_request_that_takes_too_long_ends(serve: Serve) -> None:
    with serve(limits=ServiceLimits(seconds=0.5)) as one:
        one.service.scheduler._fill = lambda: time.sleep(0.01)  # type: ignore[method-assign]
        answer = one.speak("hello my dog")
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "timeout"
        one.settle()


def test_an_answer_that_fails_midway_is_cut_off(nano: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a client never takes half a text for the whole; events say what happened."""
    from transformers_bark.serving.speech import ScheduledSpeaker

    check, calls = ScheduledSpeaker.check, []

    def broken(self: Any, *given: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("broken")
        return check(self, *given)

    monkeypatch.setattr(ScheduledSpeaker, "check", broken)
    with pytest.raises(httpx.RemoteProtocolError):
        nano.speak(LONG, seed=8, voice="en_heart")
    calls.clear()
    answer = nano.speak(LONG, seed=8, voice="en_heart", stream_format="sse")
    last = list(SSEDecoder().iter_bytes(iter([answer.content])))[-1]
    assert last.event == "error" and last.json()["error"]["code"] == "generation_failed"
    assert "broken" not in last.data
    nano.settle()


@pytest.mark.parametrize("text", ["* * *", "\U0001f642", " ", "\x00"])
def test_signs_alone_are_a_pause(tiny: Running, text: str) -> None:
    """As clients that cut a text into sentences send them."""
    answer = tiny.speak(text)
    assert answer.status_code == 200 and answer.content == bytes(2 * 7_200)


BAD = [
    ({"input": ""}, 422, "input"),
    ({}, 422, "input"),
    ({"input": "\u4f60\u597d"}, 422, "input"),
    ({"input": "a" * 5000}, 413, "input"),
    ({"input": "hello\n[voice:/etc/passwd.npz]\nhello"}, 422, "input"),
    ({"input": "hello [pause:long] hello"}, 422, "input"),
    ({"input": "hello", "voice": "alloy"}, 422, "voice"),
    ({"input": "hello", "voice": "../../etc/passwd"}, 422, "voice"),
    ({"input": "hello", "voice": {"id": "/tmp/voice.npz"}}, 422, "voice"),
    ({"input": "hello", "voice": 3}, 422, "voice"),
    ({"input": "hello", "response_format": "ogg"}, 422, "response_format"),
    ({"input": "hello", "speed": 0.1}, 422, "speed"),
    ({"input": "hello", "speed": "1"}, 422, "speed"),
    ({"input": "hello", "seed": -1}, 422, "seed"),
    ({"input": "hello", "temperature": 0}, 422, "temperature"),
    ({"input": "hello", "language": "xx"}, 422, "language"),
    ({"input": "hello", "stream_format": "json"}, 422, "stream_format"),
    ({"input": "hello", "model": "other"}, 404, "model"),
]


@pytest.mark.parametrize("fields, status, param", BAD, ids=lambda value: str(value)[:40])
def test_bad_values_are_told_by_field(tiny: Running, fields: dict[str, Any], status: int, param: str) -> None:
    answer = tiny.http.post("/v1/audio/speech", json=fields)
    error = answer.json()["error"]
    assert answer.status_code == status and error["param"] == param, error
    assert (
        error["message"]
        and error["type"] == "invalid_request_error"
        and set(error)
        == {
            "message",
            "type",
            "param",
            "code",
        }
    )
    assert "/etc" not in error["message"] or "passwd" in json.dumps(fields)
    tiny.settle()


@pytest.mark.parametrize(
    "body, kind, status",
    [
        (b"{", "application/json", 400),
        (b'{"input": "\xff"}', "application/json", 400),
        (b"[1]", "application/json", 422),
        (b'{"input": NaN}', "application/json", 422),
        (b'{"input": "hello", "speed": NaN}', "application/json", 422),
        (b'{"input": "\\ud800"}', "application/json", 422),
        (b"[" * 100_000, "application/json", 400),
        (b'{"input": "' + b"a" * 3_000_000 + b'"}', "application/json", 413),
        (b"input=hello", "application/x-www-form-urlencoded", 422),
    ],
)
def test_bodies_that_are_none_are_told(tiny: Running, body: bytes, kind: str, status: int) -> None:
    answer = tiny.http.post("/v1/audio/speech", content=body, headers={"content-type": kind})
    assert answer.status_code == status and answer.json()["error"]["message"]


def test_a_body_without_an_announced_size_is_cut_at_the_limit(tiny: Running) -> None:
    def endless() -> Any:
        yield b'{"input": "'
        for _ in range(400):
            yield b"a" * 10_000

    answer = tiny.http.post("/v1/audio/speech", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.json()["error"]["type"] == "invalid_request_error"


def test_a_batch_gives_each_its_audio_or_its_error(tiny: Running) -> None:
    items = [
        {"input": "hello my dog", "seed": 1, "response_format": "pcm"},
        {"input": ""},
        {"input": "the quick cat", "seed": 2, "response_format": "pcm", "voice": "v2/en_speaker_0"},
        {"input": "hello", "voice": "nobody"},
        "no object",
    ]
    found = tiny.http.post("/v1/audio/speech/batch", json={"items": items}).json()
    assert [one["index"] for one in found["data"]] == list(range(5))
    for number, voice in ((0, None), (2, "v2/en_speaker_0")):
        single = tiny.speak(items[number]["input"], seed=items[number]["seed"], voice=voice or "default").content  # type: ignore[index]
        assert base64.b64decode(found["data"][number]["audio"]) == single
    assert [one["error"]["param"] for one in found["data"] if one.get("error")] == ["input", "voice", None]
    many = tiny.http.post("/v1/audio/speech/batch", json={"items": [items[0]] * 33})
    assert many.status_code == 413 and many.json()["error"]["param"] == "items"
    assert tiny.http.post("/v1/audio/speech/batch", json={"items": []}).status_code == 422


@pytest.mark.parametrize("text", [SHORT, LONG])
def test_timestamps_say_when_words_are_said(nano: Running, text: str) -> None:
    fields = {"input": text, "voice": "en_heart", "seed": 8, "response_format": "wav"}
    found = nano.http.post("/v1/audio/speech/timestamps", json=fields).json()
    words = re.sub(r"\[.*?\]", "", text).split()
    assert [one["text"] for one in found["segments"]] == words
    times = [(one["start"], one["end"]) for one in found["segments"]]
    assert all(start <= end for start, end in times) and times == sorted(times)
    assert times[0][0] >= 0 and times[-1][1] <= found["seconds"] + 0.001
    assert len(decode("wav", base64.b64decode(found["audio"]))) == round(found["seconds"] * 24_000)
    fast = nano.http.post("/v1/audio/speech/timestamps", json={**fields, "speed": 2.0, "timestamps": "sentence"}).json()
    assert fast["seconds"] == pytest.approx(found["seconds"] / 2, abs=0.01)
    assert 0.4 * found["seconds"] < fast["segments"][-1]["end"] <= fast["seconds"] + 0.001
    assert " ".join(one["text"] for one in fast["segments"]) == " ".join(words)


def test_memory_of_a_service_does_not_grow_with_voices(serve: Serve, tmp_path: Any) -> None:
    from tests.tiny import tiny_voice
    from transformers_bark.serving import voices

    with serve(folder=tmp_path / "kept", most_voices=60) as one:
        for number in range(50):
            tiny_voice(seed=number).save(tmp_path / "voice.npz")
            data = (tmp_path / "voice.npz").read_bytes()
            assert (
                one.http.post("/v1/audio/voices", data={"name": f"v{number}"}, files={"file": data}).status_code == 200
            )
        for number in range(50):
            assert one.service.voices.get(f"v{number}") is not None
        assert len(one.service.voices._loaded) == voices._MOST_LOADED
        preset = one.service.voices.get("v7")
        assert isinstance(preset, VoicePreset)
        assert preset.semantic_prompt.tolist() == tiny_voice(seed=7).semantic_prompt.tolist()
