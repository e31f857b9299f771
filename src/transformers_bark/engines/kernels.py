"""Kernels with alternatives, of which none is best on every processor: what is chosen here is measured where it runs.

PyTorch's products of fp32 differ by time alone: the first calls of a shape take turns, and the fastest stays. ONNX Runtime's products
of whole numbers differ by what they give: they are tried once on numbers that show it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""value [..., input], weight [output, input] and bias [output] or None -> [..., output]."""

TRIALS = 3
"""Calls of each product before one is chosen; the fastest call of each counts."""


def _transposed(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The weights from the left: for few rows PyTorch then takes another kernel."""
    product = (weight @ value.reshape(-1, value.shape[-1]).T).T.contiguous()
    return (product if bias is None else product + bias).view(*value.shape[:-1], -1)


def _onednn(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product that `torch.compile` takes on a CPU. It is private, so that a release of PyTorch may lack it."""
    return torch.ops.mkldnn._linear_pointwise(value, weight, bias, "none", [], "")


def _products() -> dict[str, Product]:
    found: dict[str, Product] = {"plain": nn.functional.linear, "transposed": _transposed}
    if platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available():
        found["onednn"] = _onednn
    return found


class Fastest:
    """One function of several that give the same: the fastest for each shape and number of threads.

    The first calls of a shape take turns and are timed; nothing is computed for the measurement alone. One that raises where
    `plain` does not is left out for good.
    """

    def __init__(self, products: dict[str, Product]) -> None:
        self.products = products
        self.times: dict[tuple[int, ...], dict[str, list[float]]] = {}
        self.chosen: dict[tuple[int, ...], Product] = {}
        self.forced: str | None = None

    def __call__(self, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        n_rows = value.numel() // max(1, value.shape[-1])
        # rows in powers of two: what is fastest turns with their number, and slowly
        key = (n_rows.bit_length(), *weight.shape, torch.get_num_threads())
        if self.forced is None and key in self.chosen:
            return self.chosen[key](value, weight, bias)
        return self._try(key, value, weight, bias)

    def _try(self, key: tuple[int, ...], value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        times = self.times.setdefault(key, {name: [] for name in self.products})
        name = self.forced or min(times, key=lambda name: len(times[name]))
        started = time.perf_counter()
        try:
            product = self.products[name](value, weight, bias)
        except (AttributeError, NotImplementedError, RuntimeError):
            product = self.products["plain"](value, weight, bias)  # where the arguments are wrong, this raises as well
            self._leave_out(name)
            return product
        times[name].append(time.perf_counter() - started)
        if self.forced is None and all(len(taken) >= TRIALS for taken in times.values()):
            self.chosen[key] = self.products[min(times, key=lambda name: min(times[name]))]
        return product

    def _leave_out(self, name: str) -> None:
        if self.products.pop(name, None) is not None:
            for times in self.times.values():
                times.pop(name, None)

    @contextmanager
    def only(self, name: str) -> Iterator[None]:
        """Forces one of the products."""
        before, self.forced = self.forced, name
        try:
            yield
        finally:
            self.forced = before


linear_fp32 = Fastest(_products())
"""The product of a linear module on a CPU, without gradients."""


WEIGHTS = {"int8": ("int8", "uint8"), "int7": ("int8", "int7"), "int4": ("int4", "int4 by fp32")}
"""How ONNX Runtime can multiply weights of so many bits at least: the fastest first, the last is right on every processor.

Without VNNI two products of activations to 255 and weights to 127 are added in 16 bits, where the sum saturates. Unsigned weights are
widened first, which takes up to 1.4 times as long; with weights to 63 no sum saturates. Weights of four bits are multiplied with
activations in int8 by block, or in fp32.
"""


def exact_weights(precision: str) -> str:
    """The first of `WEIGHTS` whose products are right here; other precisions have no alternative."""
    ways = WEIGHTS.get(precision, (precision,))
    return next((way for way in ways[:-1] if _is_exact(way)), ways[-1])


@cache  # two precisions begin with the same way
def _is_exact(way: str) -> bool:
    """Whether the largest weights and activations give the right products."""
    from .onnx_session import open_session, require_onnx

    require_onnx()
    from .onnx_graph import product_graph

    weight = np.tile(np.where(np.arange(128) % 3 == 0, 7, -8).astype(np.float32), (32, 1))
    session = open_session(product_graph(way, weight).SerializeToString())
    for n_rows in (1, 2, 3, 64):  # the library has kernels of their own for few
        for value in (np.sign(weight[:1]), np.abs(weight[:1])):
            value = np.tile(value, (n_rows, 1))
            if not np.allclose(session.run(None, {"value": value})[0], value @ weight.T, rtol=0.02):
                return False
    return True
