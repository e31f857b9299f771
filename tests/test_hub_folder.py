"""Folders with the Hub's exact configs load here and in stock Transformers, and give the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.models.bark.modeling_bark import BarkModel as StockBarkModel

from tests.hub_folder import hub_folder
from transformers_bark import BarkModel, hub
from transformers_bark.generation.options import coarse_options, fine_options, semantic_options


@pytest.mark.compat
@pytest.mark.parametrize("name", ["bark-small", "bark"])
def test_the_hubs_folders_load_as_they_are(tmp_path: Path, name: str) -> None:
    folder, source = hub_folder(tmp_path / name, name)
    model, report = BarkModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    wanted = source.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())
    assert model.semantic.lm_head.weight.data_ptr() != model.semantic.input_embeds_layer.weight.data_ptr()

    processor = AutoProcessor.from_pretrained(folder)
    assert "v2/en_speaker_6" in processor.available_voice_presets
    inputs = processor("hello my dog", voice_preset="v2/en_speaker_6")
    assert inputs["input_ids"].shape == (1, 256)
    speech = pipeline("text-to-speech", str(folder))(
        "hello", voice_preset="announcer", forward_params={"do_sample": True, "semantic_max_new_tokens": 10}
    )
    assert speech["sampling_rate"] == 24_000 and speech["audio"].ndim == 1


def test_equal_to_stock_from_the_same_folder(tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "bark-small")
    ours, stock = BarkModel.from_pretrained(folder), StockBarkModel.from_pretrained(folder)
    inputs = AutoProcessor.from_pretrained(folder)("hello my dog", voice_preset="v2/en_speaker_6")
    options = {"do_sample": False, "fine_temperature": None, "semantic_max_new_tokens": 20}
    audio = ours.generate(**inputs, **options)
    history = {key: value.clone() for key, value in inputs.pop("history_prompt").items()}
    assert torch.allclose(stock.generate(**inputs, history_prompt=history, **options), audio, atol=1e-5)


def test_the_sampling_of_the_file_is_obeyed(tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "bark-small")
    config = BarkModel.from_pretrained(folder).generation_config
    semantic = semantic_options(config.semantic_config, {})
    assert (semantic.do_sample, semantic.temperature, semantic.top_k, semantic.min_eos_p) == (True, 0.7, 50, None)
    assert semantic.max_new_tokens == 768
    coarse = coarse_options(config.coarse_acoustics_config, {})
    assert (coarse.do_sample, coarse.temperature, coarse.top_k, coarse.max_coarse_history) == (True, 0.7, 50, 630)
    fine = fine_options(config.fine_acoustics_config, {})
    assert (fine.do_sample, fine.temperature, fine.top_k) == (True, 0.5, None)


@pytest.mark.compat
def test_what_we_save_loads_in_stock(tmp_path: Path, checkpoint: Path) -> None:
    model = BarkModel.from_pretrained(checkpoint)
    stock, report = StockBarkModel.from_pretrained(checkpoint, output_loading_info=True)
    assert all(key.endswith(".attn.bias") for key in report["missing_keys"])
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert stock.generation_config.semantic_config["max_input_semantic_length"] == 16
    ids = torch.randint(1, 60, (1, 16))
    options = {"do_sample": False, "fine_temperature": None}
    assert torch.allclose(stock.generate(ids, **options), model.generate(ids, **options), atol=1e-5)
    stock.save_pretrained(tmp_path / "stock")
    again = BarkModel.from_pretrained(tmp_path / "stock")
    assert again.generation_config.to_dict()["semantic_config"] == model.generation_config.to_dict()["semantic_config"]
    assert torch.equal(again.generate(ids, **options), model.generate(ids, **options))


def test_model_card(checkpoint: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(checkpoint / "README.md").data
    assert data.pipeline_tag == "text-to-speech" and data.library_name == "transformers" and data.license == "mit"
    assert len(data.language) == 13 and "bark" in data.tags and data.base_model == "suno/bark"
    (tmp_path / "README.md").write_text("mine")
    hub.write_model_card(tmp_path, 24_000)
    assert (tmp_path / "README.md").read_text() == "mine", "a card that is there stays"


@pytest.mark.compat
@pytest.mark.parametrize("way", ["push_to_hub", "save_pretrained"])
def test_the_card_goes_along_to_the_hub(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    from types import SimpleNamespace

    from huggingface_hub import ModelCard
    from transformers import modeling_utils
    from transformers.utils import hub as transformers_hub

    sent: dict[str, str] = {}

    def upload(self: BarkModel, folder: str, *args: object, **kwargs: object) -> None:
        sent.update({path.name: path.read_text(errors="replace") for path in Path(folder).iterdir() if path.is_file()})

    api = SimpleNamespace(create_repo=lambda *a, **k: SimpleNamespace(repo_id="me/bark"))
    generic = "---\nlibrary_name: transformers\n---\nThis card has been automatically generated."
    monkeypatch.setattr(transformers_hub.PushToHubMixin, "_upload_modified_files", upload)
    for module in (transformers_hub, modeling_utils):  # the newer releases ask `hf_api()`, the older ones the function
        monkeypatch.setattr(module, "hf_api", lambda: api, raising=False)
        monkeypatch.setattr(module, "create_repo", api.create_repo, raising=False)
        monkeypatch.setattr(module, "create_and_tag_model_card", lambda *a, **k: ModelCard(generic), raising=False)
    model = BarkModel.from_pretrained(checkpoint)
    if way == "push_to_hub":
        model.push_to_hub("me/bark")
    else:
        model.save_pretrained(tmp_path / "bark", push_to_hub=True)
    assert "pipeline_tag: text-to-speech" in sent["README.md"]
    assert {"config.json", "generation_config.json", "model.safetensors"} <= set(sent)


@pytest.mark.compat
def test_auto_map_finds_the_installed_package(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "remote"
    BarkModel.from_pretrained(checkpoint).save_pretrained(folder, auto_map=True)
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_bark_auto.BarkModel"
    scope: dict[str, object] = {}
    exec((folder / "modeling_bark_auto.py").read_text(), scope)
    assert scope["BarkModel"] is BarkModel
    assert "pip install transformers-bark" in (folder / "modeling_bark_auto.py").read_text()
    assert type(AutoModel.from_pretrained(folder, trust_remote_code=True)) is BarkModel


@pytest.mark.slow
def test_full_size_bark_small(tmp_path: Path) -> None:
    folder, _ = hub_folder(tmp_path / "bark-small", full_size=True)
    model = BarkModel.from_pretrained(folder)
    sizes = [
        sum(p.numel() for p in part.parameters())
        for part in (model.semantic, model.coarse_acoustics, model.fine_acoustics)
    ]
    assert [round(size / 1e6, 1) for size in sizes] == [193.0, 104.3, 92.2]
    inputs = AutoProcessor.from_pretrained(folder)("hello")
    assert model.generate(**inputs, semantic_max_new_tokens=5).shape[1] > 0
