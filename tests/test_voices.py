"""Voices: every format and integer type, and every check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model, tiny_voice
from transformers_bark import VoicePreset
from transformers_bark.voices import as_history_rows

PRESETS = sorted((Path(__file__).parent / "data" / "presets").rglob("*.npz"))


def arrays(**changes: Any) -> dict[str, Any]:
    """A good voice of the released sizes, changed."""
    fine = np.arange(8 * 15, dtype=np.int32).reshape(8, 15)
    return {
        "semantic_prompt": np.arange(10),
        "coarse_prompt": np.asfortranarray(fine[:2]),
        "fine_prompt": fine,
        **changes,
    }


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_real_voices_load_and_fit(path: Path) -> None:
    voice = VoicePreset.load(path).check()
    with np.load(path) as file:
        for name, part in voice.as_dict().items():
            assert part.dtype == torch.int64 and np.array_equal(part.numpy(), file[name])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_every_integer_type_is_taken(dtype: str) -> None:
    voice = VoicePreset.from_arrays({name: array.astype(dtype) for name, array in arrays().items()})
    assert torch.equal(voice.fine_prompt, torch.arange(120).reshape(8, 15))


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_save_and_load(tmp_path: Path, ending: str) -> None:
    voice = tiny_voice()
    voice.save(tmp_path / "new" / f"voice{ending}")
    assert [file.name for file in (tmp_path / "new").iterdir()] == [f"voice{ending}"]
    again = VoicePreset.load(tmp_path / "new" / f"voice{ending}")
    assert all(torch.equal(part, again.as_dict()[name]) for name, part in voice.as_dict().items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"semantic_prompt": np.arange(10.0)}, "semantic_prompt.*whole numbers.*float64"),
        ({"semantic_prompt": torch.rand(10)}, "whole numbers"),
        ({"semantic_prompt": np.zeros((2, 5), int)}, r"semantic_prompt.*1 dimension.*\(2, 5\)"),
        ({"coarse_prompt": np.zeros(15, int)}, "coarse_prompt.*2 dimension"),
        ({"fine_prompt": np.zeros((8, 0), int)}, "fine_prompt.*empty"),
        ({"semantic_prompt": np.arange(10) - 1}, "negative.*-1"),
    ],
)
def test_bad_arrays_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VoicePreset.from_arrays(arrays(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"semantic_prompt": np.arange(10) + 9_995}, r"semantic_prompt.*\[0, 10000\).*10004"),
        ({"coarse_prompt": np.full((2, 15), 1024)}, r"coarse_prompt.*\[0, 1024\).*1024"),
        ({"coarse_prompt": np.zeros((3, 15), int)}, "coarse_prompt.*2 rows.*3"),
        ({"fine_prompt": np.zeros((7, 15), int)}, "fine_prompt.*8 rows.*7"),
        ({"fine_prompt": np.zeros((8, 14), int)}, "15 frames.*14"),
        ({"semantic_prompt": np.arange(5)}, "15 frames for 5 semantic tokens, expected about 8"),
    ],
)
def test_voices_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VoicePreset.from_arrays(arrays(**changes)).check()


def test_missing_parts_are_named() -> None:
    with pytest.raises(ValueError, match="lacks coarse_prompt, fine_prompt"):
        VoicePreset.from_arrays({"semantic_prompt": np.arange(3)})


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        VoicePreset.load(tmp_path / "nothing.npz")
    for name, content in (
        ("cut.npz", PRESETS[0].read_bytes()[:500]),
        ("junk.safetensors", b"junk"),
        ("voice.txt", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            VoicePreset.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"\.npz or \.safetensors"):
        tiny_voice().save(tmp_path / "voice.bin")
    assert not (tmp_path / "voice.bin").exists()


class Boom:
    """Runs when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", semantic_prompt=np.array([Boom()], dtype=object))
    with pytest.raises(ValueError, match=r"evil\.npz"):
        VoicePreset.load(tmp_path / "evil.npz")


def test_trim_keeps_the_end() -> None:
    config = tiny_model().generation_config
    voice = tiny_voice(50).check(config)
    short = voice.trim(1.0, config).check(config)
    assert len(short.semantic_prompt) == 25 and short.fine_prompt.shape[1] == 40
    assert torch.equal(short.coarse_prompt, voice.coarse_prompt[:, -40:])
    with pytest.raises(ValueError, match="seconds"):
        voice.trim(0)


def test_history_rows() -> None:
    voice = tiny_voice()
    assert as_history_rows(None, 2, "cpu") == [None, None]
    for given in (voice, voice.as_dict(), [voice, voice.as_dict()]):
        rows = as_history_rows(given, 2, "cpu")
        assert all(row is not None and torch.equal(row.fine_prompt, voice.fine_prompt) for row in rows)
    assert as_history_rows([None, voice], 2, "meta")[1].fine_prompt.device.type == "meta"
