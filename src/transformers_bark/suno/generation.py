"""`bark.generation`: the stages, the models that they keep, and what the original's scripts take from that module."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from .. import codec
from ..generation.coarse import generate_coarse as _coarse
from ..generation.fine import generate_fine as _fine
from ..generation.options import CoarseOptions, FineOptions, SemanticOptions
from ..generation.progress import Reporter
from ..generation.sampling import Draws
from ..generation.semantic import generate_semantic as _semantic
from ..generation_configuration_bark import BarkGenerationConfig
from ..modeling_bark import BarkModel
from ..processing_bark import BarkProcessor
from ..vocabulary import (
    COARSE_INFER_TOKEN,
    COARSE_RATE_HZ,
    COARSE_SEMANTIC_PAD_TOKEN,
    CODEBOOK_SIZE,
    MIN_EOS_P,
    N_COARSE_CODEBOOKS,
    N_FINE_CODEBOOKS,
    SAMPLE_RATE,
    SEMANTIC_INFER_TOKEN,
    SEMANTIC_RATE_HZ,
    SEMANTIC_VOCAB_SIZE,
    TEXT_ENCODING_OFFSET,
    TEXT_PAD_TOKEN,
    n_coarse_tokens,
    semantic_to_coarse_ratio,
)
from ..vocabulary import MAX_FINE_INPUT_LENGTH as CONTEXT_WINDOW_SIZE
from ..vocabulary import SEMANTIC_VOCAB_SIZE as SEMANTIC_PAD_TOKEN
from ..voices import VoicePreset

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

_FLAGS = {
    "USE_SMALL_MODELS": "SUNO_USE_SMALL_MODELS",
    "GLOBAL_ENABLE_MPS": "SUNO_ENABLE_MPS",
    "OFFLOAD_CPU": "SUNO_OFFLOAD_CPU",
}
"""The original's flags, and the environment variables that set them."""

_PARTS = {"text": "semantic", "coarse": "coarse_acoustics", "fine": "fine_acoustics", "codec": "codec_model"}
"""The original's name of each stage, and ours of its model."""


@dataclass(frozen=True)
class _Stage:
    """A loaded sub-model, the generation config of its checkpoint, where that came from and where it computes."""

    model: Any
    config: BarkGenerationConfig
    source: str
    device: str


@dataclass
class _Loaded:
    """What is loaded, and the checkpoint that `use_model` chose in place of the released ones."""

    stages: dict[str, _Stage] = field(default_factory=dict)
    processor: BarkProcessor | None = None
    chosen: BarkModel | str | None = None
    chosen_processor: BarkProcessor | None = None


_loaded = _Loaded()


class _Models(MutableMapping[str, Any]):
    """The loaded models by the original's names: `coarse`, `fine`, `codec`, and `text` with its `model` and `tokenizer`."""

    def __getitem__(self, key: str) -> Any:
        model = _loaded.stages[key].model
        return {"model": model, "tokenizer": _processor().tokenizer} if key == "text" else model

    def __setitem__(self, key: str, value: Any) -> None:
        """Puts another model of the same sizes in the place of a stage's."""
        _loaded.stages[key] = replace(_stage(key), model=value["model"] if key == "text" else value)

    def __delitem__(self, key: str) -> None:
        if key not in _loaded.stages:
            raise KeyError(key)
        clean_models(key)

    def __iter__(self) -> Iterator[str]:
        return iter(list(_loaded.stages))

    def __len__(self) -> int:
        return len(_loaded.stages)


models = _Models()
"""What is loaded, as scripts of the original look it up."""


def _environment_flag(name: str) -> bool:
    return os.environ.get(name, "False").lower() in ("true", "1", "t")


def __getattr__(name: str) -> bool:
    """The original's flags, which it reads at import: here the environment as it is now. A script may also set them."""
    if name not in _FLAGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _environment_flag(_FLAGS[name])


