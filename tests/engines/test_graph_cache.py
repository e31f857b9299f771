"""Graphs on disk: whole or built anew; where they cannot be used `auto` speaks all the same, and a name gets a reason."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_checkpoint, tiny_model
from transformers_bark import BarkModel, BarkProcessor
from transformers_bark.engines import EngineChoice, TorchCausal, TorchFine, choice, onnx_build, onnx_cache, onnx_engine
from transformers_bark.engines.onnx_cache import GraphError
from transformers_bark.engines.onnx_engine import OnnxCausal, OnnxFine


def damage_weights(folder: Path) -> None:
    (folder / "all.bin").write_bytes((folder / "all.bin").read_bytes()[:-100])


def damage_graph(folder: Path) -> None:
    (folder / "all.onnx").write_bytes(b"\xff" * (folder / "all.onnx").stat().st_size)


def damage_report(folder: Path) -> None:
    (folder / "report.json").write_text("{")


def lose_a_file(folder: Path) -> None:
    (folder / "all.bin").unlink()


@pytest.mark.parametrize("damage", [damage_weights, damage_graph, damage_report, lose_a_file])
def test_damaged_graphs_are_built_anew(damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model().fine_acoustics
    codes = torch.randint(0, 32, (1, 12, 4))
    before = OnnxFine(model, "fp32", tmp_path).forward(2, codes)
    (folder,) = tmp_path.iterdir()
    damage(folder)
    assert torch.equal(OnnxFine(model, "fp32", tmp_path).forward(2, codes), before)
    assert [record.getMessage() for record in caplog.records if "built anew" in record.getMessage()] != []
    assert folder.stat().st_mode & 0o055 == ~get_umask() & 0o055, "others may share the cache"
    caplog.clear()
    OnnxFine(model, "fp32", tmp_path)
    assert not caplog.records and [folder] == list(tmp_path.iterdir())


def test_a_damaged_graph_of_a_model_without_blocks_is_built_anew(tmp_path: Path) -> None:
    folder, cache = tiny_checkpoint(tmp_path), tmp_path / "graphs"
    whole = EngineChoice("onnxruntime", cache_dir=cache)
    from transformers_bark.low_memory import load_without_blocks

    load_without_blocks(BarkModel, folder, choice=whole)
    for file in cache.glob("*/all.bin"):
        file.write_bytes(b"")
    inputs = BarkProcessor.from_pretrained(folder)("hello my dog")
    lean = load_without_blocks(BarkModel, folder, choice=whole)
    plain = BarkModel.from_pretrained(folder).eval()
    assert torch.allclose(lean.generate(**inputs, seed=1), plain.generate(**inputs, seed=1), atol=1e-5)


def get_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "cache"


def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def no_room(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnx.save_model", no_room)
    return tmp_path / "cache"


def differing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(onnx_build.BOUNDS, "fp32", 1e-12)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (unwritable, r"ONNX graphs cannot be kept in .*cache \(Not a directory\): name another `cache_dir`"),
        (full, r"ONNX graphs cannot be kept in .*cache \(No space left on device\)"),
        (differing, r"differs from PyTorch by .*, allowed are 1e-12: use precision 'fp32', or the engine 'torch'"),
    ],
)
def test_auto_speaks_where_graphs_cannot_be_used(
    trouble: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = trouble(tmp_path, monkeypatch)
    choice.warn_once.cache_clear()
    model = tiny_model()
    with caplog.at_level(logging.WARNING):
        engines = [
            EngineChoice("auto", cache_dir=cache).make(part)
            for part in (model.semantic, model.semantic, model.fine_acoustics)
        ]
    assert [type(engine) for engine in engines] == [TorchCausal, TorchCausal, TorchFine]
    said = [record.getMessage() for record in caplog.records]
    assert all(line.startswith("PyTorch speaks in place of ONNX Runtime: ") for line in said)
    assert len(said) == len(set(said)) and "\n" not in "".join(said)
    for named in (EngineChoice("onnxruntime", cache_dir=cache), EngineChoice("auto", "fp32", cache)):
        with pytest.raises(GraphError, match=reason):
            named.make(model.semantic)
    assert not cache.exists() or not list(cache.iterdir())


def test_auto_without_weights_speaks_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_cache, "CACHE", tmp_path / "graphs")  # graphs of other tests pass their check
    folder = tiny_checkpoint(tmp_path)
    inputs = BarkProcessor.from_pretrained(folder)("hello my dog")
    plain = BarkModel.from_pretrained(folder).eval().generate(**inputs, seed=1)
    monkeypatch.setitem(onnx_build.BOUNDS, "fp32", 1e-12)
    model = BarkModel.from_pretrained(folder, engine="auto", keep_weights=False)
    assert isinstance(model.semantic.engine, TorchCausal)
    assert torch.equal(model.generate(**inputs, seed=1), plain)
    with pytest.raises(GraphError, match="differs from PyTorch"):
        BarkModel.from_pretrained(folder, engine="onnxruntime", keep_weights=False)


def test_a_draft_that_differs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnx_engine, "DRAFTED_WEIGHTS", 0)
    monkeypatch.setitem(onnx_build.BOUNDS, "int8", 1e-12)
    monkeypatch.setitem(onnx_build.BOUNDS, "fp32", 1e-4)
    model = tiny_model().semantic

    class Loose(onnx_build.Build):
        """The draft's bound is that of its weights alone."""

        @property
        def bound(self) -> float:
            return onnx_build.BOUNDS[self.weights]

    monkeypatch.setattr(onnx_engine, "Build", Loose)
    for line in ("the graph 'draft' is left out", None):  # said when it is built, and remembered
        caplog.clear()
        engine = OnnxCausal(model, "fp32", True, tmp_path)
        assert set(engine.sessions) == {"all"}
        assert [record for record in caplog.records if line and line in record.getMessage()] or line is None
    (report,) = tmp_path.glob("*/report.json")
    assert set(json.loads(report.read_text())["files"]) == {"all.onnx", "all.bin"}
