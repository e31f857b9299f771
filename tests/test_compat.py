"""What `transformers_bark.compat` promises of the installed release, and that nothing else asks for a release."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, StaticCache

import transformers_bark
from tests.tiny import tiny_model
from transformers_bark import BarkConfig, BarkFineConfig, BarkSemanticConfig, compat
from transformers_bark.generation.cache import InPlaceCache

pytestmark = pytest.mark.compat
SOURCES = Path(transformers_bark.__file__).parent
LIBRARIES = "transformers|huggingface_hub|tokenizers|numpy|torch"
ASKS = re.compile(
    rf"\b({LIBRARIES})\.__version__|from ({LIBRARIES}) import .*__version__|version\.parse|_greater_or_equal"
    r"|importlib.*metadata|require_version"
)


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_no_other_module_asks_for_a_release(path: Path) -> None:
    if path.name == "compat.py":
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert not ASKS.search(line), f"{path.name}:{number} asks for a release: that belongs into compat.py"


@pytest.mark.parametrize(
    "line",
    [
        "if transformers.__version__ >= '5.24':",
        "from transformers import AutoModel, __version__",
        "from importlib import metadata",
        "if is_torch_greater_or_equal('2.6'):",
    ],
)
def test_the_ways_to_ask_for_a_release_are_seen(line: str) -> None:
    assert ASKS.search(line)


def test_every_entry_names_the_releases_it_serves() -> None:
    source = (SOURCES / "compat.py").read_text(encoding="utf-8")
    texts: dict[str, str] = {}
    body = ast.parse(source).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = [ast.get_docstring(part) or "" for part in ast.walk(node) if isinstance(part, ast.FunctionDef)]
            texts[node.name] = " ".join([ast.get_docstring(node) or "", *inner])
        elif isinstance(node, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            texts[ast.unparse(node.targets[0])] = str(after.value.value)
    for name in compat.__all__:
        assert re.search(r"\b5\.\d+", texts[name]), f"{name} does not say which releases it serves"


@pytest.mark.parametrize("name", compat.CACHE_NAMES)
def test_the_cache_goes_in_and_comes_out_under_its_names(name: str) -> None:
    model, ids = tiny_model().semantic, torch.arange(20)[None]
    whole = model(ids).logits
    cache = DynamicCache(config=model.config)
    first = model(ids[:, :12], use_cache=True, **{name: cache})
    assert first.past_key_values is cache and first[compat.CACHE_FIELD] is cache
    assert list(first) == ["logits", compat.CACHE_FIELD]
    second = model(ids[:, 12:], **{name: cache})
    assert torch.allclose(torch.cat([first.logits, second.logits], dim=1), whole, atol=1e-5)
    if hasattr(first, "cache"):
        assert first.cache is cache


def test_what_transformers_passes_is_never_unknown() -> None:
    model, ids = tiny_model().semantic, torch.arange(4)[None]
    wanted = model(ids).logits
    for name in compat.PASSED_BY_TRANSFORMERS:
        assert torch.equal(model(ids, **{name: torch.tensor(4)}).logits, wanted), name
    with pytest.raises(TypeError, match="cache_positions"):
        model(ids, cache_positions=None)


@pytest.mark.parametrize("kind", ["static", "in place"])
def test_every_kind_of_cache_is_filled_where_the_last_call_ended(kind: str) -> None:
    model, ids = tiny_model().semantic, torch.arange(20)[None]
    cache = StaticCache(config=model.config, max_cache_len=24) if kind == "static" else InPlaceCache(2, 24)
    parts = [model(ids[:, a:b], past_key_values=cache, use_cache=True).logits for a, b in ((0, 9), (9, 10), (10, 20))]
    assert torch.allclose(torch.cat(parts, dim=1), model(ids).logits, atol=1e-5)
    assert int(cache.get_seq_length()) == 20


def test_configs_are_equal_when_all_their_values_are() -> None:
    assert BarkSemanticConfig(num_layers=3) == BarkSemanticConfig(num_layers=3) != BarkSemanticConfig()
    part = {"fine_acoustics_config": {"num_layers": 3}}
    assert BarkConfig(**part) == BarkConfig(**part) != BarkConfig()
    assert BarkSemanticConfig().num_layers == 12, "the class's own defaults are there"


def test_a_saved_config_leaves_out_what_transformers_fills_in() -> None:
    saved = BarkConfig(semantic_config={"num_layers": 3}).to_diff_dict()
    part = saved["semantic_config"]
    assert (part["num_layers"], part["model_type"]) == (3, "semantic")
    assert not part.keys() & {"id2label", "return_dict", "chunk_size_feed_forward", "architectures"}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("num_layers", "3", TypeError),
        ("window_size", 0, ValueError),
        ("dropout", 1.5, ValueError),
        ("dropout", None, TypeError),
        ("bias", "no", TypeError),
        ("use_cache", 1, TypeError),
        ("initializer_range", "wide", TypeError),
    ],
)
def test_a_value_set_later_is_checked_too(name: str, value: object, error: type[Exception]) -> None:
    config = BarkFineConfig()
    with pytest.raises(error, match=repr(value)):
        setattr(config, name, value)
    with pytest.raises(error, match=repr(value)):
        BarkFineConfig(**{name: value})
