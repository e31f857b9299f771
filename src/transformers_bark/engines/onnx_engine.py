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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.constants import HF_HOME
from torch import Tensor, nn

from ..generation.engine import Span, tokens_of
from .torch_engine import TorchCausal, TorchFine

logger = logging.getLogger(__name__)

CACHE = Path(HF_HOME) / "transformers_bark" / "onnx"
"""Where graphs are kept unless another folder is named."""

GRAPH_VERSION = 1
"""Changes when the graphs do, so that old ones are not loaded."""

BOUNDS = {"fp32": 1e-4, "int8": 0.25, "int4": 0.6}
"""Most that a graph may differ from PyTorch: root mean square of the difference over that of the logits."""


@dataclass
class OnnxDecoding:
    """A batch being decoded: keys and values of each layer, [row, head, room, head_dim], and the tokens of each row."""

    memory: list[Any]
    lengths: np.ndarray
    binding: Any


class OnnxCausal:
    """`CausalEngine` in ONNX Runtime. Rows are padded on the right; each has its own length in the cache."""

    def __init__(self, model: Any, precision: str, with_head: bool, cache: Path = CACHE) -> None:
        from .onnx_graph import causal_graph

        self.model, self.with_head = model, with_head
        self.session: Any = None

        def check(session: Any) -> tuple[float, float]:
            self.session = session
            return _compare_causal(self, TorchCausal(model))

        kind = "causal" if with_head else "causal-without-head"
        build = partial(causal_graph, model, precision, with_head)
        self.session, self.report = open_session(model, kind, precision, cache, build, check)

    def prefill(self, embeds: Sequence[Tensor], room: int, span: Span = None) -> tuple[Tensor, OnnxDecoding]:
        lengths = np.array([len(row) for row in embeds], np.int32)
        places = self.model.position_embeds_layer.weight
        padded = torch.zeros(len(embeds), int(lengths.max()), embeds[0].shape[-1])
        for into, row in zip(padded, embeds, strict=True):
            into[: len(row)] = row.float() + places[: len(row)]
        config = self.model.config
        shape = (len(embeds), config.num_heads, int(lengths.max()) + room, config.hidden_size // config.num_heads)
        memory = [_value(np.zeros(shape, np.float32)) for _ in range(2 * config.num_layers)]
        state = OnnxDecoding(memory, lengths, self._bind(memory))
        return self._run(state, padded, lengths[:, None].astype(np.int64) - 1, span), state

    def step(self, state: OnnxDecoding, tokens: Tensor, span: Span = None) -> tuple[Tensor, OnnxDecoding]:
        places = torch.from_numpy(state.lengths.astype(np.int64))
        embeds = self.model.input_embeds_layer.weight[tokens] + self.model.position_embeds_layer.weight[places]
        state = OnnxDecoding(state.memory, state.lengths + np.int32(1), state.binding)
        return self._run(state, embeds[:, None].float(), np.zeros((len(tokens), 1), np.int64), span), state

    def keep_rows(self, state: OnnxDecoding, rows: Sequence[int]) -> OnnxDecoding:
        if list(rows) == list(range(len(state.lengths))):
            return state
        memory = [_value(value.numpy()[list(rows)]) for value in state.memory]
        return OnnxDecoding(memory, state.lengths[list(rows)], self._bind(memory))

    def _bind(self, memory: Sequence[Any]) -> Any:
        """A binding in which the cache is written where it is read."""
        binding = self.session.io_binding()
        binding.bind_output("out")
        for number, value in enumerate(memory):
            name = f"{'kv'[number % 2]}{number // 2}"
            binding.bind_ortvalue_input(f"past_{name}", value)
            binding.bind_ortvalue_output(f"present_{name}", value)
        return binding

    def _run(self, state: OnnxDecoding, embeds: Tensor, last: np.ndarray, span: Span) -> Tensor:
        binding = state.binding
        inputs = {  # a binding borrows their memory: they must live until it has run
            "embeds": np.ascontiguousarray(embeds.detach().numpy()),
            "cached": state.lengths - np.int32(1),
            "total": np.array(state.lengths.max(), np.int32),
            "last": last,
        }
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        self.session.run_with_iobinding(binding)
        out = torch.from_numpy(binding.get_outputs()[0].numpy().copy())  # the next step writes there
        if not self.with_head:
            return nn.functional.linear(out, self.model.lm_head.weight[tokens_of(span)].float())
        return out[:, tokens_of(span)]


class OnnxFine:
    """`FineEngine` in ONNX Runtime; embeddings and heads stay in PyTorch."""

    def __init__(self, model: Any, precision: str, cache: Path = CACHE) -> None:
        from .onnx_graph import fine_graph

        self.model = model
        self.session: Any = None

        def check(session: Any) -> tuple[float, float]:
            self.session = session
            return _compare_fine(self, TorchFine(model))

        build = partial(fine_graph, model, precision)
        self.session, self.report = open_session(model, "fine", precision, cache, build, check)

    def forward(self, codebook: int, codes: Tensor, first: int = 0) -> Tensor:
        embeds = self.model.embed(codebook, codes).float().detach().numpy()
        inputs = {"embeds": np.ascontiguousarray(embeds), "first": np.array([first], np.int64)}
        out = torch.from_numpy(self.session.run(["out"], inputs)[0])
        return self.model.lm_heads[codebook - self.model.config.n_codes_given](out)


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


def open_session(
    model: Any,
    kind: str,
    precision: str,
    cache: Path,
    build: Callable[[], Any],
    check: Callable[[Any], tuple[float, float]],
) -> tuple[Any, dict[str, Any]]:
    """The session of a graph and how near it is to PyTorch; built and compared where the cache has none.

    Args:
        check: gives the largest difference of a logit from PyTorch's, and that of all relative to the logits.

    Raises:
        ImportError: `onnx` or `onnxruntime` is not installed.
        FileNotFoundError: the graph of a model loaded without its blocks has been removed.
        RuntimeError: the graph differs from PyTorch by more than `BOUNDS` allow.
    """
    _require_onnx()
    key = model.graph_key or weights_key(model, kind, precision, model.config.num_heads)
    folder = Path(cache) / key
    if (folder / "report.json").is_file():
        return _session(folder / "model.onnx"), json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if model.graph_key:
        raise FileNotFoundError(f"{folder} is gone, and the model was loaded without the weights to build it anew")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix="building-"))
    try:
        import onnx

        onnx.save_model(build(), str(draft / "model.onnx"), save_as_external_data=True, location="weights.bin")
        session = _session(draft / "model.onnx")
        largest, relative = check(session)
        name = f"{type(model).__name__} in {precision}"
        if not relative <= BOUNDS[precision]:
            raise RuntimeError(
                f"the ONNX graph of {name} differs from PyTorch by {relative:.3g} of its logits, allowed are {BOUNDS[precision]}"
            )
        logger.info("%s: largest logit difference from PyTorch %.3g, relative %.3g", name, largest, relative)
        report = {"key": key, "model": name, "largest_logit_difference": largest, "relative_difference": relative}
        (draft / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
        if not folder.exists():  # another process may have been faster
            draft.rename(folder)
        return session, report
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the engine 'onnxruntime' needs {error.name}: pip install 'transformers-bark[onnx]'"
        ) from None


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
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
