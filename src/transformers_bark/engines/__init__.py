"""What runs the transformers: PyTorch as it is or compiled, or ONNX Runtime on the CPU.

Every engine gives the stages what `transformers_bark.generation.engine` asks for, from the same weights.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from .torch_engine import TorchCausal, TorchFine

ENGINES = ("auto", "torch", "compiled", "onnxruntime")
"""Names of the engines; `auto` is the fastest here that loses nothing."""

PRECISIONS = ("fp32", "int8", "int4")
CACHE_PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class EngineChoice:
    """Which engine runs a model.

    Args:
        name: one of `ENGINES`.
        precision: of the weights in `onnxruntime`: "fp32", "int8" or "int4".
        cache_dir: where graphs are kept; by default under `HF_HOME`.
        cache_precision: of the keys and values in `onnxruntime`: "fp32" or "int8".

    Raises:
        ValueError: an unknown name or precision, or a precision for `torch` or `compiled`, which have that of their weights.
    """

    name: str = "torch"
    precision: str | None = None
    cache_dir: str | Path | None = None
    cache_precision: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {self.name!r}")
        for option, known in (("precision", PRECISIONS), ("cache_precision", CACHE_PRECISIONS)):
            value = getattr(self, option)
            if value is not None and value not in known:
                raise ValueError(f"`{option}` must be one of {', '.join(known)}, got {value!r}")
            if value is not None and self.name in ("torch", "compiled"):
                raise ValueError(
                    f"the engine {self.name!r} runs in the dtype of its weights: `{option}` {value!r} goes with none"
                )

    @property
    def cache(self) -> Path:
        """Folder of the graphs."""
        from . import onnx_engine

        return Path(self.cache_dir or onnx_engine.CACHE)

    def for_device(self, device: torch.device) -> EngineChoice:
        """`auto` decided: ONNX Runtime in fp32 on a CPU that has it, else PyTorch."""
        if self.name != "auto":
            return self
        if device.type == "cpu" and all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
            return replace(self, name="onnxruntime")
        return EngineChoice("torch")

    def make(self, model: Any) -> Any:
        """The engine of one of the three transformers.

        Raises:
            ValueError: `onnxruntime` for a model that is not on the CPU.
        """
        chosen, is_fine = self.for_device(model.device), hasattr(model, "lm_heads")
        if chosen.name == "torch":
            return TorchFine(model) if is_fine else TorchCausal(model)
        if chosen.name == "compiled":
            from .compiled_engine import CompiledCausal, CompiledFine

            return CompiledFine(model) if is_fine else CompiledCausal(model)
        if model.device.type != "cpu":
            raise ValueError(f"the engine 'onnxruntime' runs on the CPU, the model is on {model.device}")
        from .onnx_engine import OnnxCausal, OnnxFine

        precision = chosen.precision or "fp32"
        if is_fine:
            return OnnxFine(model, precision, chosen.cache)
        with_head = model.base_model_prefix == "semantic"  # of the coarse head only a part is asked for
        return OnnxCausal(model, precision, with_head, chosen.cache, chosen.cache_precision or "fp32")


_MADE: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()
"""The engine of each model that has one, with what it was made from."""


def engine_of(model: Any, choice: EngineChoice) -> Any:
    """The engine of one of the three transformers: made once, and again when the weights have changed since."""
    weights = tuple((part.data_ptr(), 0 if part.is_inference() else part._version) for part in model.parameters())
    made = _MADE.get(model)
    if made is None or made[0] != (choice, weights):
        made = _MADE[model] = ((choice, weights), choice.make(model))
    return made[1]


__all__ = ["ENGINES", "PRECISIONS", "EngineChoice", "TorchCausal", "TorchFine", "engine_of"]
