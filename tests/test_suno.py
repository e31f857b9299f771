"""The original library's interface: its README's and notebook's code, with only the import changed."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from conversion.verify import torchaudio_stand_in
from tests.tiny import tiny_model, tiny_voice
from transformers_bark import BarkModel, BarkProcessor, suno
from transformers_bark.suno import LARGE, SMALL

NAME = "v2/en_speaker_0"


@pytest.fixture(autouse=True)
def tiny(checkpoint: Path) -> Iterator[None]:
    suno.use_model(checkpoint)
    yield
    suno.use_model(None)


README = """
from bark import SAMPLE_RATE, generate_audio, preload_models
from scipy.io.wavfile import write as write_wav

preload_models()
text_prompt = '''
     Hello, my dog is cooler than you. And, a — b [laughs]
'''
audio_array = generate_audio(text_prompt)
write_wav("bark_generation.wav", SAMPLE_RATE, audio_array)
audio_array = generate_audio("the quick cat", history_prompt="v2/en_speaker_0")
"""

NOTEBOOK = """
import numpy as np
from bark.generation import generate_text_semantic, preload_models
from bark.api import semantic_to_waveform
from bark import generate_audio, SAMPLE_RATE

preload_models()
GEN_TEMP = 0.6
SPEAKER = "v2/en_speaker_0"
silence = np.zeros(int(0.25 * SAMPLE_RATE))
pieces = []
for sentence in ["hello my dog.", "the quick cat."]:
    semantic_tokens = generate_text_semantic(
        sentence,
        history_prompt=SPEAKER,
        temp=GEN_TEMP,
        min_eos_p=0.05,
    )
    audio_array = semantic_to_waveform(semantic_tokens, history_prompt=SPEAKER)
    pieces += [audio_array, silence.copy()]
audio_array = np.concatenate(pieces)
"""


def run_script(script: str) -> dict[str, Any]:
    """Runs a script of the original's after changing its imports, and nothing else; gives its variables."""
    changed = re.sub(r"^(from|import) bark\b", r"\1 transformers_bark.suno", script, flags=re.MULTILINE)
    assert "from bark" not in changed
    variables: dict[str, Any] = {}
    exec(compile(changed, "script", "exec"), variables)
    return variables


def test_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    audio = run_script(README)["audio_array"]
    assert audio.dtype == np.float32 and audio.ndim == 1 and len(audio)
    assert soundfile.info("bark_generation.wav").samplerate == 24_000


def test_long_form_notebook_runs() -> None:
    variables = run_script(NOTEBOOK)
    assert len(variables["audio_array"]) > 2 * len(variables["silence"])


@pytest.mark.parametrize("module", ["api", "generation"])
def test_arguments_are_the_originals(module: str) -> None:
    with torchaudio_stand_in():
        original = importlib.import_module(f"bark.{module}")
    ours_too = importlib.import_module(f"transformers_bark.suno.{module}")
    checked = 0
    for name, function in inspect.getmembers(original, inspect.isfunction):
        # `autocast` is torch's, under a condition
        if function.__module__ == original.__name__ and not name.startswith("_") and name != "autocast":
            assert getattr(suno, name) is getattr(ours_too, name)
            ours = list(inspect.signature(getattr(suno, name)).parameters.values())
            theirs = list(inspect.signature(function).parameters.values())
            assert [one.name for one in ours][: len(theirs)] == [one.name for one in theirs]
            for one, other in zip(ours, theirs, strict=False):
                # None stands for the checkpoint's own
                assert one.default == other.default or one.default is None, f"{name}({one.name})"
            checked += 1
    assert checked == {"api": 4, "generation": 8}[module]
    constants = [name for name in vars(original) if name.isupper() and isinstance(getattr(original, name), int | float)]
    own = {"USE_SMALL_MODELS", "GLOBAL_ENABLE_MPS", "OFFLOAD_CPU"}  # the environment at import
    assert {name: getattr(suno, name) for name in constants if name not in own} == {
        name: getattr(original, name) for name in constants if name not in own
    }


@pytest.fixture
def original() -> Any:
    """The original's module."""
    with torchaudio_stand_in():
        return importlib.import_module("bark.generation")


