"""Shared fixtures: fixed seeds, few threads, no network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_checkpoint, tiny_model
from transformers_bark import BarkModel
from transformers_bark.engines import onnx_cache

_LOCAL = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests must pass without a network: anything but this machine is refused at once."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in _LOCAL:
            raise OSError(f"tests have no network, got {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run keeps the graphs of ONNX Runtime, in place of the user's cache."""
    return tmp_path_factory.mktemp("hf_home")


@pytest.fixture(autouse=True)
def own_cache(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the user's cache alone, also in processes that a test starts."""
    monkeypatch.setattr(onnx_cache, "CACHE", graphs)
    monkeypatch.setenv("HF_HOME", str(graphs))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of odd sizes, its tokenizer and one voice; not to be changed."""
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def model() -> BarkModel:
    """A tiny model of odd sizes; not to be changed."""
    return tiny_model(seed=1)
