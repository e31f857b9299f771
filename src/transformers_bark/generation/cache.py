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

    def join(self, other: InPlaceLayer, end: int, room: int) -> InPlaceLayer:
        """The rows of both, the last positions of each before `end`; what lies before them is 0."""
        joined = InPlaceLayer(room)
        batch = len(self.keys) + len(other.keys)
        shape = (batch, self.keys.shape[1], room, self.keys.shape[3])
        # a mask makes a weight 0, and 0 times what is no number is no number
        joined.keys, joined.values = self.keys.new_zeros(shape), self.values.new_zeros(shape)
        first = 0
        for part in (self, other):
            rows, length = slice(first, first + len(part.keys)), min(end, part.filled)
            joined.keys[rows, :, end - length : end] = part.keys[:, :, part.filled - length : part.filled]
            joined.values[rows, :, end - length : end] = part.values[:, :, part.filled - length : part.filled]
            first += len(part.keys)
        joined.filled, joined.is_initialized = end, True
        return joined


class InPlaceCache(Cache):
    """A cache with room for `room` positions in each of `num_layers` layers."""

    def __init__(self, num_layers: int, room: int) -> None:
        super().__init__(layers=[InPlaceLayer(room) for _ in range(num_layers)])

    def keep(self, rows: Tensor) -> None:
        """Keeps these rows of the batch, in this order."""
        for layer in self.layers:
            layer.keep(rows)

    def join(self, other: InPlaceCache, end: int) -> InPlaceCache:
        """The rows of both caches, whose last positions lie before `end`; with the room that either has left."""
        room = end + max(cache.get_max_length() - cache.get_seq_length() for cache in (self, other))
        joined = InPlaceCache(0, room)
        joined.layers = [mine.join(theirs, end, room) for mine, theirs in zip(self.layers, other.layers, strict=True)]
        return joined

    def get_max_length(self) -> int:
        """Positions that there is room for."""
        return self.layers[0].room
