"""`bark-tts detect`: what it says, draws and returns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.detection.recordings import RATE, voice_like
from transformers_bark.cli import main
from transformers_bark.cli.detect import FOUND


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "voice.wav", voice_like(2.4, 1), RATE)
    return tmp_path / "voice.wav"


def test_a_table_has_a_line_a_file(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(recording, tmp_path / "other.wav")
    assert main(["detect", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "other.wav" in lines[0] and "voice.wav" in lines[1]
    assert "other" in lines[1].split("%")[1] and "0:02" in lines[1]


def test_json_has_the_whole_and_each_second(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(recording), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["file"] == str(recording) and found["duration"] == pytest.approx(2.4) and len(found["seconds"]) == 2
    assert 0 <= found["probability"] < 0.5 and all(0 <= value <= 1 for value in found["seconds"])
    assert found["verdict"] in ("other", "probably other", "unclear")


def test_the_threshold_decides_the_exit_status(recording: Path) -> None:
    assert main(["detect", str(recording), "--threshold", "0"]) == FOUND
    assert main(["detect", str(recording), "--threshold", "1"]) == 0


def test_a_file_that_cannot_be_read_is_told_and_the_others_judged(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"hello")
    assert main(["detect", str(tmp_path), "--threshold", "0"]) == 1
    out, err = capsys.readouterr()
    assert "voice.wav" in out and "bad.wav" in err and len(err.splitlines()) == 1
    assert main(["detect", str(tmp_path / "missing.wav")]) == 1
    assert "missing.wav" in capsys.readouterr().err


def test_a_plot_is_a_picture(recording: Path, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    assert main(["detect", str(recording), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", [[], ["a.wav", "--threshold", "2"], ["a.wav", "--plot", "/missing/p.png"]])
def test_bad_usage_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["detect", *arguments])
    assert ended.value.code == 2


def test_long_files_are_judged_by_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = np.concatenate([voice_like(12, 1), np.zeros(30 * RATE, np.float32)])
    soundfile.write(tmp_path / "long.flac", audio, RATE)
    assert main(["detect", str(tmp_path / "long.flac"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["seconds"]) == 42
