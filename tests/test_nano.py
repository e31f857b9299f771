"""The embedded checkpoint: there, small, and able to speak."""

from __future__ import annotations

import math
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import pipeline

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor, codec
from transformers_bark.generation_configuration_bark import check_compatible

pytestmark = pytest.mark.skipif(not Path(BARK_NANO, "config.json").exists(), reason="the checkpoint is not built")


@pytest.fixture(scope="module")
def nano() -> tuple[BarkModel, BarkProcessor]:
    return BarkModel.from_pretrained(BARK_NANO, dtype=torch.float32).eval(), BarkProcessor.from_pretrained(BARK_NANO)


def test_it_is_small_and_complete() -> None:
    files = [file for file in Path(BARK_NANO).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 30e6
    assert {"README.md", "NOTICE", "config.json", "generation_config.json", "model.safetensors"} <= {
        f.name for f in files
    }
    card = ModelCard.load(Path(BARK_NANO) / "README.md")
    assert card.data.pipeline_tag == "text-to-speech" and "word error rate" in card.text


def test_its_sizes_are_its_own(nano: tuple[BarkModel, BarkProcessor]) -> None:
    model, processor = nano
    check_compatible(model.config, model.generation_config)
    semantic = model.generation_config.semantic_config
    assert semantic.semantic_vocab_size != 10_000 and semantic.semantic_rate_hz != 49.9
    assert processor.max_length == semantic.max_input_semantic_length != 256
    for name in processor.available_voice_presets:
        processor.load_voice(name).check(model.generation_config)


@pytest.mark.parametrize("voice", [False, True])
def test_it_speaks_for_about_as_long_as_the_text_takes(nano: tuple[BarkModel, BarkProcessor], voice: bool) -> None:
    model, processor = nano
    preset = processor.available_voice_presets[0] if voice else None
    texts = ["Good morning.", "The old man walked slowly to the station in the rain."]
    output = model.generate(**processor(texts, voice_preset=preset), seed=0, return_dict_in_generate=True)
    short, long = (output.audio_lengths / 24_000).tolist()
    assert 0.3 < short < 3.0 and short < long < 7.0
    for audio, length in zip(output.audio, output.audio_lengths, strict=True):
        assert 0.003 < float(audio[:length].std()) < 0.5


def test_other_numbers_are_no_unknown_tokens(nano: tuple[BarkModel, BarkProcessor]) -> None:
    tokenizer = nano[1].tokenizer
    assert tokenizer.unk_token_id not in tokenizer("On May 3, 1987, we paid 42.60 dollars: why?")["input_ids"]


def median_pitch(audio: torch.Tensor) -> float:
    """Hz, over the voiced frames."""
    return float(np.nanmedian(librosa.pyin(audio.numpy(), fmin=80, fmax=500, sr=24_000)[0]))


@torch.no_grad()
def test_the_pitch_follows_the_preset(nano: tuple[BarkModel, BarkProcessor]) -> None:
    model, processor = nano
    own, heard = {}, {}
    for name in processor.available_voice_presets:
        voice = processor.load_voice(name)
        own[name] = median_pitch(codec.decode(model.codec_model, [voice.fine_prompt])[0])
        inputs = processor("The old man walked slowly to the station in the rain.", voice_preset=voice)
        heard[name] = median_pitch(torch.cat([model.generate(**inputs, seed=seed)[0] for seed in (0, 1)]))
    assert len(own) >= 2 and max(heard.values()) > 1.08 * min(heard.values())
    for name, pitch in heard.items():
        nearest = min(own, key=lambda other: abs(math.log(pitch / own[other])))
        assert nearest == name, f"{name} speaks at {pitch:.0f} Hz; the presets themselves at {own}"


def test_seeds_vary_what_is_heard(nano: tuple[BarkModel, BarkProcessor]) -> None:
    model, processor = nano
    inputs = processor(["The bird sang until the sun went down."] * 3)
    output = model.generate(**inputs, seed=[1, 2, 3], return_dict_in_generate=True)
    assert len({tuple(row.tolist()) for row in output.semantic_tokens}) == 3
    lengths = output.audio_lengths.float() / 24_000
    assert float(lengths.min()) > 1.2 and float(lengths.max()) < 4.0


def test_the_pipeline_takes_it() -> None:
    speech = pipeline("text-to-speech", BARK_NANO)("Hello.", forward_params={"seed": 1})
    assert speech["sampling_rate"] == 24_000 and len(speech["audio"]) > 4_800
