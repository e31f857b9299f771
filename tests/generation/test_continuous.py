"""Rows that come and go get what they get alone, whatever the batch around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_model, tiny_voice
from transformers_bark import BarkModel
from transformers_bark.generation.coarse import generate_coarse
from transformers_bark.generation.continuous import CoarseBatch, SemanticBatch
from transformers_bark.generation.options import coarse_options, semantic_options, split_options
from transformers_bark.generation.sampling import Draws
from transformers_bark.generation.semantic import generate_semantic

OPTIONS: list[dict[str, Any]] = [
    {"do_sample": True, "temperature": 0.9},
    {"do_sample": False},
    {"do_sample": True, "temperature": 0.5, "top_k": 5},
    {"do_sample": True, "repetition_penalty": 1.3},
    {"do_sample": True, "semantic_max_new_tokens": 5},
]


@pytest.fixture(params=["torch", "onnxruntime", "compiled", "uncached"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def speaker(engine: str, folder: Path) -> BarkModel:
    model = tiny_model(seed=3)
    if engine == "compiled":
        for part in (model.semantic, model.coarse_acoustics):
            from transformers_bark.engines.compiled_engine import CompiledCausal

            part.__class__ = type("Own", (part.__class__,), {"engine": CompiledCausal(part, backend="eager")})
    elif engine != "uncached":
        model.set_engine(engine)
    return model


class Row:
    """A row that may come at any time, and what becomes of it alone."""

    def __init__(self, model: BarkModel, number: int, cached: bool) -> None:
        generator = torch.Generator().manual_seed(number)
        self.ids = torch.randint(1, 60, (1, 3 + number % 9), generator=generator)
        self.voice = tiny_voice(12 + 3 * number, seed=number) if number % 3 else None
        routed = split_options(OPTIONS[number % len(OPTIONS)] | ({} if cached else {"use_cache": False}))
        self.config = model.generation_config
        self.semantic = semantic_options(self.config.semantic_config, routed["semantic"])
        self.coarse = coarse_options(self.config.coarse_acoustics_config, routed["coarse"])
        self.seed, self.number = 100 + number, number
        draws = Draws.from_seed(self.seed, 1)
        history = [None if self.voice is None else self.voice.semantic_prompt]
        (self.tokens,) = generate_semantic(
            model.semantic, self.ids, None, history, self.config.semantic_config, self.semantic, draws
        )
        (self.codes,) = generate_coarse(model.coarse_acoustics, [self.tokens], [self.pair], *self.sizes, draws)

    @property
    def pair(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        return None if self.voice is None else (self.voice.semantic_prompt, self.voice.coarse_prompt)

    @property
    def sizes(self) -> tuple[Any, ...]:
        config = self.config
        return config.semantic_config, config.coarse_acoustics_config, config.codebook_size, self.coarse


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_what_they_are_alone_whatever_joins_or_leaves(engine: str, graphs: Path, seed: int) -> None:
    model = speaker(engine, graphs)
    config, chance = model.generation_config, torch.Generator().manual_seed(seed)
    waiting = [Row(model, number, engine != "uncached") for number in range(9)]
    rows = {row.number: row for row in waiting}
    gone: set[int] = set()
    draws = Draws(seeds={})
    semantic = SemanticBatch(model.semantic, config.semantic_config, draws)
    stages = (config.semantic_config, config.coarse_acoustics_config, config.codebook_size)
    coarse = CoarseBatch(model.coarse_acoustics, *stages, draws)
    made: dict[int, torch.Tensor] = {}
    turns = 0
    while waiting or len(semantic) or len(coarse):
        turns += 1
        assert turns < 2000
        coming = waiting[: int(torch.randint(0, 3, (), generator=chance)) if len(semantic) or len(coarse) else 2]
        waiting = waiting[len(coming) :]
        for row in coming:
            draws.admit(row.number, row.seed)
        if coming:
            history = [None if row.voice is None else row.voice.semantic_prompt for row in coming]
            prompts = [
                semantic.prompt(row.ids, None, past, row.semantic) for row, past in zip(coming, history, strict=True)
            ]
            semantic.join([(row.number, prompt, row.semantic) for row, prompt in zip(coming, prompts, strict=True)])
        if turns in (5, 30):  # somebody hangs up, in either stage
            leaves = {int(torch.randint(0, 9, (), generator=chance))} - set(made) - {row.number for row in waiting}
            semantic.leave(leaves)
            coarse.leave(leaves)
            gone |= leaves
        for number, tokens in (semantic.step() if len(semantic) else {}).items():
            assert isinstance(tokens, torch.Tensor) and tokens.tolist() == rows[number].tokens.tolist(), number
            coarse.join(number, tokens, rows[number].pair, rows[number].coarse)
        for number, codes in (coarse.frame() if len(coarse) else {}).items():
            assert isinstance(codes, torch.Tensor)
            made[number] = codes
            draws.forget(number)
    assert set(made) == set(rows) - gone
    for number, codes in made.items():
        assert torch.equal(codes, rows[number].codes), number
    assert set(draws.seeds or ()) == gone and {row for _, row in draws.generators} <= gone


def test_a_row_of_numbers_that_are_none_ends_alone() -> None:
    """The others go on as if it had not been there."""
    model = tiny_model(seed=3)
    row = Row(model, 0, True)
    draws = Draws(seeds={})
    batch = SemanticBatch(model.semantic, model.generation_config.semantic_config, draws)
    for owner in (0, 1):
        draws.admit(owner, row.seed)
    prompt = batch.prompt(row.ids, None, None, row.semantic)
    batch.join([(0, prompt, row.semantic), (1, prompt * torch.nan, row.semantic)])
    ended = batch.step()
    assert list(ended) == [1] and isinstance(ended[1], ValueError) and "semantic" in str(ended[1])
    while not (ended := batch.step()):
        pass
    tokens = ended[0]
    assert isinstance(tokens, torch.Tensor) and tokens.tolist() == row.tokens.tolist()
