"""Which word is said when, from the attention of heads that follow the text.

A checkpoint names such heads as `alignment_heads` of its semantic config. Their attention from each semantic token to the
text is read once more over the finished tokens; the most probable way through the text gives each word its time, and shows
where the way leaves words out or goes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..generation.semantic import history_prompt, text_prompt
from ..unknown_text import known_text
from ..voices import VoicePreset
from .pieces import says_something

_NEXT, _SKIP_ONE, _JUMP, _BACK = 0.0, 1.0, 5.0, 7.0
"""What a step of the way costs, as -log of a probability: to the next text token, past one, past more, and back."""

_LEAST = 1e-3
"""Attention below this says nothing."""


@dataclass(frozen=True)
class Word:
    """A word as it is written, and when it is said, in seconds of its piece's audio."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Alignment:
    """Where the words of a piece are in its generation.

    Args:
        words: all words of the text in order; one that is not said has the length 0.
        skipped: places in `words` of those passed over.
        repeated: places in `words` of those said again.
    """

    words: tuple[Word, ...]
    skipped: tuple[int, ...] = ()
    repeated: tuple[int, ...] = ()


class Aligner:
    """Aligns the tokens of a generation with its text.

    Raises:
        ValueError: the checkpoint names no alignment heads, or was loaded without the weights of its blocks.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        heads = getattr(model.semantic.config, "alignment_heads", None)
        if not heads:
            raise ValueError("the checkpoint's semantic config names no `alignment_heads`")
        if any(part.is_meta for part in model.semantic.parameters()):
            raise ValueError(
                "words are aligned with all weights in memory: load the model without `keep_weights=False`"
            )
        self._heads = [(int(layer), int(head)) for layer, head in heads]
        self._model, self._processor = model, processor
        self._config = model.generation_config.semantic_config

    @classmethod
    def of(cls, model: Any, processor: Any) -> Aligner | None:
        """The aligner of a checkpoint; `None` where it cannot align. A model that runs elsewhere brings its own."""
        elsewhere = getattr(model, "aligner", None)
        if elsewhere is not None:
            return elsewhere
        try:
            return cls(model, processor)
        except ValueError:
            return None

    def __call__(self, text: str, tokens: Tensor, voice: VoicePreset | None = None) -> Alignment:
        """Aligns semantic tokens [n] that were made of the text with this voice."""
        words = text.split()
        known = [known_text(self._processor.tokenizer, word)[0] for word in words]  # as the processor reads them
        places = self._processor.tokenizer(
            " ".join(word for word in known if word), add_special_tokens=False, return_offsets_mapping=True
        )
        spans = places["offset_mapping"][: self._config.max_input_semantic_length]
        if not len(tokens) or not spans:
            return Alignment(tuple(Word(word, 0.0, 0.0) for word in words))
        starts = np.cumsum([0, *(len(word) + bool(word) for word in known)])[:-1]
        word_of = np.searchsorted(starts, [start for start, _ in spans], side="right") - 1
        way = best_way(self.attention(places["input_ids"], tokens, voice))
        return read_words(words, word_of, way, 1 / self._config.semantic_rate_hz)

    @torch.no_grad()
    def attention(self, ids: Sequence[int], tokens: Tensor, voice: VoicePreset | None) -> np.ndarray:
        """Attention from each semantic token to each text token, float64 [semantic token, text token]; its rows add up to 1."""
        model, config = self._model.semantic, self._config
        prompt = text_prompt(torch.tensor([list(ids)]), torch.ones(1, len(ids)), config).to(model.device)
        history = history_prompt([None if voice is None else voice.semantic_prompt], config, model.device)
        embed = model.get_input_embeddings()
        spoken = torch.cat([torch.tensor([config.semantic_infer_token]), tokens.cpu()[:-1]]).to(model.device)
        hidden = torch.cat([embed(prompt) + embed(history), embed(spoken)[None]], dim=1)
        hidden = hidden + model.position_embeds_layer.weight[: hidden.shape[1]]
        first, n_text = prompt.shape[1], min(len(ids), config.max_input_semantic_length)
        found = []
        for index, block in enumerate(
            model.layers[: 1 + max(layer for layer, _ in self._heads)]
        ):  # no further than needed
            asked = [head for layer, head in self._heads if layer == index]
            hidden, attention = block(hidden, output_attentions=bool(asked))
            found += [attention[0, head, first:, :n_text].double().cpu() for head in asked]
        weights = torch.stack(found).mean(0).numpy() + _LEAST / n_text
        return weights / weights.sum(1, keepdims=True)


def best_way(weights: np.ndarray) -> np.ndarray:
    """The text token at each semantic token, int64 [semantic token], of the most probable way through `weights`."""
    costs = -np.log(weights)
    n_steps, n_text = costs.shape
    places = np.arange(n_text)
    came_from = np.zeros((n_steps, n_text), np.int64)
    total = costs[0] + np.where(places == 0, 0.0, np.where(places == 1, _SKIP_ONE, _JUMP))
    for step in range(1, n_steps):
        best, source = total.copy(), places.copy()
        for cost, shift in ((_NEXT, 1), (_SKIP_ONE, 2)):
            other = np.full(n_text, np.inf)
            other[shift:] = total[:-shift] + cost if n_text > shift else np.inf
            source = np.where(other < best, places - shift, source)
            best = np.minimum(best, other)
        nearest = int(total.argmin())  # a jump starts at the best place, whichever way it goes
        jumped = total[nearest] + np.where(places > nearest, _JUMP, _BACK)
        source = np.where(jumped < best, nearest, source)
        total = np.minimum(best, jumped) + costs[step]
        came_from[step] = source
    way = np.zeros(n_steps, np.int64)
    way[-1] = int(total.argmin())
    for step in range(n_steps - 1, 0, -1):
        way[step - 1] = came_from[step, way[step]]
    return way


def read_words(words: Sequence[str], word_of: np.ndarray, way: np.ndarray, seconds: float) -> Alignment:
    """What a way through the text says of its words.

    Args:
        words: of the text.
        word_of: the place in `words` of each text token.
        way: the text token at each semantic token.
        seconds: length of a semantic token.
    """
    said = word_of[way]  # the word at each semantic token
    times, skipped, repeated = [], [], []
    end = 0.0
    for place, word in enumerate(words):
        steps = np.flatnonzero(said == place)
        if not len(steps):
            times.append(Word(word, end, end))
            skipped += [place] if says_something(word) and place in word_of else []
            continue
        runs = np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1)
        longest = max(runs, key=len)
        start, end = float(longest[0]) * seconds, float(longest[-1] + 1) * seconds
        times.append(Word(word, start, end))
        if len(runs) > 1:
            repeated.append(place)
    return Alignment(tuple(times), tuple(skipped), tuple(repeated))
