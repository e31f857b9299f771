"""The semantic stage: text -> semantic tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import vocabulary
from .engine import Foresight, causal_engine
from .options import SemanticOptions
from .processors import TokenRules, among, check_numbers
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


def prompt_embeds(model: Any, text: Tensor, history: Tensor, config: Any) -> Tensor:
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
        ValueError: a row without text, an id outside the vocabulary, more tokens asked for than the model has positions, logits
            that are not numbers.
    """
    text = text_prompt(input_ids.to(model.device), attention_mask_on(attention_mask, model.device), config)
    check_ids(text, model, config)
    limit = check_options(model, config, options)
    prompt = prompt_embeds(model, text, history_prompt(histories, config, model.device), config)
    engine = causal_engine(model, options)
    chooser = Chooser.of(model, config, options, draws)
    logits, state = engine.prefill(list(prompt), limit)
    rows = list(range(len(prompt)))
    tokens: list[list[int]] = [[] for _ in rows]
    made = chooser.nothing_made(len(rows), model.device)
    unseen: list[Choice] = []
    for turn in range(limit):
        choice = chooser.choose(logits, rows, made)
        unseen.append(choice)
        last, made = choice.tokens, chooser.with_token(made, choice.tokens)
        advance(1)
        if len(unseen) == UNSEEN_STEPS.get(last.device.type, 1) or turn == limit - 1:
            going = _take(unseen, rows, tokens, chooser.rules is not None)
            unseen = []
            if not going or turn == limit - 1:
                break
            if len(going) < len(rows):
                rows, last = [rows[place] for place in going], last[going]
                made = None if made is None else made[going]
                state = engine.keep_rows(state, going)
        else:
            last = last.clamp_max(config.semantic_vocab_size - 1)  # a row that has ended would be fed its end
        foresight = chooser.foresee(limit - turn - 2, rows, made) if len(rows) == 1 else None
        logits, state = engine.step(state, last, foresight=foresight)
    return [torch.tensor(row, dtype=torch.long, device=model.device) for row in tokens]


@dataclass(frozen=True)
class Choice:
    """What was chosen of each row.

    Args:
        tokens: int64 [row].
        ended: whether the row is over, [row]: 0 no, 1 yes, without the token, 2 yes, after it. Bool where no criterion asks.
        values: float [row], no numbers where the logits are none.
    """

    tokens: Tensor
    ended: Tensor
    values: Tensor


@dataclass(frozen=True)
class Chooser:
    """How the next semantic tokens are chosen.

    What has been made travels as ids, int64 [row, token], where the rules ask for it, and as None where there are no rules.
    """

    config: Any
    n_ids: int
    options: SemanticOptions
    draws: Draws
    rules: TokenRules | None

    @classmethod
    def of(cls, model: Any, config: Any, options: SemanticOptions, draws: Draws) -> Chooser:
        return cls(config, model.config.output_vocab_size, options, draws, _rules(model, config, options))

    def nothing_made(self, n_rows: int, device: torch.device) -> Tensor | None:
        return None if self.rules is None else torch.zeros(n_rows, 0, dtype=torch.long, device=device)

    def with_token(self, made: Tensor | None, tokens: Tensor) -> Tensor | None:
        """What has been made with tokens [row] behind it."""
        if made is None:
            return None
        ids = torch.where(tokens == self.config.semantic_vocab_size, self.config.eos_token_id, tokens)
        return torch.cat([made, ids[:, None]], dim=1)

    def choose(self, logits: Tensor, rows: Sequence[int], made: Tensor | None, ahead: int | None = None) -> Choice:
        """One token a row from logits [row, id]; with `ahead`, what would be chosen after so many other tokens.

        A row is over by its end token, because the end is probable enough, or because a criterion says so.
        """
        size, end, options = self.config.semantic_vocab_size, self.config.eos_token_id, self.options
        if self.rules is not None and made is not None:
            scores = among(logits[:, :size], slice(size), self.n_ids)
            scores[:, end] = logits[:, end].float()
            logits = self.rules.process(made, scores)
        relevant = logits[:, :size]
        if options.allow_early_stop:
            relevant = torch.cat([relevant, logits[:, end, None]], dim=1)
        threshold = options.min_eos_p if options.allow_early_stop else None
        needs_probs = options.do_sample or threshold is not None
        probs = probabilities(relevant, options) if needs_probs else relevant
        if options.do_sample:
            tokens, values = self.draws.choose("semantic", rows, probs, ahead), probs[:, 0]
        else:
            values, tokens = relevant.max(-1)
        ended = tokens == size
        if threshold is not None:
            probable = probs[:, -1] >= threshold
            ended = ended | (probable if made is None else probable & (relevant[:, -1] > -torch.inf))
        past = self.with_token(made, tokens) if ahead is None else None
        if self.rules is not None and past is not None:
            stopped = self.rules.stops(past)
            ended = ended if stopped is None else torch.where(ended, 1, 2 * stopped.to(ended.device).long())
        return Choice(tokens, ended, values)

    def foresee(self, n_steps: int, rows: Sequence[int], made: Tensor | None) -> Foresight | None:
        """For an engine that tries tokens before they are chosen; None where a processor would have to be asked twice."""
        if self.rules is not None and not self.rules.is_pure:
            return None
        proposed: list[int] = []

        def choose(ahead: int, logits: Tensor) -> int | None:
            del proposed[ahead:]
            past = None if made is None else torch.cat([made, made.new_tensor([proposed])], dim=1)
            choice = self.choose(logits, rows, past, ahead)
            proposed.append(int(choice.tokens))
            return None if choice.ended else proposed[-1]

        return Foresight(n_steps, lambda ahead: None, choose)


