"""The command line and texts of any length: what is narrated, what is kept, what is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor, Narrator, VoicePreset, audio_streams
from transformers_bark.cli import main

NAME = "v2/en_speaker_0"
TEXT = "hello my dog. the quick cat is cooler. hello you, my dog is cooler than the cat."


def run(checkpoint: Path, *arguments: str) -> int:
    return main([*arguments, "--model", str(checkpoint)])


def test_a_long_text_is_spoken_whole(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, titles = tmp_path / "o.wav", tmp_path / "o.srt"
    assert run(checkpoint, TEXT, "-o", str(out), "--seed", "3", "--subtitles", str(titles)) == 0
    said = capsys.readouterr()
    assert "is cut" not in said.err and re.search(r" in \d+ pieces; real-time factor .*; seed 3\n", said.out), said
    words = " ".join(line for line in titles.read_text().splitlines() if line and not re.match(r"[\d:,> -]+$", line))
    assert words == TEXT
    first = out.read_bytes()
    assert run(checkpoint, TEXT, "-o", str(out), "--seed", "3", "--quiet") == 0
    assert out.read_bytes() == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["o.srt", "o.wav"], "what was kept meanwhile is removed"


def test_a_text_that_fits_is_one_generation_whichever_way_it_comes(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello my dog")
    files = [tmp_path / f"{number}.wav" for number in range(3)]
    assert run(checkpoint, "hello my dog", "-o", str(files[0]), "--seed", "1") == 0
    assert run(checkpoint, "-f", str(tmp_path / "text.txt"), "-o", str(files[1]), "--seed", "1") == 0
    assert run(checkpoint, "[pause:1s] hello my dog", "-o", str(files[2]), "--seed", "1", "--tries", "0") == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert soundfile.info(files[2]).duration > 1.0


def test_a_dialogue_by_voices_of_a_cast(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "talk.script").write_text("Anna: hello my dog.\nBen: hello cat.\n")
    (tmp_path / "cast.txt").write_text(f"Ben = {NAME}\n")
    cast = ["--cast", str(tmp_path / "cast.txt"), "--voice-of", f"Anna={NAME}"]
    assert run(checkpoint, "-f", str(tmp_path / "talk.script"), *cast, "--dry-run", "-o", str(tmp_path / "x.wav")) == 0
    said = capsys.readouterr().out
    assert f"Anna ({NAME}): hello my dog." in said and f"voices: {NAME}\n" in said and "2 pieces, about 0:0" in said
    assert not (tmp_path / "x.wav").exists()
    out = ["-o", str(tmp_path / "t.wav"), "--split", "piece", "--tries", "0"]
    assert run(checkpoint, "-f", str(tmp_path / "talk.script"), *cast, *out) == 0
    assert [file.name for file in sorted(tmp_path.glob("*.wav"))] == ["t-00001.wav", "t-00002.wav"]
    capsys.readouterr()
    (tmp_path / "talk.script").write_text("Anna: hello.\nBob: hello.\n")
    assert run(checkpoint, "-f", str(tmp_path / "talk.script"), *cast, *out) == 1
    assert re.fullmatch(r"bark-tts: .*talk\.script, line 2: 'Bob' is not in the cast; .*\n", capsys.readouterr().err)


def test_single_pieces_are_made_anew(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, work = tmp_path / "o.wav", ["--work", str(tmp_path / "work"), "--tries", "0"]
    assert run(checkpoint, TEXT, "-o", str(out), "--seed", "1", *work) == 0
    first = out.read_bytes()
    assert run(checkpoint, TEXT, "-o", str(out), *work) == 1
    assert "resume" in capsys.readouterr().err
    assert run(checkpoint, TEXT, "-o", str(out), "--resume", *work) == 0
    assert out.read_bytes() == first and "0 of them made now" in capsys.readouterr().out
    assert run(checkpoint, TEXT, "-o", str(out), "--only", "2", "--seed", "9", *work) == 0
    assert out.read_bytes() != first and "1 of them made now" in capsys.readouterr().out


def test_a_killed_run_goes_on_by_the_same_command(checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text(" ".join([TEXT] * 2))
    arguments = ["-f", str(text), "--model", str(checkpoint), "--seed", "1", "--batch-size", "1", "--tries", "0"]
    command = [sys.executable, "-m", "transformers_bark", *arguments, "-o", str(tmp_path / "killed.wav")]
    # as many threads as here: sums of others differ in the last bit
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    pieces = tmp_path / ".killed.wav.work" / "pieces"
    while process.poll() is None and len(list(pieces.glob("*.flac"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.wav").exists() and len(list(pieces.glob("*.flac"))) >= 2
    assert main([*arguments, "-o", str(tmp_path / "killed.wav")]) == 0
    assert main([*arguments, "-o", str(tmp_path / "whole.wav")]) == 0
    assert (tmp_path / "killed.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["killed.wav", "long.txt", "whole.wav"]


def test_standard_output_and_other_formats_take_long_texts(
    checkpoint: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    more = ["--seed", "2", "--tries", "0", "--no-tags", "-o"]
    assert run(checkpoint, TEXT, *more, str(tmp_path / "o.wav")) == 0
    capfdbinary.readouterr()
    assert run(checkpoint, TEXT, *more, "-") == 0
    assert capfdbinary.readouterr().out == (tmp_path / "o.wav").read_bytes()
    assert run(checkpoint, TEXT, *more, str(tmp_path / "o.aiff")) == 0
    aiff, wav = (soundfile.read(tmp_path / name, dtype="int16")[0] for name in ("o.aiff", "o.wav"))
    assert aiff.tolist() == wav.tolist()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "read.wav").open("wb") as file:
        reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=file)
    assert run(checkpoint, TEXT, *more, str(tmp_path / "pipe")) == 0
    assert reader.wait() == 0 and (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "read.wav").read_bytes() == (tmp_path / "o.wav").read_bytes()


def test_the_voice_of_a_long_text_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "o.wav", tmp_path / "voice.npz"
    for continuity in ("preset", "carry"):
        more = ["--save-voice", str(kept), "--continuity", continuity, "--tries", "0"]
        assert run(checkpoint, TEXT, "-o", str(out), *more) == 0
        assert len(VoicePreset.load(kept).semantic_prompt)
        kept.unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-f", "absent.txt"], "there is no file absent.txt"),
        (["-f", "x.pdf"], "give --format, as in --format text"),
        (["hello", "-f", "x.pdf"], "give the text once"),
        (["story.md"], "story.md is a file: -f story.md reads it"),
        (["hello", "--voice-of", "Anna"], "expected a name and a voice as in Anna=v2/en_speaker_9, got 'Anna'"),
        (["hello", "--cast", "absent.txt"], "absent.txt: No such file"),
        (["hello", "--only", "2"], "give that --work DIR"),
        (["hello", "--only", "5-2", "--work", "w"], "expected numbers of pieces as in 12,15-18, got '5-2'"),
        (["hello", "--subtitles", "x.txt"], "--subtitles must end in .srt or .vtt, got x.txt"),
        (["hello", "--subtitles-by", "word"], "give --subtitles FILE"),
        (["hello", "--verify", "nowhere"], "nowhere is none"),
        (["hello", "--loudness", "3"], "expected a loudness in LUFS from -60 to 0, got '3'"),
        (["hello", "--split", "piece", "-o", "-"], "standard output cannot take"),
        (["hello", "--format", "epub"], "a book is a file"),
    ],
)
def test_bad_usage_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.pdf").touch()
    Path("story.md").touch()
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert words in error and error.startswith("bark-tts: ") and error.count("\n") == 1


def test_endings_are_those_of_the_audio_streams(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in audio_streams.ENDINGS:
        assert run(checkpoint, TEXT, "--dry-run", "-o", str(tmp_path / f"o{ending}")) == 0, ending
    with pytest.raises(SystemExit, match="2"):
        run(checkpoint, TEXT, "--dry-run", "-o", str(tmp_path / "o.xyz"))
    assert ", ".join(audio_streams.MP4_FILES) in capsys.readouterr().err


def test_a_long_text_has_the_times_of_its_words(tmp_path: Path) -> None:
    """What runs by itself, ONNX Runtime without the blocks' weights, would not tell the attention."""
    titles = tmp_path / "o.vtt"
    text = "Good morning to you.\n\nThe boat is here."
    arguments = [text, "-o", str(tmp_path / "o.wav"), "--seed", "1", "--tries", "0", "--subtitles", str(titles)]
    assert main([*arguments, "--subtitles-by", "word", "--quiet"]) == 0
    model, processor = BarkModel.from_pretrained(BARK_NANO), BarkProcessor.from_pretrained(BARK_NANO)
    Narrator(model, processor)(text, seed=1, tries=0).write(
        tmp_path / "t.wav", subtitles=tmp_path / "t.vtt", subtitles_by="word"
    )
    assert titles.read_text() == (tmp_path / "t.vtt").read_text()
