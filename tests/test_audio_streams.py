"""Files written as audio is made: the same bytes however it comes, tags, chapters, and nothing where it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from transformers_bark.audio_streams import ENDINGS, MP4_FILES, Tags, open_audio

av = pytest.importorskip("av")
RATE = 24_000
TAGS = Tags.synthetic("suno/bark", "Über Schiffe ♪", "Grün")


def tone(seconds: float = 3.0) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * 300 * times)).astype(np.float32)


def write(path: Path, size: int, audio: np.ndarray) -> Path:
    with open_audio(path, RATE, TAGS) as stream:
        stream.chapter("Eins")
        for start in range(0, len(audio), size):
            stream.write(audio[start : start + size])
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_samples_are_the_same_bytes(tmp_path: Path, ending: str) -> None:
    one, other = write(tmp_path / f"a{ending}", 1_000, tone()), write(tmp_path / f"b{ending}", 33_333, tone())
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_hold_the_audio_and_say_what_they_are(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a{ending}", 5_000, tone())
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
        tags = {name.lower(): value for name, value in {**file.metadata, **file.streams[0].metadata}.items()}
        seconds = len(np.concatenate(frames)) / file.streams.audio[0].rate
    assert seconds == pytest.approx(3.0, abs=0.1)
    assert tags["title"] == "Über Schiffe ♪" and tags["artist"] == "Grün"
    assert "ynthetic" in tags["comment"] and "suno/bark" in tags["comment"]
    if ending not in MP4_FILES:
        audio, rate = soundfile.read(path, dtype="float32")
        spectrum = np.abs(np.fft.rfft(audio[rate : 2 * rate]))
        assert np.argmax(spectrum) == 300


@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_lossless_files_are_exact(tmp_path: Path, ending: str) -> None:
    audio, rate = soundfile.read(write(tmp_path / f"a{ending}", 7_000, tone()), dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(audio, tone(), atol=1e-4)


def test_chapters(tmp_path: Path) -> None:
    with open_audio(tmp_path / "a.m4b", RATE) as stream:
        for title in ("One", "Zwei ü"):
            stream.chapter(title)
            stream.write(tone(2.0))
    with av.open(str(tmp_path / "a.m4b")) as file:
        chapters = [(one["metadata"]["title"], float(one["start"] * one["time_base"])) for one in file.chapters()]
    assert chapters == [("One", 0.0), ("Zwei ü", 2.0)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_fails_leaves_nothing(tmp_path: Path, ending: str) -> None:
    with pytest.raises(RuntimeError, match="stop"), open_audio(tmp_path / f"a{ending}", RATE, TAGS) as stream:
        stream.write(tone())
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, ending: str) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).standard_normal(RATE * 10).astype(np.float32) * 0.2
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, limits[1]))
    try:
        with pytest.raises(OSError):
            write(tmp_path / f"a{ending}", 9_999, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.xyz"), open_audio(tmp_path / "a.xyz", RATE):
        pass


def test_a_draft_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_bytes(b"x" * 10_000_000)
    with open_audio(tmp_path / "a.wav", RATE, draft=".a.part") as stream:
        stream.write(tone())
    assert soundfile.info(tmp_path / "a.wav").frames == 3 * RATE
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
