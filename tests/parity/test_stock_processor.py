"""Stock's processor and tokenizer on folders of ours: the same ids, the same voices, the same speech."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.models.bark import modeling_bark as stock_modeling
from transformers.models.bark import processing_bark as stock_processing

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor

pytestmark = pytest.mark.parity
TEXT = "Tom & Ann pay £5 — “don’t” [laughs]"


@pytest.fixture(scope="module", params=["nano", "saved"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "nano":
        return Path(BARK_NANO)
    path = tmp_path_factory.mktemp("saved")
    BarkProcessor.from_pretrained(BARK_NANO).save_pretrained(path)
    return path


def test_stock_reads_our_voices_and_texts(folder: Path) -> None:
    ours, stock = BarkProcessor.from_pretrained(folder), stock_processing.BarkProcessor.from_pretrained(folder)
    assert stock.available_voice_presets == ours.available_voice_presets != []
    for name in ours.available_voice_presets:
        theirs = stock(TEXT, voice_preset=name, max_length=ours.max_length)
        inputs = BarkProcessor.from_pretrained(BARK_NANO)(TEXT, voice_preset=name)
        assert torch.equal(theirs["input_ids"], inputs["input_ids"])
        for key, part in inputs["history_prompt"].items():
            assert torch.equal(theirs["history_prompt"][key].long(), part)


def test_stock_speaks_with_our_voices() -> None:
    stock = stock_modeling.BarkModel.from_pretrained(BARK_NANO, dtype=torch.float32).eval()
    ours = BarkModel.from_pretrained(BARK_NANO, dtype=torch.float32).eval()
    processor = stock_processing.BarkProcessor.from_pretrained(BARK_NANO)
    inputs = processor("Hello.", voice_preset=processor.available_voice_presets[0], max_length=96)
    stage = stock.generation_config.semantic_config
    semantic_config = stock_modeling.BarkSemanticGenerationConfig(**stage)
    options = {"do_sample": False, "max_new_tokens": 20}
    theirs = stock.semantic.generate(**inputs, semantic_generation_config=semantic_config, **options)
    tokens = ours.semantic.generate(
        **inputs, semantic_generation_config=ours.generation_config.semantic_config, min_eos_p=None, **options
    )
    assert torch.equal(theirs[:, :20], tokens[:, :20])
