"""The original library's functions on these models: scripts run with only the import changed.

    from transformers_bark.suno import SAMPLE_RATE, generate_audio, preload_models
    from transformers_bark.suno.generation import generate_text_semantic

`bark` becomes `transformers_bark.suno`, `bark.api` and `bark.generation` are its modules.

Models come from the Hub's `suno/bark` and `suno/bark-small`, stage by stage as `preload_models` is told; `use_model` puts
any other checkpoint in their place. Arrays in and out are numpy, as in the original. The environment variables
`SUNO_USE_SMALL_MODELS`, `SUNO_OFFLOAD_CPU` and `SUNO_ENABLE_MPS` are read when a function is called.
"""

from . import api, generation
from .api import *  # noqa: F403
from .generation import *  # noqa: F403

__all__ = api.__all__ + generation.__all__
