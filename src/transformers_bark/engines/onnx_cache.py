"""Where ONNX graphs are kept: a folder each, named by what decides its content, so that unlike machines may share one cache."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME
from torch import nn

logger = logging.getLogger(__name__)

CACHE = Path(HF_HOME) / "transformers_bark" / "onnx"
"""Where graphs are kept unless another folder is named."""

GRAPH_VERSION = 7
"""Changes when the graphs do, so that old ones are not loaded."""

REPORT = "report.json"


class GraphError(RuntimeError):
    """A graph cannot be kept, or differs too much from PyTorch: another engine can still run the model."""


def weights_key(model: nn.Module, *more: Any) -> str:
    """SHA-256 of the weights, by name, and of whatever else decides what the graph is."""
    total = hashlib.sha256(repr((GRAPH_VERSION, *more)).encode())
    for name, tensor in model.state_dict().items():
        total.update(f"{name} {tuple(tensor.shape)} ".encode())
        total.update(tensor.detach().float().contiguous().cpu().numpy().data)
    return total.hexdigest()[:32]


def read_report(folder: Path) -> dict[str, Any] | None:
    """What was noted of a folder's graphs when they were made; None where they are missing or not whole."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in report["files"].items())
    except (FileNotFoundError, NotADirectoryError):
        whole = False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("the ONNX graphs in %s cannot be read (%s): they are built anew", folder, error)
        return None
    if not whole and folder.exists():
        logger.warning("the ONNX graphs in %s are not whole: they are built anew", folder)
    return report if whole else None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write graphs into, which becomes `folder` when all went well and is removed when not.

    Raises:
        GraphError: it cannot be written; the message says where and why.
    """
    draft = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = _make_folder(folder.parent, "building")
        yield draft
        if read_report(folder) is None:  # else another process was faster
            _remove(folder)
            draft.rename(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise GraphError(
            f"ONNX graphs cannot be kept in {folder.parent} ({reason}): name another `cache_dir`"
        ) from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def _make_folder(parent: Path, name: str) -> Path:
    """A new folder. Not by `tempfile`, whose folders are for their owner alone: a cache may be shared."""
    folder = parent / f"{name}-{secrets.token_hex(8)}"
    folder.mkdir()
    return folder


def _remove(folder: Path) -> None:
    """Moves a damaged folder away before it is removed: another process may be looking at it."""
    if folder.exists():
        away = _make_folder(folder.parent, "damaged")
        folder.rename(away / folder.name)
        shutil.rmtree(away, ignore_errors=True)


def write_report(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Notes the report of the graphs that were written into a folder, and the size of each file."""
    report = {**report, "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir())}}
    (folder / REPORT).write_text(json.dumps(report, indent=2), encoding="utf-8")
    return report
