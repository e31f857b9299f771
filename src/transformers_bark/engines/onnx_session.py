"""How ONNX Runtime is opened: one pool of threads for all graphs of the process, and memory that follows what is read."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch

logger = logging.getLogger(__name__)


def require_onnx() -> None:
    """Raises an `ImportError` that says what to install, where a package of the extra `onnx` is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the engine 'onnxruntime' needs {error.name}: pip install 'transformers-bark[onnx]'"
        ) from None


@cache
def _share_threads() -> None:
    """Gives all sessions of the process the same threads: those of one would spin for a while after it and hold up the next."""
    import onnxruntime

    try:
        onnxruntime.set_global_thread_pool_sizes(torch.get_num_threads(), 1)
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:  # somebody in this process has said how many there are
        logger.debug("the threads that ONNX Runtime has already are used")


def open_session(graph: str | bytes) -> Any:
    """A session on the CPU, of a graph's path or of its bytes."""
    import onnxruntime

    _share_threads()
    options = onnxruntime.SessionOptions()
    options.use_per_session_threads = False
    # both hold what the longest prompt took, for nothing gained in time
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
