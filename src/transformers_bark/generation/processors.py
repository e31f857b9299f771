"""Transformers' logits processors and stopping criteria, as the stages' options ask for them.

They see what they would see in Transformers: the ids made so far, [row, token], and a score for each id of the model, [row, id],
-inf for those that cannot be chosen now. The ids are those that the stage itself has made, in its model's numbering: neither
text nor voice nor the tokens of another stage. So what a row gets does not depend on its batch or its windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    ExponentialDecayLengthPenalty,
    InfNanRemoveLogitsProcessor,
    LogitsProcessorList,
    MaxTimeCriteria,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    StoppingCriteriaList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TypicalLogitsWarper,
)
from transformers.generation import logits_process

from ..generation_configuration_bark import asks_for_nothing


class _EtaOnAnyDevice(EtaLogitsWarper):
    """The warper's own threshold is a tensor of one device; the scores' device is known when it is called."""

    epsilon: Tensor

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        self.epsilon = self.epsilon.to(scores.device)
        return super().__call__(input_ids, scores)


class _BoundedDecay(ExponentialDecayLengthPenalty):
    """The penalty grows until no number holds it: then the end is certain."""

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        try:
            processed = super().__call__(input_ids, scores)
        except OverflowError:
            processed = scores.clone()
            processed[:, self.eos_token_id] = torch.inf
        processed[:, self.eos_token_id] = processed[:, self.eos_token_id].clamp(max=_CERTAIN)
        return processed


_CERTAIN = 1e30


def _asked(options: Any, name: str) -> Any:
    """The value of an option, None where it asks for nothing or the stage does not have it."""
    value = getattr(options, name, None)
    return None if asks_for_nothing(name, value) else value


_WARPERS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("top_h", lambda value: logits_process.TopHLogitsWarper(float(value))),
    ("min_p", lambda value: MinPLogitsWarper(float(value))),
    ("typical_p", lambda value: TypicalLogitsWarper(float(value))),
    ("epsilon_cutoff", lambda value: EpsilonLogitsWarper(float(value))),
    ("eta_cutoff", lambda value: _EtaOnAnyDevice(float(value))),
)
"""In Transformers' order."""


def warpers_of(options: Any) -> LogitsProcessorList | None:
    """Filters of what is sampled from, which look at scores alone; None where none is asked for."""
    made = [make(value) for name, make in _WARPERS if (value := _asked(options, name)) is not None]
    return LogitsProcessorList(made) if made else None


def warp(scores: Tensor, warpers: LogitsProcessorList) -> Tensor:
    """Filters scores [..., token]."""
    flat = scores.flatten(0, -2)
    return warpers(None, flat).view(scores.shape)


def _listed(functions: Any) -> list[Any]:
    """A function, or several, as a list."""
    if functions is None:
        return []
    return list(functions) if isinstance(functions, Iterable) else [functions]


def _processors(options: Any, end: int | None, device: torch.device) -> list[Any]:
    """In Transformers' order, without those of the caller."""
    eos = None if end is None else torch.tensor([end], device=device)
    where = str(device)
    makers: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("sequence_bias", lambda value: SequenceBiasLogitsProcessor(_bias_dict(value))),
        ("repetition_penalty", lambda value: RepetitionPenaltyLogitsProcessor(float(value))),
        ("no_repeat_ngram_size", lambda value: NoRepeatNGramLogitsProcessor(int(value))),
        ("bad_words_ids", lambda value: NoBadWordsLogitsProcessor([list(map(int, word)) for word in value], eos)),
        ("remove_invalid_values", lambda value: InfNanRemoveLogitsProcessor()),
        ("exponential_decay_length_penalty", lambda value: _BoundedDecay(tuple(value), eos, 0)),
        # after the penalty, which would make "not a number" of an end that is forbidden
        ("min_new_tokens", lambda value: MinNewTokensLengthLogitsProcessor(0, int(value), eos, where)),
        ("suppress_tokens", lambda value: SuppressTokensLogitsProcessor(list(map(int, value)), where)),
        ("begin_suppress_tokens", lambda value: SuppressTokensAtBeginLogitsProcessor(list(map(int, value)), 0, where)),
    )
    return [make(value) for name, make in makers if (value := _asked(options, name)) is not None]


def _bias_dict(value: Any) -> dict[tuple[int, ...], float]:
    pairs = value.items() if hasattr(value, "items") else value
    return {tuple(map(int, ids)): float(bias) for ids, bias in pairs}


