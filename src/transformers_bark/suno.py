"""The original library's functions on these models: scripts run with only the import changed.

    from transformers_bark.suno import SAMPLE_RATE, generate_audio, preload_models

Models come from the Hub's `suno/bark` and `suno/bark-small`, stage by stage as `preload_models` is told; `use_model` puts
any other checkpoint in their place. Arrays in and out are numpy, as in the original.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from . import codec
from .generation.coarse import generate_coarse as _coarse
from .generation.fine import generate_fine as _fine
from .generation.options import CoarseOptions, FineOptions, SemanticOptions
from .generation.progress import Reporter
from .generation.sampling import Draws
from .generation.semantic import generate_semantic as _semantic
from .generation_configuration_bark import BarkGenerationConfig
from .modeling_bark import BarkModel
from .processing_bark import BarkProcessor
from .vocabulary import MAX_COARSE_HISTORY, MIN_EOS_P, SAMPLE_RATE, SLIDING_WINDOW_LEN
from .voices import VoicePreset

LARGE, SMALL = "suno/bark", "suno/bark-small"

SUPPORTED_LANGS = [
    ("English", "en"),
    ("German", "de"),
    ("Spanish", "es"),
    ("French", "fr"),
    ("Hindi", "hi"),
    ("Italian", "it"),
    ("Japanese", "ja"),
    ("Korean", "ko"),
    ("Polish", "pl"),
    ("Portuguese", "pt"),
    ("Russian", "ru"),
    ("Turkish", "tr"),
    ("Chinese", "zh"),
]
ALLOWED_PROMPTS = {"announcer"} | {
    f"{prefix}{code}_speaker_{n}" for _, code in SUPPORTED_LANGS for prefix in ("", "v2/") for n in range(10)
}


@dataclass
class _Loaded:
    """What is loaded: a checkpoint for each stage (text, coarse, fine, codec), and one processor."""

    stages: dict[str, BarkModel] = field(default_factory=dict)
    processor: BarkProcessor | None = None


_loaded = _Loaded()


def _environment_flag(name: str) -> bool:
    return os.environ.get(name, "False").lower() in ("true", "1", "t")


def use_model(model: BarkModel | str | os.PathLike[str], processor: BarkProcessor | None = None) -> None:
    """Uses this checkpoint for every stage: a loaded model with its processor, a folder, or a name on the Hub.

    Raises:
        ValueError: a loaded model without a processor.
    """
    if isinstance(model, BarkModel):
        if processor is None:
            raise ValueError("a loaded model needs its `processor`")
    else:
        processor = processor or BarkProcessor.from_pretrained(model)
        model = BarkModel.from_pretrained(model)
    assert isinstance(model, BarkModel)
    model.eval()
    _loaded.stages = {stage: model for stage in ("text", "coarse", "fine", "codec")}
    _loaded.processor = processor


def clean_models(model_key: str | None = None) -> None:
    """Forgets one stage (`text`, `coarse`, `fine`, `codec`) or all."""
    for key in [model_key] if model_key else list(_loaded.stages):
        _loaded.stages.pop(key, None)


def preload_models(
    text_use_gpu: bool = True,
    text_use_small: bool = False,
    coarse_use_gpu: bool = True,
    coarse_use_small: bool = False,
    fine_use_gpu: bool = True,
    fine_use_small: bool = False,
    codec_use_gpu: bool = True,
    force_reload: bool = False,
    model: str | os.PathLike[str] | None = None,
) -> None:
    """Loads all stages, each from the large or the small checkpoint; `SUNO_USE_SMALL_MODELS` makes all small.

    Args:
        model: one checkpoint for all stages, a folder or a name on the Hub.
    """
    if model is not None:
        use_model(model)
        return
    small = {"text": text_use_small, "coarse": coarse_use_small, "fine": fine_use_small, "codec": text_use_small}
    gpu = {"text": text_use_gpu, "coarse": coarse_use_gpu, "fine": fine_use_gpu, "codec": codec_use_gpu}
    models: dict[str, BarkModel] = {}
    for stage in small:
        if stage in _loaded.stages and not force_reload:
            continue
        name = SMALL if small[stage] or _environment_flag("SUNO_USE_SMALL_MODELS") else LARGE
        if name not in models:
            models[name] = BarkModel.from_pretrained(name).eval()
        _loaded.stages[stage] = models[name]
        _part(stage).to("cuda" if gpu[stage] and torch.cuda.is_available() else "cpu")
    if _loaded.processor is None or force_reload:
        _loaded.processor = BarkProcessor.from_pretrained(SMALL if small["text"] else LARGE)


def _part(stage: str) -> Any:
    """The sub-model of a stage, loaded if need be."""
    if stage not in _loaded.stages:
        preload_models()
    attribute = {"text": "semantic", "coarse": "coarse_acoustics", "fine": "fine_acoustics", "codec": "codec_model"}[
        stage
    ]
    return getattr(_loaded.stages[stage], attribute)


def _config(stage: str) -> BarkGenerationConfig:
    _part(stage)
    return _loaded.stages[stage].generation_config


def _voice(history_prompt: Any) -> VoicePreset | None:
    if history_prompt is None:
        return None
    _part("text")
    assert _loaded.processor is not None
    voice = _loaded.processor.load_voice(history_prompt)
    return None if voice is None else voice.check(_config("text"))


def _tokens(name: str, value: Any, dimensions: int, size: int) -> torch.Tensor:
    """A numpy array of codes as a tensor, checked."""
    if not isinstance(value, np.ndarray) or value.ndim != dimensions or not value.size:
        raise ValueError(
            f"`{name}` must be a numpy array with {dimensions} dimension(s), not empty, got {np.shape(value)}"
        )
    if value.min() < 0 or value.max() >= size:
        raise ValueError(f"`{name}` must lie in [0, {size}), got {value.min()} to {value.max()}")
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.int64))


@torch.no_grad()
def generate_text_semantic(
    text: str,
    history_prompt: Mapping[str, Any] | str | None = None,
    temp: float = 0.7,
    top_k: int | None = None,
    top_p: float | None = None,
    silent: bool = False,
    min_eos_p: float | None = MIN_EOS_P,
    max_gen_duration_s: float | None = None,
    allow_early_stop: bool = True,
    use_kv_caching: bool = False,
) -> np.ndarray:
    """Text -> semantic tokens, int64 [n]. `use_kv_caching` is accepted; there is always a cache.

    Raises:
        ValueError: empty text or a value outside its range.
    """
    model, config = _part("text"), _config("text").semantic_config
    voice = _voice(history_prompt)
    assert _loaded.processor is not None
    inputs = _loaded.processor(text, max_length=config.max_input_semantic_length)
    options = SemanticOptions(
        True, temp, top_k, top_p, min_eos_p, config.max_new_tokens, allow_early_stop, max_gen_duration_s
    )
    with Reporter(_bars(silent)).stage("semantic", options.max_new_tokens, 1) as advance:
        rows = _semantic(
            model,
            inputs["input_ids"],
            inputs["attention_mask"],
            [voice.semantic_prompt if voice else None],
            config,
            options,
            Draws(),
            advance,
        )
    return rows[0].cpu().numpy()


@torch.no_grad()
def generate_coarse(
    x_semantic: np.ndarray,
    history_prompt: Mapping[str, Any] | str | None = None,
    temp: float = 0.7,
    top_k: int | None = None,
    top_p: float | None = None,
    silent: bool = False,
    max_coarse_history: int | None = None,
    sliding_window_len: int | None = None,
    use_kv_caching: bool = False,
) -> np.ndarray:
    """Semantic tokens [n] -> coarse codes, int64 [codebook, frame].

    `max_coarse_history` and `sliding_window_len` default to the checkpoint's, 630 and 60 for the released ones.

    Raises:
        ValueError: tokens or values outside their range.
    """
    config = _config("coarse")
    stage = config.coarse_acoustics_config
    semantic = _tokens("x_semantic", x_semantic, 1, config.semantic_config.semantic_vocab_size)
    voice = _voice(history_prompt)
    options = CoarseOptions(
        True,
        temp,
        top_k,
        top_p,
        max_coarse_history or stage.max_coarse_history,
        sliding_window_len or stage.sliding_window_len,
    )
    pair = None if voice is None else (voice.semantic_prompt, voice.coarse_prompt)
    with Reporter(_bars(silent)).stage("coarse", 0, 1) as advance:
        rows = _coarse(
            _part("coarse"),
            [semantic],
            [pair],
            config.semantic_config,
            stage,
            config.codebook_size,
            options,
            Draws(),
            advance,
        )
    return rows[0].cpu().numpy()


@torch.no_grad()
def generate_fine(
    x_coarse_gen: np.ndarray,
    history_prompt: Mapping[str, Any] | str | None = None,
    temp: float | None = 0.5,
    silent: bool = True,
) -> np.ndarray:
    """Coarse codes [codebook, frame] -> all codes, int64 [codebook, frame]; `temp` None is greedy.

    Raises:
        ValueError: codes or values outside their range, or as many codebooks as there are in all.
    """
    config = _config("fine")
    codes = _tokens("x_coarse_gen", x_coarse_gen, 2, config.codebook_size)
    total = config.fine_acoustics_config.n_fine_codebooks
    if len(codes) >= total:
        raise ValueError(f"`x_coarse_gen` must have fewer than {total} codebooks, got {len(codes)}")
    voice = _voice(history_prompt)
    with Reporter(_bars(silent)).stage("fine", 0, 1) as advance:
        rows = _fine(
            _part("fine"),
            [codes],
            [voice.fine_prompt if voice else None],
            config.fine_acoustics_config,
            config.codebook_size,
            FineOptions(temp is not None, temp),
            Draws(),
            advance,
        )
    return rows[0].cpu().numpy()


@torch.no_grad()
def codec_decode(fine_tokens: np.ndarray) -> np.ndarray:
    """Codes [codebook, frame] -> audio, float32 [samples]."""
    model = _part("codec")
    codes = _tokens("fine_tokens", fine_tokens, 2, _config("codec").codebook_size)
    return codec.decode(model, [codes])[0].float().cpu().numpy()


def _bars(silent: bool) -> bool | None:
    return False if silent else None


def text_to_semantic(
    text: str, history_prompt: Mapping[str, Any] | str | None = None, temp: float = 0.7, silent: bool = False
) -> np.ndarray:
    """Text -> semantic tokens, int64 [n]."""
    return generate_text_semantic(text, history_prompt, temp, silent=silent)


def semantic_to_waveform(
    semantic_tokens: np.ndarray,
    history_prompt: Mapping[str, Any] | str | None = None,
    temp: float = 0.7,
    silent: bool = False,
    output_full: bool = False,
) -> Any:
    """Semantic tokens [n] -> audio, float32 [samples]; with `output_full` (full generation, audio)."""
    coarse = generate_coarse(semantic_tokens, history_prompt, temp, silent=silent)
    codes = generate_fine(coarse, history_prompt, temp=0.5)
    audio = codec_decode(codes)
    if output_full:
        return {"semantic_prompt": semantic_tokens, "coarse_prompt": coarse, "fine_prompt": codes}, audio
    return audio


def save_as_prompt(filepath: str, full_generation: Mapping[str, Any]) -> None:
    """Writes a full generation as an `.npz` voice.

    Raises:
        ValueError: another ending, or a mapping that is not a full generation.
    """
    if not str(filepath).endswith(".npz"):
        raise ValueError(f"`filepath` must end in .npz, got {str(filepath)!r}")
    VoicePreset.from_arrays(full_generation).save(filepath)


def generate_audio(
    text: str,
    history_prompt: Mapping[str, Any] | str | None = None,
    text_temp: float = 0.7,
    waveform_temp: float = 0.7,
    silent: bool = False,
    output_full: bool = False,
) -> Any:
    """Text -> audio, float32 [samples] at `SAMPLE_RATE`; with `output_full` (full generation, audio)."""
    tokens = text_to_semantic(text, history_prompt, text_temp, silent)
    return semantic_to_waveform(tokens, history_prompt, waveform_temp, silent, output_full)


__all__ = [
    "ALLOWED_PROMPTS",
    "MAX_COARSE_HISTORY",
    "SAMPLE_RATE",
    "SLIDING_WINDOW_LEN",
    "SUPPORTED_LANGS",
    "clean_models",
    "codec_decode",
    "generate_audio",
    "generate_coarse",
    "generate_fine",
    "generate_text_semantic",
    "preload_models",
    "save_as_prompt",
    "semantic_to_waveform",
    "text_to_semantic",
    "use_model",
]
