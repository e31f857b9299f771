"""Which engine runs a model: what can be chosen, what `auto` decides, and the engine that is made of it."""

from __future__ import annotations

import copy
import importlib.util
import logging
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from . import onnx_cache
from .names import CACHE_PRECISIONS, ENGINES, PRECISIONS
from .torch_engine import TorchCausal, TorchFine

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class EngineChoice:
    """Which engine runs a model.

    Args:
        name: one of `ENGINES`.
        precision: of the weights: "fp32", "int8" or "int4" in `onnxruntime`, "fp32" or "bf16" in `torch` and `compiled`, which
            have that of the model's weights by default.
        cache_dir: where graphs are kept; by default under `HF_HOME`.
        cache_precision: of the keys and values in `onnxruntime`: "fp32" or "int8".

    Raises:
        ValueError: an unknown name or precision, or one that the engine does not have.
    """

    name: str = "torch"
    precision: str | None = None
    cache_dir: str | Path | None = None
    cache_precision: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {self.name!r}")
        for option, known in (("precision", PRECISIONS[self.name]), ("cache_precision", CACHE_PRECISIONS[self.name])):
            value = getattr(self, option)
            if value is not None and value not in known:
                expected = f"must be one of {', '.join(known)}" if known else "is that of the weights"
                raise ValueError(f"`{option}` of the engine {self.name!r} {expected}, got {value!r}")

    @property
    def cache(self) -> Path:
        """Folder of the graphs."""
        return Path(self.cache_dir or onnx_cache.CACHE)

    def leave_graphs(self, error: Exception) -> None:
        """Says that PyTorch takes the place of graphs that cannot be used.

        Raises:
            the error: somebody has asked for them by name, or for a precision that only they have.
        """
        if self.name != "auto" or self.precision or self.cache_precision:
            raise error
        warn_once(f"PyTorch speaks in place of ONNX Runtime: {error}")

    def for_device(self, device: torch.device) -> EngineChoice:
        """`auto` decided: ONNX Runtime on a CPU that has it, a recorded step in bf16 on CUDA, else PyTorch.

        Raises:
            ValueError: a precision that the engine decided on does not have.
        """
        if self.name != "auto":
            return self
        if device.type == "cuda":
            own = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else None
            return replace(self, name="compiled", precision=self.precision or own)
        has_onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
        if device.type == "cpu" and has_onnx and self.precision != "bf16":
            return replace(self, name="onnxruntime")
        return replace(self, name="torch")

    def make(self, model: Any) -> Any:
        """The engine of one of the three transformers.

        Where `auto` is left to choose the precision too, PyTorch takes the place of graphs that cannot be used, with a warning.

        Raises:
            ValueError: `onnxruntime` for a model that is not on the CPU.
            GraphError: a graph that differs too much from PyTorch or cannot be kept.
            ImportError: `onnxruntime` without its packages.
        """
        chosen = self.for_device(model.device)
        if chosen.name != "onnxruntime":
            # weights that are not fp32 were chosen: `auto` leaves them
            model = _in_precision(model, chosen.precision if model.dtype == torch.float32 else self.precision)
            return _in_pytorch(model, chosen.name)
        if model.device.type != "cpu":
            raise ValueError(f"the engine 'onnxruntime' runs on the CPU, the model is on {model.device}")
        try:
            return _in_onnxruntime(model, chosen)
        except (onnx_cache.GraphError, ImportError) as error:
            self.leave_graphs(error)
            return _in_pytorch(model, "torch")


def _in_pytorch(model: Any, name: str) -> Any:
    """An engine of PyTorch: "torch" or "compiled"."""
    if name == "torch":
        return TorchFine(model) if _is_fine(model) else TorchCausal(model)
    from .compiled_engine import CompiledCausal, CompiledFine

    return CompiledFine(model) if _is_fine(model) else CompiledCausal(model)


def _in_onnxruntime(model: Any, choice: EngineChoice) -> Any:
    from .onnx_engine import OnnxCausal, OnnxFine

    precision = choice.precision or "fp32"
    if _is_fine(model):
        return OnnxFine(model, precision, choice.cache)
    with_head = model.base_model_prefix == "semantic"  # of the coarse head only a part is asked for
    return OnnxCausal(model, precision, with_head, choice.cache, choice.cache_precision or "fp32")


def _is_fine(model: Any) -> bool:
    return hasattr(model, "lm_heads")


@cache
def warn_once(message: str) -> None:
    """Says something one time in a process."""
    logger.warning("%s", message)


def _in_precision(model: Any, precision: str | None) -> Any:
    """The model itself, or a copy where its weights have another precision."""
    dtype = _DTYPES.get(precision or "", model.dtype)
    return model if dtype == model.dtype else copy.deepcopy(model).to(dtype)


def engine_of(model: Any, choice: EngineChoice) -> Any:
    """The engine of one of the three transformers: made once, and again when the weights have changed since."""
    weights = tuple((part.data_ptr(), 0 if part.is_inference() else part._version) for part in model.parameters())
    if model.made_engine is None or model.made_engine[0] != (choice, weights):
        model.made_engine = ((choice, weights), choice.make(model))
    return model.made_engine[1]
