"""The stack of blocks as PyTorch's engines run it: without what a module's call takes, where nothing asks for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..generation.engine import Span, tokens_of
from .kernels import linear_fp32

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""A layer's index, query, key and value [batch, head, length, head_dim] -> what is attended, of the query's shape."""

Linear = Callable[[Tensor, nn.Linear], Tensor]


def is_plain(model: Any) -> bool:
    """Whether `run_blocks` does what the modules of a model would: no hook watches or moves them, and they attend by SDPA."""
    if model.training or model.config._attn_implementation != "sdpa":
        return False
    return not any(
        module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook") for module in model.modules()
    )


def fast_linear(value: Tensor, module: nn.Linear, span: Span = None) -> Tensor:
    """`module(value)`, or a span of its outputs. Without gradients."""
    weight: Tensor = module.weight
    bias: Tensor | None = module.bias
    if type(module) is not nn.Linear or type(weight) is not nn.Parameter:  # adapters, quantized
        return module(value)[..., tokens_of(span)]
    if span is not None:
        weight, bias = weight[tokens_of(span)], None if bias is None else bias[tokens_of(span)]
    if value.device.type != "cpu" or not value.dtype == weight.dtype == torch.float32:
        return nn.functional.linear(value, weight, bias)
    return linear_fp32(value, weight, bias)


def module_linear(value: Tensor, module: nn.Linear) -> Tensor:
    """`module(value)`, which can be compiled."""
    return module(value)


def run_blocks(model: Any, hidden: Tensor, attend: Attend, linear: Linear, first: int = 0) -> Tensor:
    """All blocks and the final norm: [batch, length, hidden] -> [batch, length - first, hidden].

    Positions before `first` are looked at and have no output.
    """
    for index, block in enumerate(model.layers):
        projected = linear(block.layernorm_1(hidden), block.attn.att_proj)
        parts = projected.view(*hidden.shape[:2], 3, -1, block.attn.head_dim)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if index == len(model.layers) - 1:
            query, hidden = query[:, :, first:], hidden[:, first:]
        attended = attend(index, query, key, value).transpose(1, 2).flatten(2)
        hidden = hidden + linear(attended, block.attn.out_proj)
        inner = nn.functional.gelu(linear(block.layernorm_2(hidden), block.mlp.in_proj))
        hidden = hidden + linear(inner, block.mlp.out_proj)
    return model.layernorm_final(hidden)
