"""The decoder learns from codes, and the average of its weights is what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import EncodecModel

from tests.training.test_codec import SMALL, tones
from transformers_bark import codec
from transformers_bark.training.codec import scale_to_unit_variance
from transformers_bark.training.decoder import CodedCrops, DecoderForTraining
from transformers_bark.training.semantic_tokenizer import Bottleneck, SemanticTokenizerConfig, WordLoss

Batch = dict[str, Tensor]


@pytest.fixture
def module() -> DecoderForTraining:
    torch.manual_seed(0)
    model = EncodecModel(SMALL)
    scale_to_unit_variance(model, tones())
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_()
    return DecoderForTraining(model, n_context=2, decay=0.5)


@pytest.fixture
def batch(module: DecoderForTraining) -> Batch:
    audio = tones()
    with torch.no_grad():
        codes = codec.encode(module.codec, audio)
    return {"codes": codes, "audio": audio}


def test_the_decoder_learns_and_the_rest_of_the_codec_stands(module: DecoderForTraining, batch: Batch) -> None:
    before = {name: part.clone() for name, part in module.codec.state_dict().items()}
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        result = module(**batch)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(float(result["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    moved = {name for name, part in module.codec.state_dict().items() if not torch.equal(part, before[name])}
    assert moved and all(name.startswith("decoder.") for name in moved)


def test_what_is_kept_is_an_average(module: DecoderForTraining, batch: Batch) -> None:
    bias = module.codec.decoder.layers[-1].conv.bias
    seen = []
    for value in (1.0, 3.0):  # the first step sets the average, each that follows moves it
        with torch.no_grad():
            bias.fill_(value)
        module(**batch)
        seen.append(float(module.average.module.layers[-1].conv.bias))
    module.eval()(**batch)
    assert seen == [1.0, 2.0] and float(module.export().decoder.layers[-1].conv.bias) == 2.0
    assert all(not part.requires_grad for part in module.average.parameters())


def test_crops_keep_codes_and_samples_together() -> None:
    frames = np.arange(30)
    row = {"codes": np.stack([frames, frames + 100]), "audio": np.repeat(frames, 4).astype(np.int16)}
    for turn in range(20):
        kept = 1 + turn % 2
        batch = CodedCrops(5, 4, turn, kept)([row, row])
        assert batch["codes"].shape == (2, kept, 5) and batch["audio"].shape == (2, 20)
        assert torch.equal((batch["audio"][:, ::4] * 32768).long(), batch["codes"][:, 0])


def test_words_count_where_they_are_asked_for(module: DecoderForTraining, batch: Batch) -> None:
    config = SemanticTokenizerConfig(hop=600, frame_hop=200, n_components=4, context=2, hidden_size=16)
    torch.manual_seed(0)
    words = WordLoss(config, Bottleneck(config))
    without = module(**batch)
    module.loss.words, module.loss.word_weight = words, 2.0
    with_words = module(**batch)
    assert "words" not in without and float(with_words["words"]) > 0
    assert float(with_words["loss"]) == pytest.approx(float(without["loss"]) + 2 * float(with_words["words"]), rel=1e-4)
