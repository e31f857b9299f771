"""Registration and the text-to-speech pipeline, on a local folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextToWaveform,
    AutoProcessor,
    TextToAudioPipeline,
    pipeline,
)

import transformers_bark
from transformers_bark import BarkConfig, BarkModel, BarkProcessor, BarkTextToSpeechPipeline, Narrator

NAME = "v2/en_speaker_0"


@pytest.fixture(scope="module")
def synthesiser(checkpoint: Path) -> BarkTextToSpeechPipeline:
    return pipeline("text-to-speech", str(checkpoint))


@pytest.mark.compat
def test_auto_classes_are_ours(checkpoint: Path) -> None:
    transformers_bark.register()  # a second time changes nothing
    assert type(AutoConfig.from_pretrained(checkpoint)) is BarkConfig
    assert type(AutoModel.from_pretrained(checkpoint)) is BarkModel
    assert type(AutoModelForTextToWaveform.from_pretrained(checkpoint)) is BarkModel
    assert type(AutoProcessor.from_pretrained(checkpoint)) is BarkProcessor


@pytest.mark.compat
@pytest.mark.parametrize("task", ["text-to-speech", "text-to-audio"])
def test_the_pipeline_is_ours(checkpoint: Path, task: str) -> None:
    made = pipeline(task, str(checkpoint))
    assert type(made) is BarkTextToSpeechPipeline and isinstance(made, TextToAudioPipeline)
    assert type(made.model) is BarkModel and type(made.processor) is BarkProcessor


@pytest.mark.compat
def test_model_card_snippet(synthesiser: BarkTextToSpeechPipeline, tmp_path: Path) -> None:
    speech = synthesiser("Hello, my dog is cooler than you!", forward_params={"do_sample": True})
    scipy.io.wavfile.write(tmp_path / "bark_out.wav", rate=speech["sampling_rate"], data=speech["audio"])
    rate, data = scipy.io.wavfile.read(tmp_path / "bark_out.wav")
    assert rate == 24_000 and data.ndim == 1 and data.dtype == np.float32 and len(data) > 0


@pytest.mark.compat
def test_processor_and_model_snippet(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint)
    inputs = processor(text=["Hello, my name is Suno."], return_tensors="pt")
    speech_values = model.generate(**inputs, do_sample=True)
    assert speech_values.ndim == 2 and model.generation_config.sample_rate == 24_000


@pytest.mark.parametrize("size", [1, 2, 8])
def test_batches_equal_single_texts(synthesiser: BarkTextToSpeechPipeline, size: int) -> None:
    texts, voices = ["hello", "my dog is cooler", "the quick cat"], [NAME, None, NAME]
    options = {"do_sample": True, "min_eos_p": 0.02, "seed": 5}
    together = synthesiser(texts, voice_preset=voices, batch_size=size, forward_params=options)
    alone = [
        synthesiser(text, voice_preset=voice, forward_params=options) for text, voice in zip(texts, voices, strict=True)
    ]
    assert len(together) == 3
    for first, second in zip(together, alone, strict=True):
        assert np.allclose(first["audio"], second["audio"], atol=1e-6)


def test_any_iterable_and_the_old_way_to_give_a_voice(synthesiser: BarkTextToSpeechPipeline) -> None:
    options = {"seed": 5}
    first = list(synthesiser((text for text in ["hello"]), voice_preset=NAME, generate_kwargs=options))
    second = synthesiser(["hello"], preprocess_params={"voice_preset": NAME}, forward_params=options)
    assert np.array_equal(first[0]["audio"], second[0]["audio"])
    plain = synthesiser(["hello"], forward_params=options)
    assert not np.array_equal(first[0]["audio"], plain[0]["audio"])


@pytest.mark.compat
def test_bad_arguments_are_named(synthesiser: BarkTextToSpeechPipeline) -> None:
    with pytest.raises(TypeError, match="unknown arguments.*voice"):
        synthesiser("hello", voice=NAME)
    with pytest.raises(TypeError, match="temprature"):
        synthesiser("hello", forward_params={"temprature": 1.0})
    with pytest.raises(ValueError, match="nobody"):
        synthesiser("hello", voice_preset="nobody")


def test_any_length_says_all_of_a_text(synthesiser: BarkTextToSpeechPipeline) -> None:
    text = "hello my dog. " * 30
    options = {"seed": 1}
    with pytest.warns(UserWarning, match="cut"):
        cut = synthesiser(text, NAME, generate_kwargs=options)
    whole = synthesiser(text, NAME, any_length=True, generate_kwargs=options)
    narration = Narrator(synthesiser.model, synthesiser.processor)(text, NAME, **options)
    assert len(narration) > 1 and len(whole["audio"]) > len(cut["audio"]) and whole["sampling_rate"] == 24_000
    np.testing.assert_array_equal(whole["audio"], narration.audio())
    both = synthesiser([text, "the cat."], [NAME, None], any_length=True, generate_kwargs=options)
    np.testing.assert_array_equal(both[0]["audio"], whole["audio"])