def _flag(name: str) -> bool:
    """One of `_FLAGS`, as a script has set it here, else as the environment says."""
    return bool(globals().get(name, _environment_flag(_FLAGS[name])))


def _grab_best_device(use_gpu: bool = True) -> str:
    """cuda, mps (where `SUNO_ENABLE_MPS` allows it) or cpu."""
    if use_gpu and torch.cuda.is_available():
        return "cuda"
    if use_gpu and torch.backends.mps.is_available() and _flag("GLOBAL_ENABLE_MPS"):
        return "mps"
    return "cpu"


def _clear_cuda_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.synchronize()


def use_model(model: BarkModel | str | os.PathLike[str] | None, processor: BarkProcessor | None = None) -> None:
    """Uses this checkpoint for every stage: a folder, a name on the Hub, or a loaded model with its processor.

    Nothing is loaded before it is needed. None goes back to the released checkpoints.

    Raises:
        ValueError: a loaded model without a processor.
    """
    if isinstance(model, BarkModel) and processor is None:
        raise ValueError("a loaded model needs its `processor`")
    clean_models()
    _loaded.chosen = model if model is None or isinstance(model, BarkModel) else os.fspath(model)
    _loaded.chosen_processor = processor


def clean_models(model_key: str | None = None) -> None:
    """Forgets one stage (`text`, `coarse`, `fine`, `codec`) or all; they are loaded anew when needed."""
    for key in [model_key] if model_key else list(_loaded.stages):
        _loaded.stages.pop(key, None)
    if model_key in (None, "text"):
        _loaded.processor = None
    _clear_cuda_cache()


def preload_models(
    text_use_gpu: bool = True,
    text_use_small: bool = False,
    coarse_use_gpu: bool = True,
    coarse_use_small: bool = False,
    fine_use_gpu: bool = True,
    fine_use_small: bool = False,
    codec_use_gpu: bool = True,
    force_reload: bool = False,
    model: BarkModel | str | os.PathLike[str] | None = None,
    processor: BarkProcessor | None = None,
) -> None:
    """Loads all stages, each from the large or the small checkpoint; `SUNO_USE_SMALL_MODELS` makes all small.

    Args:
        model: one checkpoint for all stages, with `processor` as in `use_model`.
    """
    if model is not None:
        use_model(model, processor)
    small = {"text": text_use_small, "coarse": coarse_use_small, "fine": fine_use_small, "codec": text_use_small}
    gpu = {"text": text_use_gpu, "coarse": coarse_use_gpu, "fine": fine_use_gpu, "codec": codec_use_gpu}
    _load(small, gpu, force_reload)


def load_model(
    use_gpu: bool = True, use_small: bool = False, force_reload: bool = False, model_type: str = "text"
) -> Any:
    """Loads one stage: `coarse` and `fine` give the model, `text` a mapping of `model` and `tokenizer`.

    Raises:
        ValueError: another `model_type`.
    """
    if model_type not in ("text", "coarse", "fine"):
        raise ValueError(f"`model_type` must be text, coarse or fine, got {model_type!r}")
    _load({model_type: use_small}, {model_type: use_gpu}, force_reload)
    return models[model_type]


def load_codec_model(use_gpu: bool = True, force_reload: bool = False) -> Any:
    """Loads the codec, an EnCodec of Transformers."""
    _load({"codec": False}, {"codec": use_gpu}, force_reload)
    return _loaded.stages["codec"].model


def _load(small: Mapping[str, bool], gpu: Mapping[str, bool], force_reload: bool) -> None:
    """Loads the stages named that are not there yet; of a checkpoint only they stay in memory."""
    opened: dict[str, BarkModel] = {}
    if isinstance(_loaded.chosen, BarkModel):
        opened[""] = _loaded.chosen
    for stage in small:
        if stage in _loaded.stages and not force_reload:
            continue
        clean_models(stage)
        source = _source(small[stage])
        if source not in opened:
            with torch.random.fork_rng(devices=[]):  # some releases draw while they load; a seed is for speech
                opened[source] = BarkModel.from_pretrained(source).check_weights()
        device = "cpu" if stage == "codec" and _grab_best_device(gpu[stage]) == "mps" else _grab_best_device(gpu[stage])
        part = getattr(opened[source], _PARTS[stage]).eval()
        part.to("cpu" if _flag("OFFLOAD_CPU") else device)
        _loaded.stages[stage] = _Stage(part, opened[source].generation_config, source, device)


