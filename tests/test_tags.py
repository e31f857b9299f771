"""Every way of writing a file marks it as synthetic, unless that is switched off."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from transformers_bark import BarkProcessor, __version__
from transformers_bark.cli import main


def said(path: Path) -> dict[str, str]:
    """A file's tags, by name."""
    with av.open(str(path)) as file:
        return {name.lower(): value for name, value in {**file.streams[0].metadata, **file.metadata}.items()}


@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3", ".opus", ".ogg", ".m4a"])
@pytest.mark.parametrize("text", ["hello my dog.", "hello my dog. " * 12], ids=["short", "long"])
def test_speech_says_what_made_it(ending: str, text: str, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    command = [text, "-o", str(path), "--model", str(checkpoint), "--seed", "1", "--tries", "0"][
        : None if len(text) > 20 else -2
    ]
    assert main(command) == 0
    tags = said(path)
    assert "ynthetic" in tags["comment"] and checkpoint.name in tags["comment"]
    assert str(checkpoint.parent) not in str(tags)
    assert any(f"transformers-bark {__version__}" in value for value in tags.values())
    assert main([*command, "--no-tags"]) == 0
    assert "ynthetic" not in str(said(path)) and "transformers-bark" not in str(said(path))


def test_saved_audio_says_that_it_is_synthetic(checkpoint: Path, tmp_path: Path) -> None:
    processor = BarkProcessor.from_pretrained(checkpoint)
    audio = np.zeros(2_400, np.float32)
    processor.save_audio(audio, tmp_path / "a.flac")
    assert "ynthetic" in said(tmp_path / "a.flac")["comment"]
    processor.save_audio(audio, tmp_path / "b.flac", tags=False)
    assert "comment" not in said(tmp_path / "b.flac")


def test_a_voices_sample_says_so_too(checkpoint: Path, tmp_path: Path) -> None:
    assert (
        main(["voices", "--sample", "v2/en_speaker_0", "-o", str(tmp_path / "a.wav"), "--model", str(checkpoint)]) == 0
    )
    assert "ynthetic" in said(tmp_path / "a.wav")["comment"]
