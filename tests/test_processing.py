"""The processor: text, voices, folders and what is fetched from where."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor

from tests.tiny import tiny_tokenizer, tiny_voice
from transformers_bark import BarkModel, BarkProcessor, VoicePreset, processing_bark

pytestmark = pytest.mark.compat
NAME = "v2/en_speaker_0"


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> BarkProcessor:
    return BarkProcessor.from_pretrained(checkpoint)


def test_text_is_padded_and_masked(processor: BarkProcessor) -> None:
    inputs = processor(["hello  my\n dog", "hello"])
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (2, 16)
    assert inputs["attention_mask"].sum(1).tolist() == [3, 1]
    assert "token_type_ids" not in inputs and "history_prompt" not in inputs
    assert torch.equal(inputs["input_ids"][:1], processor("hello my dog")["input_ids"])
    assert processor("hello", max_length=5)["input_ids"].shape == (1, 5)


def test_released_folders_have_256_tokens(tmp_path: Path) -> None:
    processor = BarkProcessor(tiny_tokenizer(tmp_path, max_length=512))
    assert processor("hello")["input_ids"].shape == (1, 256)


def test_long_text_is_cut_with_a_warning(processor: BarkProcessor) -> None:
    with pytest.warns(UserWarning, match=r"20 tokens is longer than 16: the last 20\.0% is cut"):
        inputs = processor("dog " * 20)
    assert inputs["attention_mask"].sum() == 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor("dog " * 16, truncation=True)


@pytest.mark.parametrize("text", ["", "  \n", [], None, ["hello", " "]])
def test_empty_text_is_refused(processor: BarkProcessor, text: Any) -> None:
    with pytest.raises(ValueError, match="text.*empty"):
        processor(text)


def test_other_text_is_refused(processor: BarkProcessor) -> None:
    with pytest.raises(TypeError, match="text.*int"):
        processor([3])


def test_a_voice_in_every_form(processor: BarkProcessor, tmp_path: Path) -> None:
    voice = processor.load_voice(NAME)
    assert isinstance(voice, VoicePreset)
    voice.save(tmp_path / "voice.npz")
    voice.save(tmp_path / "voice.safetensors")
    numpy_voice = {name: part.numpy().astype(np.uint16) for name, part in voice.as_dict().items()}
    forms = [NAME, voice, voice.as_dict(), numpy_voice, tmp_path / "voice.npz", str(tmp_path / "voice.safetensors")]
    for form in [*forms, str(tmp_path / "voice"), np.load(tmp_path / "voice.npz")]:
        history = processor("hello", voice_preset=form, truncation=True)["history_prompt"]
        assert all(torch.equal(history[name], part) for name, part in voice.as_dict().items())


def test_a_voice_per_text(processor: BarkProcessor, model: BarkModel) -> None:
    inputs = processor(["hello", "my dog"], voice_preset=[NAME, None])
    assert isinstance(inputs["history_prompt"][0], VoicePreset) and inputs["history_prompt"][1] is None
    output = model.generate(**inputs, seed=1, return_dict_in_generate=True)
    alone = model.generate(**processor("my dog"), seed=1, return_dict_in_generate=True)
    assert torch.equal(output.fine_codes[1], alone.fine_codes[0])
    with pytest.raises(ValueError, match="1 voices for 2 texts"):
        processor(["hello", "my dog"], voice_preset=[NAME])


@pytest.mark.parametrize("voice", [NAME, [NAME, None]])
def test_inputs_move_with_their_voices(processor: BarkProcessor, voice: Any) -> None:
    for inputs in (
        processor(["hello", "dog"], voice_preset=voice).to("meta"),
        processor(["hello", "dog"], voice_preset=voice, device="meta"),
    ):
        history = inputs["history_prompt"]
        parts = history.values() if isinstance(voice, str) else history[0].as_dict().values()
        assert {tensor.device.type for tensor in (inputs["input_ids"], *parts)} == {"meta"}


def test_unknown_voices_suggest_the_nearest(processor: BarkProcessor) -> None:
    with pytest.raises(ValueError, match=f"v2/en_speaker_9.*did you mean {NAME}"):
        processor("hello", voice_preset="v2/en_speaker_9")
    with pytest.raises(ValueError, match="zzz.*1 voices are listed"):
        processor("hello", voice_preset="zzz")
    with pytest.raises(TypeError, match="voice_preset.*int"):
        processor("hello", voice_preset=7)


@pytest.mark.parametrize("voice_format", ["npy", "npz", "safetensors"])
def test_save_and_load(processor: BarkProcessor, tmp_path: Path, voice_format: str) -> None:
    processor.save_pretrained(tmp_path / "saved", voice_format=voice_format)
    moved = tmp_path / "moved"
    (tmp_path / "saved").rename(moved)  # the list names the old place, which must not count
    again = AutoProcessor.from_pretrained(moved)
    assert type(again) is BarkProcessor and again.available_voice_presets == [NAME]
    assert again.max_length == processor.max_length
    assert torch.equal(again.load_voice(NAME).fine_prompt, processor.load_voice(NAME).fine_prompt)
    assert len(list((moved / "speaker_embeddings").rglob("*.*"))) == (3 if voice_format == "npy" else 1)


def test_nothing_is_saved_when_a_voice_is_missing(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "speaker_embeddings")
    broken = BarkProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match=f"{NAME}.*is not in"):
        broken.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ValueError, match="voice_format.*wav"):
        broken.save_pretrained(tmp_path / "saved", voice_format="wav")


def test_without_voices(folder: Path) -> None:
    assert BarkProcessor.from_pretrained(folder, speaker_embeddings_dict_path=None).available_voice_presets == []
    (folder / "speaker_embeddings_path.json").unlink()
    assert BarkProcessor.from_pretrained(folder).available_voice_presets == []


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("../secret.npz", r"\.\./secret\.npz.*leaves its folder"),
        ("/etc/passwd", "/etc/passwd.*leaves its folder"),
        ("a\\..\\..\\b.npz", "leaves its folder"),
        ({"semantic_prompt": "x.npy"}, "lacks coarse_prompt, fine_prompt"),
        ({key: "../x.npy" for key in ("semantic_prompt", "coarse_prompt", "fine_prompt")}, "leaves its folder"),
        ("missing.npz", r"missing\.npz is not in"),
    ],
)
def test_bad_entries_of_the_list(folder: Path, entry: Any, words: str) -> None:
    (folder / "speaker_embeddings_path.json").write_text(json.dumps({"repo_or_path": "suno/bark", "bad": entry}))
    with pytest.raises(ValueError, match=words):
        BarkProcessor.from_pretrained(folder).load_voice("bad")


def test_pickled_voice_files_are_refused(folder: Path) -> None:
    path = folder / "speaker_embeddings" / f"{NAME}_semantic_prompt.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=NAME):
        BarkProcessor.from_pretrained(folder).load_voice(NAME)


def test_hub_options_reach_every_file(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str, dict[str, Any]]] = []

    def fetch(source: str, file: str, **options: Any) -> str | None:
        options.pop("_raise_exceptions_for_missing_entries")
        calls.append((source, file, options))
        path = checkpoint / file
        return str(path) if path.exists() else None

    tokenizer_calls: list[dict[str, Any]] = []
    monkeypatch.setattr(processing_bark, "cached_file", fetch)
    monkeypatch.setattr(
        processing_bark.AutoTokenizer,
        "from_pretrained",
        lambda source, **options: tokenizer_calls.append(options) or tiny_tokenizer(checkpoint.parent / "other"),
    )
    options = {"revision": "abc", "cache_dir": "/tmp/x", "token": "t", "local_files_only": True, "subfolder": "sub"}
    processor = BarkProcessor.from_pretrained("someone/bark", **options)
    processor.load_voice(NAME)
    assert [file for _, file, _ in calls] == [
        "speaker_embeddings_path.json",
        "generation_config.json",
        *(f"speaker_embeddings/{NAME}_{part}.npy" for part in ("semantic_prompt", "coarse_prompt", "fine_prompt")),
    ]
    assert all(source == "someone/bark" and given == options for source, _, given in calls)
    assert tokenizer_calls == [options]


def test_subfolder_of_a_local_folder(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "repository" / "inner")
    processor = BarkProcessor.from_pretrained(tmp_path / "repository", subfolder="inner")
    assert processor.load_voice(NAME) is not None


def test_save_audio(processor: BarkProcessor, tmp_path: Path) -> None:
    wave = torch.sin(torch.arange(2400) / 10) * 2
    processor.save_audio(wave[None], tmp_path / "a.wav")
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (24_000, 1, "PCM_16", 2400)
    audio, _ = soundfile.read(tmp_path / "a.wav")
    assert np.abs(audio - wave.clamp(-1, 1).numpy()).max() < 1e-4
    processor.save_audio(wave.numpy(), tmp_path / "a.wav", sampling_rate=16_000)
    with pytest.raises(ValueError, match=r"\[samples\].*\(2, 5\)"):
        processor.save_audio(torch.zeros(2, 5), tmp_path / "b.wav")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        processor.save_audio(wave, tmp_path / "nowhere" / "b.wav")
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]


def test_voices_are_checked_against_the_model(model: BarkModel, processor: BarkProcessor) -> None:
    voice = tiny_voice()
    bad = VoicePreset(voice.semantic_prompt, voice.coarse_prompt, voice.fine_prompt + 32)
    with pytest.raises(ValueError, match=r"fine_prompt.*\[0, 32\)"):
        model.generate(**processor("hello", voice_preset=bad))