def _source(small: bool) -> str:
    """Folder or name of the checkpoint to load; empty for a model that is loaded already."""
    if isinstance(_loaded.chosen, BarkModel):
        return ""
    return _loaded.chosen or (SMALL if small or _flag("USE_SMALL_MODELS") else LARGE)


def _stage(name: str) -> _Stage:
    """A stage, loaded if need be."""
    if name not in _loaded.stages:
        preload_models()
    return _loaded.stages[name]


@contextmanager
def _running(name: str) -> Iterator[Any]:
    """The model of a stage on the device it computes on; with `SUNO_OFFLOAD_CPU` it goes back to the CPU afterwards."""
    stage = _stage(name)
    stage.model.to(stage.device)
    try:
        yield stage.model
    finally:
        if _flag("OFFLOAD_CPU"):
            stage.model.to("cpu")


def _processor() -> BarkProcessor:
    """Tokenizer and voices, of the checkpoint that the text stage is from."""
    if _loaded.processor is None:
        text = _loaded.stages.get("text")
        source = text.source if text else _source(small=False)
        _loaded.processor = _loaded.chosen_processor or BarkProcessor.from_pretrained(source)
    return _loaded.processor


def _voice(history_prompt: Any, config: BarkGenerationConfig) -> VoicePreset | None:
    if history_prompt is None or isinstance(history_prompt, Mapping):
        return None if history_prompt is None else VoicePreset.from_arrays(history_prompt).check(config)
    voice = _processor().load_voice(history_prompt)
    return None if voice is None else voice.check(config)


def _load_history_prompt(history_prompt_input: Mapping[str, Any] | str) -> dict[str, np.ndarray]:
    """The three parts of a voice, from a mapping, a name or an `.npz` file.

    Raises:
        ValueError: there is no such voice, or it lacks a part.
    """
    voice = _processor().load_voice(history_prompt_input)
    if voice is None:
        raise ValueError("history prompt format unrecognized, got None")
    return {name: part.cpu().numpy() for name, part in voice.as_dict().items()}


def _flatten_codebooks(arr: np.ndarray, offset_size: int | None = CODEBOOK_SIZE) -> np.ndarray:
    """[codebook, frame] -> [frame * codebook], frame-major; `offset_size` times the codebook's number is added."""
    if arr.ndim != 2:
        raise ValueError(f"`arr` must be [codebook, frame], got shape {arr.shape}")
    shifts = np.arange(len(arr), dtype=arr.dtype)[:, None] * (offset_size or 0)
    return (arr + shifts).astype(arr.dtype).ravel("F")


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _detokenize(tokenizer: Any, enc_text: Any) -> str:
    return tokenizer.decode(enc_text)


def _normalize_whitespace(text: str) -> str:
    return " ".join(text.split())


