"""A key-value cache that is allocated once and filled in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from ..compat import CacheLayer, count_queries


class InPlaceLayer(CacheLayer):
    """Keys and values of one layer, [batch, head, room, head_dim]; `update` writes and returns views of what is filled.

    A concatenating cache moves the whole past at every step; this one moves the new position only.
    """

    is_compileable = False
    is_sliding = False

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.filled = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        batch, heads, _, head_dim = key_states.shape
        self.keys = key_states.new_empty(batch, heads, self.room, head_dim)
        self.values = value_states.new_empty(batch, heads, self.room, head_dim)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.filled + key_states.shape[-2]
        assert end <= self.room, f"cache has room for {self.room} positions, asked for {end}"
        self.keys[:, :, self.filled : end] = key_states
        self.values[:, :, self.filled : end] = value_states
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        return self.filled + count_queries(query_length), 0

    def get_seq_length(self) -> int:
        return self.filled

    def get_max_length(self) -> int:
        return self.room

    def reset(self) -> None:
        """Empties the layer; its memory stays."""
        self.filled = 0

    def keep(self, rows: Tensor) -> None:
        """Keeps these rows of the batch, in this order."""
        self.keys, self.values = self.keys[rows], self.values[rows]


class InPlaceCache(Cache):
    """A cache with room for `room` positions in each of `num_layers` layers."""

    def __init__(self, num_layers: int, room: int) -> None:
        super().__init__(layers=[InPlaceLayer(room) for _ in range(num_layers)])

    def keep(self, rows: Tensor) -> None:
        """Keeps these rows of the batch, in this order."""
        for layer in self.layers:
            layer.keep(rows)
