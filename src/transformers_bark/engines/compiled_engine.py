"""The engine of fixed shapes: a decode step that is compiled on a CPU, and on CUDA recorded as one graph.

A step is many small kernels: on a GPU it takes longer to start them one by one than to run them. A graph starts all at once, and
must find its inputs where they lay when it was recorded. So the cache is memory that is lent to a batch and comes back
when the batch is done. `torch.compile` records graphs too ("reduce-overhead"), but anew for every cache; and compiling takes
minutes where recording takes milliseconds.

Shapes come in buckets, so that few graphs serve all calls: rows in powers of two, positions in multiples of `ROOM`.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from ..generation.cache import InPlaceCache
from ..generation.engine import Foresight, Span, tokens_of
from .blocks import Linear, fast_linear, module_linear, run_blocks
from .choice import warn_once
from .torch_engine import TorchFine

ROOM = 256
"""A graph looks at a multiple of this many positions."""

KEPT = 8
"""Memories that wait for another batch at most. Buckets are powers of two, so together they are at most twice the largest."""


def bucket_of(n_rows: int) -> int:
    """Rows that a batch is filled up to: the next power of two."""
    return 1 << (n_rows - 1).bit_length()


def rooms(n_positions: int) -> int:
    """The next multiple of `ROOM`."""
    return -(-n_positions // ROOM) * ROOM


class PerShape:
    """A function that is compiled for each shape it is called with.

    PyTorch counts what it has compiled by code object, whichever model it was for, and after eight shapes runs the rest
    uncompiled without a word. So each shape has a code object of its own.
    """

    def __init__(self, function: Any, backend: str) -> None:
        self.function = function
        self.compile: Callable[..., Any] = partial(torch.compile, backend=backend, dynamic=False)
        self.compiled: dict[tuple[int, ...], Callable[..., Any]] = {}

    def __call__(self, shape: tuple[int, ...], *arguments: Any) -> Any:
        if shape not in self.compiled:
            own = FunctionType(self.function.__code__.replace(), self.function.__globals__)
            self.compiled[shape] = self.compile(own)
        return self.compiled[shape](*arguments)


_streams: dict[torch.device, list[Any]] = defaultdict(list)
"""Streams that no memory records on now."""


def lend_stream(owner: Any, device: torch.device) -> Any:
    """A stream that is nobody else's as long as its owner lives. PyTorch gives the same 32 in turn."""
    free = _streams[device]
    stream = free.pop() if free else torch.cuda.Stream(device)
    weakref.finalize(owner, free.append, stream).atexit = False
    return stream


@torch.no_grad()
def record(run: Callable[[], Tensor], stream: Any, pool: Any = None) -> Callable[[], Tensor]:
    """`run` as one CUDA graph, whose result lies in the same memory each time; `run` itself where there is no stream.

    Args:
        run: is also called to warm up, so that twice must be the same as once.
        stream: to record on. When a graph ends, what cuBLAS keeps for its stream is freed, whichever other graphs use it
            (github.com/pytorch/pytorch/issues/193402): so graphs that do not end together need streams of their own.
        pool: memory that the graph shares with others.
    """
    if stream is None:
        return run
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(stream.device):
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):  # that of the recording: libraries prepare themselves for each
            for _ in range(2):
                run()
        try:
            # the outer one goes back to the current stream also where a recording fails
            with torch.cuda.stream(current), torch.cuda.graph(graph, pool, stream, "thread_local"):
                output = run()
        except RuntimeError as error:
            warn_once(f"steps run without a CUDA graph: {error}")
            return run
        finally:
            current.wait_stream(stream)

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