def _with_own(made: list[Any], own: list[Any]) -> list[Any]:
    """As in Transformers: the caller's stands in place of one of the same class that an option has made."""
    by_class = {type(function): function for function in own}
    kept = [by_class.get(type(function), function) for function in made]
    return kept + [function for function in own if not any(function is one for one in kept)]


def _check_ids(options: Any, n_ids: int) -> None:
    """Checks that the model has the ids that the options name."""
    words = [*(_asked(options, "bad_words_ids") or []), *_bias_dict(_asked(options, "sequence_bias") or {})]
    named = {
        "bad_words_ids, sequence_bias": [token for word in words for token in word],
        "suppress_tokens": _asked(options, "suppress_tokens") or [],
        "begin_suppress_tokens": _asked(options, "begin_suppress_tokens") or [],
    }
    for name, ids in named.items():
        if ids and max(ids) >= n_ids:
            raise ValueError(f"`{name}` of the {options.stage} stage hold {max(ids)}, its ids end at {n_ids - 1}")


@dataclass(frozen=True)
class TokenRules:
    """The processors and criteria of a stage.

    Args:
        processors: change the scores of the next token.
        criteria: end a row after the token that was chosen last.
        is_pure: whether they may be asked about tokens that are not chosen yet, as those of Transformers may: they keep nothing.
    """

    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    is_pure: bool

    @classmethod
    def of(cls, options: Any, n_ids: int, end: int | None, device: torch.device) -> TokenRules | None:
        """The rules that the options ask for; None for none. Time is counted from now.

        Args:
            options: of a stage.
            n_ids: ids of the model's output; `end`: the one that ends a row, if there is one.

        Raises:
            ValueError: an id that the model does not have.
        """
        _check_ids(options, n_ids)
        own, own_criteria = (_listed(_asked(options, name)) for name in ("logits_processor", "stopping_criteria"))
        made, seconds = _processors(options, end, device), _asked(options, "max_time")
        timed = [] if seconds is None else [MaxTimeCriteria(float(seconds))]
        if not made and not own and not timed and not own_criteria:
            return None
        return cls(
            LogitsProcessorList(_with_own(made, own)), StoppingCriteriaList(_with_own(timed, own_criteria)), not own
        )

    def process(self, made: Tensor, scores: Tensor) -> Tensor:
        """Scores [row, id] after the tokens made so far, [row, token] -> scores [row, id].

        Raises:
            ValueError: a processor that gives something else.
        """
        processed = self.processors(made, scores)
        if not isinstance(processed, Tensor) or processed.shape != scores.shape:
            got = tuple(processed.shape) if isinstance(processed, Tensor) else type(processed).__name__
            raise ValueError(f"`logits_processor` must return scores of shape {tuple(scores.shape)}, got {got}")
        return processed

    def process_frames(self, scores: Tensor) -> Tensor:
        """Scores [row, frame, code] of frames that are chosen at once -> scores of the same shape."""
        flat = scores.float().flatten(0, 1)
        return self.process(torch.zeros(len(flat), 0, dtype=torch.long, device=flat.device), flat).view(scores.shape)

    def stops(self, made: Tensor) -> Tensor | None:
        """Which rows end after their last token, bool [row]; None where no criterion asks."""
        return self.criteria(made, None) if self.criteria else None


def among(scores: Tensor, ids: slice, n_ids: int) -> Tensor:
    """Scores [row, choice] of a range of ids -> float32 scores of all, [row, id], -inf for the others."""
    everything = torch.full((len(scores), n_ids), -torch.inf, device=scores.device)
    everything[:, ids] = scores.float()
    return everything


def check_numbers(values: Iterable[float], whose: str, has_rules: bool = False) -> None:
    """Checks a logit or probability of every choice that was made, or the loudest samples of audio.

    Args:
        whose: for the message, as in "the semantic stage's logits".
        has_rules: whether the rules may have left no token.

    Raises:
        ValueError: one that is not a number.
    """
    if all(-math.inf < value < math.inf for value in values):
        return
    cause = "no token is left to choose from, or " if has_rules else ""
    raise ValueError(
        f"{cause}{whose} are not numbers (NaN or infinite): its weights may be damaged, or too large for their type"
    )


def check_audio(audio: Sequence[Tensor]) -> None:
    """Checks that rows of audio are numbers.

    Raises:
        ValueError: a row that is not.
    """
    loudest = [row.abs().amax() for row in audio if len(row)]
    check_numbers(torch.stack(loudest).tolist() if loudest else [], "the codec's samples")
