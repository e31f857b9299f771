"""Options of `generate`: which exist, which stage they reach, and what they default to.

An option with the prefix `semantic_`, `coarse_` or `fine_` reaches that stage; one without reaches every stage that knows
it; the generation config is the default. Two exceptions: as in the original library, `temperature` without a prefix reaches
the semantic and the coarse stage, and the fine stage keeps its own; options that name tokens, whose numbers mean something
else in every stage, reach the semantic stage alone.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from numbers import Integral, Real
from typing import Any, ClassVar

from transformers import GenerationConfig, LogitsProcessorList

from ..generation_configuration_bark import asks_for_nothing
from .processors import warpers_of
from .refusals import REASONS, reason_of_stage

STAGES = ("semantic", "coarse", "fine")

NAMES_TOKENS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias")
"""Options whose values are token ids."""


def _number(value: Any, kind: type = Real) -> bool:
    """Whether the value is a number; True, False and NaN are none."""
    return isinstance(value, kind) and not isinstance(value, bool) and value == value


def _whole(value: Any, least: int) -> bool:
    return _number(value, Integral) and value >= least


def _ids(value: Any) -> bool:
    """Whether the value is a list of token ids."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(_whole(item, 0) for item in value)


def _words(value: Any) -> bool:
    """Whether the value is a list of token sequences."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(_ids(item) and item for item in value)


def _bias(value: Any) -> bool:
    """Whether the value gives biases to token sequences: a dict of tuples, or a list of pairs."""
    if not isinstance(value, Mapping) and (not isinstance(value, Sequence) or isinstance(value, str)):
        return False
    pairs = list(value.items()) if isinstance(value, Mapping) else list(value)
    return all(
        isinstance(pair, Sequence) and len(pair) == 2 and _ids(pair[0]) and pair[0] and _number(pair[1])
        for pair in pairs
    )


def _decay(value: Any) -> bool:
    return (
        isinstance(value, Sequence) and len(value) == 2 and _whole(value[0], 0) and _number(value[1]) and value[1] > 0
    )


def _callables(value: Any) -> bool:
    return callable(value) or isinstance(value, Sequence) and all(map(callable, value))


Rule = tuple[Callable[[Any], bool], str]
_PROBABILITY: Rule = (lambda p: _number(p) and 0 <= p <= 1, "in [0, 1]")
_FLAG: Rule = (lambda flag: isinstance(flag, bool), "True or False")
_COUNT: Rule = (lambda n: _whole(n, 1), "a whole number of at least 1")
_POSITIVE: Rule = (lambda x: _number(x) and 0 < x < math.inf, "a positive number")
_FUNCTIONS: Rule = (_callables, "a function, or a list of functions, of the token ids and their scores")

RULES: dict[str, Rule] = {
    "do_sample": _FLAG,
    "temperature": _POSITIVE,
    "top_k": (lambda k: _whole(k, 0), "a whole number of at least 0"),
    "top_p": _PROBABILITY,
    "min_p": _PROBABILITY,
    "top_h": (lambda p: _number(p) and 0 < p <= 1, "in (0, 1]"),
    "typical_p": (lambda p: _number(p) and 0 < p <= 1, "in (0, 1]"),
    "epsilon_cutoff": (lambda p: _number(p) and 0 <= p < 1, "in [0, 1)"),
    "eta_cutoff": (lambda p: _number(p) and 0 <= p < 1, "in [0, 1)"),
    "suppress_tokens": (_ids, "a list of token ids"),
    "remove_invalid_values": _FLAG,
    "repetition_penalty": _POSITIVE,
    "no_repeat_ngram_size": (lambda n: _whole(n, 0), "a whole number of at least 0"),
    "bad_words_ids": (_words, "a list of lists of token ids"),
    "sequence_bias": (_bias, "a dict of token ids (tuples) to numbers, or a list of such pairs"),
    "begin_suppress_tokens": (_ids, "a list of token ids"),
    "logits_processor": _FUNCTIONS,
    "stopping_criteria": _FUNCTIONS,
    "max_time": _POSITIVE,
    "use_cache": _FLAG,
    "min_eos_p": _PROBABILITY,
    "max_new_tokens": _COUNT,
    "min_new_tokens": (lambda n: _whole(n, 0), "a whole number of at least 0"),
    "exponential_decay_length_penalty": (_decay, "(a whole number of tokens, a positive factor)"),
    "allow_early_stop": _FLAG,
    "max_gen_duration_s": _POSITIVE,
    "max_coarse_history": _COUNT,
    "sliding_window_len": _COUNT,
}
"""What the value of each option must be, where it is not None."""

_NEVER_NONE = ("do_sample", "max_new_tokens", "allow_early_stop", "max_coarse_history", "sliding_window_len")


def _later(default: Any = None) -> Any:
    """A field given by name only, so that those of a stage's own keep their places."""
    return field(default=default, kw_only=True)


