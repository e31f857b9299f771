"""The command line: what it writes, says and refuses."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from transformers_bark import VoicePreset, __version__
from transformers_bark.cli import main

NAME = "v2/en_speaker_0"


def test_speaks_to_a_file(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.wav"
    assert main(["hello my dog", "-o", str(out), "--model", str(checkpoint), "--seed", "1"]) == 0
    info = soundfile.info(out)
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    said = capsys.readouterr().out
    assert str(out) in said and f"{info.duration:.2f} s" in said and "real-time factor" in said
    first = out.read_bytes()
    assert main(["hello my dog", "-o", str(out), "--model", str(checkpoint), "--seed", "1", "--quiet"]) == 0
    assert out.read_bytes() == first and not capsys.readouterr().out
    assert main(["hello my dog", "-o", str(out), "--model", str(checkpoint), "--seed", "1", "--temperature", "2"]) == 0
    assert out.read_bytes() != first


def test_as_a_process_with_text_from_standard_input(checkpoint: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "transformers_bark",
        "-",
        "-o",
        str(tmp_path / "o.wav"),
        "--model",
        str(checkpoint),
    ]
    done = subprocess.run(command, input="hello dog\n", capture_output=True, text=True, check=True)
    assert "o.wav" in done.stdout and soundfile.info(tmp_path / "o.wav").frames > 0
    assert "Traceback" not in done.stderr


def test_voices_are_listed_used_and_saved(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["voices", "--model", str(checkpoint)]) == 0
    assert capsys.readouterr().out == f"{NAME}\n"
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(checkpoint), "--seed", "2"]
    assert main(["hello", "--voice", NAME, "--save-voice", "kept.npz", *model]) == 0
    assert Path("speech.wav").exists()
    voice = VoicePreset.load("kept.npz")
    assert soundfile.info("speech.wav").frames == voice.fine_prompt.shape[1] * 600
    assert main(["hello", "--voice", "kept.npz", "-o", "b.wav", *model]) == 0


def test_the_original_commands_arguments(checkpoint: Path, tmp_path: Path) -> None:
    arguments = [
        "--text",
        "hello",
        "--output_filename",
        "a.wav",
        "--output_dir",
        str(tmp_path),
        "--history_prompt",
        NAME,
    ]
    more = ["--text_temp", "0.6", "--waveform_temp", "0.8", "--silent", "True", "--output_full", "True"]
    assert main([*arguments, *more, "--model", str(checkpoint)]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npz", "a.wav"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hello", "--voice", "nobody"], "nobody"),
        (["hello", "--temperature", "-1"], "temperature.*-1"),
        (["hello", "--seed", "-4"], "seed.*-4"),
        (["hello", "--min-eos-p", "0"], "ended before it said anything"),
    ],
)
def test_failures_are_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main([*arguments, "--model", str(checkpoint), "-o", str(tmp_path / "o.wav")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("bark-tts: ") and error.count("\n") == 1
    assert re.search(words, error), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a text"),
        (["  "], "text is empty"),
        (["hello", "-o", "/nowhere/o.wav"], "folder /nowhere does not exist"),
        (["hello", "--save-voice", "v.bin"], "v.bin"),
        (["hello", "--dtype", "int8"], "invalid choice"),
    ],
)
def test_bad_usage_exits_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert words in capsys.readouterr().err


def test_a_missing_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hello", "--model", str(tmp_path), "-o", str(tmp_path / "o.wav")]) == 1
    assert "bark-tts: " in capsys.readouterr().err


def test_long_text_warns(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dog " * 20, "--model", str(checkpoint), "-o", str(tmp_path / "o.wav")]) == 0
    assert "20.0% is cut" in capsys.readouterr().err


def test_version_and_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    with pytest.raises(SystemExit, match="2"):
        main(["-"])