def _tokens(name: str, value: Any, dimensions: int, size: int) -> torch.Tensor:
    """A numpy array of codes as a tensor, checked."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"`{name}` must be a numpy array, got {type(value).__name__}")
    if value.ndim != dimensions or not value.size:
        raise ValueError(f"`{name}` must have {dimensions} dimension(s) and not be empty, got shape {value.shape}")
    if value.dtype.kind not in "iu" and not np.array_equal(value, np.trunc(value)):
        raise ValueError(f"`{name}` must hold whole numbers, got {value.dtype}")
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
        TypeError: text that is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"`text` must be a string, got {type(text).__name__}")
    whole = _stage("text").config
    config = whole.semantic_config
    voice = _voice(history_prompt, whole)
    inputs = _processor()(text, max_length=config.max_input_semantic_length)
    options = SemanticOptions(
        True, temp, top_k, top_p, min_eos_p, config.max_new_tokens, allow_early_stop, max_gen_duration_s
    )
    bars = Reporter(_bars(silent)).stage("semantic", options.max_new_tokens, 1)
    with _running("text") as model, bars as advance:
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
    config = _stage("coarse").config
    stage = config.coarse_acoustics_config
    semantic = _tokens("x_semantic", x_semantic, 1, config.semantic_config.semantic_vocab_size)
    voice = _voice(history_prompt, config)
    options = CoarseOptions(
        True,
        temp,
        top_k,
        top_p,
        stage.max_coarse_history if max_coarse_history is None else max_coarse_history,
        stage.sliding_window_len if sliding_window_len is None else sliding_window_len,
    )
    pair = None if voice is None else (voice.semantic_prompt, voice.coarse_prompt)
    n_tokens = n_coarse_tokens(
        len(semantic), semantic_to_coarse_ratio(config.semantic_config, stage), stage.n_coarse_codebooks
    )
    with _running("coarse") as model, Reporter(_bars(silent)).stage("coarse", n_tokens, 1) as advance:
        rows = _coarse(
            model,
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
    """Coarse codes [codebook, frame] -> all codes, int32 [codebook, frame]; `temp` None is greedy.

    Raises:
        ValueError: codes or values outside their range, or as many codebooks as there are in all.
    """
    config = _stage("fine").config
    codes = _tokens("x_coarse_gen", x_coarse_gen, 2, config.codebook_size)
    total = config.fine_acoustics_config.n_fine_codebooks
    if len(codes) >= total:
        raise ValueError(f"`x_coarse_gen` must have fewer than {total} codebooks, got {len(codes)}")
    voice = _voice(history_prompt, config)
    with _running("fine") as model, Reporter(_bars(silent)).stage("fine", 0, 1) as advance:
        rows = _fine(
            model,
            [codes],
            [voice.fine_prompt if voice else None],
            config.fine_acoustics_config,
            config.codebook_size,
            FineOptions(temp is not None, temp),
            Draws(),
            advance,
        )
    return rows[0].int().cpu().numpy()


@torch.no_grad()
def codec_decode(fine_tokens: np.ndarray) -> np.ndarray:
    """Codes [codebook, frame] -> audio, float32 [samples].

    Raises:
        ValueError: codes outside their range, or more codebooks than the codec has.
    """
    codes = _tokens("fine_tokens", fine_tokens, 2, _stage("codec").config.codebook_size)
    with _running("codec") as model:
        if len(codes) > len(model.quantizer.layers):
            raise ValueError(
                f"`fine_tokens` must have at most {len(model.quantizer.layers)} codebooks, got {len(codes)}"
            )
        return codec.decode(model, [codes])[0].float().cpu().numpy()


def _bars(silent: bool) -> bool | None:
    return False if silent else None


__all__ = [
    "ALLOWED_PROMPTS",
    "CODEBOOK_SIZE",
    "COARSE_INFER_TOKEN",
    "COARSE_RATE_HZ",
    "COARSE_SEMANTIC_PAD_TOKEN",
    "CONTEXT_WINDOW_SIZE",
    "LARGE",
    "N_COARSE_CODEBOOKS",
    "N_FINE_CODEBOOKS",
    "SAMPLE_RATE",
    "SEMANTIC_INFER_TOKEN",
    "SEMANTIC_PAD_TOKEN",
    "SEMANTIC_RATE_HZ",
    "SEMANTIC_VOCAB_SIZE",
    "SMALL",
    "SUPPORTED_LANGS",
    "TEXT_ENCODING_OFFSET",
    "TEXT_PAD_TOKEN",
    "clean_models",
    "codec_decode",
    "generate_coarse",
    "generate_fine",
    "generate_text_semantic",
    "load_codec_model",
    "load_model",
    "models",
    "preload_models",
    "use_model",
]
