"""Files are read whole or refused by name, whatever their kind, in memory that does not grow with them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from transformers_bark.audio_streams import open_audio
from transformers_bark.detection import reading
from transformers_bark.detection.reading import find_files, read_pieces


def tone(seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def pitch(audio: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(audio * np.hanning(len(audio)))).argmax() * rate / len(audio))


@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"])
def test_every_container_is_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    with open_audio(path, 24_000) as file:
        file.write(tone(2, 24_000))
    audio = np.concatenate(list(read_pieces(path, 24_000)))
    assert audio.dtype == np.float32 and len(audio) == pytest.approx(48_000, abs=4_000)
    assert pitch(audio, 24_000) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
def test_rates_and_channels_become_one(rate: int, tmp_path: Path) -> None:
    left = tone(2, rate)
    soundfile.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left), left], 1), rate)
    audio = np.concatenate(list(read_pieces(tmp_path / "a.wav", 24_000)))
    assert len(audio) == pytest.approx(48_000, abs=2) and pitch(audio, 24_000) == pytest.approx(440, abs=1)
    assert np.abs(audio).max() == pytest.approx(0.5 * 2 / 3, abs=0.02)


def test_pieces_are_resampled_as_the_whole_is(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    noise = (0.1 * chance.standard_normal(300_000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 44_100, "FLOAT")
    pieces = list(read_pieces(tmp_path / "a.wav", 24_000))
    assert len(pieces) > 2
    whole = reading.resample(noise, 44_100, 24_000)
    np.testing.assert_allclose(np.concatenate(pieces)[: len(whole)], whole, atol=1e-4)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(minutes: int) -> int:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 44_100, 2, "PCM_16") as file:
            for _ in range(60 * minutes):
                file.write(np.zeros((44_100, 2), np.int16))
        tracemalloc.start()
        for piece in read_pieces(path, 24_000):
            assert len(piece) < 100_000
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1)  # what the first call imports
    assert peak(8) < 1.2 * peak(1) + 100_000


def test_what_is_no_audio_is_refused_by_name(tmp_path: Path) -> None:
    for name, content in (
        ("text.wav", b"hello"),
        ("empty.mp3", b""),
        ("broken.flac", b"fLaC\0\0\0"),
        ("x.m4a", b"\0" * 99),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            list(read_pieces(tmp_path / name, 24_000))
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 24_000)
    with pytest.raises(ValueError, match=r"none\.wav holds no audio"):
        list(read_pieces(tmp_path / "none.wav", 24_000))
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan]), 24_000, "FLOAT")
    with pytest.raises(ValueError, match=r"nan\.wav"):
        list(read_pieces(tmp_path / "nan.wav", 24_000))
    (tmp_path / "lfs.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="Git LFS"):
        list(read_pieces(tmp_path / "lfs.wav", 24_000))


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.wav", "a.MP3", "notes.txt", "sub/c.flac"):
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in find_files([str(tmp_path)])]
    assert names == ["a.MP3", "b.wav", "c.flac"]
    assert [path.name for path in find_files([str(tmp_path / "*.wav"), str(tmp_path / "b.wav")])] == ["b.wav"]
    assert [path.name for path in find_files([str(tmp_path / "notes.txt")])] == ["notes.txt"]
    with pytest.raises(FileNotFoundError, match="missing"):
        find_files([str(tmp_path / "missing.wav")])
    with pytest.raises(ValueError, match="no file fits"):
        find_files([str(tmp_path / "*.ogg")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no audio files"):
        find_files([str(tmp_path / "empty")])
