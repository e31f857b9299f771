"""The original's files with random weights, and what they are converted to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conversion.convert_suno_to_hf import Sources, convert
from conversion.verify import torchaudio_stand_in

from .originals import SIZES, VOCABULARY, build, build_codec, checkpoint, write_voice


@pytest.fixture(scope="session")
def original() -> SimpleNamespace:
    """The original library's model modules and the `encodec` library."""
    with torchaudio_stand_in():
        encodec = pytest.importorskip("encodec")
        model = pytest.importorskip("bark.model")
        model_fine = pytest.importorskip("bark.model_fine")
        generation = pytest.importorskip("bark.generation")
    return SimpleNamespace(encodec=encodec, model=model, model_fine=model_fine, generation=generation)


@pytest.fixture(scope="session")
def models(original: SimpleNamespace) -> dict[str, Any]:
    """One random model a stage (of different widths, as stages may be mixed) and a codec."""
    torch.manual_seed(1)
    built = {
        "text": build(original, "text", width=8),
        "coarse": build(original, "coarse", width=16),
        "fine": build(original, "fine", width=24, heads=3),
    }
    return {**built, "codec": build_codec(original)}


@pytest.fixture(scope="session")
def suno_folder(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Any]) -> Path:
    """The original's files: three checkpoints, codec, vocabulary, voices. Not to be changed: see `sources`."""
    folder = tmp_path_factory.mktemp("suno")
    for stage in SIZES:
        torch.save(checkpoint(*models[stage]), folder / f"{stage}.pt")
    torch.save(models["codec"].state_dict(), folder / "encodec.th")
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    write_voice(folder / "prompts/announcer.npz", seed=1)
    write_voice(folder / "prompts/v2/en_speaker_0.npz", seed=2)
    return folder


@pytest.fixture
def sources(suno_folder: Path) -> Callable[..., Any]:
    """Makes `Sources` of the folder's files, with some replaced."""

    def make(**changes: Path | None) -> Sources:
        files = {stage: suno_folder / f"{stage}.pt" for stage in SIZES}
        files |= {
            "codec": suno_folder / "encodec.th",
            "tokenizer": suno_folder / "vocab.txt",
            "voices": suno_folder / "prompts",
        }
        return Sources(**{**files, **changes})

    return make


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory, suno_folder: Path) -> Path:
    """The converted folder. Not to be changed."""
    output = tmp_path_factory.mktemp("hub") / "bark-tiny"
    files = {stage: suno_folder / f"{stage}.pt" for stage in SIZES}
    convert(
        Sources(
            **files,
            codec=suno_folder / "encodec.th",
            tokenizer=suno_folder / "vocab.txt",
            voices=suno_folder / "prompts",
        ),
        output,
    )
    return output