def test_the_small_functions_give_what_the_originals_do(original: Any, tmp_path: Path) -> None:
    codes = np.arange(2 * 7).reshape(2, 7)
    for offset in ({}, {"offset_size": 32}, {"offset_size": None}):
        ours, theirs = (module._flatten_codebooks(codes, **offset) for module in (suno.generation, original))
        assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
    assert np.array_equal(codes, np.arange(2 * 7).reshape(2, 7)), "the caller's array stays"
    text = "  hello\n my\tdog "
    assert suno.generation._normalize_whitespace(text) == original._normalize_whitespace(text)
    tokenizer = suno.load_model()["tokenizer"]
    ids = original._tokenize(tokenizer, "hello my dog")
    assert suno.generation._tokenize(tokenizer, "hello my dog") == ids
    assert suno.generation._detokenize(tokenizer, ids) == original._detokenize(tokenizer, ids)
    tiny_voice().save(tmp_path / "voice.npz")
    ours, theirs = (module._load_history_prompt(str(tmp_path / "voice.npz")) for module in (suno.generation, original))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs) and len(ours) == len(theirs.files) == 3
    named = suno.generation._load_history_prompt(NAME)
    assert np.array_equal(suno.generation._load_history_prompt(named)["fine_prompt"], named["fine_prompt"])
    with pytest.raises(ValueError, match="nobody"):
        suno.generation._load_history_prompt("nobody")


MODELS = """
from bark.generation import models, load_model, preload_models, codec_decode, clean_models
from bark import generation
from bark import api

assert len(models) == 0 and "text" not in models
preload_models()
assert sorted(models) == ["coarse", "codec", "fine", "text"]
assert models["text"] == load_model(model_type="text") and models["coarse"] is load_model(model_type="coarse")
codec = models["codec"]
del models["fine"]
assert "fine" not in generation.models
models["codec"] = codec
audio = api.generate_audio("hello")
clean_models()
assert len(models) == 0
generation.USE_SMALL_MODELS = True
"""


def test_models_are_looked_up_as_in_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    suno.clean_models()
    run_script(MODELS)
    assert vars(suno.generation).pop("USE_SMALL_MODELS") is True
    assert suno.generation.USE_SMALL_MODELS is False
    monkeypatch.setenv("SUNO_USE_SMALL_MODELS", "1")
    assert suno.generation.USE_SMALL_MODELS is True
    with pytest.raises(AttributeError, match="NONSENSE"):
        _ = suno.generation.NONSENSE


def test_a_flag_that_a_script_sets_acts(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(suno.generation), "USE_SMALL_MODELS", True)
    suno.preload_models()
    assert hub == ["suno/bark-small"]


def test_output_full_chains_as_a_voice(tmp_path: Path) -> None:
    full, audio = suno.generate_audio("hello", output_full=True)
    # the original's types
    assert {key: str(part.dtype) for key, part in full.items()} == {
        "semantic_prompt": "int64",
        "coarse_prompt": "int64",
        "fine_prompt": "int32",
    }
    assert [part.ndim for part in full.values()] == [1, 2, 2]
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
        (lambda: suno.generate_coarse(np.array([0.5])), "x_semantic.*whole numbers"),
        (lambda: suno.generate_coarse(np.array([], int)), r"x_semantic.*\(0,\)"),
        (lambda: suno.generate_coarse(np.array([1]), max_coarse_history=0), "max_coarse_history.*0"),
        (lambda: suno.codec_decode(np.zeros((99, 5), int)), "codebooks, got 99"),
        (lambda: suno.generate_audio("hello", history_prompt={"semantic_prompt": np.ones(3, int)}), "lacks"),
        (lambda: suno.load_model(model_type="codec"), "model_type.*codec"),
        (lambda: suno.use_model(tiny_model()), "processor"),
        (lambda: suno.generate_coarse(np.array([40])), r"x_semantic.*\[0, 40\).*40"),
        (lambda: suno.generate_coarse([1, 2]), "x_semantic.*numpy array"),  # a TypeError
        (lambda: suno.generate_text_semantic(["a", "b"]), "text.*string"),  # a TypeError
        (lambda: suno.generate_fine(np.zeros((4, 5), int)), "fewer than 4 codebooks"),
        (lambda: suno.codec_decode(np.zeros(5, int)), "fine_tokens.*2 dimension"),
        (lambda: suno.generate_audio("hello", history_prompt="nobody"), "nobody"),
        (lambda: suno.generate_audio("hello", text_temp=0.0), "temperature"),
    ],
)
def test_bad_input_is_named(call, words: str) -> None:  # noqa: ANN001
    with pytest.raises((ValueError, TypeError), match=words):
        call()


