"""What runs the transformers: PyTorch as it is or compiled, or ONNX Runtime on the CPU.

Every engine gives the stages what `transformers_bark.generation.engine` asks for, from the same weights.
"""

from .choice import CACHE_PRECISIONS, ENGINES, PRECISIONS, EngineChoice, engine_of
from .torch_engine import TorchCausal, TorchFine

__all__ = ["CACHE_PRECISIONS", "ENGINES", "PRECISIONS", "EngineChoice", "TorchCausal", "TorchFine", "engine_of"]
