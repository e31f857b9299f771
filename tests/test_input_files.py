"""What is read: a damaged or missing file is named, and nothing is made up in its place."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import pipeline

from tests.tiny import tiny_voice
from transformers_bark import BarkModel, BarkProcessor, VoicePreset, suno
from transformers_bark.cli import main
from transformers_bark.input_files import check_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NAME = "v2/en_speaker_0"
KNOWN = (ValueError, OSError, TypeError, RuntimeError)
"""Kinds of errors that say what is wrong with a file."""

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "pointer": lambda _: POINTER,
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "junk": lambda _: bytes(range(128, 228)),
}


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "model.safetensors"])
def test_damaged_files_of_a_model_are_named(folder: Path, file: str, damage: str) -> None:
    (folder / file).write_bytes(DAMAGES[damage]((folder / file).read_bytes()))
    with pytest.raises(ValueError, match=f"copy/{file} .*{'Git LFS pointer' if damage == 'pointer' else ''}"):
        BarkModel.from_pretrained(folder)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "file", ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "speaker_embeddings_path.json"]
)
def test_damaged_files_of_a_processor_are_named(folder: Path, file: str, damage: str) -> None:
    (folder / file).write_bytes(DAMAGES[damage]((folder / file).read_bytes()))
    with pytest.raises(ValueError, match=f"copy/{file} .*{'Git LFS pointer' if damage == 'pointer' else ''}"):
        BarkProcessor.from_pretrained(folder)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".npy"])
def test_damaged_voices_are_named(folder: Path, damage: str, ending: str) -> None:
    processor = BarkProcessor.from_pretrained(folder)
    if ending == ".npy":
        path = next(folder.rglob("*coarse_prompt.npy"))
        load: Callable[[], Any] = lambda: processor.load_voice(NAME)  # noqa: E731
        words = NAME
    else:
        path = folder / f"voice{ending}"
        tiny_voice().save(path)
        load, words = (lambda: VoicePreset.load(path)), path.name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(ValueError, match=f"{words}.*{'Git LFS pointer' if damage == 'pointer' else ''}") as caught:
        load()
    assert "allow_pickle" not in str(caught.value)


def test_python_objects_are_refused_without_advice(tmp_path: Path) -> None:
    np.savez(tmp_path / "voice.npz", **{**tiny_voice().as_dict(), "semantic_prompt": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match=r"voice\.npz: semantic_prompt holds Python objects, which are never loaded"):
        VoicePreset.load(tmp_path / "voice.npz")


def test_damaged_pytorch_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is a Git LFS pointer"):
        BarkModel.from_pretrained(folder)


def test_a_missing_config_is_not_made_up(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json in .*copy"):
        BarkModel.from_pretrained(folder)


@pytest.mark.parametrize("gone", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_missing_tokenizer_is_not_made_up(
    folder: Path, gone: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in gone:
        (folder / file).unlink()
    with pytest.raises(ValueError, match="no tokenizer in .*copy"):
        BarkProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match="no tokenizer in"):
        pipeline("text-to-speech", str(folder))("hello")
    assert main(["hello", "--model", str(folder), "-o", str(tmp_path / "o.wav")]) == 1
    assert "no tokenizer in" in capsys.readouterr().err and not (tmp_path / "o.wav").exists()


@pytest.mark.parametrize("gone", ["semantic.lm_head.weight", "codec_model.decoder.layers.0.conv.bias"])
def test_missing_weights_are_named_and_make_no_noise(
    folder: Path, gone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(folder / "model.safetensors")
    lost = weights.pop(gone)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match=f"copy lacks 1 weights, {gone} among them"):
        model = BarkModel.from_pretrained(folder)
    with pytest.raises(ValueError, match=gone):
        model.check_weights()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=gone):
        pipeline("text-to-speech", str(folder))("hello")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=gone):
        suno.preload_models(model=folder)
    suno.use_model(None)
    for engine in ("torch", "onnxruntime"):
        command = ["hello", "--model", str(folder), "-o", str(tmp_path / "o.wav"), "--engine", engine]
        assert main(command) == 1
        error = capsys.readouterr().err
        assert gone in error and error.count("\n") == 1
    assert not (tmp_path / "o.wav").exists()
    model.get_parameter(gone).data.copy_(lost)  # behind the model's back: still the weight that was made up
    model.load_state_dict({gone: lost}, strict=False)
    model.check_weights()


def test_a_whole_checkpoint_loads_without_a_warning(checkpoint: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BarkModel.from_pretrained(checkpoint).check_weights()
        model, info = BarkModel.from_pretrained(checkpoint, output_loading_info=True)
    assert isinstance(model, BarkModel) and not info["missing_keys"]


def test_voices_in_capitals(checkpoint: Path, tmp_path: Path) -> None:
    processor = BarkProcessor.from_pretrained(checkpoint)
    voice = processor.load_voice(NAME)
    assert voice is not None
    np.savez(tmp_path / "voice.npz", **{name.upper(): part.numpy() for name, part in voice.as_dict().items()})
    for form in (NAME.upper(), {name.upper(): part for name, part in voice.as_dict().items()}, tmp_path / "voice.npz"):
        again = processor.load_voice(form)
        assert again is not None and torch.equal(again.fine_prompt, voice.fine_prompt)


def test_a_missing_voice_file_is_said_to_be_missing(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"'nothing\.npz': there is no such file"):
        BarkProcessor.from_pretrained(checkpoint).load_voice("nothing.npz")


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Any bytes, or the content with a stretch of it replaced."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 40)))
    return content[:start] + draw(st.binary(max_size=40)) + content[end:]


def read_or_refuse(read: Callable[[], Any]) -> Any:
    """What is read; None where that fails with an error of a known kind."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except KNOWN as error:
        assert str(error)
        return None


