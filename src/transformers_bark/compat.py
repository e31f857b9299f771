"""What differs between releases of Transformers 5, and nothing else: no other module asks which release is installed.

Every entry names the releases it serves. What can be seen is looked at (a signature, a field, a name), so that a release
that is not out yet is judged by what it has, not by its number. `docs/compatibility.md` has the releases that are tested.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, masking_utils
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_MASK_PARAMETERS = inspect.signature(masking_utils.create_causal_mask).parameters
_OUTPUT_FIELDS = {field.name for field in fields(CausalLMOutputWithPast)}

CACHE_NAMES = ("past_key_values", "cache")
"""Names of the cache in arguments and outputs: the first until 5.23, the second from 5.24 on."""

CACHE_FIELD = "cache" if "cache" in _OUTPUT_FIELDS else "past_key_values"
"""Name of the cache in the outputs of the installed release; 5.24 and later give it under the other name too."""

PASSED_BY_TRANSFORMERS = frozenset({"num_items_in_batch", "cache_position"})
"""Arguments of `forward` that `Trainer` (the first, all releases) and `GenerationMixin` (the second, until 5.3) pass unasked."""


class ClassicConfig(PreTrainedConfig):
    """A config whose `__init__` sets its fields, checks them and calls `super().__init__(**kwargs)`.

    From 5.4 on, `PreTrainedConfig` turns every subclass into a dataclass. A class without `__init__` of its own is given one that
    knows only annotated fields, and any class an `__eq__` that compares only those: both are taken away again. The
    subclass must not annotate its fields: 5.4 and 5.5 refuse one without a default.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        written = set(vars(cls))
        super().__init_subclass__(**kwargs)
        for name in {"__init__", "__eq__"} - written:
            if name in vars(cls):
                delattr(cls, name)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def default_config_fields(cls) -> dict[str, Any]:
        """What a saved config leaves out of its parts; from 5.20 on read from dataclass fields, before from an object."""
        return cls().to_dict()


class CacheLayer(CacheLayerMixin):
    """A layer of a cache; its subclass has the names of the newest release."""

    def get_max_cache_shape(self) -> int:
        """The name of `get_max_length` until 5.12; asked for until 5.19."""
        return self.get_max_length()


attention_function = getattr(ALL_ATTENTION_FUNCTIONS, "get_interface", ALL_ATTENTION_FUNCTIONS.get)
"""(name of an implementation, function for "eager") -> function. 5.0 has no `get_interface`, which also refuses unknown names."""


def count_queries(queries: int | Tensor) -> int:
    """The number of new positions, which `get_mask_sizes` is given; until 5.3 it was given the positions themselves."""
    return queries if isinstance(queries, int) else len(queries)


def update_cache(cache: Cache, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Appends keys and values [batch, head, length, head_dim] -> those of all positions.

    Until 5.3 a static cache is told where to write; since, it counts.
    """
    if not _CACHE_WANTS_POSITIONS:
        return cache.update(keys, values, layer)
    positions = _new_positions(cache, keys.shape[-2], keys.device, layer)
    return cache.update(keys, values, layer, {"cache_position": positions})


_CACHE_WANTS_POSITIONS = "cache_kwargs" in inspect.signature(Cache.update).parameters


def _new_positions(cache: Cache | None, length: int, device: torch.device, layer: int = 0) -> Tensor:
    return torch.arange(length, device=device) + (0 if cache is None else cache.get_seq_length(layer))


def causal_mask(
    config: PreTrainedConfig,
    embeds: Tensor,
    attention_mask: Tensor | None,
    cache: Cache | None,
    position_ids: Tensor | None = None,
) -> Any:
    """What `create_causal_mask` gives for embeds [batch, length, hidden]; sequences that are packed show in their positions.

    `past_key_values` is `cache` from 5.24 on, and `input_embeds` is `inputs_embeds` from 5.2 on: both are given by place.
    In between stands `cache_position`, needed until 5.3 and gone in 5.9.
    """
    if "cache_position" not in _MASK_PARAMETERS:
        return masking_utils.create_causal_mask(config, embeds, attention_mask, cache, position_ids=position_ids)
    positions = _new_positions(cache, embeds.shape[1], embeds.device)
    return masking_utils.create_causal_mask(
        config, embeds, attention_mask, positions, past_key_values=cache, position_ids=position_ids
    )


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache that was given, under its name from 5.24 on or its former one.

    Raises:
        ValueError: two of them.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("`cache` and `past_key_values` are two names of one argument: give one of them")
    return past_key_values if cache is None else cache


def causal_output(cache: Cache | None, **others: Any) -> CausalLMOutputWithPast:
    """The output with its cache: under one name until 5.23, under both since."""
    return CausalLMOutputWithPast(**others, **{CACHE_FIELD: cache})


__all__ = [
    "CACHE_FIELD",
    "CACHE_NAMES",
    "PASSED_BY_TRANSFORMERS",
    "CacheLayer",
    "ClassicConfig",
    "attention_function",
    "causal_mask",
    "causal_output",
    "count_queries",
    "one_cache",
    "update_cache",
]
