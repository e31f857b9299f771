"""How each stage samples, and the tokens and rates it works with. Loads the Hub's `generation_config.json` as it stands."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Number, Real
from typing import Any, ClassVar

from transformers import GenerationConfig, PreTrainedConfig

from . import vocabulary
from .configuration_bark import BarkConfig

_TRANSFORMERS_TOP_K = 50
"""What Transformers filled in where nobody had chosen one."""


NEUTRAL: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "early_stopping": False,
    "length_penalty": 1,
    "diversity_penalty": 0,
    "penalty_alpha": 0,
    "low_memory": False,
    "guidance_scale": 1,
    "encoder_repetition_penalty": 1,
    "encoder_no_repeat_ngram_size": 0,
    "is_assistant": False,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
    "max_length": 20,
    "min_length": 0,
    "token_healing": False,
    "use_mtp": False,
    "synced_gpus": False,
    "disable_compile": False,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
    # of options that act
    "min_p": 0,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "min_new_tokens": 0,
    "top_p": 1,
    "renormalize_logits": False,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    "remove_invalid_values": False,
    "use_cache": True,
}
"""Values that ask for nothing, as Transformers fills in configs with them."""


def asks_for_nothing(name: str, value: Any) -> bool:
    """Whether an option with this value changes nothing: None, empty, or the value that switches it off."""
    if value is None or isinstance(value, Mapping | list | tuple | set) and not value:
        return True
    neutral = NEUTRAL.get(name)
    if neutral is None or not isinstance(value, Number | str):
        return False
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


class _StageGenerationConfig(GenerationConfig, Mapping):
    """A stage's config: sampling fields of `GenerationConfig` plus the stage's own, given by `_own`.

    It also reads as the mapping that Transformers has in its place. None is the default of an own field, but for `temperature`,
    where it has a meaning.
    """

    model_type: ClassVar[str]
    _own: ClassVar[dict[str, Any]]
    _counts: ClassVar[tuple[str, ...]] = ()
    _ids: ClassVar[tuple[str, ...]] = ()
    _rates: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **kwargs: Any) -> None:
        kwargs.pop("model_type", None)
        given = {
            name: value
            for name, value in kwargs.items()
            if value is not None or name == "temperature" or name not in self._own
        }
        super().__init__(**{**self._own, **given})

    def check_values(self) -> None:
        """Checks the stage's own fields, which may have been set since.

        Raises:
            TypeError: a value of another kind.
            ValueError: one that is out of its range.
        """
        for names, kind, what in (
            (self._counts, Integral, "a whole number"),
            (self._ids, Integral, "one id"),
            (self._rates, Real, "a number"),
        ):
            for name in names:
                value = getattr(self, name)
                if isinstance(value, bool) or not issubclass(type(value), kind):
                    raise TypeError(f"`{name}` must be {what}, got {value!r}")
                if names is self._ids and value < 0:
                    raise ValueError(f"`{name}` must not be negative, got {value}")
                if names is not self._ids and not 0 < value < math.inf:
                    raise ValueError(f"`{name}` must be positive, got {value}")

    def __getitem__(self, name: str) -> Any:
        if name not in self.to_dict():
            raise KeyError(name)
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())


class BarkSemanticGenerationConfig(_StageGenerationConfig):
    """Sampling and tokens of the semantic stage.

    Args:
        eos_token_id: id that ends a row; also the pad of the semantic history (`semantic_pad_token`).
        temperature, top_k, top_p, do_sample: sampling; greedy unless `do_sample`.
        max_new_tokens: most semantic tokens of a row.
        min_eos_p: a row ends when the probability of the end, in the distribution sampled from, is at least this;
            None switches the rule off. The original library uses 0.2.
        text_encoding_offset: added to the tokenizer's ids.
        text_pad_token, semantic_infer_token: ids that fill the text and that ask for the first token.
        semantic_vocab_size: number of semantic tokens.
        max_input_semantic_length: length of the text and of the history in the prompt.
        semantic_rate_hz: semantic tokens per second of audio.
    """

    eos_token_id: int
    semantic_pad_token: int
    text_encoding_offset: int
    text_pad_token: int
    semantic_infer_token: int
    semantic_vocab_size: int
    max_input_semantic_length: int
    semantic_rate_hz: float
    max_new_tokens: int
    min_eos_p: float | None

    model_type = "semantic"
    _own = {
        "eos_token_id": vocabulary.SEMANTIC_VOCAB_SIZE,
        "renormalize_logits": True,
        "max_new_tokens": vocabulary.MAX_SEMANTIC_TOKENS,
        "output_scores": False,
        "return_dict_in_generate": False,
        "output_hidden_states": False,
        "output_attentions": False,
        "temperature": 1.0,
        "do_sample": False,
        "text_encoding_offset": vocabulary.TEXT_ENCODING_OFFSET,
        "text_pad_token": vocabulary.TEXT_PAD_TOKEN,
        "semantic_infer_token": vocabulary.SEMANTIC_INFER_TOKEN,
        "semantic_vocab_size": vocabulary.SEMANTIC_VOCAB_SIZE,
        "max_input_semantic_length": vocabulary.MAX_TEXT_LENGTH,
        "semantic_rate_hz": vocabulary.SEMANTIC_RATE_HZ,
        "min_eos_p": None,
    }
    _counts = ("semantic_vocab_size", "max_input_semantic_length", "max_new_tokens")
    _ids = ("eos_token_id", "semantic_pad_token", "text_encoding_offset", "text_pad_token", "semantic_infer_token")
    _rates = ("semantic_rate_hz",)

    def __init__(self, **kwargs: Any) -> None:
        pad = kwargs.pop("semantic_pad_token", None)
        super().__init__(**kwargs)
        self.semantic_pad_token = self.eos_token_id if pad is None else pad
        self.check_values()

    def check_values(self) -> None:
        super().check_values()
        if self.text_encoding_offset < self.semantic_vocab_size:
            raise self.taken("text_encoding_offset")

    def taken(self, name: str) -> ValueError:
        """The error for an id that is a semantic token's."""
        return ValueError(
            f"`{name}` is {getattr(self, name)}, but the semantic tokens take the ids up to {self.semantic_vocab_size - 1}"
        )


