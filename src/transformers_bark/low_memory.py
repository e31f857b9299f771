"""Loading a checkpoint that only speaks: the graphs of ONNX Runtime in place of the blocks' weights.

The blocks are nine tenths of a model. With graphs in the cache they need not be read at all: what stays in PyTorch are the
embeddings, the heads and the codec, and of those only what is looked up comes into memory, since safetensors maps its files.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModel
from transformers.utils import cached_file

from . import input_files, output_files
from .configuration_bark import BarkConfig
from .engines import EngineChoice
from .engines.kernels import WEIGHTS, exact_weights
from .engines.onnx_cache import GRAPH_VERSION, GraphError, read_report
from .generation_configuration_bark import BarkGenerationConfig

STACKS = ("semantic", "coarse_acoustics", "fine_acoustics")
_BLOCKS = re.compile(rf"^({'|'.join(STACKS)})\.layers\.")


def find_weights(source: str, **kwargs: Any) -> Path | None:
    """The one safetensors file of a checkpoint, if it has that."""
    found = cached_file(source, "model.safetensors", _raise_exceptions_for_missing_entries=False, **kwargs)
    return None if found is None else Path(found)


def load_whole(model_class: Any, source: str, **kwargs: Any) -> Any:
    """A model with all its weights; `kwargs` are those of `from_pretrained`.

    Raises:
        ValueError: the checkpoint lacks weights: it would make noise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of missing weights, which are an error here
        return model_class.from_pretrained(source, **kwargs).check_weights()


def load_with_engine(model_class: Any, source: str, device: Any, choice: EngineChoice, **kwargs: Any) -> Any:
    """`load_whole`, ready to speak on a device with an engine."""
    return load_whole(model_class, source, **kwargs).to(device).eval().use_engine(choice)


def load_without_blocks(
    model_class: Any,
    source: str | Path,
    *,
    choice: EngineChoice,
    revision: str = "main",
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Any:
    """A model that can speak, and cannot be trained or saved.

    Args:
        model_class: the composite model's class.
        source: folder or name on the Hub, with its weights in one safetensors file.
        choice: the engine, `onnxruntime` or `auto`; graphs are built first where they are missing, which takes the weights once.
            Where `auto` cannot use them, PyTorch takes their place, with all weights.
        revision, cache_dir, token, local_files_only: where the Hub's files lie, as in `from_pretrained`.

    Raises:
        ValueError: another engine, or a checkpoint without `model.safetensors`.
    """
    if choice.name not in ("onnxruntime", "auto"):
        raise ValueError(f"`keep_weights=False` needs the engine 'onnxruntime', got {choice.name!r}")
    source = str(source)
    hub = {"revision": revision, "cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    weights = find_weights(source, **hub)
    if weights is None:
        raise ValueError(f"`keep_weights=False` reads one file, and {source} has no model.safetensors")
    input_files.check_file(weights)
    try:
        keys = _graph_keys(model_class, source, weights, choice, **hub)
    except (GraphError, ImportError) as error:
        choice.leave_graphs(error)
        return model_class.from_pretrained(source, engine="torch", **hub).eval()
    choice = replace(choice, name="onnxruntime")
    model = skeleton(model_class, source, **hub)
    model.config._name_or_path = model.name_or_path = source  # files that it writes say which model made them
    missing, _ = model.load_state_dict(_outside_blocks(weights), strict=False, assign=True)
    model.fine_acoustics.tie_weights()
    expected = re.compile("|".join([_BLOCKS.pattern, r"\.lm_heads\.", *model_class._keys_to_ignore_on_load_missing]))
    lacking = [name for name in missing if not expected.search(name)]
    if lacking:
        raise ValueError(f"{weights} lacks {len(lacking)} weights, {lacking[0]} among them")
    model.use_engine(choice)
    for name, key in keys.items():
        getattr(model, name).graph_key = key
    return model.eval()


def _graph_keys(model_class: Any, source: str, weights: Path, choice: EngineChoice, **hub: Any) -> dict[str, str]:
    """The key of each transformer's graphs, which are all there: built where they are missing or damaged."""
    record = _record(weights, choice)
    try:
        keys = json.loads(record.read_text(encoding="utf-8"))
        if all(read_report(choice.cache / keys[name]) for name in STACKS):
            return keys
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or a damaged one
        pass
    reports = build_graphs(load_whole(model_class, source, dtype=torch.float32, **hub), choice, weights)
    gc.collect()
    return {name: report["key"] for name, report in zip(STACKS, reports, strict=True)}


def _record(weights: Path, choice: EngineChoice) -> Path:
    """Where it is noted which graphs belong to a file: by its place, size and time, as reading it whole would take long."""
    status = weights.stat()
    precisions = (choice.precision or "fp32", choice.cache_precision or "fp32")
    ways = tuple(map(exact_weights, WEIGHTS))
    facts = (GRAPH_VERSION, str(weights.resolve()), status.st_size, status.st_mtime_ns, *precisions, *ways)
    return choice.cache / "sources" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.json"


def build_graphs(model: Any, choice: EngineChoice, weights: Path | None) -> list[dict[str, Any]]:
    """Builds the graphs of a whole model that are missing, and notes which belong to the file of its weights.

    Returns:
        the report of each graph: `model`, `largest_logit_difference` and `relative_difference` from PyTorch, `key`.

    Raises:
        GraphError: a graph differs too much from PyTorch, or cannot be kept.
    """
    choice = replace(choice, name="onnxruntime")
    reports = {name: choice.make(getattr(model, name)).report for name in STACKS}
    if weights is not None:
        record = _record(weights, choice)
        content = json.dumps({name: report["key"] for name, report in reports.items()})
        with suppress(OSError):  # without it the weights are read once more
            output_files.write_text(record, content, make_folder=True)
    return list(reports.values())


def skeleton(model_class: Any, source: str, **kwargs: Any) -> Any:
    """The model without memory for its weights, but for the codec, whose buffers are made with it."""
    config = BarkConfig.from_pretrained(source, **kwargs)
    with torch.device("meta"):
        model = model_class(config)
    model.codec_model = AutoModel.from_config(config.codec_config, attn_implementation="eager")
    model.generation_config = BarkGenerationConfig.from_pretrained(source, **kwargs)
    return model


def _outside_blocks(weights: Path) -> dict[str, Tensor]:
    """Embeddings, heads, norms and codec, in single precision."""
    with safe_open(weights, "pt") as file:
        return {name: file.get_tensor(name).float() for name in file.keys() if not _BLOCKS.match(name)}  # noqa: SIM118
