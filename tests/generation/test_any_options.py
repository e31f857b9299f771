"""Any option with any value: an answer that is right, or an error of a known kind; never noise, never another exception."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import tiny_model
from transformers_bark import BarkGenerateOutput, BarkGenerationConfig, BarkModel
from transformers_bark.generation.options import KNOWN, STAGES
from transformers_bark.generation.refusals import REASONS

EXAMPLES = settings(max_examples=200, deadline=None, derandomize=True)
FEW = settings(EXAMPLES, max_examples=30)
PLAIN = sorted({name for names in KNOWN.values() for name in names})
OWN = sorted({name for kind in BarkGenerationConfig._stages.values() for name in (*kind._own, "semantic_pad_token")})
NAMES = [
    *PLAIN,
    *(f"{stage}_{name}" for stage in STAGES for name in PLAIN),
    *REASONS,
    "num_return_sequences",
    "pad_token_id",
    "renormalize_logits",
    "seed",
    "history_prompt",
    "generation_config",
]

NUMBERS = st.one_of(
    st.integers(-3, 60),
    st.sampled_from([10**6, 10**30, -(10**30), 1e-320, 1e-37, 1e-5, 1e30, 1e300]),
    st.floats(),
    st.floats(0, 1),
)
IDS = st.lists(st.integers(-1, 110), max_size=4)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=3),
    IDS,
    st.lists(IDS, max_size=3),
    st.lists(st.tuples(IDS, NUMBERS), max_size=2),
    st.tuples(NUMBERS, NUMBERS),
    st.dictionaries(st.tuples(st.integers(0, 50)), NUMBERS, max_size=2),
    st.dictionaries(st.sampled_from(PLAIN), NUMBERS, max_size=2),
    st.sampled_from([torch.tensor(2), torch.tensor(0.5), torch.tensor([1, 2]), object(), len]),
)
FRACTIONS = st.floats(0.01, 0.99)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(1e-40, 5) | st.none(),
    "top_k": st.integers(0, 50),
    "top_p": st.floats(0, 1),
    "min_p": FRACTIONS,
    "top_h": FRACTIONS,
    "typical_p": FRACTIONS,
    "epsilon_cutoff": FRACTIONS,
    "eta_cutoff": FRACTIONS,
    "semantic_suppress_tokens": st.lists(st.integers(0, 39), max_size=20),
    "coarse_suppress_tokens": st.lists(st.integers(40, 100), max_size=20),
    "fine_suppress_tokens": st.lists(st.integers(0, 31), max_size=20),
    "repetition_penalty": st.floats(0.1, 10),
    "no_repeat_ngram_size": st.integers(2, 5),
    "semantic_bad_words_ids": st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=3), max_size=4),
    "coarse_sequence_bias": st.lists(
        st.tuples(st.lists(st.integers(40, 100), min_size=1, max_size=2), st.floats(-20, 20)).map(list), max_size=3
    ),
    "begin_suppress_tokens": st.lists(st.integers(0, 30), max_size=9),
    "min_new_tokens": st.integers(0, 6),
    "exponential_decay_length_penalty": st.tuples(st.integers(0, 5), st.floats(1, 100)),
    "min_eos_p": st.floats(0, 1),
    "max_new_tokens": st.integers(6, 9),
    "max_gen_duration_s": st.floats(0.01, 1),
    "allow_early_stop": st.booleans(),
    "do_sample": st.booleans(),
    "use_cache": st.booleans(),
    "max_coarse_history": st.integers(8, 40),
    "sliding_window_len": st.integers(1, 6).map(lambda n: 2 * n),
}


@cache
def short() -> BarkModel:
    """Says little, so that many options can be tried."""
    model = tiny_model(seed=1)
    model.generation_config.semantic_config.max_new_tokens = 6
    return model


def inputs(n_rows: int = 2) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 60, (2, 8), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids[:n_rows], "attention_mask": torch.ones(n_rows, 8, dtype=torch.long)}


def speak(model: BarkModel, given: dict[str, torch.Tensor], **options: Any) -> BarkGenerateOutput:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.generate(**given, return_dict_in_generate=True, progress=False, **options)


def check(output: BarkGenerateOutput) -> None:
    """Every token is one of its stage's, every sample a number."""
    assert output.audio.isfinite().all() and output.audio_lengths.max() == output.audio.shape[1]
    for tokens, coarse, codes in zip(output.semantic_tokens, output.coarse_codes, output.fine_codes, strict=True):
        assert ((tokens >= 0) & (tokens < 40)).all() and codes.shape == (4, coarse.shape[1])
        assert torch.equal(codes[:2], coarse) and ((codes >= 0) & (codes < 32)).all()


@EXAMPLES
@given(options=st.dictionaries(st.sampled_from(NAMES), ANYTHING, min_size=1, max_size=2))
def test_any_value_is_an_answer_or_an_error_that_names_it(options: dict[str, Any]) -> None:
    try:
        output = speak(short(), inputs(), **{"seed": 1, **options})
    except (TypeError, ValueError) as error:
        nested = options.get("generation_config")
        given_names = [*options, *(map(str, nested) if isinstance(nested, dict) else ())]
        names = {part for name in given_names for part in (name, name.partition("_")[2])}
        assert any(name and name in str(error) for name in names | {"no token is left", "generation option"}), error
    else:
        check(output)


@EXAMPLES
@given(
    stage=st.sampled_from(["semantic_config", "coarse_acoustics_config", "fine_acoustics_config", None]),
    name=st.sampled_from([*PLAIN, *REASONS, *OWN, "num_return_sequences"]),
    value=ANYTHING,
)
def test_any_field_of_a_config_is_an_answer_or_an_error_that_names_it(stage: str | None, name: str, value: Any) -> None:
    config = copy.deepcopy(short().generation_config)
    setattr(config if stage is None else getattr(config, stage), name, value)
    try:
        output = speak(short(), inputs(1), seed=1, generation_config=config)
    except (TypeError, ValueError) as error:
        known = (name, "no token is left", "the generation config needs at least")
        assert any(words in str(error) for words in known), error
    else:
        check(output)


@FEW
@given(chosen=st.sets(st.sampled_from(sorted(GOOD)), max_size=4), data=st.data())
def test_any_good_values_speak_alike_alone_and_in_a_batch(chosen: set[str], data: st.DataObject) -> None:
    options = {name: data.draw(GOOD[name], label=name) for name in sorted(chosen)}
    options = {"do_sample": True, **options}
    together = speak(short(), inputs(), seed=[1, 2], **options)
    check(together)
    given_alone = {name: value[1:] for name, value in inputs().items()}
    alone = speak(short(), given_alone, seed=2, **options)
    for name in ("semantic_tokens", "coarse_codes", "fine_codes"):
        assert torch.equal(getattr(together, name)[1], getattr(alone, name)[0]), name
