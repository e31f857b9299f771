"""The Hub's layout -> the original's files, and the whole way round."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conversion import convert_hf_to_suno, names
from conversion.checkpoints import ConversionError, FolderWeights
from conversion.convert_suno_to_hf import Sources, convert
from transformers_bark import BarkModel

from .originals import SIZES, VOCABULARY


@pytest.fixture(scope="module")
def returned(hub_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("returned") / "suno"
    convert_hf_to_suno.convert(hub_folder, output)
    return output


@pytest.mark.parametrize("stage", SIZES)
def test_round_trip_is_bit_exact(suno_folder: Path, returned: Path, stage: str) -> None:
    before = torch.load(suno_folder / f"{stage}.pt", weights_only=False)
    after = torch.load(returned / f"{stage}_2.pt")  # with torch's default safety
    assert set(after) == {"model", "model_args", "best_val_loss"}
    assert after["model_args"] == before["model_args"]
    assert after["best_val_loss"].item() == before["best_val_loss"].item()
    assert after["model"].keys() == before["model"].keys()
    for name, tensor in before["model"].items():
        assert after["model"][name].dtype == torch.float32 and torch.equal(after["model"][name], tensor), name


def test_codec_voices_and_vocabulary_come_back(suno_folder: Path, returned: Path) -> None:
    before, after = (torch.load(folder / "encodec.th") for folder in (suno_folder, returned))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert (returned / "vocab.txt").read_text(encoding="utf-8").split() == VOCABULARY
    for name in ("announcer", "v2/en_speaker_0"):
        with np.load(suno_folder / f"prompts/{name}.npz") as old, np.load(returned / f"prompts/{name}.npz") as new:
            assert all(np.array_equal(old[key], new[key]) for key in old.files)


def test_and_forth_again(returned: Path, hub_folder: Path, tmp_path: Path) -> None:
    files = {stage: returned / f"{stage}_2.pt" for stage in SIZES}
    sources = Sources(
        **files, codec=returned / "encodec.th", tokenizer=returned / "vocab.txt", voices=returned / "prompts"
    )
    convert(sources, tmp_path / hub_folder.name)
    again = tmp_path / hub_folder.name
    for file in sorted(path.relative_to(hub_folder) for path in hub_folder.rglob("*") if path.is_file()):
        assert (again / file).read_bytes() == (hub_folder / file).read_bytes(), file


def test_the_original_loads_the_files(
    original: SimpleNamespace, returned: Path, models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = original.generation
    monkeypatch.setattr(generation, "models", {})
    monkeypatch.setattr(generation.BertTokenizer, "from_pretrained", lambda _name: None)
    for stage in SIZES:
        loaded = generation._load_model(str(returned / f"{stage}_2.pt"), "cpu", model_type=stage)
        loaded = loaded["model"] if stage == "text" else loaded
        wanted = models[stage][0].state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.state_dict().items())


def test_names_of_small_models(hub_folder: Path, tmp_path: Path) -> None:
    arguments = [str(hub_folder), "--output", str(tmp_path / "suno"), "--small"]
    assert convert_hf_to_suno.main(arguments) == 0
    assert {f"{stage}.pt" for stage in SIZES} <= {path.name for path in (tmp_path / "suno").iterdir()}
    assert convert_hf_to_suno.main(arguments) == 1  # not over a folder with something in it
    assert convert_hf_to_suno.main([*arguments, "--overwrite"]) == 0


def test_what_save_pretrained_writes(hub_folder: Path, returned: Path, tmp_path: Path) -> None:
    BarkModel.from_pretrained(hub_folder).save_pretrained(tmp_path / "saved")
    convert_hf_to_suno.convert(tmp_path / "saved", tmp_path / "suno")
    for stage in SIZES:
        before, after = (torch.load(folder / f"{stage}_2.pt") for folder in (returned, tmp_path / "suno"))
        assert all(torch.equal(before["model"][name], after["model"][name]) for name in before["model"])
        assert before["model"].keys() == after["model"].keys()
        assert after["best_val_loss"].isnan()  # saving again forgets it
    assert not (tmp_path / "suno/vocab.txt").exists()


def old_hub_folder(hub_folder: Path, output: Path) -> Path:
    """The same model as the released folders store it: one pickle with masks, untied copies and old codec names."""
    output.mkdir()
    for file in hub_folder.glob("*.json"):
        if "index" not in file.name:
            shutil.copy(file, output)
    state = {}
    for file in hub_folder.glob("*.safetensors"):
        state.update(load_file(file))
    for index in range(7):
        state[f"fine_acoustics.lm_heads.{index}.weight"] = state[
            f"fine_acoustics.input_embeds_layers.{index + 1}.weight"
        ].clone()
    for old, new in (
        ("weight_g", "parametrizations.weight.original0"),
        ("weight_v", "parametrizations.weight.original1"),
    ):
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    state["semantic.layers.0.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    torch.save(state, output / "pytorch_model.bin")
    return output


def test_released_layout(hub_folder: Path, returned: Path, tmp_path: Path) -> None:
    (tmp_path / "unused").mkdir()
    folder = old_hub_folder(hub_folder, tmp_path / "old")
    (folder / "speaker_embeddings_path.json").unlink()
    convert_hf_to_suno.convert(folder, tmp_path / "suno")
    for name in ("text_2.pt", "coarse_2.pt", "fine_2.pt"):
        before, after = (torch.load(path / name)["model"] for path in (returned, tmp_path / "suno"))
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    before, after = (torch.load(path / "encodec.th") for path in (returned, tmp_path / "suno"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def edited(hub_folder: Path, output: Path, shard: int, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    shutil.copytree(hub_folder, output)
    path = output / f"model-{shard:05}-of-00004.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    return output


def test_names_are_total(hub_folder: Path, tmp_path: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["semantic.adapter"] = state.pop("semantic.layers.0.mlp.in_proj.weight")

    folder = edited(hub_folder, tmp_path / "edited", 1, change)
    with pytest.raises(ConversionError, match=r"adapter; .*transformer\.h\.0\.mlp\.c_fc\.weight"):
        convert_hf_to_suno.convert(folder, tmp_path / "suno")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edited"]


def test_heads_trained_apart(hub_folder: Path, tmp_path: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["fine_acoustics.lm_heads.0.weight"] = torch.zeros(1056, 24)

    with pytest.raises(ConversionError, match="lm_heads.0.weight and input_embeds_layers.1.weight"):
        convert_hf_to_suno.convert(edited(hub_folder, tmp_path / "edited", 3, change), tmp_path / "suno")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: no such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not a config"),
        (
            lambda folder: (folder / "model-00002-of-00004.safetensors").unlink(),
            "model-00002-of-00004.safetensors: missing",
        ),
        (
            lambda folder: (folder / "model-00003-of-00004.safetensors").write_bytes(b"1234"),
            "00003.*: missing or damaged",
        ),
        (
            lambda folder: (folder / "model.safetensors.index.json").unlink(),
            "no model.safetensors or pytorch_model.bin",
        ),
        (lambda folder: point_voice(folder, "../../outside.npy"), "a path leaves the folder"),
        (lambda folder: point_voice(folder, "speaker_embeddings/none.npy"), "announcer"),
    ],
)
def test_damaged_folders(hub_folder: Path, tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    folder = shutil.copytree(hub_folder, tmp_path / "damaged")
    spoil(folder)
    with pytest.raises(ConversionError, match=message):
        convert_hf_to_suno.convert(folder, tmp_path / "suno")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged"]


def point_voice(folder: Path, place: str) -> None:
    path = folder / "speaker_embeddings_path.json"
    index = json.loads(path.read_text())
    index["announcer"]["fine_prompt"] = place
    path.write_text(json.dumps(index))


def test_shards_outside_the_folder(hub_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(hub_folder, tmp_path / "hostile")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["semantic.lm_head.weight"] = "../other.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ConversionError, match="shard outside the folder"):
        FolderWeights(folder)


def test_names_lead_back(models: dict[str, Any]) -> None:
    for stage, kind in zip(SIZES, names.STAGES, strict=True):
        config = names.stage_config(kind, models[stage][1], "")
        table = names.stage_names(config)
        assert len(set(table.values())) == len(table)
        assert names.model_args(config) == models[stage][1]
