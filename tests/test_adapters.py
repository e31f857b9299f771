"""Adapters of PEFT: they save, load and speak."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from transformers_bark import BarkModel

LORA = {"r": 2, "target_modules": ["att_proj"], "init_lora_weights": False}
INPUTS = {"input_ids": torch.randint(1, 60, (1, 8), generator=torch.Generator().manual_seed(1))}


def said(model: torch.nn.Module) -> torch.Tensor:
    return model.generate(**INPUTS, seed=1, do_sample=False, fine_temperature=None, allow_early_stop=False)


@pytest.fixture
def adapted(checkpoint: Path) -> BarkModel:
    torch.manual_seed(3)
    model = BarkModel.from_pretrained(checkpoint).eval()
    model.add_adapter(LoraConfig(**LORA))
    return model.eval()


def test_an_adapter_saves_loads_and_speaks(adapted: BarkModel, checkpoint: Path, tmp_path: Path) -> None:
    plain = said(BarkModel.from_pretrained(checkpoint))
    audio = said(adapted)
    assert audio.shape == plain.shape and not torch.allclose(audio, plain, atol=1e-3)
    adapted.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (tmp_path / "config.json").exists(), "the model itself is not saved again"
    model = BarkModel.from_pretrained(checkpoint)
    model.load_adapter(str(tmp_path))
    assert torch.allclose(said(model.eval()), audio, atol=1e-5)
    assert torch.allclose(said(BarkModel.from_pretrained(tmp_path).eval()), audio, atol=1e-5), "by way of its base"
    model.disable_adapters()
    assert torch.allclose(said(model), plain, atol=1e-5)


def test_a_model_that_peft_wraps_does_too(checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    wrapped = get_peft_model(BarkModel.from_pretrained(checkpoint), LoraConfig(**LORA)).eval()
    audio = said(wrapped)
    wrapped.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(BarkModel.from_pretrained(checkpoint), str(tmp_path)).eval()
    assert torch.allclose(said(loaded), audio, atol=1e-5)
    merged = loaded.merge_and_unload()
    assert torch.allclose(said(merged.set_engine("onnxruntime")), audio, atol=1e-3), "merged, they are weights like any"


def test_an_engine_that_would_not_see_an_adapter_is_refused(adapted: BarkModel) -> None:
    audio = said(adapted)
    assert torch.equal(said(adapted.set_engine("auto")), audio)
    with pytest.raises(ValueError, match="onnxruntime.*adapters.*merge"):
        said(adapted.set_engine("onnxruntime"))


def test_only_the_adapter_learns(adapted: BarkModel) -> None:
    ids = torch.randint(0, 41, (2, 9))
    adapted.semantic.train()(ids, labels=ids).loss.backward()
    learning = {name for name, part in adapted.named_parameters() if part.grad is not None}
    assert learning and all("lora_" in name for name in learning)
