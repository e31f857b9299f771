"""Options of `generate`: which exist, which stage they reach, and what they default to.

An option with the prefix `semantic_`, `coarse_` or `fine_` reaches that stage; one without reaches every stage that knows
it; the generation config is the default. One exception, as in the original library: `temperature` without a prefix
reaches the semantic and the coarse stage, and the fine stage keeps its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

STAGES = ("semantic", "coarse", "fine")


def _check(name: str, value: Any, allowed: bool, rule: str) -> None:
    if not allowed:
        raise ValueError(f"`{name}` must be {rule}, got {value!r}")


def _number(value: Any, kind: type = Real) -> bool:
    """Whether the value is a number; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


@dataclass(frozen=True)
class SamplingOptions:
    """How a token is chosen from logits.

    Args:
        do_sample: False takes the most probable token.
        temperature: divides the logits; None is 1.
        top_k: only the most probable so many; None or 0 for all.
        top_p: only the most probable that together reach this probability, one at least; None or 1 for all.

    Raises:
        ValueError: a value outside its range.
    """

    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        _check("do_sample", self.do_sample, isinstance(self.do_sample, bool), "True or False")
        if (t := self.temperature) is not None:
            _check("temperature", t, _number(t) and t > 0, "a positive number (do_sample=False is greedy)")
        if (k := self.top_k) is not None:
            _check("top_k", k, _number(k, Integral) and k >= 0, "a whole number of at least 0")
        if (p := self.top_p) is not None:
            _check("top_p", p, _number(p) and 0 <= p <= 1, "in [0, 1]")


@dataclass(frozen=True)
class SemanticOptions(SamplingOptions):
    """Options of the semantic stage.

    Args:
        min_eos_p: end a row when the end has at least this probability; None switches the rule off.
        max_new_tokens: most tokens of a row.
        allow_early_stop: False makes the end impossible, so that a row runs to its limit.
        max_gen_duration_s: end a row after this many seconds of audio.
    """

    min_eos_p: float | None = None
    max_new_tokens: int = 768
    allow_early_stop: bool = True
    max_gen_duration_s: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (p := self.min_eos_p) is not None:
            _check("min_eos_p", p, _number(p) and 0 <= p <= 1, "in [0, 1]")
        n, early, seconds = self.max_new_tokens, self.allow_early_stop, self.max_gen_duration_s
        _check("max_new_tokens", n, _number(n, Integral) and n >= 1, "a whole number of at least 1")
        _check("allow_early_stop", early, isinstance(early, bool), "True or False")
        if seconds is not None:
            _check("max_gen_duration_s", seconds, _number(seconds) and seconds > 0, "a positive number")


@dataclass(frozen=True)
class CoarseOptions(SamplingOptions):
    """Options of the coarse stage.

    Args:
        max_coarse_history: most coarse tokens of the past in a window's prompt.
        sliding_window_len: tokens made per window.
    """

    max_coarse_history: int = 630
    sliding_window_len: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_coarse_history", "sliding_window_len"):
            n = getattr(self, name)
            _check(name, n, _number(n, Integral) and n >= 1, "a whole number of at least 1")


@dataclass(frozen=True)
class FineOptions(SamplingOptions):
    """Options of the fine stage."""


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


KNOWN: dict[str, list[str]] = {
    "semantic": _names(SemanticOptions),
    "coarse": _names(CoarseOptions),
    "fine": _names(FineOptions),
}


def unknown_option(names: Iterable[str], known: Iterable[str]) -> TypeError:
    """The error for options that no stage has, with the nearest names that there are."""
    known = sorted(set(known))
    parts = []
    for name in names:
        near = difflib.get_close_matches(name, known, 3)
        parts.append(f"`{name}`" + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    return TypeError(f"unknown generation option {', '.join(parts)}; known are {', '.join(known)}")


def split_options(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options as a caller of `BarkModel.generate` gives them -> the options of each stage.

    Raises:
        TypeError: an option that no stage has.
    """
    routed: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    prefixed = {f"{stage}_{name}": (stage, name) for stage in STAGES for name in KNOWN[stage]}
    plain = {name for names in KNOWN.values() for name in names}
    unknown = [name for name in options if name not in plain and name not in prefixed]
    if unknown:
        raise unknown_option(unknown, plain | set(prefixed))
    for name in options:
        for stage in STAGES if name in plain else ():
            if name in KNOWN[stage] and not (stage == "fine" and name == "temperature"):
                routed[stage][name] = options[name]
    for name in options:
        if name in prefixed:
            stage, own = prefixed[name]
            routed[stage][own] = options[name]
    return routed


def _defaults(config: Any, names: Iterable[str]) -> dict[str, Any]:
    """What the generation config says of these options; what it leaves open is left out."""
    found = {name: getattr(config, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _merge(stage: str, config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in given if name not in KNOWN[stage]]
    if unknown:
        raise unknown_option(unknown, KNOWN[stage])
    return {**_defaults(config, KNOWN[stage]), **given}


def semantic_options(config: Any, given: Mapping[str, Any]) -> SemanticOptions:
    """The semantic generation config with the caller's options over it."""
    return SemanticOptions(**_merge("semantic", config, given))


def coarse_options(config: Any, given: Mapping[str, Any]) -> CoarseOptions:
    """The coarse generation config with the caller's options over it."""
    return CoarseOptions(**_merge("coarse", config, given))


def fine_options(config: Any, given: Mapping[str, Any]) -> FineOptions:
    """The fine generation config with the caller's options over it.

    A temperature samples, None is greedy, and so is `do_sample=False` of the caller; the config's `do_sample` is not read,
    since the Hub's files say False beside a temperature that is meant.
    """
    merged = {"temperature": config.temperature, "do_sample": True, **_merge("fine", None, given)}
    if merged["temperature"] is None:
        merged["do_sample"] = False
    return FineOptions(**merged)
