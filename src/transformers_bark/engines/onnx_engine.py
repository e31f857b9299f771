"""The engine that runs ONNX Runtime on the CPU: graphs built from the model's weights, kept in a cache folder.

Needs the extra `onnx`. A graph is built when it is first asked for, compared with PyTorch, and kept under the hash of the
weights and the precision, so that the next process loads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache as cache_result
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.constants import HF_HOME
from torch import Tensor, nn

from ..generation.engine import Foresight, Span, tokens_of
from .torch_engine import TorchCausal, TorchFine

logger = logging.getLogger(__name__)

CACHE = Path(HF_HOME) / "transformers_bark" / "onnx"
"""Where graphs are kept unless another folder is named."""

GRAPH_VERSION = 5
"""Changes when the graphs do, so that old ones are not loaded."""

GRAPHS = {"fp32": {"all": "fp32"}, "int8": {"all": "int8"}, "int4": {"prompt": "int8", "step": "int4"}}
"""The graphs of a causal model in each precision, and their weights: what reads many tokens at once, and what makes steps."""

READS_PROMPTS = ("all", "prompt")
"""Graphs that read prompts."""

DRAFTED_WEIGHTS = 2**24
"""Of more weights than so many in fp32, whose steps wait for memory, a third graph in int8 proposes tokens."""

MOST_PROPOSED = 7
"""Most tokens that are proposed at once: they are then read together in fp32, in little more time than one."""

STEP_ROWS = 2
"""Beyond so many rows, a step is many tokens at once."""

BOUNDS = {"fp32": 1e-4, "int8": 0.25, "int4": 0.6}
"""Most that a graph may differ from PyTorch: root mean square of the difference over that of the logits."""


@dataclass
class OnnxDecoding:
    """A batch being decoded.

    Args:
        memory: keys and values of each layer, [row, head, room, head_dim].
        lengths: tokens of each row.
        bindings: of the memory to the sessions that were used.
        read: tokens that were proposed and are read already, and the logits [1, token] after each.
        reach: tokens to propose next time: one more when all were chosen, one less when not.
    """

    memory: list[Any]
    lengths: np.ndarray
    bindings: dict[Any, Any] = field(default_factory=dict)
    read: list[tuple[int, Tensor]] = field(default_factory=list)
    reach: int = 4


class OnnxCausal:
    """`CausalEngine` in ONNX Runtime. Prompts are read one after the other; each row has its own length in the cache."""

    def __init__(
        self, model: Any, precision: str, with_head: bool, cache: Path = CACHE, cache_precision: str = "fp32"
    ) -> None:
        from .onnx_graph import causal_graph

        self.model, self.with_head = model, with_head
        self.dtype = {"fp32": np.float32, "int8": np.int8}[cache_precision]
        self.sessions: dict[str, Any] = {}
        self.heads: dict[Span, np.ndarray] = {}
        n_weights = sum(part.numel() for part in model.layers.parameters())
        graphs = GRAPHS[precision] | ({"draft": "int8"} if precision == "fp32" and n_weights > DRAFTED_WEIGHTS else {})

        def check(name: str, session: Any) -> tuple[float, float]:
            self.sessions = {name: session}
            return _compare_causal(self, TorchCausal(model))

        @cache_result  # the graphs of a precision share them
        def scales() -> list[dict[str, np.ndarray]] | None:
            return cache_scales(model) if cache_precision == "int8" else None

        def build(name: str, weights: str) -> Any:
            return causal_graph(model, weights, with_head, scales(), name in READS_PROMPTS)

        kind = f"causal with_head={with_head}"
        builds = {
            name: Build(weights, cache_precision, partial(build, name, weights)) for name, weights in graphs.items()
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
        return torch.cat(logits), OnnxDecoding([_value(part) for part in memory], lengths)

    def step(
        self, state: OnnxDecoding, tokens: Tensor, span: Span = None, foresight: Foresight | None = None
    ) -> tuple[Tensor, OnnxDecoding]:
        later = replace(state, lengths=state.lengths + np.int32(1), read=state.read[1:])
        if state.read and state.read[0][0] == int(tokens):
            later.reach = min(state.reach + (not later.read), MOST_PROPOSED)
            return state.read[0][1], later
        if state.read:  # another token was chosen: what was read after it is overwritten
            later.reach, later.read = max(1, state.reach - 1), []
        if foresight is not None and foresight.n_steps and "draft" in self.sessions:
            return self._read_ahead(later, int(tokens), foresight), later
        places = torch.from_numpy(state.lengths.astype(np.int64))
        embeds = self._embed(tokens, places)[:, None]
        graph = self._graph("step" if len(tokens) <= STEP_ROWS else "prompt")
        return self._run(graph, later, embeds, span), later

    def _read_ahead(self, state: OnnxDecoding, token: int, foresight: Foresight) -> Tensor:
        """Proposes tokens by the draft and reads them together with `token`: the logits after that; the others wait in `state`.

        The draft reads the exact cache, and what it writes there is overwritten by the exact graph.
        """
        tokens, before = [token], int(state.lengths[0]) - 1

        def run(name: str, start: int, span: Span) -> Tensor:
            """Logits after each of `tokens` from `start` on."""
            places = before + torch.arange(start, len(tokens))
            reading = replace(state, lengths=np.array([before + len(tokens)], np.int32))
            embeds = self._embed(torch.tensor(tokens[start:]), places)[None]
            return self._run(name, reading, embeds, span, every=True)

        for ahead in range(min(state.reach, foresight.n_steps)):
            proposed = foresight.choose(ahead, run("draft", ahead, foresight.span(ahead)))
            if proposed is None:
                break
            tokens.append(proposed)
        spans = [foresight.span(ahead) or (0, self.model.config.output_vocab_size) for ahead in range(len(tokens))]
        start, end = min(first for first, _ in spans), max(end for _, end in spans)
        logits = run("all", 0, (start, end))
        read = [row[None, first - start : end - start] for row, (first, end) in zip(logits, spans, strict=True)]
        state.read = list(zip(tokens[1:], read[1:], strict=True))
        return read[0]

    def _embed(self, tokens: Tensor, places: Tensor) -> np.ndarray:
        """Tokens and their positions, int64 [n] each -> [n, hidden]."""
        return _rows(self.model.input_embeds_layer, tokens) + _rows(self.model.position_embeds_layer, places)

    def keep_rows(self, state: OnnxDecoding, rows: Sequence[int]) -> OnnxDecoding:
        memory = [_value(value.numpy()[list(rows)]) for value in state.memory]
        return OnnxDecoding(memory, state.lengths[list(rows)])

    def _head(self, span: Span) -> np.ndarray:
        """The part of the head that is asked for, [token, hidden]."""
        if span not in self.heads:
            self.heads[span] = np.ascontiguousarray(_float(self.model.lm_head.weight[tokens_of(span)]))
        return self.heads[span]

    def _binding(self, graph: str, state: OnnxDecoding, in_place: bool) -> Any:
        """A binding in which the cache is written where it is read, or else returned."""
        if (graph, in_place) in state.bindings:
            return state.bindings[graph, in_place]
        binding = state.bindings[graph, in_place] = self.sessions[graph].io_binding()
        binding.bind_output("out")  # the first of the outputs
        for number, value in enumerate(state.memory):
            name = f"{'kv'[number % 2]}{number // 2}"
            binding.bind_ortvalue_input(f"past_{name}", value)
            if in_place:
                binding.bind_ortvalue_output(f"present_{name}", value)
            else:
                binding.bind_output(f"present_{name}")
        return binding

    def _run(self, graph: str, state: OnnxDecoding, embeds: np.ndarray, span: Span, every: bool = False) -> Tensor:
        """Embeddings [row, token, hidden] -> logits after the last of each row, or after `every` one of a row."""
        n_rows, n_tokens = embeds.shape[:2]
        is_apart = self.dtype == np.int8 and graph in READS_PROMPTS and n_tokens == state.lengths.max()
        binding = self._binding(graph, state, not is_apart)
        rows, places = np.arange(n_rows), np.full(n_rows, n_tokens - 1)
        if every:
            rows, places = np.zeros(n_tokens, np.int64), np.arange(n_tokens)
        inputs = {  # a binding borrows their memory: they must live until it has run
            "embeds": np.ascontiguousarray(embeds),
            "cached": state.lengths - np.int32(1),
            "total": np.array(state.lengths.max(), np.int32),
            "asked": np.stack([rows, places], axis=1),
        }
        if not self.with_head:
            inputs["head"] = self._head(span)
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("out")  # anew, as its width follows the span
        self.sessions[graph].run_with_iobinding(binding)
        made, *presents = binding.get_outputs()
        out = torch.from_numpy(made.numpy().copy())  # the next step writes there
        if is_apart:  # a prompt for an int8 cache, which the graph has rounded
            for memory, present in zip(state.memory, presents, strict=True):
                memory.numpy()[:, :, :n_tokens] = present.numpy()
        return out[:, tokens_of(span)] if self.with_head else out


@torch.no_grad()
def cache_scales(model: Any) -> list[dict[str, np.ndarray]]:
    """Scales of an int8 cache, "k" and "v" of each layer, [1, head, 1, head_dim]: a fourth more than what random prompts need."""
    config = model.config
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, config.input_vocab_size, (4, min(256, config.block_size - 1)), generator=generator)
    _, state = TorchCausal(model).prefill(list(model.input_embeds_layer(ids)), 1)
    length = ids.shape[1]

    def scale(part: Tensor) -> np.ndarray:
        largest = part[:, :, :length].float().abs().amax(dim=(0, 2), keepdim=True)
        return (largest.clamp_min(1e-6) * (1.25 / 127)).numpy()

    return [{"k": scale(layer.keys), "v": scale(layer.values)} for layer in state.cache.layers]


class OnnxFine:
    """`FineEngine` in ONNX Runtime, which reads many tokens at once."""

    def __init__(self, model: Any, precision: str, cache: Path = CACHE) -> None:
        from .onnx_graph import fine_graph

        self.model = model
        self.session: Any = None

        def check(name: str, session: Any) -> tuple[float, float]:
            self.session = session
            return _compare_fine(self, TorchFine(model))

        # a window is many tokens at once: arithmetic binds it, not the size of the weights
        weights = "fp32" if precision == "fp32" else "int8"
        builds = {"all": Build(weights, "fp32", partial(fine_graph, model, weights))}
        sessions, self.report = open_sessions(model, "fine", (weights,), cache, builds, check)
        self.session = sessions["all"]

    def forward(self, codebook: int, codes: Tensor, first: int = 0) -> Tensor:
        model = self.model
        head = _float(model.lm_heads[codebook - model.config.n_codes_given].weight)
        positions = _float(model.position_embeds_layer.weight)[: codes.shape[1]]

        def run(row: Tensor) -> Tensor:
            tables = model.input_embeds_layers[: codebook + 1]
            embeds = sum((_rows(table, row[:, index]) for index, table in enumerate(tables)), positions)
            inputs = {"embeds": embeds[None], "first": np.array([first], np.int64), "head": head}
            return torch.from_numpy(self.session.run(["out"], inputs)[0])

        # a window alone keeps every core busy, and its activations stay near them
        return torch.stack([run(row) for row in codes])


def _float(tensor: Tensor) -> np.ndarray:
    """In fp32, as NumPy has no bf16; a view where it is that already."""
    return tensor.detach().float().numpy()


def _rows(table: nn.Embedding, places: Tensor) -> np.ndarray:
    """Rows of an embedding, float32. By NumPy: PyTorch's threads would wait for a core on which one of ONNX Runtime's still spins."""
    if table.weight.dtype != torch.float32:
        return _float(table.weight[places])
    return _float(table.weight)[places.numpy()]


def _value(array: np.ndarray) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def weights_key(model: nn.Module, *more: Any) -> str:
    """SHA-256 of the weights, by name, and of whatever else decides what the graph is."""
    total = hashlib.sha256(repr((GRAPH_VERSION, *more)).encode())
    for name, tensor in model.state_dict().items():
        total.update(f"{name} {tuple(tensor.shape)} ".encode())
        total.update(tensor.detach().float().contiguous().cpu().numpy().data)
    return total.hexdigest()[:32]


@dataclass(frozen=True)
class Build:
    """How a graph is made, and the precisions of its weights and of its keys and values."""

    weights: str
    cache: str
    make: Callable[[], Any]

    @property
    def bound(self) -> float:
        """Most that it may differ from PyTorch."""
        return max(BOUNDS[self.weights], BOUNDS[self.cache])


def open_sessions(
    model: Any,
    kind: str,
    precisions: Sequence[str],
    cache: Path,
    builds: Mapping[str, Build],
    check: Callable[[str, Any], tuple[float, float]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sessions of a model's graphs and how near they are to PyTorch; built and compared where the cache has none.

    Args:
        precisions: of the weights, and of the keys and values if there are any.
        builds: of each graph; that of a draft has no part in the report, as what is said does not depend on it.
        check: gives the largest difference of a graph's logits from PyTorch's, and that of all relative to the logits.

    Raises:
        ImportError: `onnx` or `onnxruntime` is not installed.
        FileNotFoundError: the graphs of a model loaded without its blocks have been removed.
        RuntimeError: a graph differs from PyTorch by more than `BOUNDS` allow.
    """
    _require_onnx()
    key = model.graph_key or weights_key(model, kind, *precisions, *builds, model.config.num_heads)
    folder = Path(cache) / key
    if (folder / "report.json").is_file():
        sessions = {name: _session(folder / f"{name}.onnx") for name in builds}
        return sessions, json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if model.graph_key:
        raise FileNotFoundError(f"{folder} is gone, and the model was loaded without the weights to build it anew")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix="building-"))
    try:
        title = f"{type(model).__name__} in {precisions[0]}" + (
            " with an int8 cache" if "int8" in precisions[1:] else ""
        )
        sessions, differences = {}, {}
        for name, build in builds.items():
            sessions[name] = _save(build.make, draft / f"{name}.onnx")
            differences[name] = _checked(check(name, sessions[name]), build.bound, title)
        differences.pop("draft", None)
        largest, relative = map(max, zip(*differences.values(), strict=True))
        logger.info("%s: largest logit difference from PyTorch %.3g, relative %.3g", title, largest, relative)
        report = {"key": key, "model": title, "largest_logit_difference": largest, "relative_difference": relative}
        (draft / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
        if not folder.exists():  # another process may have been faster
            draft.rename(folder)
        return sessions, report
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _save(make: Callable[[], Any], path: Path) -> Any:
    """Makes a graph into a file, its weights beside it, and opens it."""
    import onnx

    onnx.save_model(make(), str(path), save_as_external_data=True, location=f"{path.stem}.bin")
    return _session(path)


def _checked(differences: tuple[float, float], bound: float, title: str) -> tuple[float, float]:
    """The differences, when they are within the bound."""
    if not differences[1] <= bound:
        raise RuntimeError(
            f"the ONNX graph of {title} differs from PyTorch by {differences[1]:.3g} of its logits, allowed are {bound}"
        )
    return differences


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the engine 'onnxruntime' needs {error.name}: pip install 'transformers-bark[onnx]'"
        ) from None


