"""What each sub-model is: sizes of the three transformers and of the codec."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from . import vocabulary


def _check_size(config: PreTrainedConfig, name: str) -> None:
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}")


@strict
class BarkSubModelConfig(PreTrainedConfig):
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
        TypeError: a size that is not a whole number.
        ValueError: a size that is not positive, heads that do not divide the width, a dropout outside [0, 1).
    """

    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "vocab_size": "input_vocab_size",
        "window_size": "block_size",
    }

    block_size: int = 1024
    input_vocab_size: int = 10_048
    output_vocab_size: int = 10_048
    num_layers: int = 12
    num_heads: int = 12
    hidden_size: int = 768
    dropout: float | int = 0.0
    bias: bool = True
    initializer_range: float = 0.02
    use_cache: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        sizes = ("block_size", "input_vocab_size", "output_vocab_size", "num_layers", "num_heads", "hidden_size")
        for name in sizes:
            _check_size(self, name)
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide `hidden_size`, got {self.num_heads} heads for a width of {self.hidden_size}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1), got {self.dropout}")


@strict
class BarkSemanticConfig(BarkSubModelConfig):
    """Sizes of the text-to-semantic model; see `BarkSubModelConfig`.

    Args:
        alignment_heads: (layer, head) pairs whose attention follows the text token being spoken; None where none is known.
    """

    model_type = "semantic"
    base_config_key = "semantic_config"

    alignment_heads: list | None = None


@strict
class BarkCoarseConfig(BarkSubModelConfig):
    """Sizes of the semantic-to-coarse model; see `BarkSubModelConfig`."""

    model_type = "coarse_acoustics"
    base_config_key = "coarse_acoustics_config"


@strict
class BarkFineConfig(BarkSubModelConfig):
    """Sizes of the coarse-to-fine model; see `BarkSubModelConfig`.

    Args:
        n_codes_total: codebooks in all.
        n_codes_given: codebooks that have no head of their own (the released model: 1).

    Raises:
        ValueError: as `BarkSubModelConfig`, and when `n_codes_given` is not in [1, n_codes_total).
    """

    model_type = "fine_acoustics"
    base_config_key = "fine_acoustics_config"

    tie_word_embeddings: bool = True
    n_codes_total: int = vocabulary.N_FINE_CODEBOOKS
    n_codes_given: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name in ("n_codes_total", "n_codes_given"):
            _check_size(self, name)
        if not 1 <= self.n_codes_given < self.n_codes_total:
            raise ValueError(
                f"`n_codes_given` must be at least 1 and less than `n_codes_total`, got {self.n_codes_given} of {self.n_codes_total}"
            )
        if self.tie_word_embeddings and self.input_vocab_size != self.output_vocab_size:
            raise ValueError(
                "tied heads need `output_vocab_size` equal to `input_vocab_size`, got "
                f"{self.output_vocab_size} and {self.input_vocab_size}"
            )


_SUB_MODELS: dict[str, type[BarkSubModelConfig]] = {
    "semantic_config": BarkSemanticConfig,
    "coarse_acoustics_config": BarkCoarseConfig,
    "fine_acoustics_config": BarkFineConfig,
}


@strict
class BarkConfig(PreTrainedConfig):
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
    sub_configs_defaults = {
        **_SUB_MODELS,
        "codec_config": SubConfigSpec(config_class=AutoConfig, model_type="encodec"),
    }

    semantic_config: dict | PreTrainedConfig | None = None
    coarse_acoustics_config: dict | PreTrainedConfig | None = None
    fine_acoustics_config: dict | PreTrainedConfig | None = None
    codec_config: dict | PreTrainedConfig | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name, kind in _SUB_MODELS.items():
            value = getattr(self, name)
            if not isinstance(value, PreTrainedConfig) or isinstance(value, kind):
                continue
            if value.model_type != kind.model_type:
                raise TypeError(f"`{name}` must be a dict or a {kind.__name__}, got a {type(value).__name__}")
            # the class of that name in Transformers itself
            setattr(self, name, kind(**value.to_dict()))
        super().__post_init__(**kwargs)

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


__all__ = ["BarkCoarseConfig", "BarkConfig", "BarkFineConfig", "BarkSemanticConfig", "BarkSubModelConfig"]
