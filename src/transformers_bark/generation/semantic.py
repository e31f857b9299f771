"""The semantic stage: text -> semantic tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import vocabulary
from .engine import CausalEngine, Foresight
from .options import SemanticOptions
from .progress import Advance, ignore
from .sampling import Draws, probabilities

UNSEEN_STEPS = {"cuda": 8}
"""Steps after which it is looked which rows have ended. To look is to wait for a GPU; until then they go on for nothing."""

TOKENIZER_PAD_ID = 0
"""Id that Bark's tokenizers pad with: where there is no mask, its run at the end of a row is padding."""


def text_prompt(input_ids: Tensor, attention_mask: Tensor | None, config: Any) -> Tensor:
    """Tokenizer ids [batch, length] -> ids of the semantic model [batch, prompt length].

    Text is cut to the prompt, offset, and filled up with the text pad.
    """
    length = config.max_input_semantic_length
    if attention_mask is None:
        later_text = (input_ids != TOKENIZER_PAD_ID).flip(-1).cumsum(-1).flip(-1)
        attention_mask = later_text > 0
    ids, real = input_ids[:, :length].long(), attention_mask[:, :length].bool()
    ids = torch.where(real, ids + config.text_encoding_offset, config.text_pad_token)
    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=config.text_pad_token)


def history_prompt(histories: Sequence[Tensor | None], config: Any, device: torch.device) -> Tensor:
    """The last semantic tokens of each row's voice, filled up on the right: [batch, prompt length]."""
    length = config.max_input_semantic_length
    prompt = torch.full((len(histories), length), config.semantic_pad_token, device=device)
    for row, history in zip(prompt, histories, strict=True):
        if history is not None:
            last = history[-length:]
            row[: len(last)] = last.to(device)
    return prompt


def _prompt_embeds(model: Any, text: Tensor, history: Tensor, config: Any) -> Tensor:
    """Text and history embeddings added position by position, then the token that asks for the first semantic token."""
    infer = torch.full_like(text[:, :1], config.semantic_infer_token)
    embed = model.get_input_embeddings()
    return torch.cat([embed(text) + embed(history), embed(infer)], dim=1)


@torch.no_grad()
def generate_semantic(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    histories: Sequence[Tensor | None],
    config: Any,
    options: SemanticOptions,
    draws: Draws,
    advance: Advance = ignore,
) -> list[Tensor]:
    """Semantic tokens of each row.

    Args:
        model: the semantic model.
        input_ids: tokenizer ids [batch, length], without offset; `attention_mask` of the same shape or None.
        histories: semantic tokens [n] of each row's voice, or None.
        config: the semantic generation config.

    Returns:
        int64 [n] a row, without the end token.

    Raises:
        ValueError: an id outside the vocabulary, or more tokens asked for than the model has positions.
    """
    text = text_prompt(input_ids.to(model.device), attention_mask_on(attention_mask, model.device), config)
    _check_text(text, model, config)
    limit = _limit(model, config, options)
    prompt = _prompt_embeds(model, text, history_prompt(histories, config, model.device), config)
    engine: CausalEngine = model.engine
    logits, state = engine.prefill(list(prompt), limit)
    rows = list(range(len(prompt)))
    tokens: list[list[int]] = [[] for _ in rows]
    unseen: list[tuple[Tensor, Tensor]] = []

    def foresee(n_steps: int) -> Foresight:
        def choose(ahead: int, logits: Tensor) -> int | None:
            token, ends = _next_tokens(logits, rows, config, options, draws, ahead)
            return None if ends else int(token)

        return Foresight(n_steps, lambda ahead: None, choose)

    for turn in range(limit):
        unseen.append(_next_tokens(logits, rows, config, options, draws))
        last = unseen[-1][0]
        advance(1)
        if len(unseen) == UNSEEN_STEPS.get(last.device.type, 1) or turn == limit - 1:
            going = _take(unseen, rows, tokens)
            unseen = []
            if not going or turn == limit - 1:
                break
            if len(going) < len(rows):
                rows, last = [rows[place] for place in going], last[going]
                state = engine.keep_rows(state, going)
        else:
            last = last.clamp_max(config.semantic_vocab_size - 1)  # a row that has ended would be fed its end
        logits, state = engine.step(state, last, foresight=foresee(limit - turn - 2) if len(rows) == 1 else None)
    return [torch.tensor(row, dtype=torch.long, device=model.device) for row in tokens]


def _take(unseen: Sequence[tuple[Tensor, Tensor]], rows: Sequence[int], tokens: list[list[int]]) -> list[int]:
    """Gives each row what was chosen up to its end, [row] and whether it has ended [row] a step; the places that go on."""
    chosen, ended = (torch.stack(part, dim=1).tolist() for part in zip(*unseen, strict=True))
    counts = [row.index(True) if True in row else len(unseen) for row in ended]
    for place, row in enumerate(rows):
        tokens[row] += chosen[place][: counts[place]]
    return [place for place, count in enumerate(counts) if count == len(unseen)]


def attention_mask_on(attention_mask: Tensor | None, device: torch.device) -> Tensor | None:
    """The mask on the model's device."""
    return None if attention_mask is None else attention_mask.to(device)


def _check_text(text: Tensor, model: Any, config: Any) -> None:
    """Checks the ids of the semantic model: each is text of the model's vocabulary, or the text pad."""
    offset, size = config.text_encoding_offset, model.config.input_vocab_size
    bad = (text != config.text_pad_token) & ((text < offset) | (text >= size))
    if bad.any():
        raise ValueError(
            f"`input_ids` hold {int(text[bad][0]) - offset}, the model has room for 0 to {size - offset - 1}"
        )


def _limit(model: Any, config: Any, options: SemanticOptions) -> int:
    """Most tokens of a row: by number or by seconds of audio."""
    # the last token is never fed back, so it needs no position
    needed = config.max_input_semantic_length + options.max_new_tokens
    if needed > model.config.block_size:
        raise ValueError(
            f"`max_new_tokens` is {options.max_new_tokens}, the model has positions for "
            f"{model.config.block_size - config.max_input_semantic_length}"
        )
    if options.max_gen_duration_s is None:
        return options.max_new_tokens
    return vocabulary.tokens_past(options.max_gen_duration_s, config.semantic_rate_hz, options.max_new_tokens)


def _next_tokens(
    logits: Tensor, rows: Sequence[int], config: Any, options: SemanticOptions, draws: Draws, ahead: int | None = None
) -> tuple[Tensor, Tensor]:
    """One token a row, int64 [row], and whether the row has ended: by its end token, or because the end is probable enough.

    With `ahead`, what would be chosen after so many other tokens.
    """
    size = config.semantic_vocab_size
    relevant = logits[:, :size]
    if options.allow_early_stop:
        relevant = torch.cat([relevant, logits[:, config.eos_token_id, None]], dim=1)
    needs_probs = options.do_sample or (options.allow_early_stop and options.min_eos_p is not None)
    probs = probabilities(relevant, options) if needs_probs else relevant
    chosen = draws.choose("semantic", rows, probs, ahead) if options.do_sample else relevant.argmax(-1)
    ended = chosen == size
    if options.allow_early_stop and options.min_eos_p is not None:
        ended = ended | (probs[:, -1] >= options.min_eos_p)
    return chosen, ended
