"""A model on new codes goes on from one on old codes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model
from transformers_bark.training.carry_over import carry_coarse, carry_fine, coincidence


def _renamed(size: int) -> torch.Tensor:
    """New codes that are the old ones under other names: number n was n - 1."""
    old = np.tile(np.arange(size), 2000)
    return coincidence([(old, (old + 1) % size)], size)


def test_a_code_under_another_name_keeps_its_embedding() -> None:
    weights = _renamed(8)
    assert torch.allclose(weights, torch.eye(8).roll(1, 0), atol=1e-3)
    assert torch.allclose(weights.sum(1), torch.ones(8))


def test_a_code_never_met_gets_the_usual_one() -> None:
    weights = coincidence([(np.array([0, 0, 0, 1]), np.array([2, 2, 2, 2]))], 3)
    assert torch.allclose(weights[0], torch.tensor([0.75, 0.25, 0.0]))
    with pytest.raises(ValueError, match="no frames"):
        coincidence([], 3)


def test_a_coarse_model_goes_on_with_a_codebook_more() -> None:
    """Its old codebooks and special tokens are where the new config has them, the new one is fresh, and time stays time."""
    whole = tiny_model()
    before, old = whole.coarse_acoustics, whole.generation_config
    stage, n_semantic, size = old.coarse_acoustics_config, old.semantic_config.semantic_vocab_size, old.codebook_size
    n_books = stage.n_coarse_codebooks
    new = copy.deepcopy(old)
    for name in ("coarse_semantic_pad_token", "coarse_infer_token"):
        setattr(new.coarse_acoustics_config, name, getattr(stage, name) + size)
    new.coarse_acoustics_config.n_coarse_codebooks = n_books + 1
    sizes = before.config.to_dict() | {"input_vocab_size": before.config.input_vocab_size + size}
    sizes["output_vocab_size"] = before.config.output_vocab_size + size
    model = type(before)(type(before.config)(**sizes))
    fresh = model.input_embeds_layer.weight.clone()
    carry_coarse(model, before, [_renamed(size), *[torch.eye(size)] * (n_books - 1)], old, new)
    table, source = model.input_embeds_layer.weight, before.input_embeds_layer.weight
    codes, last = (
        slice(n_semantic, n_semantic + size),
        slice(n_semantic + n_books * size, n_semantic + (n_books + 1) * size),
    )
    assert torch.equal(table[:n_semantic], source[:n_semantic])
    assert torch.allclose(table[codes], source[codes].roll(1, 0), atol=1e-3)
    assert torch.equal(table[last], fresh[last])
    assert torch.equal(table[stage.coarse_infer_token + size], source[stage.coarse_infer_token])
    places, there = model.position_embeds_layer.weight, before.position_embeds_layer.weight
    prompt = stage.max_coarse_input_length
    assert torch.equal(places[: prompt + 1], there[: prompt + 1])
    # the third frame begins after twice as many codes as a frame has
    assert torch.allclose(places[prompt + 2 * (n_books + 1)], there[prompt + 2 * n_books], atol=1e-5)
    assert torch.equal(model.layers[0].mlp.in_proj.weight, before.layers[0].mlp.in_proj.weight)


def test_a_table_that_two_layers_share_is_carried_over_once() -> None:
    model = tiny_model().fine_acoustics
    size = 8
    before = [layer.weight.clone() for layer in model.input_embeds_layers]
    carry_fine(model, [_renamed(size)] * len(before))
    for layer, old in zip(model.input_embeds_layers, before, strict=True):
        assert torch.allclose(layer.weight[:size], old[:size].roll(1, 0), atol=1e-3)
