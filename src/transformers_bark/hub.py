"""What a folder on the Hub carries besides weights: a model card, and files for `trust_remote_code`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from . import output_files

LANGUAGES = ("de", "en", "es", "fr", "hi", "it", "ja", "ko", "pl", "pt", "ru", "tr", "zh")
"""Languages of the released models."""

_CARD = """---
{metadata}
---

# Bark

A Bark text-to-audio model: text to semantic tokens, to coarse and fine EnCodec codes, to {sample_rate} Hz audio.

```python
import transformers_bark
from transformers import pipeline

synthesiser = pipeline("text-to-speech", "{name}")
speech = synthesiser("Hello, my dog is cooler than you!", forward_params={{"do_sample": True}})
```

Install the package with `pip install transformers-bark`.
"""

_REMOTE_CODE = '''"""Finds the classes of this model in the installed package `transformers-bark`."""

try:
    from transformers_bark import {names}
except ImportError as error:
    raise ImportError("this model runs on the package transformers-bark: pip install transformers-bark") from error

__all__ = [{quoted}]
'''

_AUTO_FILES = {
    "configuration_bark_auto.py": ["BarkConfig"],
    "modeling_bark_auto.py": ["BarkModel"],
    "processing_bark_auto.py": ["BarkProcessor"],
}
_PROCESSOR_MAP = {"AutoProcessor": "processing_bark_auto.BarkProcessor"}
AUTO_MAP = {
    "AutoConfig": "configuration_bark_auto.BarkConfig",
    "AutoModel": "modeling_bark_auto.BarkModel",
    "AutoModelForTextToWaveform": "modeling_bark_auto.BarkModel",
    **_PROCESSOR_MAP,
}
"""Auto classes to classes of the files that `write_auto_map` writes."""

_AUTO_CONFIGS = {
    "config.json": AUTO_MAP,
    "processor_config.json": _PROCESSOR_MAP,
    "tokenizer_config.json": _PROCESSOR_MAP,
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_model_card(
    folder: str | Path,
    sample_rate: int,
    languages: Sequence[str] = LANGUAGES,
    license: str = "mit",
    base_model: str | None = "suno/bark",
    body: str | None = None,
    name: str | None = None,
    **metadata: Any,
) -> Path:
    """Writes `README.md` with the Hub's front matter, unless the folder has one that says more than the generic card does.

    Args:
        body: text after the front matter, in place of the usual one.
        name: what users load the model by; by default the folder's name.
        metadata: more fields of `huggingface_hub.ModelCardData`.
    """
    path = Path(folder) / "README.md"
    if path.exists() and not _is_generic(path):
        return path
    data = ModelCardData(
        language=list(languages),
        license=license,
        library_name="transformers",
        pipeline_tag="text-to-speech",
        tags=["bark", "audio", "text-to-speech", "text-to-audio"],
        base_model=base_model,
        **metadata,
    )
    if body is None:
        content = _CARD.format(metadata=data.to_yaml(), sample_rate=sample_rate, name=name or Path(folder).name)
    else:
        content = f"---\n{data.to_yaml()}\n---\n\n{body}"
    output_files.write_text(path, str(ModelCard(content)))
    return path


def _is_generic(path: Path) -> bool:
    """Whether a card is the one that Transformers makes up when it uploads a folder."""
    text = path.read_text(encoding="utf-8")
    return "has been automatically generated" in text and "pipeline_tag" not in text


def inherited_metadata(source: str) -> dict[str, Any]:
    """What the card of a model tells of the model that it was made from.

    Args:
        source: name on the Hub or folder that the model was loaded from; may be empty.

    Returns:
        Arguments of `write_model_card`: languages, licence and base model of the folder's card, or the Hub's name as base model.
    """
    card = Path(source) / "README.md"
    if source and card.is_file() and not _is_generic(card):
        data = ModelCard.load(card, ignore_metadata_errors=True).data
        found = {"languages": data.language, "license": data.license}
        return {**{key: value for key, value in found.items() if value}, "base_model": data.base_model}
    if _HUB_ID.fullmatch(source) and not Path(source).exists():
        return {"base_model": source}
    return {}


@contextmanager
def auto_map_in(config: Any, wanted: bool) -> Iterator[None]:
    """Lets a config that is saved meanwhile name the classes of `write_auto_map`, if `wanted`."""
    before = getattr(config, "auto_map", None)
    if wanted:
        config.auto_map = {**(before or {}), **AUTO_MAP}
    try:
        yield
    finally:
        if wanted and before is None:
            del config.auto_map
        elif wanted:
            config.auto_map = before


def finish_model_folder(folder: str | Path, source: str, sample_rate: int, name: str | None = None) -> None:
    """Adds what a saved model lacks: a card, and the files that an `auto_map` of ours in its config asks for.

    Args:
        source: name on the Hub or folder that the model was loaded from; may be empty.
        name: what users load the model by; by default the folder's name.
    """
    write_model_card(folder, sample_rate, name=name, **inherited_metadata(source))
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if config.get("auto_map", {}).get("AutoModel") == AUTO_MAP["AutoModel"]:
        write_auto_map(folder)


def write_auto_map(folder: str | Path) -> None:
    """Writes the files that `trust_remote_code=True` follows to the installed package, and names them in the configs."""
    folder = Path(folder)
    for file, names in _AUTO_FILES.items():
        quoted = ", ".join(f'"{name}"' for name in names)
        output_files.write_text(folder / file, _REMOTE_CODE.format(names=", ".join(names), quoted=quoted))
    for file, entries in _AUTO_CONFIGS.items():
        path = folder / file
        if path.exists():
            config = json.loads(path.read_text(encoding="utf-8"))
            config["auto_map"] = {**config.get("auto_map", {}), **entries}
            output_files.write_json(path, config, sort_keys=True)
