"""What can be chosen: engines, and the precisions that each has. Known without torch, for a command's help text."""

from __future__ import annotations

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
