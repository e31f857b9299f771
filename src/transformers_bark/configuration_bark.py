"""What each sub-model is: sizes of the three transformers and of the codec.

The configs are written in the classic style, which every release of Transformers 5 loads and saves alike: see
`transformers_bark.compat.ClassicConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from . import vocabulary
from .compat import CACHE_NAMES, ClassicConfig


def _check_size(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}")


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number, got {value!r}")


def _check_dropout(name: str, value: Any) -> None:
    _check_number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"`{name}` must be in [0, 1), got {value}")


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}")


class BarkSubModelConfig(ClassicConfig):
    """Sizes of one transformer.

    Args:
        block_size: number of positions, prompt included.
        input_vocab_size: rows of the input embedding.
        output_vocab_size: columns of the head.
        num_layers, num_heads, hidden_size: depth, attention heads and width; heads must divide the width.
        dropout: probability, for embeddings, attention and both projections.
        bias: whether linear layers (and the layer norms of the causal models) have biases; the released models have none.
        initializer_range: standard deviation of initial weights.
        use_cache: whether `forward` returns a cache unless told otherwise.

    Raises:
        TypeError: a value of another kind, here or when it is set later.
        ValueError: a size that is not positive, heads that do not divide the width, a dropout outside [0, 1).
    """

    keys_to_ignore_at_inference = list(CACHE_NAMES)
    attribute_map = {
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "vocab_size": "input_vocab_size",
        "window_size": "block_size",
    }

    def __init__(
        self,
        block_size: int = 1024,
        input_vocab_size: int = 10_048,
        output_vocab_size: int = 10_048,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_size: int = 768,
        dropout: float = 0.0,
        bias: bool = True,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.block_size = block_size
        self.input_vocab_size = input_vocab_size
        self.output_vocab_size = output_vocab_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.bias = bias
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        if hidden_size % num_heads:
            raise ValueError(
                f"`num_heads` must divide `hidden_size`, got {num_heads} heads for a width of {hidden_size}"
            )
        super().__init__(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        name = self.attribute_map.get(name, name)
        if name in _CHECKS:
            _CHECKS[name](name, value)
        super().__setattr__(name, value)


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "block_size": _check_size,
    "input_vocab_size": _check_size,
    "output_vocab_size": _check_size,
    "num_layers": _check_size,
    "num_heads": _check_size,
    "hidden_size": _check_size,
    "n_codes_total": _check_size,
    "n_codes_given": _check_size,
    "dropout": _check_dropout,
    "initializer_range": _check_number,
    "bias": _check_flag,
    "use_cache": _check_flag,
}


class BarkSemanticConfig(BarkSubModelConfig):
    """Sizes of the text-to-semantic model; see `BarkSubModelConfig`.

    Args:
        alignment_heads: (layer, head) pairs whose attention follows the text token being spoken; None where none is known.
    """

    model_type = "semantic"
    base_config_key = "semantic_config"

    alignment_heads: list | None = None


class BarkCoarseConfig(BarkSubModelConfig):
    """Sizes of the semantic-to-coarse model; see `BarkSubModelConfig`."""

    model_type = "coarse_acoustics"
    base_config_key = "coarse_acoustics_config"


class BarkFineConfig(BarkSubModelConfig):
    """Sizes of the coarse-to-fine model; see `BarkSubModelConfig`.

    Args:
        n_codes_total: codebooks in all.
        n_codes_given: codebooks that have no head of their own (the released model: 1).
        tie_word_embeddings: whether each head is the embedding of the next codebook.

    Raises:
        ValueError: as `BarkSubModelConfig`, and when `n_codes_given` is not in [1, n_codes_total).
    """

    model_type = "fine_acoustics"
    base_config_key = "fine_acoustics_config"

    def __init__(
        self,
        tie_word_embeddings: bool = True,
        n_codes_total: int = vocabulary.N_FINE_CODEBOOKS,
        n_codes_given: int = 1,
        **kwargs: Any,
    ) -> None:
        _check_flag("tie_word_embeddings", tie_word_embeddings)
        self.tie_word_embeddings = tie_word_embeddings
        self.n_codes_total = n_codes_total
        self.n_codes_given = n_codes_given
        super().__init__(**kwargs)
        if not n_codes_given < n_codes_total:
            raise ValueError(
                f"`n_codes_given` must be at least 1 and less than `n_codes_total`, got {n_codes_given} of {n_codes_total}"
            )
        if tie_word_embeddings and self.input_vocab_size != self.output_vocab_size:
            raise ValueError(
                "tied heads need `output_vocab_size` equal to `input_vocab_size`, got "
                f"{self.output_vocab_size} and {self.input_vocab_size}"
            )


_SUB_MODELS: dict[str, type[BarkSubModelConfig]] = {
    "semantic_config": BarkSemanticConfig,
    "coarse_acoustics_config": BarkCoarseConfig,
    "fine_acoustics_config": BarkFineConfig,
}


class BarkConfig(ClassicConfig):
    """The whole model: three transformers and a codec. Dicts are turned into config objects.

    Args:
        semantic_config: dict or `BarkSemanticConfig`.
        coarse_acoustics_config: dict or `BarkCoarseConfig`.
        fine_acoustics_config: dict or `BarkFineConfig`.
        codec_config: dict or config of the codec; a dict without `model_type` is an EnCodec.
        initializer_range: standard deviation of initial weights.

    Whether vocabularies and positions have room for a generation config's tokens and windows is checked where the two
    meet: `generation_configuration_bark.check_compatible`.

    Raises:
        TypeError: a sub-model's config of another kind.
    """

    model_type = "bark"
    sub_configs = {**_SUB_MODELS, "codec_config": AutoConfig}

    def __init__(
        self,
        semantic_config: dict[str, Any] | PreTrainedConfig | None = None,
        coarse_acoustics_config: dict[str, Any] | PreTrainedConfig | None = None,
        fine_acoustics_config: dict[str, Any] | PreTrainedConfig | None = None,
        codec_config: dict[str, Any] | PreTrainedConfig | None = None,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        _check_number("initializer_range", initializer_range)
        self.semantic_config = _sub_model("semantic_config", semantic_config)
        self.coarse_acoustics_config = _sub_model("coarse_acoustics_config", coarse_acoustics_config)
        self.fine_acoustics_config = _sub_model("fine_acoustics_config", fine_acoustics_config)
        self.codec_config = _codec(codec_config)
        self.initializer_range = initializer_range
        super().__init__(**kwargs)

    @classmethod
    def from_sub_model_configs(
        cls,
        semantic_config: BarkSemanticConfig,
        coarse_acoustics_config: BarkCoarseConfig,
        fine_acoustics_config: BarkFineConfig,
        codec_config: PreTrainedConfig,
        **kwargs: Any,
    ) -> BarkConfig:
        """A `BarkConfig` of four finished configs, which are copied."""
        return cls(
            semantic_config=semantic_config.to_dict(),
            coarse_acoustics_config=coarse_acoustics_config.to_dict(),
            fine_acoustics_config=fine_acoustics_config.to_dict(),
            codec_config=codec_config.to_dict(),
            **kwargs,
        )


def _sub_model(name: str, value: Any) -> BarkSubModelConfig:
    kind = _SUB_MODELS[name]
    if isinstance(value, kind):
        return value
    if value is None or isinstance(value, dict):
        return kind(**(value or {}))
    if isinstance(value, PreTrainedConfig) and value.model_type == kind.model_type:
        return kind(**value.to_dict())  # the class of that name in Transformers itself
    raise TypeError(f"`{name}` must be a dict or a {kind.__name__}, got a {type(value).__name__}")


def _codec(value: Any) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    if value is None or isinstance(value, dict):
        options = dict(value or {})
        return AutoConfig.for_model(options.pop("model_type", "encodec"), **options)
    raise TypeError(f"`codec_config` must be a dict or a config, got a {type(value).__name__}")


__all__ = ["BarkCoarseConfig", "BarkConfig", "BarkFineConfig", "BarkSemanticConfig", "BarkSubModelConfig"]
