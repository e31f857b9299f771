"""Muon in 32 bits is PyTorch's, but for the rounding of the latter."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from transformers_bark.training.muon import Muon, MuonWithAdamW, orthogonalized


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_singular_values_are_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalized(matrix) @ vh.T
    assert (inside.diagonal() > 0.6).all() and (inside.diagonal() < 1.3).all()
    assert (inside - torch.diag(inside.diagonal())).abs().max() < 1e-3


def test_it_steps_as_torch_does() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(24, 16, bias=False)
    theirs = copy.deepcopy(ours)
    settings = {"lr": 0.01, "weight_decay": 0.1}
    optimizers = (
        Muon([ours.weight], **settings),
        torch.optim.Muon([theirs.weight], adjust_lr_fn="match_rms_adamw", **settings),
    )
    before = ours.weight.detach().clone()
    for _ in range(3):
        values = torch.randn(8, 24)
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            layer(values).square().sum().backward()
            optimizer.step()
    moved = (ours.weight - before).norm()
    assert (ours.weight - theirs.weight).norm() < 0.1 * moved  # bfloat16 has eight bits


def test_both_parts_go_on_from_their_states() -> None:
    def model() -> nn.ModuleDict:
        torch.manual_seed(0)
        return nn.ModuleDict({"embed": nn.Embedding(5, 8), "block": nn.Linear(8, 8)})

    def learn(one: nn.ModuleDict, optimizer: MuonWithAdamW) -> None:
        optimizer.zero_grad()
        one["block"](one["embed"](torch.arange(5))).square().sum().backward()
        optimizer.step()

    settings = {"lr": 0.01, "betas": (0.9, 0.98), "weight_decay": 0.1}
    whole, parts = model(), model()
    optimizer = MuonWithAdamW(whole, **settings)
    learn(whole, optimizer)
    parts.load_state_dict(whole.state_dict())
    again = MuonWithAdamW(parts, **settings)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, other in ((whole, optimizer), (parts, again)):
        learn(one, other)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