@cache_result
def _share_threads() -> None:
    """Gives all sessions of the process the same threads: those of one would spin for a while after it and hold up the next."""
    import onnxruntime

    try:
        onnxruntime.set_global_thread_pool_sizes(torch.get_num_threads(), 1)
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:  # somebody in this process has said how many there are
        logger.debug("the threads that ONNX Runtime has already are used")


def _session(path: Path) -> Any:
    import onnxruntime

    _share_threads()
    options = onnxruntime.SessionOptions()
    options.use_per_session_threads = False
    # both hold what the longest prompt took, for nothing gained in time
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def _compare_causal(engine: OnnxCausal, reference: TorchCausal) -> tuple[float, float]:
    """A prompt and some tokens of two rows of different length."""
    config = engine.model.config
    generator = torch.Generator().manual_seed(0)
    sizes = [max(1, min(48, config.block_size - 4) - 7 * row) for row in range(2)]
    ids = torch.randint(0, config.output_vocab_size, (4, 2), generator=generator).clamp_max(config.input_vocab_size - 1)
    prompts = [torch.randint(0, config.input_vocab_size, (size,), generator=generator) for size in sizes]
    embeds = [engine.model.input_embeds_layer(prompt) for prompt in prompts]
    ours, theirs = engine.prefill(embeds, len(ids)), reference.prefill(embeds, len(ids))
    pairs = [(ours[0], theirs[0])]
    for tokens in ids:
        ours, theirs = engine.step(ours[1], tokens), reference.step(theirs[1], tokens)
        pairs.append((ours[0], theirs[0]))
    return _difference(pairs)


@torch.no_grad()
def _compare_fine(engine: OnnxFine, reference: TorchFine) -> tuple[float, float]:
    """A window of two rows, whole and from the middle on."""
    config = engine.model.config
    length = min(64, config.block_size)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, config.input_vocab_size, (2, length, config.n_codes_total), generator=generator)
    asked = [(config.n_codes_given, 0), (config.n_codes_total - 1, length // 2)]
    return _difference([(engine.forward(n, codes, first), reference.forward(n, codes, first)) for n, first in asked])


def _difference(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Largest difference, and root mean square of the difference over that of the second."""
    ours, theirs = (torch.cat([pair[side].float().flatten() for pair in pairs]) for side in (0, 1))
    relative = (ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt().clamp_min(1e-12)
    return float((ours - theirs).abs().max()), float(relative)