def _rules(model: Any, config: Any, options: SemanticOptions) -> TokenRules | None:
    return TokenRules.of(options, model.config.output_vocab_size, config.eos_token_id, model.device)


def _take(unseen: Sequence[Choice], rows: Sequence[int], tokens: list[list[int]], has_rules: bool) -> list[int]:
    """Gives each row what was chosen up to its end; the places of the rows that go on.

    Raises:
        ValueError: a choice that was made of logits that are not numbers.
    """
    parts = [(choice.tokens, choice.ended, choice.values) for choice in unseen]
    chosen, ended, values = (torch.stack(part, dim=1).tolist() for part in zip(*parts, strict=True))
    going = []
    for place, row in enumerate(rows):
        over = next((turn for turn, end in enumerate(ended[place]) if end), None)
        if over is None:
            going.append(place)
        kept = len(unseen) if over is None else over + (ended[place][over] == 2)
        check_numbers(
            values[place][: len(unseen) if over is None else over + 1], "the semantic stage's logits", has_rules
        )
        tokens[row] += chosen[place][:kept]
    return going


def attention_mask_on(attention_mask: Tensor | None, device: torch.device) -> Tensor | None:
    """The mask on the model's device."""
    return None if attention_mask is None else attention_mask.to(device)


def check_ids(text: Tensor, model: Any, config: Any) -> None:
    """Checks the ids of the semantic model: each is text of the model's vocabulary, or the text pad."""
    offset, size = config.text_encoding_offset, model.config.input_vocab_size
    empty = (text == config.text_pad_token).all(dim=1)
    if empty.any():
        rows = ", ".join(map(str, empty.nonzero()[:, 0].tolist()))
        raise ValueError(
            f"there is no text in row {rows}: its `attention_mask` is 0 throughout, or its ids are padding"
        )
    bad = (text != config.text_pad_token) & ((text < offset) | (text >= size))
    if bad.any():
        raise ValueError(
            f"`input_ids` hold {int(text[bad][0]) - offset}, the model has room for 0 to {size - offset - 1}"
        )


def check_options(model: Any, config: Any, options: SemanticOptions) -> int:
    """Most tokens of a row: by number or by seconds of audio.

    Raises:
        ValueError: options that the model cannot meet.
    """
    _rules(model, config, options)
    # the last token is never fed back, so it needs no position
    needed = config.max_input_semantic_length + options.max_new_tokens
    if needed > model.config.block_size:
        raise ValueError(
            f"`max_new_tokens` is {options.max_new_tokens}, the model has positions for "
            f"{model.config.block_size - config.max_input_semantic_length}"
        )
    if (options.min_new_tokens or 0) > options.max_new_tokens:
        raise ValueError(
            f"`min_new_tokens` ({options.min_new_tokens}) exceeds `max_new_tokens` ({options.max_new_tokens})"
        )
    if options.max_gen_duration_s is None:
        return options.max_new_tokens
    return vocabulary.tokens_past(options.max_gen_duration_s, config.semantic_rate_hz, options.max_new_tokens)
