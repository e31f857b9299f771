"""Training targets of the three stages, laid out exactly as generation lays out its prompts.

Each class is a collator for `transformers.Trainer`: it takes rows of an encoded dataset (`text`, `semantic`, `codes`, …)
and gives the keyword arguments of the stage's model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import vocabulary
from ..generation_configuration_bark import BarkGenerationConfig
from ..modeling_bark import BarkCausalModel, BarkCoarseModel, BarkSemanticModel
from ..modeling_base import cross_entropy

IGNORE = -100
"""Label of a position without loss."""


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Ragged rows -> int64 [batch, longest], filled with `value` on the right."""
    out = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for target, row in zip(out, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(out)


def token_times(
    offsets: Sequence[tuple[int, int]],
    word_chars: Sequence[Sequence[int]],
    word_frames: Sequence[Sequence[int]],
    frame_seconds: float,
) -> np.ndarray:
    """Start of each text token in seconds, [token]: words by the teacher's times, letters evenly within their word."""
    times = np.zeros(len(offsets))
    for index, (start, _) in enumerate(offsets):
        for (first, last), (begin, end) in zip(word_chars, word_frames, strict=True):
            if start < last:
                inside = max(0, start - first) / max(1, last - first)
                times[index] = (begin + inside * (end - begin)) * frame_seconds
                break
        else:
            times[index] = word_frames[-1][1] * frame_seconds
    return np.maximum.accumulate(times)


class _Batch:
    """What the targets of all stages share: the rows that others go on from, so that voices work.

    What a batch draws is decided by the seed and the batch's number, so that a run that goes on draws what it would have drawn.
    """

    def __init__(self, seed: int, p_voice: float, default_voice: str | None) -> None:
        self.seed, self.batches = seed, 0
        self.random = np.random.default_rng(seed)
        self.p_voice = p_voice
        self.default_voice = default_voice

    def _begin(self) -> None:
        """A batch begins."""
        self.random = np.random.default_rng([self.seed, self.batches])
        self.batches += 1

    def _other(self, rows: Sequence[dict[str, Any]], index: int) -> int | None:
        """Another row of the same `voice`, if there is one; rows that name none share one."""
        voice = rows[index].get("voice")
        others = [number for number, row in enumerate(rows) if number != index and row.get("voice") == voice]
        return int(self.random.choice(others)) if others else None

    def _history(self, rows: Sequence[dict[str, Any]], index: int) -> int | None:
        """The row to go on from, or None; the default voice alone speaks without one."""
        wanted = self.random.random() < self.p_voice or rows[index].get("voice") != self.default_voice
        return self._other(rows, index) if wanted else None


_Encoded = tuple[list[int], list[int], list[int]]
"""Text ids, semantic tokens and, for each semantic token, the text token that is spoken."""


class SemanticTargets(_Batch):
    """Text and semantic tokens -> inputs of `SemanticForTraining`.

    Half of the rows get the tokens of another row as their voice, so that presets work; some rows are two utterances in a
    row, so that texts longer than those of the corpus work; in some an unknown character stands, to be read as nothing.
    Rows whose `voice` is not the default one always get a voice.

    Args:
        frame_seconds: length of a frame of `word_frames`; None where the rows have no times of words, and no head is guided.
    """

    def __init__(
        self,
        tokenizer: Any,
        config: BarkGenerationConfig,
        frame_seconds: float | None,
        seed: int,
        p_join: float = 0.15,
        p_unknown: float = 0.05,
        default_voice: str | None = None,
    ) -> None:
        super().__init__(seed, 0.5, default_voice)
        self.tokenizer = tokenizer
        self.p_unknown = p_unknown
        self.config = config.semantic_config
        self.frame_seconds = frame_seconds
        self.p_join = p_join

    def _encode(self, row: dict[str, Any]) -> _Encoded:
        """Text ids, semantic tokens and for each semantic token the text token that is spoken."""
        encoded = self.tokenizer(row["text"], add_special_tokens=False, return_offsets_mapping=True)
        if self.frame_seconds is None:
            semantic = list(map(int, row["semantic"]))
            return self._with_unknown((list(encoded["input_ids"]), semantic, [IGNORE] * len(semantic)))
        times = token_times(encoded["offset_mapping"], row["word_chars"], row["word_frames"], self.frame_seconds)
        semantic = list(map(int, row["semantic"]))
        middles = (np.arange(len(semantic)) + 0.5) / self.config.semantic_rate_hz
        spoken = np.clip(np.searchsorted(times, middles, side="right") - 1, 0, None)
        return self._with_unknown((list(encoded["input_ids"]), semantic, spoken.tolist()))

    def _with_unknown(self, encoded: _Encoded) -> _Encoded:
        """Now and then puts a character that the vocabulary lacks before a word, so that it is read as nothing."""
        ids, semantic, spoken = encoded
        if self.random.random() >= self.p_unknown:
            return encoded
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        starts = [place for place, piece in enumerate(pieces) if not piece.startswith("##")]
        place = int(self.random.choice(starts))
        moved = [token if token < place else token + 1 for token in spoken]  # `IGNORE` stays
        return [*ids[:place], self.tokenizer.unk_token_id, *ids[place:]], semantic, moved

    def _join(self, first: _Encoded, second: _Encoded) -> _Encoded:
        shift = len(first[0])
        spoken = first[2] + [s if s == IGNORE else shift + s for s in second[2]]
        return first[0] + second[0], first[1] + second[1], spoken

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        self._begin()
        length, eos, pad = (
            self.config.max_input_semantic_length,
            self.config.eos_token_id,
            self.config.semantic_pad_token,
        )
        everything = [self._encode(row) for row in rows]
        encoded, histories = [], []
        for index, one in enumerate(everything):
            past = self._history(rows, index)
            other = self._other(rows, index) if self.random.random() < self.p_join else None
            if other is not None:
                joined = self._join(one, everything[other])
                one = joined if len(joined[0]) <= length and len(joined[1]) < self.config.max_new_tokens else one
            if len(one[0]) <= length and len(one[1]) <= self.config.max_new_tokens:
                encoded.append(one)
                histories.append([] if past is None else everything[past][1])
        if not encoded:
            raise ValueError(
                f"no row of a batch of {len(rows)} has at most {length} text tokens and {self.config.max_new_tokens} "
                "semantic tokens"
            )
        text = _pad(
            [[*(t + self.config.text_encoding_offset for t in row[0])] for row in encoded], self.config.text_pad_token
        )
        tokens = [[*row[1], eos] for row in encoded]
        return {
            "text_ids": nn.functional.pad(text, (0, length - text.shape[1]), value=self.config.text_pad_token),
            "history_ids": nn.functional.pad(_pad([h[-length:] for h in histories], pad), (0, length), value=pad)[
                :, :length
            ],
            "tokens": _pad(tokens, eos),
            "labels": _pad(tokens, IGNORE),
            "spoken": _pad([row[2] for row in encoded], IGNORE),
        }


class SemanticForTraining(nn.Module):
    """The semantic model with a loss that also guides some heads to the text token being spoken.

    Without guidance the alignment of text and audio is by far the slowest thing to learn (guided attention, Tachibana et
    al. 2017; here the target comes from the teacher's times). `guided` names (layer, head) pairs.
    """

    def __init__(
        self,
        model: BarkSemanticModel,
        config: BarkGenerationConfig,
        guided: Sequence[tuple[int, int]] = ((1, 0), (2, 0)),
        guidance: float = 0.3,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config.semantic_config
        self.guided = tuple(map(tuple, guided))
        self.guidance = guidance

    def forward(
        self, text_ids: Tensor, history_ids: Tensor, tokens: Tensor, labels: Tensor, spoken: Tensor, **kwargs: Any
    ) -> dict[str, Tensor]:
        """text_ids, history_ids: [batch, prompt]; tokens, labels: [batch, length + 1]; spoken: [batch, length]."""
        embed = self.model.input_embeds_layer
        infer = torch.full_like(text_ids[:, :1], self.config.semantic_infer_token)
        embeds = torch.cat([embed(text_ids) + embed(history_ids), embed(infer), embed(tokens[:, :-1])], dim=1)
        output = self.model(inputs_embeds=embeds, use_cache=False, output_attentions=bool(self.guided))
        prompt = text_ids.shape[1]
        logits = output.logits[:, prompt:].float()
        total = kwargs.get("num_items_in_batch")
        loss = cross_entropy(logits, labels, total)
        if not self.guided:
            return {"loss": loss}
        queries = slice(prompt, prompt + spoken.shape[1])
        heads = [output.attentions[layer][:, head, queries, :prompt] for layer, head in self.guided]
        off = torch.stack([astray(weights, spoken) for weights in heads])
        guidance = self.guidance * share(labels, total) * off.mean()
        return {"loss": loss + guidance, "tokens": loss.detach(), "astray": off.mean().detach()}


def share(labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor | float:
    """The part of a batch's labels that this part of it holds: a trainer that counts for itself adds up what several give."""
    return 1.0 if num_items_in_batch is None else (labels != IGNORE).sum() / num_items_in_batch


def astray(weights: Tensor, targets: Tensor) -> Tensor:
    """-log of the attention that falls on the target and its neighbours, averaged over the queries that have one.

    Args:
        weights: [batch, query, key].
        targets: key to look at, [batch, query]; `IGNORE` for none.
    """
    near = torch.stack([targets.clamp_min(0) + shift for shift in (-1, 0, 1)], dim=-1).clamp(0, weights.shape[-1] - 1)
    mass = weights.float().gather(-1, near).sum(-1)
    return -(mass + 1e-4).log()[targets != IGNORE].mean()


def initialize_positions(model: BarkCausalModel, prompt: int, text_per_token: float, scale: float = 0.1) -> None:
    """Sinusoidal position embeddings in which a text position and the time at which it is spoken share their phase.

    Args:
        prompt: positions of text before the infer token.
        text_per_token: text tokens per semantic token, on average.
    """
    weight = model.position_embeds_layer.weight
    positions = torch.arange(weight.shape[0], dtype=torch.float32)
    place = torch.where(positions < prompt, positions, (positions - prompt) * text_per_token)
    frequencies = torch.exp(torch.linspace(0.0, -7.0, weight.shape[1] // 2))
    phase = place[:, None] * frequencies
    with torch.no_grad():
        weight.copy_(scale * torch.cat([phase.sin(), phase.cos()], dim=1)[:, : weight.shape[1]])


class CoarseTargets(_Batch):
    """Semantic tokens and codes -> inputs and labels of `BarkCoarseModel`, one random window of a row.

    The window is laid out as the coarse stage does: semantic tokens from the start of the kept history, the infer token,
    the coarse history and the window itself. The row's own tokens in the history have labels too: they stand to the
    semantic tokens as they do in the windows that made them. Half of the rows go on from another row's voice.
    """

    def __init__(
        self, config: BarkGenerationConfig, seed: int, p_voice: float = 0.5, default_voice: str | None = None
    ) -> None:
        super().__init__(seed, p_voice, default_voice)
        self.config = config

    def _voice(self, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The semantic tokens and coarse ids that a voice made of `row` leaves in the prompt."""
        semantic, coarse = np.asarray(row["semantic"]), self._ids(row)
        stage, ratio = self.config.coarse_acoustics_config, self.ratio
        kept, n_coarse = vocabulary.history_lengths(
            len(semantic),
            len(coarse) // stage.n_coarse_codebooks,
            stage.max_coarse_history,
            ratio,
            stage.n_coarse_codebooks,
        )
        return semantic[-kept:], coarse[-n_coarse:][: -vocabulary.COARSE_HISTORY_CUT]

    @property
    def ratio(self) -> float:
        """Coarse tokens per semantic token."""
        return vocabulary.semantic_to_coarse_ratio(self.config.semantic_config, self.config.coarse_acoustics_config)

    def _ids(self, row: dict[str, Any]) -> np.ndarray:
        codes = torch.as_tensor(
            np.asarray(row["codes"])[: self.config.coarse_acoustics_config.n_coarse_codebooks]
        ).long()
        ids = vocabulary.coarse_ids(codes, self.config.semantic_config.semantic_vocab_size, self.config.codebook_size)
        return ids.numpy()

    def _window(self, row: dict[str, Any], voice: dict[str, Any] | None) -> tuple[list[int], list[int], list[int]]:
        """Ids, labels and, for each position, the place in the prompt of the semantic token that the next id belongs to."""
        stage, ratio = self.config.coarse_acoustics_config, self.ratio
        semantic, coarse = np.asarray(row["semantic"]), self._ids(row)
        coarse = coarse[: vocabulary.n_coarse_tokens(len(semantic), ratio, stage.n_coarse_codebooks)]
        past_semantic, past_coarse = self._voice(voice) if voice else (semantic[:0], coarse[:0])
        base = len(past_semantic)
        semantic = np.concatenate([past_semantic, semantic])
        last = -(-len(coarse) // stage.sliding_window_len) - 1
        step = last if self.random.random() < 0.5 else int(self.random.integers(last + 1))
        step *= stage.sliding_window_len
        start = max(
            0, base + int(round(step / ratio)) - vocabulary.max_semantic_history(stage.max_coarse_history, ratio)
        )
        given = semantic[start : start + stage.max_coarse_input_length]
        prompt = np.full(stage.max_coarse_input_length + 1, stage.coarse_semantic_pad_token)
        prompt[: len(given)] = given
        prompt[-1] = stage.coarse_infer_token
        history = np.concatenate([past_coarse, coarse[:step]])[-stage.max_coarse_history :]
        window = coarse[step : step + stage.sliding_window_len]
        ids = np.concatenate([prompt, history, window])
        labels = np.full(len(ids), IGNORE)
        own = min(step, len(history)) + len(window)
        labels[len(ids) - own :] = ids[len(ids) - own :]
        spoken = np.full(len(ids), IGNORE)
        numbers = step + len(window) - own + np.arange(own)
        spoken[len(ids) - own - 1 : -1] = np.clip(base - start + (numbers / ratio).astype(int), 0, len(given) - 1)
        return ids.tolist(), labels.tolist(), spoken.tolist()

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        self._begin()
        past = [self._history(rows, index) for index in range(len(rows))]
        voices = [None if number is None else rows[number] for number in past]
        windows = [self._window(row, voice) for row, voice in zip(rows, voices, strict=True)]
        pad = self.config.coarse_acoustics_config.coarse_semantic_pad_token
        return {
            "input_ids": _pad([w[0] for w in windows], pad),
            "labels": _pad([w[1] for w in windows], IGNORE),
            "spoken": _pad([w[2] for w in windows], IGNORE),
        }


class CoarseForTraining(nn.Module):
    """The coarse model with a loss that also guides some heads to the semantic token of each frame.

    Args:
        guided: (layer, head) pairs.
        guided_steps: steps after which the loss is that of the tokens alone, as attention has found its way by then and
            runs faster when nobody asks for its weights; None for all.
    """

    step: Tensor

    def __init__(
        self,
        model: BarkCoarseModel,
        guided: Sequence[tuple[int, int]] = ((0, 0), (1, 0)),
        guidance: float = 0.3,
        guided_steps: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.guided = tuple(map(tuple, guided))
        self.guidance = guidance
        self.guided_steps = guided_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, input_ids: Tensor, labels: Tensor, spoken: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """input_ids, labels, spoken: [batch, length], as `CoarseTargets` gives them."""
        if self.training:
            self.step += 1
        guided = bool(self.guided) and (self.guided_steps is None or int(self.step) <= self.guided_steps)
        total = kwargs.get("num_items_in_batch")
        counted = {} if total is None else {"num_items_in_batch": total}
        output = self.model(input_ids, labels=labels, use_cache=False, output_attentions=guided, **counted)
        if not guided:
            return {"loss": output.loss}
        off = torch.stack([astray(output.attentions[layer][:, head], spoken) for layer, head in self.guided]).mean()
        guidance = self.guidance * share(labels, total) * off
        return {"loss": output.loss + guidance, "tokens": output.loss.detach(), "astray": off.detach()}


class FineTargets(_Batch):
    """Codes -> inputs and labels of `BarkFineModel` for a random codebook.

    Codebooks from the one asked for on are hidden (id `codebook_size`) except in a random stretch of history, and frames
    past the end are hidden in all codebooks, as the fine stage pads its window.
    """

    def __init__(
        self, config: BarkGenerationConfig, seed: int, p_voice: float = 0.5, default_voice: str | None = None
    ) -> None:
        super().__init__(seed, p_voice, default_voice)
        self.config = config

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        self._begin()
        fine, hidden = self.config.fine_acoustics_config, self.config.codebook_size
        n_coarse = self.config.coarse_acoustics_config.n_coarse_codebooks
        codebook = int(self.random.integers(n_coarse, fine.n_fine_codebooks))
        ids = np.full((len(rows), fine.max_fine_input_length, fine.n_fine_codebooks), hidden, np.int64)
        labels = np.full(ids.shape[:2], IGNORE, np.int64)
        for index, row in enumerate(rows):
            history = np.zeros((fine.n_fine_codebooks, 0), np.int64)
            past = self._history(rows, index)
            if past is not None:
                other = np.asarray(rows[past]["codes"])
                history = other[:, -fine.max_fine_history_length :]
            codes = np.concatenate([history, np.asarray(row["codes"])], axis=1)[:, : fine.max_fine_input_length].T
            ids[index, : len(codes)] = codes
            ids[index, history.shape[1] :, codebook:] = hidden
            labels[index, history.shape[1] : len(codes)] = codes[history.shape[1] :, codebook]
        return {
            "codebook_idx": torch.tensor(codebook),
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
        }