class BarkCoarseGenerationConfig(_StageGenerationConfig):
    """Sampling and tokens of the coarse stage.

    Args:
        temperature, top_k, top_p, do_sample: sampling; greedy unless `do_sample`.
        coarse_semantic_pad_token, coarse_infer_token: ids that fill the semantic prompt and that follow it.
        coarse_rate_hz: frames per second of audio.
        n_coarse_codebooks: codebooks that this stage makes, interleaved frame by frame.
        max_coarse_input_length: semantic tokens in the prompt.
        max_coarse_history: most coarse tokens of the past in the prompt.
        sliding_window_len: tokens made per prompt.
    """

    coarse_semantic_pad_token: int
    coarse_infer_token: int
    coarse_rate_hz: float
    n_coarse_codebooks: int
    max_coarse_input_length: int
    max_coarse_history: int
    sliding_window_len: int

    model_type = "coarse_acoustics"
    _own = {
        "renormalize_logits": True,
        "output_scores": False,
        "return_dict_in_generate": False,
        "output_hidden_states": False,
        "output_attentions": False,
        "temperature": 1.0,
        "do_sample": False,
        "coarse_semantic_pad_token": vocabulary.COARSE_SEMANTIC_PAD_TOKEN,
        "coarse_rate_hz": vocabulary.COARSE_RATE_HZ,
        "n_coarse_codebooks": vocabulary.N_COARSE_CODEBOOKS,
        "coarse_infer_token": vocabulary.COARSE_INFER_TOKEN,
        "max_coarse_input_length": vocabulary.MAX_COARSE_INPUT_LENGTH,
        "max_coarse_history": vocabulary.MAX_COARSE_HISTORY,
        "sliding_window_len": vocabulary.SLIDING_WINDOW_LEN,
    }
    _counts = ("n_coarse_codebooks", "max_coarse_input_length", "max_coarse_history", "sliding_window_len")
    _ids = ("coarse_semantic_pad_token", "coarse_infer_token")
    _rates = ("coarse_rate_hz",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_values()


class BarkFineGenerationConfig(_StageGenerationConfig):
    """Sampling and windows of the fine stage.

    The Hub's files carry `do_sample: false` beside a temperature, and `top_k: 50`, which the stage never obeyed: both are left
    out. `do_sample=False` without a temperature is greedy.

    Args:
        temperature: None is greedy, a number samples at that temperature.
        max_fine_history_length: most frames of the past in a window, and the step between windows.
        max_fine_input_length: frames in a window.
        n_fine_codebooks: codebooks in all.
    """

    max_fine_history_length: int
    max_fine_input_length: int
    n_fine_codebooks: int

    model_type = "fine_acoustics"
    _own = {
        "temperature": vocabulary.FINE_TEMPERATURE,
        "max_fine_history_length": vocabulary.MAX_FINE_HISTORY_LENGTH,
        "max_fine_input_length": vocabulary.MAX_FINE_INPUT_LENGTH,
        "n_fine_codebooks": vocabulary.N_FINE_CODEBOOKS,
    }
    _counts = ("max_fine_history_length", "max_fine_input_length", "n_fine_codebooks")

    def __init__(self, **kwargs: Any) -> None:
        greedy = kwargs.pop("do_sample", None) is False
        if greedy and "temperature" not in kwargs:
            kwargs["temperature"] = None
        if kwargs.get("top_k") == _TRANSFORMERS_TOP_K:
            del kwargs["top_k"]
        kwargs.pop("_from_model_config", None)
        said = {name: value for name, value in kwargs.items() if name in self._own or not asks_for_nothing(name, value)}
        super().__init__(**said)
        self.check_values()

    def check_values(self) -> None:
        super().check_values()
        if self.max_fine_history_length > self.max_fine_input_length:
            raise ValueError(
                "`max_fine_history_length` must not exceed `max_fine_input_length`, got "
                f"{self.max_fine_history_length} and {self.max_fine_input_length}"
            )

    def validate(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to check: a temperature without `do_sample` is meant."""

    def to_dict(self) -> dict[str, Any]:
        """All fields. A `do_sample=False` that was set is written as the temperature that says it."""
        output = super().to_dict()
        if output.get("do_sample") is False:
            output.update(do_sample=None, temperature=None)
        return output


class BarkGenerationConfig(GenerationConfig):
    """The generation configs of all stages. Dicts are turned into config objects.

    Args:
        semantic_config, coarse_acoustics_config, fine_acoustics_config: dict or config object; None for the defaults.
        sample_rate: samples per second of the audio.
        codebook_size: codes in each codebook.

    Raises:
        TypeError: a stage's config of another kind.
        ValueError: ids of the coarse stage that mean two things, or fewer codebooks in all than in the coarse stage.
    """

    model_type = "bark"
    _stages: ClassVar[dict[str, type[_StageGenerationConfig]]] = {
        "semantic_config": BarkSemanticGenerationConfig,
        "coarse_acoustics_config": BarkCoarseGenerationConfig,
        "fine_acoustics_config": BarkFineGenerationConfig,
    }

    semantic_config: BarkSemanticGenerationConfig
    coarse_acoustics_config: BarkCoarseGenerationConfig
    fine_acoustics_config: BarkFineGenerationConfig

    def __init__(
        self,
        semantic_config: dict[str, Any] | BarkSemanticGenerationConfig | None = None,
        coarse_acoustics_config: dict[str, Any] | BarkCoarseGenerationConfig | None = None,
        fine_acoustics_config: dict[str, Any] | BarkFineGenerationConfig | None = None,
        sample_rate: int = vocabulary.SAMPLE_RATE,
        codebook_size: int = vocabulary.CODEBOOK_SIZE,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("model_type", None)
        stages = zip(self._stages, (semantic_config, coarse_acoustics_config, fine_acoustics_config), strict=True)
        for name, stage in stages:
            setattr(self, name, stage)
        self.sample_rate = sample_rate
        self.codebook_size = codebook_size
        super().__init__(**kwargs)
        self.check_values()

    def validate(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to check here: what is set beside the stages are options, checked when they are used."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._stage(name, value) if name in self._stages else value)

    def check_values(self) -> None:
        """Checks all stages, whose fields may have been set since, and that their ids mean one thing.

        Raises:
            TypeError, ValueError: as the stages' own checks, and see the class.
        """
        for stage in self._stages:
            getattr(self, stage).check_values()
        for name in ("sample_rate", "codebook_size"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}")
        semantic, coarse, fine = self.semantic_config, self.coarse_acoustics_config, self.fine_acoustics_config
        end = semantic.semantic_vocab_size + coarse.n_coarse_codebooks * self.codebook_size
        for name in ("coarse_semantic_pad_token", "coarse_infer_token"):
            if getattr(coarse, name) < end:
                raise ValueError(
                    f"`coarse_acoustics_config.{name}` is {getattr(coarse, name)}, but the semantic vocabulary and "
                    f"{coarse.n_coarse_codebooks} codebooks of {self.codebook_size} take the ids up to {end - 1}"
                )
        if coarse.n_coarse_codebooks > fine.n_fine_codebooks:
            raise ValueError(
                f"`n_coarse_codebooks` must not exceed `n_fine_codebooks`, got {coarse.n_coarse_codebooks} "
                f"and {fine.n_fine_codebooks}"
            )

    @classmethod
    def _stage(cls, name: str, value: Any) -> Any:
        kind = cls._stages[name]
        if isinstance(value, kind):
            return value
        if value is None or isinstance(value, dict):
            return kind(**(value or {}))
        if isinstance(value, GenerationConfig):
            return kind(**value.to_dict())
        raise TypeError(f"`{name}` must be a dict, a {kind.__name__} or None, got {type(value).__name__}")

    @classmethod
    def from_sub_model_configs(
        cls,
        semantic_config: BarkSemanticGenerationConfig,
        coarse_acoustics_config: BarkCoarseGenerationConfig,
        fine_acoustics_config: BarkFineGenerationConfig,
        **kwargs: Any,
    ) -> BarkGenerationConfig:
        """A `BarkGenerationConfig` of three finished configs, which are copied."""
        return cls(
            semantic_config=semantic_config.to_dict(),
            coarse_acoustics_config=coarse_acoustics_config.to_dict(),
            fine_acoustics_config=fine_acoustics_config.to_dict(),
            **kwargs,
        )

    @classmethod
    def typed(cls, config: GenerationConfig | None) -> BarkGenerationConfig:
        """Any generation config, with nested dicts or without, as a `BarkGenerationConfig`.

        Where a folder has no `generation_config.json`, Transformers reads one from its `config.json`, whose nested dicts
        are the models' configs: that says nothing of generation and gives the defaults.
        """
        if isinstance(config, cls):
            return config
        if config is None or cls._is_of_models(config):
            return cls()
        return cls(**{name: value for name, value in vars(config).items() if not name.startswith("_")})

    def with_changes(self, config: GenerationConfig | Mapping[str, Any] | None) -> BarkGenerationConfig:
        """The config of one call: a `BarkGenerationConfig` as it is, else this one with what `config` sets.

        Args:
            config: a generation config of Transformers, whose None is not set, or a dict. The dict of a stage sets the fields
                that it names, in a `GenerationConfig` the whole stage.

        Raises:
            TypeError: something else.
        """
        if config is None or isinstance(config, BarkGenerationConfig):
            return self if config is None else config
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        if isinstance(config, Mapping):
            if not all(isinstance(name, str) for name in config):
                raise TypeError(f"`generation_config` must have names for its keys, got {list(config)}")
            return type(self)(**own | {name: self._changed(name, value) for name, value in config.items()})
        if not isinstance(config, GenerationConfig):
            raise TypeError(f"`generation_config` must be a generation config or a dict, got {type(config).__name__}")
        said = {name: value for name, value in vars(config).items() if value is not None and not name.startswith("_")}
        return type(self)(**own | ({} if self._is_of_models(config) else said))

    def _changed(self, name: str, value: Any) -> Any:
        """A field with a new value, which for a stage may be a part of it."""
        if name in self._stages and isinstance(value, dict):
            return {**getattr(self, name), **value}
        return value

    @classmethod
    def _is_of_models(cls, config: GenerationConfig | None) -> bool:
        nested = [getattr(config, name, None) for name in cls._stages]
        return any(
            isinstance(stage, PreTrainedConfig) or isinstance(stage, dict) and "hidden_size" in stage
            for stage in nested
        )

    @classmethod
    def from_model_config(cls, model_config: PreTrainedConfig) -> BarkGenerationConfig:
        """The defaults: a model's config does not say how to generate."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """All fields, nested configs as dicts."""
        nested = {name: getattr(self, name) for name in self._stages}
        shallow = copy.copy(self)
        for name in self._stages:
            delattr(shallow, name)
        output = GenerationConfig.to_dict(shallow)
        output.update({name: stage.to_dict() for name, stage in nested.items()}, model_type=self.model_type)
        return output


def check_compatible(config: BarkConfig, generation_config: BarkGenerationConfig) -> None:
    """Checks that the models have room for the tokens and windows that the generation config asks for.

    Raises:
        ValueError: a vocabulary smaller than an id it must hold, or a window longer than the positions.
    """
    generation_config.check_values()
    if generation_config.semantic_config.eos_token_id < generation_config.semantic_config.semantic_vocab_size:
        raise generation_config.semantic_config.taken("eos_token_id")
    semantic, coarse = generation_config.semantic_config, generation_config.coarse_acoustics_config
    fine, codebook_size = generation_config.fine_acoustics_config, generation_config.codebook_size
    coarse_end = semantic.semantic_vocab_size + coarse.n_coarse_codebooks * codebook_size
    needs = [
        (
            "semantic_config",
            "input_vocab_size",
            1 + max(getattr(semantic, name) for name in semantic._ids if name != "eos_token_id"),
        ),
        ("semantic_config", "output_vocab_size", 1 + max(semantic.semantic_vocab_size - 1, semantic.eos_token_id)),
        ("semantic_config", "block_size", semantic.max_input_semantic_length + 1),
        (
            "coarse_acoustics_config",
            "input_vocab_size",
            max(coarse_end, 1 + max(coarse.coarse_semantic_pad_token, coarse.coarse_infer_token)),
        ),
        ("coarse_acoustics_config", "output_vocab_size", coarse_end),
        # the last token of a window is never fed back: its position is the infer token's
        (
            "coarse_acoustics_config",
            "block_size",
            coarse.max_coarse_input_length + coarse.max_coarse_history + coarse.sliding_window_len,
        ),
        ("fine_acoustics_config", "input_vocab_size", codebook_size + 1),
        ("fine_acoustics_config", "output_vocab_size", codebook_size),
        ("fine_acoustics_config", "block_size", fine.max_fine_input_length),
        ("fine_acoustics_config", "n_codes_total", fine.n_fine_codebooks),
        ("codec_config", "codebook_size", codebook_size),
        ("codec_config", "num_quantizers", fine.n_fine_codebooks),
    ]
    for part, name, least in needs:
        value = getattr(getattr(config, part), name, None)
        if value is not None and value < least:
            raise ValueError(f"`{part}.{name}` is {value}, but the generation config needs at least {least}")


__all__ = [
    "BarkCoarseGenerationConfig",
    "BarkFineGenerationConfig",
    "BarkGenerationConfig",
    "BarkSemanticGenerationConfig",
    "check_compatible",
]
