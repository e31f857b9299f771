"""The original library's functions on these models: scripts run with only the import changed.

    from transformers_bark.suno import SAMPLE_RATE, generate_audio, preload_models
    from transformers_bark.suno.generation import generate_text_semantic

`bark` becomes `transformers_bark.suno`, `bark.api` and `bark.generation` are its modules.

Models come from the Hub's `suno/bark` and `suno/bark-small`, stage by stage as `preload_models` is told; `use_model` puts
any other checkpoint in their place. Arrays in and out are numpy, as in the original. The environment variables
`SUNO_USE_SMALL_MODELS`, `SUNO_OFFLOAD_CPU` and `SUNO_ENABLE_MPS` are read when a function is called.
"""

from .api import generate_audio, save_as_prompt, semantic_to_waveform, text_to_semantic
from .generation import (
    ALLOWED_PROMPTS,
    COARSE_INFER_TOKEN,
    COARSE_RATE_HZ,
    COARSE_SEMANTIC_PAD_TOKEN,
    CODEBOOK_SIZE,
    CONTEXT_WINDOW_SIZE,
    LARGE,
    N_COARSE_CODEBOOKS,
    N_FINE_CODEBOOKS,
    SAMPLE_RATE,
    SEMANTIC_INFER_TOKEN,
    SEMANTIC_PAD_TOKEN,
    SEMANTIC_RATE_HZ,
    SEMANTIC_VOCAB_SIZE,
    SMALL,
    SUPPORTED_LANGS,
    TEXT_ENCODING_OFFSET,
    TEXT_PAD_TOKEN,
    clean_models,
    codec_decode,
    generate_coarse,
    generate_fine,
    generate_text_semantic,
    load_codec_model,
    load_model,
    models,
    preload_models,
    use_model,
)

__all__ = [
    "ALLOWED_PROMPTS",
    "COARSE_INFER_TOKEN",
    "COARSE_RATE_HZ",
    "COARSE_SEMANTIC_PAD_TOKEN",
    "CODEBOOK_SIZE",
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
    "generate_audio",
    "generate_coarse",
    "generate_fine",
    "generate_text_semantic",
    "load_codec_model",
    "load_model",
    "models",
    "preload_models",
    "save_as_prompt",
    "semantic_to_waveform",
    "text_to_semantic",
    "use_model",
]
