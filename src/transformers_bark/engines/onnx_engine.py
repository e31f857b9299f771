"""The engine that runs ONNX Runtime on the CPU, by graphs that `onnx_build` makes of the model's weights and `onnx_cache` keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache as cache_result
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..generation.engine import Foresight, Span, tokens_of
from .onnx_build import Build, Difference, cache_scales, compare_causal, compare_fine, open_sessions
from .torch_engine import TorchCausal, TorchFine

GRAPHS = {"fp32": {"all": "fp32"}, "int8": {"all": "int8"}, "int4": {"prompt": "int7", "step": "int4"}}
"""The graphs of a causal model in each precision, and their weights: what reads many tokens at once, and what makes steps."""

READS_PROMPTS = ("all", "prompt")
"""Graphs that read prompts."""

DRAFTED_WEIGHTS = 2**24
"""Of more weights than so many in fp32, whose steps wait for memory, a third graph in int8 proposes tokens."""

MOST_PROPOSED = 7
"""Most tokens that are proposed at once: they are then read together in fp32, in little more time than one."""

STEP_ROWS = 2
"""Beyond so many rows, a step is many tokens at once."""


@dataclass
class OnnxDecoding:
    """A batch being decoded.

    Args:
        memory: keys and values of each layer, [row, head, room, head_dim].
        lengths: tokens of each row.
        storage: the arrays whose first rows the memory is; they may have room for more.
        bindings: of the memory to the sessions that were used, by graph and whether the cache is written in place.
        read: tokens that were proposed and are read already, and the logits [1, token] after each.
        reach: tokens to propose next time: one more when all were chosen, one less when not.
    """

    memory: list[Any]
    lengths: np.ndarray
    storage: list[np.ndarray] = field(default_factory=list)
    bindings: dict[tuple[str, bool], _Binding] = field(default_factory=dict)
    read: list[tuple[int, Tensor]] = field(default_factory=list)
    reach: int = 4


class OnnxCausal:
    """`CausalEngine` in ONNX Runtime. Prompts are read one after the other; each row has its own length in the cache."""

    def __init__(self, model: Any, precision: str, with_head: bool, cache: Path, cache_precision: str = "fp32") -> None:
        from .onnx_graph import causal_graph

        self.model, self.with_head = model, with_head
        self.width = model.config.output_vocab_size
        self.tables = _rows_of(model.input_embeds_layer), _rows_of(model.position_embeds_layer)
        self.dtype = {"fp32": np.float32, "int8": np.int8}[cache_precision]
        self.sessions: dict[str, Any] = {}
        self.heads: dict[Span, Any] = {}
        n_weights = sum(part.numel() for part in model.layers.parameters())
        graphs = GRAPHS[precision] | ({"draft": "int8"} if precision == "fp32" and n_weights > DRAFTED_WEIGHTS else {})

        def check(name: str, session: Any) -> Difference:
            self.sessions = {name: session}
            return compare_causal(self, TorchCausal(model))

        @cache_result  # the graphs of a precision share them
        def scales() -> list[dict[str, np.ndarray]] | None:
            return cache_scales(model) if cache_precision == "int8" else None

        def make(name: str, weights_as: str) -> Any:
            return causal_graph(model, weights_as, with_head, scales(), name in READS_PROMPTS)

        kind = f"causal with_head={with_head}"
        builds = {
            name: Build(weights, cache_precision, partial(make, name), name == "draft")
            for name, weights in graphs.items()
        }
        self.sessions, self.report = open_sessions(model, kind, (precision, cache_precision), cache, builds, check)

    def _graph(self, kind: str) -> str:
        """The graph of a kind, or the one that does everything."""
        return kind if kind in self.sessions else next(iter(self.sessions))

    def prefill(self, embeds: Sequence[Tensor], room: int, span: Span = None) -> tuple[Tensor, OnnxDecoding]:
        lengths, config = np.array([len(row) for row in embeds], np.int32), self.model.config
        shape = (len(embeds), config.num_heads, int(lengths.max()) + room, config.hidden_size // config.num_heads)
        memory = [np.zeros(shape, self.dtype) for _ in range(2 * config.num_layers)]
        positions, logits = self.model.position_embeds_layer.weight, []
        for row, prompt in enumerate(embeds):  # alone: what is near stays near, and nothing is padded
            place = slice(row, row + 1)
            state = OnnxDecoding([_value(part[place]) for part in memory], lengths[place])
            embedded = _float(prompt + positions[: len(prompt)])
            logits.append(self._run(self._graph("prompt"), state, embedded[None], span))
        return torch.cat(logits), self._decoding(memory, lengths)

    def step(
        self, state: OnnxDecoding, tokens: Tensor, span: Span = None, foresight: Foresight | None = None
    ) -> tuple[Tensor, OnnxDecoding]:
        places, state.lengths = state.lengths, state.lengths + np.int32(1)
        if state.read:
            (token, logits), *state.read = state.read
            if token == int(tokens):
                state.reach = min(state.reach + (not state.read), MOST_PROPOSED)
                return logits, state
            # another token was chosen: what was read after it is overwritten
            state.reach, state.read = max(1, state.reach - 1), []
        if foresight is not None and foresight.n_steps and "draft" in self.sessions:
            return self._read_ahead(state, int(tokens), foresight), state
        embeds = self._embed(tokens.numpy(), places)[:, None]
        graph = self._graph("step" if len(tokens) <= STEP_ROWS else "prompt")
        return self._run(graph, state, embeds, span), state

    def _read_ahead(self, state: OnnxDecoding, token: int, foresight: Foresight) -> Tensor:
        """Proposes tokens by the draft and reads them together with `token`: the logits after that; the others wait in `state`.

        The draft reads the exact cache, and what it writes there is overwritten by the exact graph.
        """
        tokens, before = [token], int(state.lengths[0]) - 1

        def run(name: str, start: int, span: Span) -> Tensor:
            """Logits after each of `tokens` from `start` on."""
            places = np.arange(before + start, before + len(tokens))
            reading = replace(state, lengths=np.array([before + len(tokens)], np.int32))
            embeds = self._embed(np.array(tokens[start:]), places)[None]
            return self._run(name, reading, embeds, span, every=True)

        for ahead in range(min(state.reach, foresight.n_steps)):
            proposed = foresight.choose(ahead, run("draft", ahead, foresight.span(ahead)))
            if proposed is None:
                break
            tokens.append(proposed)
        spans = [foresight.span(ahead) or (0, self.width) for ahead in range(len(tokens))]
        start, end = min(first for first, _ in spans), max(end for _, end in spans)
        logits = run("all", 0, (start, end))
        read = [row[None, first - start : end - start] for row, (first, end) in zip(logits, spans, strict=True)]
        state.read = list(zip(tokens[1:], read[1:], strict=True))
        return read[0]

    def _embed(self, tokens: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Tokens and their positions, whole numbers [n] each -> [n, hidden]."""
        token_rows, place_rows = self.tables
        return token_rows(tokens) + place_rows(places)

    def keep_rows(self, state: OnnxDecoding, rows: Sequence[int]) -> OnnxDecoding:
        lengths, n_rows = state.lengths[list(rows)], len(rows)
        moved = [(place, row) for place, row in enumerate(rows) if place != row]
        if any(row < n_rows for _, row in moved):  # it lies where another comes
            return self._decoding([part[list(rows)] for part in state.storage], lengths)
        for part in state.storage:
            for place, row in moved:
                part[place, :, : state.lengths[row]] = part[row, :, : state.lengths[row]]
        return self._decoding(state.storage, lengths)

    def join(self, state: OnnxDecoding, other: OnnxDecoding) -> OnnxDecoding:
        parts, n_rows = (state, other), len(state.lengths)
        lengths = np.concatenate([part.lengths for part in parts])
        longest = int(lengths.max())
        left = max(part.storage[0].shape[2] - int(part.lengths.max()) for part in parts)
        room = max(longest, min(longest + left, self.model.config.block_size))
        storage = state.storage
        if len(storage[0]) < len(lengths) or storage[0].shape[2] < room:
            # twice as many rows as now, so that not every row that comes moves all that are there
            storage = [_grown(part[:n_rows], 2 * len(lengths), room) for part in storage]
        n_new, seen = len(other.lengths), int(other.lengths.max())
        for part, new in zip(storage, other.storage, strict=True):
            part[n_rows : n_rows + n_new, :, :seen] = new[:n_new, :, :seen]
        return self._decoding(storage, lengths)

    @staticmethod
    def _decoding(storage: list[np.ndarray], lengths: np.ndarray) -> OnnxDecoding:
        """The first rows of a storage as a batch."""
        return OnnxDecoding([_value(part[: len(lengths)]) for part in storage], lengths, storage)

    def _head(self, span: Span) -> Any:
        """The part of the head that is asked for, [token, hidden]."""
        if span not in self.heads:
            self.heads[span] = _value(_float(self.model.lm_head.weight[tokens_of(span)]))
        return self.heads[span]

    def _binding(self, graph: str, state: OnnxDecoding, in_place: bool) -> _Binding:
        """A binding in which the cache is written where it is read, or else returned."""
        if (graph, in_place) not in state.bindings:
            state.bindings[graph, in_place] = _Binding(self.sessions[graph], state.memory, in_place)
        return state.bindings[graph, in_place]

    def _run(self, graph: str, state: OnnxDecoding, embeds: np.ndarray, span: Span, every: bool = False) -> Tensor:
        """Embeddings [row, token, hidden] -> logits after the last of each row, or after `every` one of a row."""
        n_rows, n_tokens = embeds.shape[:2]
        is_apart = self.dtype == np.int8 and graph in READS_PROMPTS and n_tokens == state.lengths.max()
        binding = self._binding(graph, state, not is_apart)
        binding.give("embeds", embeds)
        binding.give("cached", state.lengths - np.int32(1))
        binding.give("total", state.lengths.max())
        binding.give("asked", _asked(n_rows, n_tokens, every))
        width = self.width
        if not self.with_head:
            width = width if span is None else span[1] - span[0]
            binding.lend("head", self._head(span))
        out = binding.run(n_tokens if every else n_rows, width)
        if is_apart:  # a prompt for an int8 cache, which the graph has rounded
            for memory, present in zip(state.memory, binding.presents(), strict=True):
                memory.numpy()[:, :, :n_tokens] = present
        return out[:, tokens_of(span)] if self.with_head else out