@dataclass(frozen=True)
class SamplingOptions:
    """How a token is chosen from logits.

    Args:
        do_sample: False takes the most probable token.
        temperature: divides the logits; None is 1.
        top_k: only the most probable so many; None or 0 for all.
        top_p: only the most probable that together reach this probability, one at least; None or 1 for all.
        min_p, top_h, typical_p, epsilon_cutoff, eta_cutoff: as in Transformers, after the three above.
        suppress_tokens: ids that are never chosen.
        remove_invalid_values: takes logits that are no numbers for 0.

    Raises:
        ValueError: a value outside its range.
    """

    stage: ClassVar[str | None] = None

    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = _later()
    top_h: float | None = _later()
    typical_p: float | None = _later()
    epsilon_cutoff: float | None = _later()
    eta_cutoff: float | None = _later()
    suppress_tokens: Sequence[int] | None = _later()
    remove_invalid_values: bool | None = _later()

    def __post_init__(self) -> None:
        for name in _names(type(self)):
            value, (allowed, rule) = getattr(self, name), RULES[name]
            if (value is not None or name in _NEVER_NONE) and not allowed(value):
                if name == "temperature":
                    greedy = "`fine_temperature=None`" if self.stage == "fine" else "`do_sample=False`"
                    rule = f"{rule} ({greedy} is greedy)"
                of_stage = f" of the {self.stage} stage" if self.stage else ""
                raise ValueError(f"`{name}`{of_stage} must be {rule}, got {value!r}")

    @cached_property
    def warpers(self) -> LogitsProcessorList | None:
        """Transformers' own filters of what is sampled from; None where there are none."""
        return warpers_of(self)


@dataclass(frozen=True)
class CausalOptions(SamplingOptions):
    """Options of the stages that choose token after token.

    Args:
        repetition_penalty, no_repeat_ngram_size, bad_words_ids, sequence_bias: as in Transformers, over the tokens that the
            stage has made.
        begin_suppress_tokens: ids that are not chosen first.
        logits_processor, stopping_criteria: Transformers' or own, called with those tokens, [row, token], and their scores.
        max_time: seconds after which the stage ends.
        use_cache: False reads everything anew for every token.
    """

    repetition_penalty: float | None = _later()
    no_repeat_ngram_size: int | None = _later()
    bad_words_ids: Sequence[Sequence[int]] | None = _later()
    sequence_bias: Any = _later()
    begin_suppress_tokens: Sequence[int] | None = _later()
    logits_processor: Any = _later()
    stopping_criteria: Any = _later()
    max_time: float | None = _later()
    use_cache: bool | None = _later()


@dataclass(frozen=True)
class SemanticOptions(CausalOptions):
    """Options of the semantic stage.

    Args:
        min_eos_p: end a row when the end has at least this probability; None switches the rule off.
        max_new_tokens: most tokens of a row.
        allow_early_stop: False makes the end impossible, so that a row runs to its limit.
        max_gen_duration_s: end a row after this many seconds of audio.
        min_new_tokens, exponential_decay_length_penalty: as in Transformers.
    """

    stage = "semantic"

    min_eos_p: float | None = None
    max_new_tokens: int = 768
    allow_early_stop: bool = True
    max_gen_duration_s: float | None = None
    min_new_tokens: int | None = _later()
    exponential_decay_length_penalty: Sequence[float] | None = _later()


@dataclass(frozen=True)
class CoarseOptions(CausalOptions):
    """Options of the coarse stage.

    Args:
        max_coarse_history: most coarse tokens of the past in a window's prompt.
        sliding_window_len: tokens made per window.
    """

    stage = "coarse"

    max_coarse_history: int = 630
    sliding_window_len: int = 60


@dataclass(frozen=True)
class FineOptions(SamplingOptions):
    """Options of the fine stage."""

    stage = "fine"


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


KNOWN: dict[str, list[str]] = {
    "semantic": _names(SemanticOptions),
    "coarse": _names(CoarseOptions),
    "fine": _names(FineOptions),
}
_PLAIN = {name for names in KNOWN.values() for name in names}
_OF_THE_CALL = ("num_return_sequences", "return_dict_in_generate")
_DEFAULTS = vars(GenerationConfig())
_CONFIGS = {"semantic": "semantic_config.", "coarse": "coarse_acoustics_config.", "fine": "fine_acoustics_config."}
HOLDS_ANYWAY = ("renormalize_logits",)
"""Accepted: what is sampled from is always normalised."""


