"""A codec goes on from its weights, is understood better, and stays a stock EnCodec."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import EncodecModel

from tests.training.test_codec import SMALL, tones
from transformers_bark import codec
from transformers_bark.training.codec import keep_codebooks, scale_to_unit_variance
from transformers_bark.training.retuning import CodecRetuning
from transformers_bark.training.semantic_tokenizer import Bottleneck, SemanticTokenizerConfig, WordLoss, features

HEARS = SemanticTokenizerConfig(hop=600, frame_hop=200, context=6, hidden_size=24, n_components=8)


@pytest.fixture
def module() -> CodecRetuning:
    torch.manual_seed(0)
    model = EncodecModel(SMALL)
    scale_to_unit_variance(model, tones())
    latent = model.encoder(tones()[:, None]).transpose(1, 2).flatten(0, 1).detach()
    for layer in model.quantizer.layers:
        layer.codebook.embed.copy_(latent[torch.randperm(len(latent))[: SMALL.codebook_size]])
    keep_codebooks(model, 4)
    ears = Bottleneck(HEARS)
    ears.standardize(features(tones().flatten(), HEARS))
    return CodecRetuning(model, WordLoss(HEARS, ears), n_coarse=3, decay=0.5)


def _learn(module: CodecRetuning, n_steps: int) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW([part for part in module.parameters() if part.requires_grad], 2e-3)
    losses = []
    for _ in range(n_steps):
        result = module(tones())
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append({name: float(part.detach()) for name, part in result.items()})
    return losses


def test_it_learns_and_stock_loads_what_it_leaves(module: CodecRetuning, tmp_path: Path) -> None:
    losses = _learn(module, 40)
    for part in ("spectral", "words"):
        assert losses[-1][part] < 0.8 * losses[0][part], part
    module.export().save_pretrained(tmp_path)
    stock = EncodecModel.from_pretrained(tmp_path).eval()
    codes = codec.encode(stock, tones())
    assert codes.shape == (4, 4, 16)
    assert torch.equal(codes, codec.encode(module.codec, tones()))
    # the loss of what stock decodes is that of training: averages and codebooks were handed over
    decoded = torch.stack(codec.decode(stock, list(codes)))
    start = module.n_context * 600
    assert (
        module.loss.sound(decoded[:, None, start:], tones()[:, None, start:])["spectral"] < 0.8 * losses[0]["spectral"]
    )


def test_the_first_layers_of_the_encoder_stand(module: CodecRetuning) -> None:
    before = {name: part.clone() for name, part in module.codec.state_dict().items()}
    _learn(module, 2)
    moved = {name for name, part in module.codec.state_dict().items() if not torch.equal(part, before[name])}
    kept = tuple(f"encoder.layers.{number}." for number in range(4))
    assert moved and not any(name.startswith(kept) for name in moved)
    assert any(name.startswith("encoder.") for name in moved) and any(name.startswith("decoder.") for name in moved)


def test_it_begins_as_the_codec_that_it_was(module: CodecRetuning) -> None:
    """Before the first step the quantizer gives what EnCodec's gives."""
    module.eval()
    latent = module.codec.encoder(tones()[:, None])
    codes = module.codec.quantizer.encode(latent, bandwidth=None)
    assert torch.allclose(
        module.quantizer(latent.transpose(1, 2))[0].transpose(1, 2), module.codec.quantizer.decode(codes), atol=1e-5
    )


def test_a_codec_says_how_many_codebooks_it_has_left() -> None:
    model = EncodecModel(SMALL)
    keep_codebooks(model, 3)
    assert model.config.num_quantizers == 3 == len(model.quantizer.layers)
    assert codec.encode(model.eval(), tones()).shape[1] == 3
