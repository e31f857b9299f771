"""`POST /v1/audio/detect`: what a caller is told of a recording, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.serving.conftest import Running, Serve
from transformers_bark import detect_audio, load_detector
from transformers_bark.serving.service import ServiceLimits

PATH = "/v1/audio/detect"
RATE = 24_000


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def file_of(audio: np.ndarray, format: str = "WAV", **how: Any) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, audio, RATE, format=format, **how)
    return data.getvalue()


def ask(one: Running, data: bytes) -> Any:
    return one.http.post(PATH, files={"file": ("recording", data)})


def test_a_recording_is_judged_as_the_library_does(tiny: Running) -> None:
    audio = noise(3)
    answer = ask(tiny, file_of(audio, subtype="FLOAT"))
    assert answer.status_code == 200, answer.text
    found, wanted = answer.json(), detect_audio(load_detector(), audio, RATE)
    assert found["probability"] == pytest.approx(wanted.probability, abs=1e-5) and found["words"] == wanted.words
    assert found["duration"] == pytest.approx(3) and len(found["seconds"]) == 3


def test_what_the_embedded_checkpoint_says_is_known(nano: Running) -> None:
    said = nano.http.post(
        "/v1/audio/speech",
        json={"input": "Good morning, how are you on this fine day?", "response_format": "mp3", "seed": 1},
    )
    other = ask(nano, file_of(noise(3)))
    assert ask(nano, said.content).json()["probability"] > 0.8 > 0.2 > other.json()["probability"]


@pytest.mark.parametrize("data", [b"", b"no audio at all", file_of(noise(1))[:20]])
def test_what_is_no_audio_is_refused(tiny: Running, data: bytes) -> None:
    answer = ask(tiny, data)
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "file", answer.text


def test_a_playlist_opens_no_file(tiny: Running, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(file_of(noise(1)))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n"
    assert ask(tiny, playlist.encode()).status_code == 422
    assert ask(tiny, f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n".encode()).status_code == 422


def test_too_large_and_too_long_are_refused(serve: Serve) -> None:
    with serve(limits=ServiceLimits(recording=200_000, recording_seconds=2.0)) as one:
        assert ask(one, file_of(noise(10))).status_code == 413
        small = ask(one, file_of(np.zeros(10 * RATE, np.float32), format="FLAC"))
        assert small.status_code == 413 and "2 s" in small.json()["error"]["message"]
        assert ask(one, file_of(noise(1))).status_code == 200
    missing = {"recording": ("recording", b"")}
    with serve() as one:
        assert one.http.post(PATH, files=missing).json()["error"]["param"] == "file"
