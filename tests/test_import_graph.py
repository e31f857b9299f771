"""Imports point down: applications -> models -> generation -> vocabulary and configs; oracles are for tests only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "transformers_bark"
LAYERS: dict[str, float] = {
    "compat": 0,
    "vocabulary": 0,
    "input_files": 0,
    "output_files": 0,
    "audio_streams": 2,
    "configuration_bark": 1,
    "generation_configuration_bark": 2,
    "modeling_layers": 2,
    "audio_files": 1,
    "unknown_text": 0,
    "codec": 2,
    "hub": 2,
    "voices": 3,
    "generation": 4,
    "engines": 4.5,
    "modeling_base": 5,
    "low_memory": 5,
    "modeling_bark": 6,
    "processing_bark": 6,
    "narration": 6.5,
    "batch": 6.8,
    "detection": 6.5,
    "pipeline_bark": 7,
    "registration": 8,
    "import_hook": 8.5,
    "serving": 8.2,
    "studio": 8.4,
    "suno": 7,
    "training": 7,
    "cli": 9,
    "__main__": 10,
    "__init__": 10,
}


def imports(path: Path) -> Iterator[str]:
    """Absolute dotted names that a module imports."""
    package = ["transformers_bark", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer(name: str) -> float | None:
    parts = name.split(".")
    return LAYERS.get(parts[1]) if len(parts) > 1 and parts[0] == "transformers_bark" else None


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    top = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert top in LAYERS, f"{top} has no layer"
    for name in imports(path):
        assert not name.startswith("transformers.models.bark") and name.split(".")[0] != "bark", name
        other = layer(name)
        same = name.split(".")[1:2] == [top]
        assert other is None or same or other < LAYERS[top], f"{path.name} imports {name}, which is not below it"


def test_generation_never_imports_the_models() -> None:
    for path in (ROOT / "generation").glob("*.py"):
        assert not any("modeling" in name for name in imports(path)), path