def unknown_option(names: Iterable[str], known: Iterable[str]) -> TypeError:
    """The error for options that no stage has, with the nearest names that there are."""
    known = sorted(set(known))
    parts = []
    for name in names:
        near = difflib.get_close_matches(name, known, 3)
        parts.append(f"`{name}`" + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    return TypeError(f"unknown generation option {', '.join(parts)}; known are {', '.join(known)}")


def _is_left_out(name: str, own: str, value: Any, where: str = "") -> bool:
    """Whether an option that no stage takes may be left out: it asks for nothing, or nothing depends on it.

    Args:
        name: as it was given; `own`: without its prefix.
        where: the config that holds it, for the error.

    Raises:
        TypeError: an option of Transformers that cannot act here, with the reason; a ValueError where a config holds it.
    """
    if own == "pad_token_id" and value is not None:
        warnings.warn(f"`{where}{name}` changes nothing: Bark fills up with pads of its own", UserWarning, stacklevel=2)
        return True
    if own not in REASONS and own not in HOLDS_ANYWAY and own != "pad_token_id":
        return False
    if own in REASONS and not asks_for_nothing(own, value):
        error = ValueError if where else TypeError
        raise error(f"`{where}{name}` cannot be {value!r} here: {REASONS[own]}")
    return True


def _is_default(name: str, value: Any) -> bool:
    """Whether a field of a config says nothing, or what Transformers fills in."""
    if asks_for_nothing(name, value):
        return True
    return isinstance(value, Real | str) and value == _DEFAULTS.get(name)


def _split_name(name: str) -> tuple[str | None, str]:
    """`coarse_top_k` -> ("coarse", "top_k"); a name without the prefix of a stage -> (None, name)."""
    stage, _, own = name.partition("_")
    return (stage, own) if stage in STAGES and name not in _PLAIN else (None, name)


def _reaches(stage: str, name: str) -> bool:
    """Whether an option without a prefix reaches a stage."""
    if name not in KNOWN[stage] or stage == "fine" and name == "temperature":
        return False
    return stage == "semantic" or name not in NAMES_TOKENS


def split_options(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options as a caller of `BarkModel.generate` gives them -> the options of each stage.

    Raises:
        TypeError: an option that no stage has, or that cannot act.
    """
    routed: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    prefixed: list[tuple[str, str, Any]] = []
    unknown = []
    for name, value in options.items():
        stage, own = _split_name(name)
        if _is_left_out(name, own, value):
            continue
        if stage is None and own in _PLAIN:
            for reached in STAGES:
                if _reaches(reached, own):
                    routed[reached][own] = value
        elif stage is not None and own in KNOWN[stage]:
            prefixed.append((stage, own, value))
        elif stage is not None and own in (*_PLAIN, *_OF_THE_CALL):
            raise TypeError(f"`{name}`: {_why_not(own, stage)}")
        else:
            unknown.append(name)
    if unknown:
        known = _PLAIN | {f"{stage}_{name}" for stage in STAGES for name in KNOWN[stage]} | {"num_return_sequences"}
        raise unknown_option(unknown, known)
    for stage, own, value in prefixed:
        routed[stage][own] = value
    return routed


def _why_not(name: str, stage: str) -> str:
    if name in _OF_THE_CALL:
        return "it is an option of the whole call, without a prefix"
    return reason_of_stage(name, stage)


def config_options(config: GenerationConfig) -> dict[str, Any]:
    """What a whole generation config says beside its stages, as a caller would give it: its defaults say nothing.

    Raises:
        ValueError: a field that cannot act, with the reason.
    """
    said = {}
    for name, value in vars(config).items():
        if _is_default(name, value) or _is_left_out(name, name, value, "generation_config."):
            continue
        if name in _PLAIN or name == "num_return_sequences":
            said[name] = value
    return said


def _of_config(stage: str, config: Any) -> dict[str, Any]:
    """What a stage's generation config says of its options.

    Raises:
        ValueError: a field that cannot act in this stage, with the reason.
    """
    said, where = {}, _CONFIGS[stage]
    for name, value in vars(config).items():
        if value is None or stage == "semantic" and name == "eos_token_id":
            continue
        if name in KNOWN[stage]:
            said[name] = value
        elif _is_left_out(name, name, value, where) or name not in (*_PLAIN, *_OF_THE_CALL):
            continue
        elif not _is_default(name, value):
            raise ValueError(f"`{where}{name}` cannot be {value!r}: {_why_not(name, stage)}")
    return said


def _merge(stage: str, config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    unknown, kept = [], {}
    for name, value in given.items():
        if name in KNOWN[stage]:
            kept[name] = value
        elif name in _PLAIN:
            raise TypeError(f"`{name}`: {_why_not(name, stage)}")
        elif not _is_left_out(name, name, value):
            unknown.append(name)
    if unknown:
        raise unknown_option(unknown, KNOWN[stage])
    return {**_of_config(stage, config), **kept}


def semantic_options(config: Any, given: Mapping[str, Any]) -> SemanticOptions:
    """The semantic generation config with the caller's options over it."""
    return SemanticOptions(**_merge("semantic", config, given))


def coarse_options(config: Any, given: Mapping[str, Any]) -> CoarseOptions:
    """The coarse generation config with the caller's options over it."""
    return CoarseOptions(**_merge("coarse", config, given))


def fine_options(config: Any, given: Mapping[str, Any]) -> FineOptions:
    """The fine generation config with the caller's options over it.

    A temperature samples, None is greedy, and so is `do_sample=False`. The Hub's files say that beside a temperature that is
    meant: the config's class leaves it out when it reads them.
    """
    merged = {"temperature": config.temperature, "do_sample": True, **_merge("fine", config, given)}
    if merged["temperature"] is None:
        merged["do_sample"] = False
    return FineOptions(**merged)
