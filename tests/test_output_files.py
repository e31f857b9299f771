"""Files: whole or not at all, and nothing that is no regular file is ever replaced."""

from __future__ import annotations

import io
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.tiny import tiny_semantic_tokenizer, tiny_voice
from transformers_bark import audio_files, hub, output_files

AUDIO = np.sin(np.arange(48_000) / 10).astype(np.float32) / 2


def write_wav(path: Path) -> None:
    audio_files.write_audio(path, AUDIO, 24_000)


def write_voice(path: Path) -> None:
    tiny_voice().save(path)


def write_text(path: Path) -> None:
    output_files.write_text(path, "x" * 100_000)


def write_card(path: Path) -> None:
    hub.write_model_card(path.parent, 24_000)


def write_semantic_tokenizer(path: Path) -> None:
    tiny_semantic_tokenizer().save(path.parent)


WRITERS: dict[str, Callable[[Path], None]] = {
    "speech.wav": write_wav,
    "voice.npz": write_voice,
    "voice.safetensors": write_voice,
    "notes.txt": write_text,
    "README.md": write_card,
    "semantic_tokenizer.safetensors": write_semantic_tokenizer,
}


@pytest.fixture(params=WRITERS)
def target(request: Any, tmp_path: Path) -> tuple[Path, Callable[[Path], None]]:
    return tmp_path / request.param, WRITERS[request.param]


def test_a_link_stays_a_link(target: tuple[Path, Callable[[Path], None]], tmp_path: Path) -> None:
    path, write = target
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(Path("elsewhere") / path.name)
    write(path)
    assert path.is_symlink() and (tmp_path / "elsewhere" / path.name).stat().st_size > 0
    path.unlink()
    write(path)
    assert path.read_bytes() == (tmp_path / "elsewhere" / path.name).read_bytes()


def test_a_pipe_is_written_to_and_stays(target: tuple[Path, Callable[[Path], None]], tmp_path: Path) -> None:
    path, write = target
    if path.name == "README.md":
        pytest.skip("a card that is there is read first")
    os.mkfifo(path)
    content: list[bytes] = []
    reader = threading.Thread(target=lambda: content.append(path.read_bytes()))
    reader.start()
    write(path)
    reader.join(10)
    assert stat.S_ISFIFO(path.lstat().st_mode)
    path.unlink()
    write(path)
    assert content == [path.read_bytes()]


def test_modes(target: tuple[Path, Callable[[Path], None]]) -> None:
    path, write = target
    before = os.umask(0o027)
    try:
        write(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.write_bytes(b"has been automatically generated")
    path.chmod(0o604)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_read_only_file_is_refused(target: tuple[Path, Callable[[Path], None]]) -> None:
    path, write = target
    path.write_bytes(b"has been automatically generated")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match=f"read-only.*{path.name}"):
        write(path)
    assert path.read_bytes() == b"has been automatically generated"


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 16 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_named_and_leaves_nothing(target: tuple[Path, Callable[[Path], None]]) -> None:
    path, write = target
    with pytest.raises(OSError, match=f"large.*{path.name}"):
        write(path)
    assert not list(path.parent.iterdir())


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), output_files.open_output(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_devices_are_written_to(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    link = tmp_path / "terminal"
    link.symlink_to(os.ttyname(theirs))
    output_files.write_text(link, "hello")
    assert os.read(ours, 100) == b"hello" and stat.S_ISCHR(link.stat().st_mode) and link.is_symlink()
    os.close(ours)
    os.close(theirs)


def test_an_open_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "open.txt"
    with path.open("wb") as file:
        output_files.write_text(f"/proc/self/fd/{file.fileno()}", "hello")
        assert path.samefile(f"/proc/self/fd/{file.fileno()}")
    assert path.read_text() == "hello"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for place, kind, words in (
        (tmp_path / "none" / "a.wav", FileNotFoundError, "folder .*none does not exist"),
        (tmp_path, IsADirectoryError, "directory"),
        (tmp_path / "loop", OSError, "loop"),
    ):
        with pytest.raises(kind, match=words):
            output_files.write_text(place, "hello")


def test_standard_output_gets_the_bytes_alone(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    write_wav(Path("-"))
    write_wav(tmp_path / "a.wav")
    assert capfdbinary.readouterr().out == (tmp_path / "a.wav").read_bytes()


@pytest.mark.parametrize("ending", [*audio_files.FORMATS, ".WAV", ""])
def test_the_ending_decides(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"speech{ending}"
    audio_files.write_audio(path, AUDIO, 24_000)
    info = soundfile.info(path)
    assert (info.format, info.subtype) == audio_files.FORMATS[ending.lower() or ".wav"]
    assert (info.samplerate, info.channels) == (24_000, 1) and abs(info.duration - 2) < 0.1
    heard = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")[0][: len(AUDIO)]
    assert np.corrcoef(heard, AUDIO[: len(heard)])[0, 1] > 0.99


def test_other_audio_is_refused(tmp_path: Path) -> None:
    for name, audio, rate, words in (
        ("a.txt", AUDIO, 24_000, r"\.wav, \.flac, .*a\.txt"),
        ("a.wav", np.zeros((2, 5)), 24_000, r"\[samples\], got \(2, 5\)"),
        ("a.wav", np.array([0.0, float("nan")]), 24_000, "1 samples that are NaN"),
        ("a.opus", AUDIO, 44_100, "OPUS cannot hold audio of 44100"),
    ):
        with pytest.raises(ValueError, match=words):
            audio_files.write_audio(tmp_path / name, audio, rate)
    assert not list(tmp_path.iterdir())


def test_whole_numbers_are_samples(tmp_path: Path) -> None:
    audio_files.write_audio(tmp_path / "a.wav", (AUDIO * 32768).astype(np.int16), 24_000)
    audio_files.write_audio(tmp_path / "b.wav", AUDIO, 24_000)
    first, second = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert abs(first - second).max() < 1e-4
