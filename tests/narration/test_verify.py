"""A recogniser that listens: what it finds wrong is said again, and told where it stays so."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.narration.speech import FEW, TEXT, tiny_narrator
from transformers_bark.narration import Narrator
from transformers_bark.narration.checks import Doubt
from transformers_bark.narration.recogniser import Recogniser, plain, share_wrong

RATE = 24_000
pytestmark = pytest.mark.filterwarnings("ignore:the tokenizer does not know")


class Heard:
    """Stands for faster-whisper's model: writes down what it was told, and keeps how it was asked."""

    says = "hello my dog"
    made: list[tuple[str, dict[str, Any]]] = []
    asked: list[tuple[np.ndarray, dict[str, Any]]] = []

    def __init__(self, folder: str, **how: Any) -> None:
        Heard.made.append((folder, how))

    def transcribe(self, audio: np.ndarray, **how: Any) -> tuple[list[Any], None]:
        Heard.asked.append((audio, how))
        return [SimpleNamespace(text=f" {part}") for part in self.says.split(" my ")], None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Heard))
    monkeypatch.setattr(Heard, "made", [])
    monkeypatch.setattr(Heard, "asked", [])
    (tmp_path / "model.bin").write_bytes(b"")
    return tmp_path


def test_a_piece_that_is_heard_otherwise_is_said_again_and_told(checkpoint: Path) -> None:
    heard: list[tuple[str, int, int, str | None]] = []

    def verify(text: str, audio: np.ndarray, rate: int, language: str | None) -> list[Doubt]:
        heard.append((text, len(audio), rate, language))
        said_before = sum(text == other for other, *_ in heard) - 1
        if text.startswith("is the cat"):
            return [Doubt("words", "heard as nothing", 3.0)]  # whatever is done
        return [Doubt("words", "heard as something", 2.0)] if text.startswith("hello,") and not said_before else []

    model = tiny_narrator(checkpoint)
    narrator = Narrator(model.model, model.processor, limits=FEW, verify=verify)
    spoken = {one.piece.text: one for one in narrator(TEXT, "v2/en_speaker_0", seed=3, tries=2)}
    assert all(rate == RATE and length and language == "en" for _, length, rate, language in heard)
    counts = {text: sum(text == other for other, *_ in heard) for text in spoken}
    doubted = next(text for text in spoken if text.startswith("is the cat"))
    mended = next(text for text in spoken if text.startswith("hello,"))
    assert counts[doubted] == 3 and "words" in [doubt.kind for doubt in spoken[doubted].doubts]
    assert counts[mended] >= 2 and "words" not in [doubt.kind for doubt in spoken[mended].doubts]


def test_the_recogniser_compares_words(folder: Path) -> None:
    recogniser = Recogniser(folder, threads=1)
    assert Heard.made == [(str(folder), {"device": "auto", "compute_type": "int8", "cpu_threads": 1})]
    tone = np.sin(np.arange(RATE) * 0.1).astype(np.float32)
    assert recogniser("Hello, dog!", tone, RATE, None) == []
    audio, how = Heard.asked[0]
    assert len(audio) == 16_000 and audio.dtype == np.float32 and how["language"] == "en"
    (doubt,) = recogniser("The quick cat is here.", tone, RATE, "en")
    assert doubt.kind == "words" and "hello dog" in doubt.reason and doubt.weight > 1


def test_a_narrator_takes_a_folder(checkpoint: Path, folder: Path) -> None:
    model = tiny_narrator(checkpoint)
    narrator = Narrator(model.model, model.processor, limits=FEW, verify=folder)
    first, *_ = narrator("the quick cat is here.", "v2/en_speaker_0", seed=1, tries=0)
    assert [doubt.kind for doubt in first.doubts if doubt.kind == "words"]


def test_without_a_model_or_the_package_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ImportError, match=r"transformers-bark\[verify\]"):
        Recogniser(tmp_path)
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Heard))
    with pytest.raises(FileNotFoundError, match="model.bin"):
        Recogniser(tmp_path)


@pytest.mark.parametrize(
    ("text", "heard", "language", "share"),
    [
        ("It's ten o'clock.", "it is 10 o'clock", "en", 0.0),
        ("[laughs] Well, ♪ sing ♪ it.", "well sing it", "en", 0.0),
        ("the red cat sleeps", "the cat sleeps", "en", 0.25),
        ("Guten Tag", "guten tag heute", "de", 0.5),
        ("今日は", "今日も", "ja", 1 / 3),
        ("♪", "anything", "en", 0.0),
    ],
)
def test_how_much_is_wrong(text: str, heard: str, language: str, share: float) -> None:
    assert share_wrong(text, heard, language) == pytest.approx(share), (plain(text, language), plain(heard, language))
