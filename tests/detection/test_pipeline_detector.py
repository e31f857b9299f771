"""`pipeline("audio-classification")` with the detector: files, bytes, arrays, any rate; without ffmpeg and torchaudio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from transformers import pipeline

from tests.detection.recordings import RATE, voice_like
from transformers_bark import BARK_DETECTOR


@pytest.fixture(scope="module")
def classify() -> Any:
    return pipeline("audio-classification", BARK_DETECTOR)


def bark(found: list[dict[str, Any]]) -> float:
    assert {one["label"] for one in found} == {"bark", "other"}
    assert sum(one["score"] for one in found) == pytest.approx(1, abs=1e-5)
    return next(one["score"] for one in found if one["label"] == "bark")


def test_every_kind_of_input_says_the_same(classify: Any, tmp_path: Path) -> None:
    audio = voice_like(3, 4)
    path = tmp_path / "a.flac"
    soundfile.write(path, audio, RATE)
    wanted = bark(classify(audio))
    assert wanted < 0.5
    assert bark(classify(str(path))) == pytest.approx(wanted, abs=0.02)
    assert bark(classify(path.read_bytes())) == pytest.approx(wanted, abs=0.02)
    assert bark(classify({"array": np.stack([audio, audio]), "sampling_rate": RATE})) == pytest.approx(wanted, abs=1e-4)
    rows = classify([str(path), str(path)])
    assert len(rows) == 2 and bark(rows[1]) == pytest.approx(wanted, abs=0.02)


def test_another_rate_is_resampled(classify: Any) -> None:
    from transformers_bark.detection.reading import resample

    audio = voice_like(3, 4)
    other = resample(audio, RATE, 44_100)
    assert bark(classify({"raw": other, "sampling_rate": 44_100})) == pytest.approx(bark(classify(audio)), abs=0.05)


def test_what_is_no_audio_is_refused(classify: Any, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"a\.wav"):
        classify(str(tmp_path / "a.wav"))
