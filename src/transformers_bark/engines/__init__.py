"""What runs the transformers: PyTorch as it is or compiled, or ONNX Runtime on the CPU.

Every engine gives the stages what `transformers_bark.generation.engine` asks for, from the same weights.
"""

from typing import TYPE_CHECKING, Any

from .names import CACHE_PRECISIONS, ENGINES, PRECISIONS

if TYPE_CHECKING:
    from .choice import EngineChoice, engine_of
    from .torch_engine import TorchCausal, TorchFine

_MODULES = {"EngineChoice": "choice", "engine_of": "choice", "TorchCausal": "torch_engine", "TorchFine": "torch_engine"}
"""Names that need torch: imported when they are asked for."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f".{_MODULES[name]}", __name__), name)


__all__ = ["CACHE_PRECISIONS", "ENGINES", "PRECISIONS", "EngineChoice", "TorchCausal", "TorchFine", "engine_of"]
