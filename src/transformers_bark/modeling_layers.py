"""The block that all three transformers stack: attention, feed-forward and their norms."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from .compat import attention_function, update_cache
from .configuration_bark import BarkSubModelConfig


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention that also returns its weights. Query, key and value: [batch, head, length, head_dim].

    The mask may be additive, boolean (True = look there) or None (all, or all before for a causal module), so this also
    serves a call made under another implementation that asks for the weights.

    Returns:
        output [batch, length, head, head_dim] and weights [batch, head, query, key].
    """
    weights = query @ key.transpose(-1, -2) * scaling
    if attention_mask is None and getattr(module, "is_causal", False) and query.shape[-2] > 1:
        shape = (query.shape[-2], key.shape[-2])
        attention_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril(shape[1] - shape[0])
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        weights = weights.masked_fill(~attention_mask, torch.finfo(weights.dtype).min)
    elif attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1).to(value.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


class BarkAttention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value."""

    def __init__(self, config: BarkSubModelConfig, is_causal: bool, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.is_causal = is_causal
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_heads
        self.scaling = self.head_dim**-0.5
        self.att_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.bias)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        output_attentions: bool = False,
        first: int = 0,
        **packing: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states: [batch, length, hidden] -> the same shape, and weights [batch, head, length, past + length].

        Positions before `first` are looked at and have no output. `packing` says where packed sequences end, for
        implementations that have no mask.
        """
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            part.view(shape).transpose(1, 2)
            for part in self.att_proj(hidden_states).split(self.config.hidden_size, dim=-1)
        )
        if past_key_values is not None:
            key, value = update_cache(past_key_values, key, value, self.layer_idx)
        query = query[:, :, first:]
        attend: Callable = eager_attention_forward
        if not output_attentions:
            attend = attention_function(self.config._attn_implementation, eager_attention_forward)
        dropout = self.config.dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, scaling=self.scaling, dropout=dropout, **packing
        )
        return self.resid_dropout(self.out_proj(output.flatten(-2))), weights

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Takes stock's state dict too, which holds the causal mask under the name `bias`."""
        state_dict.pop(f"{prefix}bias", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class BarkMLP(nn.Module):
    """Feed-forward of four times the width."""

    def __init__(self, config: BarkSubModelConfig) -> None:
        super().__init__()
        self.in_proj = nn.Linear(config.hidden_size, 4 * config.hidden_size, bias=config.bias)
        self.out_proj = nn.Linear(4 * config.hidden_size, config.hidden_size, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.out_proj(nn.functional.gelu(self.in_proj(hidden_states))))


class BarkBlock(GradientCheckpointingLayer):
    """Pre-norm transformer block. The causal models' layer norms follow `config.bias`; the fine model's always have one."""

    def __init__(self, config: BarkSubModelConfig, is_causal: bool, layer_idx: int) -> None:
        super().__init__()
        norm_bias = config.bias if is_causal else True
        self.layernorm_1 = nn.LayerNorm(config.hidden_size, bias=norm_bias)
        self.layernorm_2 = nn.LayerNorm(config.hidden_size, bias=norm_bias)
        self.attn = BarkAttention(config, is_causal, layer_idx)
        self.mlp = BarkMLP(config)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        output_attentions: bool = False,
        first: int = 0,
        **packing: Any,
    ) -> tuple[Tensor, Tensor | None]:
        attended, weights = self.attn(
            self.layernorm_1(hidden_states), attention_mask, past_key_values, output_attentions, first, **packing
        )
        hidden_states = hidden_states[:, first:] + attended
        return hidden_states + self.mlp(self.layernorm_2(hidden_states)), weights