@settings(deadline=None, max_examples=200)
@given(data=st.data(), ending=st.sampled_from([".npz", ".safetensors"]))
def test_any_bytes_as_a_voice(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, ending: str) -> None:
    path = tmp_path_factory.mktemp("voice") / f"voice{ending}"
    tiny_voice().save(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        VoicePreset.load(path)
    except ValueError as error:
        assert path.name in str(error)


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(), file=st.sampled_from(["tokenizer.json", "tokenizer_config.json", "speaker_embeddings_path.json"])
)
def test_any_bytes_in_a_processor(checkpoint: Path, tmp_path_factory: Any, data: st.DataObject, file: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path_factory.mktemp("any") / "copy"))
    (folder / file).write_bytes(data.draw(damaged((folder / file).read_bytes())))

    def read() -> Any:
        return BarkProcessor.from_pretrained(folder)("hello my dog", voice_preset=NAME)

    inputs = read_or_refuse(read)
    assert inputs is None or inputs["attention_mask"].sum() > 0


@settings(deadline=None, max_examples=40)
@given(data=st.data(), file=st.sampled_from(["config.json", "generation_config.json", "model.safetensors"]))
def test_any_bytes_in_a_model(checkpoint: Path, tmp_path_factory: Any, data: st.DataObject, file: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path_factory.mktemp("any") / "copy"))
    (folder / file).write_bytes(data.draw(damaged((folder / file).read_bytes())))
    read_or_refuse(lambda: BarkModel.from_pretrained(folder))


@settings(deadline=None, max_examples=100)
@given(
    content=st.one_of(
        st.none(), st.integers(), st.binary(), st.dictionaries(st.text(), st.text()), st.lists(st.integers())
    )
)
def test_the_pipeline_refuses_what_is_no_text(speaker: Any, content: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="text_inputs"):
        speaker(content)


@pytest.fixture(scope="module")
def speaker(checkpoint: Path) -> Any:
    return pipeline("text-to-speech", str(checkpoint))


@pytest.mark.parametrize("size", [-1, 0, 1.5, "2", True])
def test_the_pipeline_refuses_other_batch_sizes(speaker: Any, size: Any) -> None:
    with pytest.raises(ValueError, match="batch_size.*got"):
        speaker(iter(["hello"]), batch_size=size)


def test_pointers_are_told_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    check_file(tmp_path / "a.json")
    (tmp_path / "a.npy").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"a\.npy is a Git LFS pointer"):
        check_file(tmp_path / "a.npy")


def test_an_unusable_cache_is_one_warning(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    command = [sys.executable, "-m", "transformers_bark", "hello", "--model", str(checkpoint), "-o", "o.wav"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0 and (tmp_path / "o.wav").exists(), done.stderr
    assert done.stderr.count(str(tmp_path / "home")) == 1 and "Traceback" not in done.stderr, done.stderr
