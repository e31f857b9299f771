"""Options of `generate`: which exist, which stage they reach, and what they default to.

An option with the prefix `semantic_`, `coarse_` or `fine_` reaches that stage; one without reaches every stage that knows
it; the generation config is the default. One exception, as in the original library: `temperature` without a prefix
reaches the semantic and the coarse stage, and the fine stage keeps its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

STAGES = ("semantic", "coarse", "fine")


@dataclass(frozen=True)
class SamplingOptions:
    """How a token is chosen from logits.

    Args:
        do_sample: False takes the most probable token.
        temperature: divides the logits; None is 1.
        top_k: only the most probable so many; None or 0 for all.
        top_p: only the most probable that together reach this probability; None or 1 for all.

    Raises:
        ValueError: a value outside its range.
    """

    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(
                f"`temperature` must be positive, got {self.temperature}; for greedy decoding use do_sample=False"
            )
        if self.top_k is not None and (int(self.top_k) != self.top_k or self.top_k < 0):
            raise ValueError(f"`top_k` must be a whole number of at least 0, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1], got {self.top_p}")


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
        if self.min_eos_p is not None and not 0 <= self.min_eos_p <= 1:
            raise ValueError(f"`min_eos_p` must be in [0, 1], got {self.min_eos_p}")
        if self.max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens` must be at least 1, got {self.max_new_tokens}")
        if self.max_gen_duration_s is not None and not self.max_gen_duration_s > 0:
            raise ValueError(f"`max_gen_duration_s` must be positive, got {self.max_gen_duration_s}")


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
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")


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

    A temperature samples and None is greedy, unless the caller says `do_sample`; the config's `do_sample` is not read,
    since the Hub's files say False beside a temperature that is meant.
    """
    merged = _merge("fine", None, given)
    merged.setdefault("temperature", config.temperature)
    merged.setdefault("do_sample", merged["temperature"] is not None)
    return FineOptions(**merged)
