"""What runs the transformers: PyTorch as it is or compiled, or ONNX Runtime on the CPU.

Every engine gives the stages what `transformers_bark.generation.engine` asks for, from the same weights.
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .torch_engine import TorchCausal, TorchFine

PRECISIONS = {
    "auto": ("fp32", "bf16", "int8", "int4"),
    "torch": ("fp32", "bf16"),
    "compiled": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8", "int4"),
}
"""Precisions of the weights that each engine has; `auto` is the fastest here that is exact enough."""

CACHE_PRECISIONS = {"auto": ("fp32", "int8"), "torch": (), "compiled": (), "onnxruntime": ("fp32", "int8")}
"""Precisions of keys and values that can be chosen; those of PyTorch's engines are those of the weights."""

ENGINES = tuple(PRECISIONS)
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
        from . import onnx_engine

        return Path(self.cache_dir or onnx_engine.CACHE)

    def for_device(self, device: torch.device) -> EngineChoice:
        """`auto` decided: ONNX Runtime on a CPU that has it, a compiled step in bf16 on CUDA, else PyTorch.

        Raises:
            ValueError: a precision that the engine decided on does not have.
        """
        if self.name != "auto":
            return self
        if device.type == "cuda" and importlib.util.find_spec("triton"):
            own = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else None
            return replace(self, name="compiled", precision=self.precision or own)
        has_onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
        if device.type == "cpu" and has_onnx and self.precision != "bf16":
            return replace(self, name="onnxruntime")
        return replace(self, name="torch")

    def make(self, model: Any) -> Any:
        """The engine of one of the three transformers.

        Raises:
            ValueError: `onnxruntime` for a model that is not on the CPU.
        """
        chosen, is_fine = self.for_device(model.device), hasattr(model, "lm_heads")
        if chosen.name != "onnxruntime":
            # weights that are not fp32 were chosen: `auto` leaves them
            model = _in_precision(model, chosen.precision if model.dtype == torch.float32 else self.precision)
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


__all__ = ["ENGINES", "PRECISIONS", "EngineChoice", "TorchCausal", "TorchFine", "engine_of"]
