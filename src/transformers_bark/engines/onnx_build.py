"""How ONNX graphs are made of a model: built from its weights, compared with PyTorch, and opened.

Needs the extra `onnx`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import onnx_cache
from .kernels import exact_weights
from .onnx_cache import GraphError
from .onnx_session import open_session, require_onnx
from .torch_engine import TorchCausal

logger = logging.getLogger(__name__)

BOUNDS = {"fp32": 1e-4, "int8": 0.25, "int7": 0.25, "int4": 0.6}
"""Most that a graph may differ from PyTorch: root mean square of the difference over that of the logits."""

Difference = tuple[float, float]
"""Of a graph's logits from PyTorch's: the largest, and that of all relative to the logits."""


@dataclass(frozen=True)
class Build:
    """How a graph is made.

    Args:
        weights, cache: precision of the weights, and of the keys and values.
        make: gives the graph, with weights as `kernels.exact_weights` says.
        is_spare: whether speech goes on without the graph, where it fails its check.
    """

    weights: str
    cache: str
    make: Callable[[str], Any]
    is_spare: bool = False

    @property
    def weights_as(self) -> str:
        """How the weights are multiplied on this processor."""
        return exact_weights(self.weights)

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
    check: Callable[[str, Any], Difference],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sessions of a model's graphs and how near they are to PyTorch; built and compared where the cache has none.

    Args:
        precisions: of the weights, and of the keys and values if there are any.
        builds: of each graph; a spare one has no part in the report, as what is said does not depend on it.
        check: compares a graph with PyTorch.

    Raises:
        ImportError: `onnx` or `onnxruntime` is not installed.
        FileNotFoundError: the graphs of a model loaded without its blocks have been removed.
        GraphError: a graph differs from PyTorch by more than `BOUNDS` allow, or cannot be kept.
    """
    require_onnx()
    ways = [(name, build.weights_as) for name, build in builds.items()]
    key = model.graph_key or onnx_cache.weights_key(model, kind, *precisions, *ways, model.config.num_heads)
    folder = Path(cache) / key
    report = onnx_cache.read_report(folder)
    if report is not None:
        found = [name for name in builds if f"{name}.onnx" in report["files"]]
        try:
            return {name: open_session(str(folder / f"{name}.onnx")) for name in found}, report
        except Exception as error:  # of the library's own kinds, which differ by what is damaged
            logger.warning("the ONNX graphs in %s do not open (%s): they are built anew", folder, error)
            (folder / onnx_cache.REPORT).unlink(missing_ok=True)
    if model.graph_key:
        raise FileNotFoundError(f"{folder} is gone, and the model was loaded without the weights to build it anew")
    title = f"{type(model).__name__} in {precisions[0]}" + (" with an int8 cache" if "int8" in precisions[1:] else "")
    with onnx_cache.new_folder(folder) as draft:
        sessions, report = _build(draft, title, builds, check)
        report = onnx_cache.write_report(draft, {"key": key, **report})
    return sessions, report


def _build(
    folder: Path, title: str, builds: Mapping[str, Build], check: Callable[[str, Any], Difference]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Makes, opens and checks all graphs: their sessions and the report."""
    sessions, differences = {}, []
    for name, build in builds.items():
        session = _save(build, folder / f"{name}.onnx")
        difference = check(name, session)
        if difference[1] <= build.bound:
            sessions[name] = session
            differences += [] if build.is_spare else [difference]
            continue
        message = (
            f"the ONNX graph of {title} differs from PyTorch by {difference[1]:.3g} of its logits, allowed are "
            f"{build.bound}"
        )
        if not build.is_spare:
            raise GraphError(f"{message}: use precision 'fp32', or the engine 'torch'")
        logger.warning("%s: the graph %r is left out, which speaks as before and takes longer", message, name)
        for file in (f"{name}.onnx", f"{name}.bin"):
            (folder / file).unlink(missing_ok=True)
    largest, relative = map(max, zip(*differences, strict=True))
    logger.info("%s: largest logit difference from PyTorch %.3g, relative %.3g", title, largest, relative)
    return sessions, {"model": title, "largest_logit_difference": largest, "relative_difference": relative}


def _save(build: Build, path: Path) -> Any:
    """Makes a graph into a file, its weights beside it, and opens it."""
    import onnx

    graph = build.make(build.weights_as)
    onnx.save_model(graph, str(path), save_as_external_data=True, location=f"{path.stem}.bin")
    return open_session(str(path))


@torch.no_grad()
def compare_causal(engine: Any, reference: TorchCausal) -> Difference:
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
def compare_fine(engine: Any, reference: Any) -> Difference:
    """A window of two rows, whole and from the middle on."""
    config = engine.model.config
    length = min(64, config.block_size)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, config.input_vocab_size, (2, length, config.n_codes_total), generator=generator)
    asked = [(config.n_codes_given, 0), (config.n_codes_total - 1, length // 2)]
    return _difference([(engine.forward(n, codes, first), reference.forward(n, codes, first)) for n, first in asked])


def _difference(pairs: Sequence[tuple[Tensor, Tensor]]) -> Difference:
    """Largest difference, and root mean square of the difference over that of the second."""
    ours, theirs = (torch.cat([pair[side].float().flatten() for pair in pairs]) for side in (0, 1))
    relative = (ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt().clamp_min(1e-12)
    return float((ours - theirs).abs().max()), float(relative)


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