@pytest.fixture
def hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tiny checkpoint under every name on the Hub; the names asked for."""
    asked: list[str] = []
    load_model, load_processor = BarkModel.from_pretrained, BarkProcessor.from_pretrained

    def model(name: str) -> BarkModel:
        asked.append(name)
        return load_model(checkpoint)

    def processor(name: str) -> BarkProcessor:
        asked.append(f"{name} processor")
        return load_processor(checkpoint)

    monkeypatch.setattr(suno.generation.BarkModel, "from_pretrained", staticmethod(model))
    monkeypatch.setattr(suno.generation.BarkProcessor, "from_pretrained", staticmethod(processor))
    suno.use_model(None)
    return asked


def test_stages_of_different_size_are_mixed(hub: list[str]) -> None:
    suno.preload_models(text_use_small=True, coarse_use_small=True)
    assert hub == ["suno/bark-small", "suno/bark"]
    sources = {stage: loaded.source for stage, loaded in suno.generation._loaded.stages.items()}
    assert sources == {"text": SMALL, "coarse": SMALL, "fine": LARGE, "codec": SMALL}
    suno.generate_audio("hello", history_prompt=NAME)
    assert hub[2:] == ["suno/bark-small processor"]
    suno.preload_models()
    assert len(hub) == 3, "what is loaded stays"
    suno.clean_models("fine")
    suno.load_model(model_type="fine", use_small=True)
    assert hub[3:] == ["suno/bark-small"]
    suno.preload_models(force_reload=True)
    assert hub[4:] == ["suno/bark"]


def test_environment_is_read_when_called(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUNO_USE_SMALL_MODELS", "True")
    suno.generate_audio("hello", history_prompt=NAME)
    assert hub == ["suno/bark-small", "suno/bark-small processor"]


def test_offload_moves_a_stage_only_while_it_works(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[tuple[str, str]] = []
    suno.preload_models()
    for name, stage in suno.generation._loaded.stages.items():
        to = stage.model.to
        monkeypatch.setattr(
            stage.model, "to", lambda device, name=name, to=to: moves.append((name, device)) or to("cpu")
        )
        suno.generation._loaded.stages[name] = dataclasses.replace(stage, device="accelerator")
    monkeypatch.setenv("SUNO_OFFLOAD_CPU", "1")
    suno.generate_audio("hello")
    assert moves == [(name, to) for name in ("text", "coarse", "fine", "codec") for to in ("accelerator", "cpu")]


def test_a_chosen_checkpoint_stays_chosen(checkpoint: Path) -> None:
    suno.clean_models()
    assert len(suno.generate_audio("hello")), "loaded anew from the folder"
    model, processor = BarkModel.from_pretrained(checkpoint), BarkProcessor.from_pretrained(checkpoint)
    suno.preload_models(model=model, processor=processor)
    text = suno.load_model()
    assert text["model"] is model.semantic and text["tokenizer"] is processor.tokenizer
    assert suno.load_codec_model() is model.codec_model


def test_same_tokens_as_generate(checkpoint: Path) -> None:
    """One path through the stages, whichever interface is used."""
    model, processor = BarkModel.from_pretrained(checkpoint), BarkProcessor.from_pretrained(checkpoint)
    torch.manual_seed(3)
    full, audio = suno.generate_audio("hello my dog", history_prompt=NAME, output_full=True)
    torch.manual_seed(3)
    output = model.generate(
        **processor("hello my dog", voice_preset=NAME),
        temperature=0.7,
        semantic_do_sample=True,
        coarse_do_sample=True,
        min_eos_p=0.2,
        return_dict_in_generate=True,
    )
    assert np.array_equal(full["semantic_prompt"], output.semantic_tokens[0])
    assert np.array_equal(full["fine_prompt"], output.fine_codes[0])
    assert np.allclose(audio, output.audio[0], atol=1e-6)


def test_any_length_says_all_of_a_text() -> None:
    text = "hello my dog. " * 30
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match="cut"):
        cut = suno.generate_audio(text, NAME, silent=True)
    torch.manual_seed(1)
    whole = suno.generate_audio(text, NAME, silent=True, any_length=True)
    assert whole.dtype == np.float32 and whole.ndim == 1 and len(whole) > len(cut)
    with pytest.raises(ValueError, match="any_length"):
        suno.generate_audio(text, any_length=True, output_full=True)
