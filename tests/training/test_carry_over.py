"""A model on new codes goes on from one on old codes."""

from __future__ import annotations

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


def test_only_codes_are_carried_over_in_the_coarse_model() -> None:
    model = tiny_model().coarse_acoustics
    size, n_semantic = 8, 4
    before = {name: part.clone() for name, part in model.state_dict().items()}
    carry_coarse(model, [_renamed(size), torch.eye(size)], n_semantic)
    table, old = model.input_embeds_layer.weight, before["input_embeds_layer.weight"]
    assert torch.allclose(
        table[n_semantic : n_semantic + size], old[n_semantic : n_semantic + size].roll(1, 0), atol=1e-3
    )
    assert torch.equal(table[:n_semantic], old[:n_semantic]) and torch.equal(table[12:], old[12:])
    moved = {name for name, part in model.state_dict().items() if not torch.equal(part, before[name])}
    assert moved == {"input_embeds_layer.weight", "lm_head.weight"}


def test_a_table_that_two_layers_share_is_carried_over_once() -> None:
    model = tiny_model().fine_acoustics
    size = 8
    before = [layer.weight.clone() for layer in model.input_embeds_layers]
    carry_fine(model, [_renamed(size)] * len(before))
    for layer, old in zip(model.input_embeds_layers, before, strict=True):
        assert torch.allclose(layer.weight[:size], old[:size].roll(1, 0), atol=1e-3)
