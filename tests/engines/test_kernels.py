"""Kernels with alternatives give the same, the fastest stays, and what does not work here is left out."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.tiny import tiny_model
from transformers_bark.engines import TorchCausal, TorchFine, kernels, onnx_build
from transformers_bark.engines.kernels import Fastest
from transformers_bark.engines.onnx_engine import OnnxFine
from transformers_bark.engines.onnx_graph import product_graph
from transformers_bark.engines.onnx_session import open_session


@pytest.mark.parametrize("name", sorted(kernels.linear_fp32.products))
@pytest.mark.parametrize("shape", [(1, 1, 48), (3, 1, 48), (1, 70, 48), (48,)], ids=str)
@pytest.mark.parametrize("has_bias", [True, False])
@torch.no_grad()
def test_every_product_gives_what_the_module_gives(name: str, shape: tuple[int, ...], has_bias: bool) -> None:
    module = nn.Linear(48, 80, bias=has_bias)
    value = torch.randn(shape)
    with kernels.linear_fp32.only(name):
        assert torch.allclose(kernels.linear_fp32(value, module.weight, module.bias), module(value), atol=1e-5)


@pytest.mark.parametrize("name", sorted(kernels.linear_fp32.products))
@torch.no_grad()
def test_the_models_say_the_same_with_every_product(name: str) -> None:
    model = tiny_model()
    prompts = [torch.randint(0, 120, (length,)) for length in (4, 9)]
    with kernels.linear_fp32.only(name):
        engine = TorchCausal(model.semantic)
        _, state = engine.prefill([model.semantic.input_embeds_layer(prompt) for prompt in prompts], 1)
        logits, _ = engine.step(state, torch.tensor([3, 5]))
        codes = torch.randint(0, 32, (2, 12, 4))
        assert torch.allclose(
            TorchFine(model.fine_acoustics).forward(3, codes), model.fine_acoustics(3, codes).logits, atol=1e-4
        )
    for row, (prompt, token) in enumerate(zip(prompts, (3, 5), strict=True)):
        whole = torch.cat([prompt, torch.tensor([token])])[None]
        assert torch.allclose(logits[row], model.semantic(whole).logits[0, -1], atol=1e-4)


class Clock:
    """A clock that products wind forward by what they take."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def product(self, name: str, taken: Iterator[float]) -> kernels.Product:
        def multiply(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            self.calls.append(name)
            self.now += next(taken)
            return nn.functional.linear(value, weight, bias)

        return multiply


def test_the_fastest_of_each_shape_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    # the first call of `new` prepares it: the fastest call counts
    new = itertools.chain([90.0], itertools.repeat(1.0))
    linear = Fastest({"plain": clock.product("plain", itertools.repeat(2.0)), "new": clock.product("new", new)})
    weight, few, many = torch.randn(4, 6), torch.randn(1, 6), torch.randn(40, 6)
    for _ in range(2 * kernels.TRIALS):
        linear(few, weight, None)
    assert clock.calls == ["plain", "new"] * kernels.TRIALS, "no call is made for the measurement alone"
    clock.calls.clear()
    for _ in range(3):
        linear(few, weight, None)
    assert clock.calls == ["new"] * 3
    clock.calls.clear()
    linear(many, weight, None)
    monkeypatch.setattr("torch.get_num_threads", lambda: 99)
    linear(few, weight, None)
    assert clock.calls == ["plain", "plain"], "another shape and another number of threads are measured anew"


def test_a_product_that_is_gone_is_left_out() -> None:
    def gone(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise AttributeError("no such operator")

    linear = Fastest({"plain": nn.functional.linear, "gone": gone})
    weight, value = torch.randn(4, 6), torch.randn(3, 6)
    for _ in range(4):
        assert torch.equal(linear(value, weight, None), value @ weight.T)
    assert set(linear.products) == {"plain"}
    with pytest.raises(RuntimeError, match="shape"):  # wrong arguments are the caller's fault, not the product's
        linear(torch.randn(3, 5), weight, None)


@pytest.mark.parametrize("precision", sorted(kernels.WEIGHTS))
@pytest.mark.parametrize("n_rows", [1, 2, 5, 70])
def test_whole_numbers_are_multiplied_exactly_here(precision: str, n_rows: int) -> None:
    generator = np.random.default_rng(n_rows)
    # the largest numbers, all of one sign: where sums of 16 bits would saturate
    value = generator.choice([6.0, 7.0], (n_rows, 256)).astype(np.float32)
    weight = generator.choice([-8.0, 7.0], (48, 256), p=[0.9, 0.1]).astype(np.float32)
    session = open_session(product_graph(kernels.exact_weights(precision), weight).SerializeToString())
    assert np.allclose(session.run(None, {"value": value})[0], value @ weight.T, rtol=0.02)


def test_the_last_way_serves_where_the_others_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_is_exact", lambda way: False)
    assert {precision: kernels.exact_weights(precision) for precision in ("fp32", "int8", "int7", "int4")} == {
        "fp32": "fp32",
        "int8": "uint8",
        "int7": "int7",
        "int4": "int4 by fp32",
    }


@pytest.mark.parametrize(
    ("way", "bound"), [("int8", 0.02), ("uint8", 0.02), ("int7", 0.03), ("int4", 0.15), ("int4 by fp32", 0.15)]
)
def test_every_way_stays_near_where_it_is_exact(way: str, bound: float) -> None:
    if way == "int8" and kernels.exact_weights("int8") != "int8":
        pytest.skip("products with int8 weights saturate on this processor")
    weight, value = np.random.default_rng(0).standard_normal((2, 64, 96)).astype(np.float32)
    made = open_session(product_graph(way, weight).SerializeToString()).run(None, {"value": value})[0]
    exact = value @ weight.T
    assert 1e-4 < np.linalg.norm(made - exact) / np.linalg.norm(exact) < bound


def test_unlike_processors_share_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model().fine_acoustics
    for way, expected in (("uint8", 1), ("fp32", 2), ("uint8", 2)):  # "fp32" stands for another class of processor
        monkeypatch.setattr(onnx_build, "exact_weights", lambda precision, way=way: way)
        engine = OnnxFine(model, "int8", tmp_path)
        assert len(list(tmp_path.iterdir())) == expected, "each has its own graphs, and finds them again"
        codes = torch.randint(0, 32, (1, 12, 4), generator=torch.Generator().manual_seed(0))
        assert engine.forward(2, codes).isfinite().all()


_BESIDE = """
import sys
import onnxruntime
from tests.engines.test_kernels import kernels, np, product_graph
from transformers_bark.engines.onnx_session import open_session, share_threads

graph = product_graph(kernels.exact_weights("int8"), np.ones((8, 16), np.float32)).SerializeToString()
if sys.argv[1] == "shared":
    share_threads()
ours = open_session(graph)
theirs = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
value = {"value": np.ones((1, 16), np.float32)}
assert np.array_equal(ours.run(None, value)[0], theirs.run(None, value)[0])
"""


def test_others_open_sessions_beside_ours() -> None:
    """In a process that is not ours alone; where threads are shared, ONNX Runtime itself refuses them."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    for threads, status in (("own", 0), ("shared", 1)):
        command = [sys.executable, "-c", _BESIDE, threads]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
    assert "use_per_session_threads must be false" in done.stderr