class _Binding:
    """A session's inputs and outputs for a batch: what keeps its shape from step to step stays bound, and is written over."""

    def __init__(self, session: Any, memory: Sequence[Any], in_place: bool) -> None:
        self._session, self._binding = session, session.io_binding()
        # a binding borrows their memory: they must live until it has run
        self._arrays: dict[str, np.ndarray] = {}
        self._lent: dict[str, Any] = {}
        self._out = torch.empty(0)
        self._binding.bind_output("out")  # the first of the outputs
        for number, value in enumerate(memory):
            name = f"{'kv'[number % 2]}{number // 2}"
            self._binding.bind_ortvalue_input(f"past_{name}", value)
            if in_place:
                self._binding.bind_ortvalue_output(f"present_{name}", value)
            else:
                self._binding.bind_output(f"present_{name}")

    def give(self, name: str, values: np.ndarray) -> None:
        """An input of its own memory."""
        kept = self._arrays.get(name)
        if kept is not None and kept.shape == values.shape:
            kept[...] = values
        else:
            self._arrays[name] = np.array(values, order="C")
            self._binding.bind_cpu_input(name, self._arrays[name])

    def lend(self, name: str, value: Any) -> None:
        """An input that others hold too, and that is never written to."""
        if self._lent.get(name) is not value:
            self._lent[name] = value
            self._binding.bind_ortvalue_input(name, value)

    def run(self, n_asked: int, width: int) -> Tensor:
        """The logits that were asked for, float32 [n_asked, width]."""
        if self._out.shape != (n_asked, width):
            self._out = torch.empty(n_asked, width)
            self._binding.bind_output("out", "cpu", 0, np.float32, self._out.shape, self._out.data_ptr())
        self._session.run_with_iobinding(self._binding)
        return self._out.clone()  # the next step writes there

    def presents(self) -> list[np.ndarray]:
        """Keys and values that were not written in place."""
        return [value.numpy() for value in self._binding.get_outputs()[1:]]


