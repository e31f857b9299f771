"""The checks of a GPU, on one where there is one; and on the CPU, so that they are known to work and to find faults."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.gpu import run
from tests.gpu.checks import CHECKS
from transformers_bark.engines.compiled_engine import CompiledCausal

ON_CPU = [name for name in CHECKS if not name.endswith("[auto]") and "[auto-" not in name]
"""On a CPU "auto" would be one of the others."""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
@pytest.mark.parametrize("name", CHECKS)
def test_on_cuda(name: str) -> None:
    CHECKS[name]("cuda")


@pytest.mark.parametrize("name", ON_CPU)
def test_the_checks_hold_on_the_cpu(name: str) -> None:
    CHECKS[name]("cpu")


def test_a_graph_that_reads_an_old_token_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain runner tells which checks fail, and goes on."""
    step = CompiledCausal.step

    def late(self: Any, state: Any, tokens: torch.Tensor, *others: Any) -> Any:
        return step(self, state, tokens.roll(1) if len(tokens) > 1 else tokens.clamp_min(1), *others)

    monkeypatch.setattr(CompiledCausal, "step", late)
    results: list[dict] = []
    checks = {name: CHECKS[name] for name in ("logits_are_those_of_the_cpu[compiled-fp32]", "draws_are_the_rows_own")}
    assert not run.run(checks, "cpu", results.append)
    assert [result["passed"] for result in results] == [False, True]
    assert "AssertionError: step" in results[0]["error"]