class Memory:
    """Where a batch is decoded, at addresses that never change.

    Attributes:
        keys, values: of each layer, [bucket, head, capacity, head_dim].
        tokens, positions: of each row's next step, int64 [bucket].
        going: 1 for the rows that are still decoded, int64 [bucket].
        stream: that its steps are recorded on, no other memory's; None where nothing is recorded.
        steps: the recorded steps, by positions looked at and span of the logits.
        weights: where the model's weights lay when the steps were recorded.
    """

    def __init__(self, model: Any, bucket: int, capacity: int, device: torch.device) -> None:
        config = model.config
        shape = (bucket, config.num_heads, capacity, config.hidden_size // config.num_heads)
        self.bucket, self.capacity = bucket, capacity
        self.keys, self.values = (
            [torch.zeros(shape, dtype=model.dtype, device=device) for _ in range(config.num_layers)] for _ in range(2)
        )
        self.tokens, self.positions, self.going = (
            torch.zeros(bucket, dtype=torch.long, device=device) for _ in range(3)
        )
        self.stream = lend_stream(self, device) if device.type == "cuda" else None
        self.steps: dict[tuple[int, Span], Callable[[], Tensor]] = {}
        self.weights: tuple[int, ...] = ()

    def clear(self) -> None:
        """Nothing of the batch before stays: what no mask stops is a number that is not one."""
        for part in (*self.keys, *self.values, self.tokens, self.positions, self.going):
            part.zero_()

    def cache(self, n_rows: int) -> InPlaceCache:
        """The first rows as the cache of a forward."""
        cache = InPlaceCache(len(self.keys), self.capacity)
        for layer, keys, values in zip(cache.layers, self.keys, self.values, strict=True):
            layer.keys, layer.values, layer.is_initialized = keys[:n_rows], values[:n_rows], True
        return cache


class Lease:
    """Holds a memory, and gives it back when nothing refers to it any more."""

    def __init__(self, memory: Memory, idle: list[Memory]) -> None:
        self.memory = memory
        weakref.finalize(self, idle.append, memory).atexit = False


@dataclass(frozen=True)
class CompiledDecoding:
    """A batch being decoded.

    Args:
        lease: of its memory.
        rows: places in the bucket of the rows that are still decoded, int64 [row]; None: the first ones.
        lengths: of the prompts of those rows.
        n_steps: made since.
    """

    lease: Lease
    rows: Tensor | None
    lengths: tuple[int, ...]
    n_steps: int = 0

    @property
    def n_seen(self) -> int:
        """Positions of the longest row."""
        return max(self.lengths) + self.n_steps


def decode(
    model: Any, tokens: Tensor, positions: Tensor, keys: list[Tensor], values: list[Tensor], linear: Linear
) -> Tensor:
    """One token a row, int64 [bucket] -> what the head is fed, [bucket, hidden]; writes keys and values at each row's position."""
    rows = torch.arange(len(tokens), device=tokens.device)
    hidden = model.input_embeds_layer(tokens[:, None]) + model.position_embeds_layer(positions[:, None])
    unseen = torch.arange(keys[0].shape[2], device=tokens.device) > positions[:, None]
    # added, as kernels on CUDA want it: of a mask of truth values each layer would make this anew
    mask = torch.zeros(unseen.shape, dtype=hidden.dtype, device=hidden.device).masked_fill(unseen, -torch.inf)

    def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys[index][rows, :, positions] = key[:, :, 0]
        values[index][rows, :, positions] = value[:, :, 0]
        return nn.functional.scaled_dot_product_attention(query, keys[index], values[index], mask[:, None, None])

    return run_blocks(model, hidden, attend, linear)[:, 0]


def decode_step(model: Any, tokens: Tensor, positions: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """`decode` with all logits, [bucket, token]: what is compiled."""
    return model.lm_head(decode(model, tokens, positions, keys, values, module_linear))


def default_backend(device: torch.device) -> str:
    """On CUDA kernels are recorded as they are: that costs nothing ahead."""
    return "none" if device.type == "cuda" else "inductor"


class CompiledCausal:
    """`CausalEngine` of fixed shapes; prompts are read by the modules as they are. Rows are padded on the right.

    Args:
        model: a causal model.
        backend: what compiles the step, "none" for nothing; by default "inductor", and "none" on CUDA.
    """

    def __init__(self, model: Any, backend: str | None = None) -> None:
        self.model = model
        backend = backend or default_backend(model.device)
        self._compiled = None if backend == "none" else PerShape(decode_step, backend)
        self._idle: list[Memory] = []
        self._pool = torch.cuda.graph_pool_handle() if model.device.type == "cuda" else None

    def prefill(self, embeds: Sequence[Tensor], room: int, span: Span = None) -> tuple[Tensor, CompiledDecoding]:
        lengths = tuple(len(row) for row in embeds)
        n_rows, device = len(embeds), embeds[0].device
        # the last token is never fed, so no position past the model's last is needed
        n_positions = max(max(lengths), min(max(lengths) + room, self.model.config.block_size))
        lease = self._lend(bucket_of(n_rows), n_positions, device)
        memory = lease.memory
        ends = sorted({length - 1 for length in lengths})
        kept, places = torch.tensor(ends, device=device), torch.tensor([ends.index(n - 1) for n in lengths])
        padded = nn.utils.rnn.pad_sequence(list(embeds), batch_first=True).to(self.model.dtype)
        # what stands behind a row's end looks at it, and is overwritten before anything looks back
        output = self.model(
            inputs_embeds=padded, past_key_values=memory.cache(n_rows), use_cache=True, logits_to_keep=kept
        )
        logits = output.logits[torch.arange(n_rows, device=device), places.to(device)]
        memory.positions[:n_rows] = torch.tensor(lengths, device=device)
        memory.going[:n_rows] = 1
        self._forget_if_moved(memory)
        return logits[:, tokens_of(span)], CompiledDecoding(lease, None, lengths)

    def step(
        self, state: CompiledDecoding, tokens: Tensor, span: Span = None, foresight: Foresight | None = None
    ) -> tuple[Tensor, CompiledDecoding]:
        memory, n_rows = state.lease.memory, len(tokens)
        if state.rows is None:
            memory.tokens[:n_rows] = tokens
        else:
            memory.tokens[state.rows] = tokens
        logits = self._step(memory, state.n_seen + 1, span)()
        memory.positions.add_(memory.going)
        # a copy: the next step writes over what the graph gave
        logits = logits[:n_rows].clone() if state.rows is None else logits[state.rows]
        return logits, replace(state, n_steps=state.n_steps + 1)

    def keep_rows(self, state: CompiledDecoding, rows: Sequence[int]) -> CompiledDecoding:
        memory = state.lease.memory
        kept = torch.as_tensor(list(rows), device=memory.tokens.device)
        kept = kept if state.rows is None else state.rows[kept]
        lengths = tuple(state.lengths[row] for row in rows)
        bucket = bucket_of(len(lengths))
        if bucket == memory.bucket:
            memory.going.zero_()
            memory.going[kept] = 1
            memory.positions.mul_(memory.going)  # those of rows that left may lie behind what is looked at from now on
            return replace(state, rows=kept, lengths=lengths)
        lease, n_rows = self._lend(bucket, memory.capacity, kept.device), len(lengths)
        for name in ("keys", "values"):
            for new, old in zip(getattr(lease.memory, name), getattr(memory, name), strict=True):
                new[:n_rows, :, : state.n_seen] = old[kept, :, : state.n_seen]
        lease.memory.positions[:n_rows] = memory.positions[kept]
        lease.memory.going[:n_rows] = 1
        self._forget_if_moved(lease.memory)
        return CompiledDecoding(lease, None, lengths, state.n_steps)

    def join(self, state: CompiledDecoding, other: CompiledDecoding) -> CompiledDecoding:
        parts = (state, other)
        lengths = tuple(length + part.n_steps for part in parts for length in part.lengths)
        n_seen, left = max(lengths), max(part.lease.memory.capacity - part.n_seen for part in parts)
        n_positions = max(n_seen, min(n_seen + left, self.model.config.block_size))
        lease = self._lend(bucket_of(len(lengths)), n_positions, state.lease.memory.tokens.device)
        memory, first = lease.memory, 0
        for part in parts:
            old, n_rows, seen = part.lease.memory, len(part.lengths), part.n_seen
            kept = slice(n_rows) if part.rows is None else part.rows
            for name in ("keys", "values"):
                for new, of_part in zip(getattr(memory, name), getattr(old, name), strict=True):
                    new[first : first + n_rows, :, :seen] = of_part[kept, :, :seen]
            memory.positions[first : first + n_rows] = old.positions[kept]
            first += n_rows
        memory.going[:first] = 1
        self._forget_if_moved(memory)
        return CompiledDecoding(lease, None, lengths)

    def _lend(self, bucket: int, n_positions: int, device: torch.device) -> Lease:
        """A memory that is empty: one that waits, or a new one."""
        fitting = [
            memory
            for memory in self._idle
            if memory.bucket == bucket and memory.capacity >= n_positions and memory.tokens.device == device
        ]
        if fitting:
            memory = min(fitting, key=lambda memory: memory.capacity)
            self._idle.remove(memory)
            memory.clear()
        else:
            del self._idle[: 1 - KEPT]
            memory = Memory(self.model, bucket, rooms(n_positions), device)
        return Lease(memory, self._idle)

    def _forget_if_moved(self, memory: Memory) -> None:
        """Offloading moves weights, and a graph reads them where they were."""
        weights = tuple(part.data_ptr() for part in self.model.parameters())
        if memory.weights != weights:
            memory.steps.clear()
            memory.weights = weights

    def _step(self, memory: Memory, n_seen: int, span: Span) -> Callable[[], Tensor]:
        """The step that looks at so many positions: it gives logits [bucket, token of the span]."""
        room = rooms(n_seen) if self._compiled is None else memory.capacity  # a room more is a compilation more
        if (room, span) not in memory.steps:
            memory.steps[room, span] = record(self._make_step(memory, room, span), memory.stream, self._pool)
        return memory.steps[room, span]

    def _make_step(self, memory: Memory, room: int, span: Span) -> Callable[[], Tensor]:
        keys, values = ([part[:, :, :room] for part in parts] for parts in (memory.keys, memory.values))
        arguments = (self.model, memory.tokens, memory.positions, keys, values)
        if self._compiled is not None:
            run = partial(self._compiled, (memory.bucket, memory.capacity), *arguments)
            return lambda: run()[:, tokens_of(span)]
        return lambda: fast_linear(decode(*arguments, fast_linear), self.model.lm_head, span)


def fine_blocks(model: Any, embeds: Tensor) -> Tensor:
    """All blocks of the fine stack: embeds [bucket, frame, hidden] -> what the heads are fed."""
    return model._run_blocks(embeds, None, None, False, False)[0]


class CompiledFine:
    """`FineEngine` whose stack is compiled, for each shape of the window; as it is where `backend` is "none".

    A window is few large kernels: there is nothing to record.
    """

    def __init__(self, model: Any, backend: str | None = None) -> None:
        self.model = model
        backend = backend or default_backend(model.device)
        self._blocks = None if backend == "none" else PerShape(fine_blocks, backend)
        self._plain = TorchFine(model)

    def forward(self, codebook: int, codes: Tensor, first: int = 0) -> Tensor:
        if self._blocks is None:
            return self._plain.forward(codebook, codes, first)
        extra = bucket_of(len(codes)) - len(codes)
        filled = torch.cat([codes, codes[:1].expand(extra, -1, -1)])
        hidden = self._blocks(tuple(filled.shape[:2]), self.model, self.model.embed(codebook, filled))
        return self.model.lm_heads[codebook - self.model.config.n_codes_given](hidden[: len(codes), first:])