@lru_cache(maxsize=64)
def _asked(n_rows: int, n_tokens: int, every: bool) -> np.ndarray:
    """Rows and places of the tokens whose logits are asked for, int64 [asked, 2]."""
    rows, places = np.arange(n_rows), np.full(n_rows, n_tokens - 1)
    if every:
        rows, places = np.zeros(n_tokens, np.int64), np.arange(n_tokens)
    return np.stack([rows, places], axis=1)


class OnnxFine:
    """`FineEngine` in ONNX Runtime, which reads many tokens at once."""

    def __init__(self, model: Any, precision: str, cache: Path) -> None:
        from .onnx_graph import fine_graph

        self.model = model
        self.tables = [_rows_of(table) for table in model.input_embeds_layers]
        self.session: Any = None

        def check(name: str, session: Any) -> Difference:
            self.session = session
            return compare_fine(self, TorchFine(model))

        # a window is many tokens at once: arithmetic binds it, not the size of the weights
        build = Build({"int4": "int7"}.get(precision, precision), "fp32", partial(fine_graph, model))
        # one name for one graph, whichever precision asks for it
        precisions = ({"uint8": "int8"}.get(build.weights_as, build.weights_as),)
        sessions, self.report = open_sessions(model, "fine", precisions, cache, {"all": build}, check)
        self.session = sessions["all"]

    def forward(self, codebook: int, codes: Tensor, first: int = 0) -> Tensor:
        model = self.model
        head = _float(model.lm_heads[codebook - model.config.n_codes_given].weight)
        positions = _float(model.position_embeds_layer.weight)[: codes.shape[1]]

        def run(row: np.ndarray) -> Tensor:
            tables = self.tables[: codebook + 1]
            embeds = sum((rows_of(row[:, index]) for index, rows_of in enumerate(tables)), positions)
            inputs = {"embeds": embeds[None], "first": np.array([first], np.int64), "head": head}
            return torch.from_numpy(self.session.run(["out"], inputs)[0])

        # a window alone keeps every core busy, and its activations stay near them
        return torch.stack([run(row) for row in codes.numpy()])


def _float(tensor: Tensor) -> np.ndarray:
    """In fp32, as NumPy has no bf16; a view where it is that already."""
    return tensor.detach().float().numpy()


def _rows_of(table: nn.Embedding) -> Callable[[np.ndarray], np.ndarray]:
    """Gives rows of an embedding, float32, by their places.

    By NumPy: PyTorch's threads would wait for a core on which one of ONNX Runtime's still spins.
    """
    if table.weight.dtype != torch.float32:
        return lambda places: _float(table.weight[torch.from_numpy(places).long()])
    return _float(table.weight).__getitem__


def _grown(rows: np.ndarray, n_rows: int, room: int) -> np.ndarray:
    """Keys or values [row, head, position, head_dim] in a memory of more rows and positions."""
    _, n_heads, n_positions, head_dim = rows.shape
    grown = np.zeros((n_rows, n_heads, room, head_dim), rows.dtype)
    kept = min(room, n_positions)
    grown[: len(rows), :, :kept] = rows[:, :, :kept]
    return grown


def _value(array: np.ndarray) -> Any:
    """Shares the array's memory."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
