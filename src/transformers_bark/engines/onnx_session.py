"""How ONNX Runtime is opened: threads that do not hold up each other, and memory that follows what is read."""

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


_is_shared = False


def share_threads() -> None:
    """All graphs opened from now on share the threads of the process: 5 to 10 % faster.

    For a process that is ours alone: ONNX Runtime then refuses every session that asks for threads of its own, as those of others do.
    """
    global _is_shared
    _is_shared = True


@cache
def _make_pool() -> None:
    import onnxruntime

    try:
        onnxruntime.set_global_thread_pool_sizes(torch.get_num_threads(), 1)
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:  # somebody in this process has said how many there are
        logger.debug("the threads that ONNX Runtime has already are used")


def open_session(graph: str | bytes) -> Any:
    """A session on the CPU, of a graph's path or of its bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if _is_shared:
        _make_pool()
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = torch.get_num_threads()
        # threads of one graph would spin for a while after it, and hold up the next
        options.add_session_config_entry("session.force_spinning_stop", "1")
    # both hold what the longest prompt took, for nothing gained in time
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
