"""The original library's interface: its README's and notebook's code, with only the import changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io.wavfile import write as write_wav

from transformers_bark import BarkModel, suno

NAME = "v2/en_speaker_0"


@pytest.fixture(autouse=True)
def tiny(checkpoint: Path) -> Iterator[None]:
    suno.use_model(checkpoint)
    yield
    suno.clean_models()


def test_readme_snippets(tmp_path: Path) -> None:
    from transformers_bark.suno import SAMPLE_RATE, generate_audio

    audio_array = generate_audio("hello my dog", history_prompt=NAME, silent=True)
    write_wav(tmp_path / "bark_generation.wav", SAMPLE_RATE, audio_array)
    assert SAMPLE_RATE == 24_000 and audio_array.dtype == np.float32 and audio_array.ndim == 1


def test_long_form_notebook() -> None:
    from transformers_bark.suno import SAMPLE_RATE, generate_text_semantic, semantic_to_waveform

    pieces = []
    silence = np.zeros(int(0.25 * SAMPLE_RATE))
    for sentence in ["hello my dog.", "the quick cat."]:
        semantic_tokens = generate_text_semantic(sentence, history_prompt=NAME, temp=0.6, min_eos_p=0.05)
        audio_array = semantic_to_waveform(semantic_tokens, history_prompt=NAME)
        pieces += [audio_array, silence.copy()]
    assert len(np.concatenate(pieces)) > len(silence) * 2


def test_output_full_chains_as_a_voice(tmp_path: Path) -> None:
    full, audio = suno.generate_audio("hello", output_full=True)
    assert {key: part.dtype.kind for key, part in full.items()} == dict.fromkeys(full, "i")
    assert len(audio) == full["fine_prompt"].shape[1] * 600
    suno.save_as_prompt(str(tmp_path / "v.npz"), full)
    assert len(suno.generate_audio("my dog", history_prompt=str(tmp_path / "v.npz")))
    assert len(suno.generate_audio("my dog", history_prompt=full))
    with pytest.raises(ValueError, match=r"\.npz.*v\.bin"):
        suno.save_as_prompt("v.bin", full)
    with pytest.raises(ValueError, match="lacks fine_prompt"):
        suno.save_as_prompt(str(tmp_path / "w.npz"), {key: full[key] for key in ("semantic_prompt", "coarse_prompt")})


def test_stages_one_by_one_equal_the_whole() -> None:
    torch.manual_seed(5)
    whole = suno.generate_audio("hello my dog", text_temp=0.6, waveform_temp=0.8)
    torch.manual_seed(5)
    semantic = suno.text_to_semantic("hello my dog", temp=0.6)
    coarse = suno.generate_coarse(semantic, temp=0.8)
    assert coarse.shape[0] == 2
    assert np.array_equal(suno.codec_decode(suno.generate_fine(coarse)), whole)


def test_options_act() -> None:
    assert len(suno.generate_text_semantic("hello", max_gen_duration_s=0.2)) == 6
    assert len(suno.generate_text_semantic("hello", min_eos_p=1e-6, allow_early_stop=False)) == 40
    tokens = suno.generate_text_semantic("hello", allow_early_stop=False)
    greedy = [suno.generate_fine(suno.generate_coarse(tokens, top_k=1, top_p=0.5), temp=None) for _ in range(2)]
    assert np.array_equal(*greedy)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: suno.generate_text_semantic("  "), "text.*empty"),
        (lambda: suno.generate_coarse(np.array([40])), r"x_semantic.*\[0, 40\).*40"),
        (lambda: suno.generate_coarse([1, 2]), "x_semantic.*numpy array"),
        (lambda: suno.generate_fine(np.zeros((4, 5), int)), "fewer than 4 codebooks"),
        (lambda: suno.codec_decode(np.zeros(5, int)), "fine_tokens.*2 dimension"),
        (lambda: suno.generate_audio("hello", history_prompt="nobody"), "nobody"),
        (lambda: suno.generate_audio("hello", text_temp=0.0), "temperature"),
    ],
)
def test_bad_input_is_named(call, words: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=words):
        call()


def test_stages_of_different_size_are_mixed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str) -> BarkModel:
        asked.append(name)
        return BarkModel(BarkModel.config_class.from_pretrained(checkpoint))

    suno.clean_models()
    monkeypatch.setattr(suno.BarkModel, "from_pretrained", staticmethod(load))
    suno.preload_models(text_use_small=True, coarse_use_small=True)
    assert sorted(asked) == ["suno/bark", "suno/bark-small"]
    stages = suno._loaded.stages
    assert stages["text"] is stages["coarse"] is not stages["fine"]
    suno.preload_models()
    assert len(asked) == 2, "what is loaded stays"
    monkeypatch.setenv("SUNO_USE_SMALL_MODELS", "1")
    suno.clean_models()
    suno.preload_models()
    assert asked[2:] == ["suno/bark-small"]
