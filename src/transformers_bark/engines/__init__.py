"""What runs the transformers: PyTorch as it is or compiled, or ONNX Runtime on the CPU.

Every engine gives the stages what `transformers_bark.generation.engine` asks for, from the same weights.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from .torch_engine import TorchCausal, TorchFine

ENGINES = ("auto", "torch", "compiled", "onnxruntime")
"""Names of the engines; `auto` is the fastest here that loses nothing."""

PRECISIONS = ("fp32", "int8", "int4")


@dataclass(frozen=True)
class EngineChoice:
    """Which engine runs a model.

    Args:
        name: one of `ENGINES`.
        precision: of the weights in `onnxruntime`: "fp32", "int8" or "int4".
        cache_dir: where graphs are kept; by default under `HF_HOME`.

    Raises:
        ValueError: an unknown name or precision, or a precision for `torch` or `compiled`, which have that of their weights.
    """

    name: str = "torch"
    precision: str | None = None
    cache_dir: str | Path | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {self.name!r}")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.name in ("torch", "compiled") and self.precision is not None:
            raise ValueError(
                f"the engine {self.name!r} runs in the dtype of its weights: `precision` {self.precision!r} goes with none"
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
            return EngineChoice("onnxruntime", self.precision, self.cache_dir)
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
        return OnnxCausal(model, precision, model.base_model_prefix == "semantic", chosen.cache)


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
