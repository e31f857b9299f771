"""Transformers' own generation options: each acts as its processor or criterion does, or is refused with why."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    StoppingCriteria,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from tests.generation.test_generate import batch, row, speak
from tests.tiny import tiny_model, tiny_voice
from transformers_bark import (
    BarkFineGenerationConfig,
    BarkGenerateOutput,
    BarkGenerationConfig,
    BarkModel,
    BarkSemanticGenerationConfig,
    VoicePreset,
)
from transformers_bark.engines import onnx_engine
from transformers_bark.generation import semantic
from transformers_bark.generation.processors import TokenRules
from transformers_bark.generation.semantic import history_prompt, text_prompt

END = 40
GREEDY = {"do_sample": False, "fine_temperature": None}
STAGES = ("semantic_tokens", "coarse_codes", "fine_codes")


def differ(one: BarkGenerateOutput, other: BarkGenerateOutput) -> list[str]:
    """The first stage's tokens that differ, and all after it."""
    pairs = {name: zip(getattr(one, name), getattr(other, name), strict=True) for name in STAGES}
    return [name for name, rows in pairs.items() if not all(torch.equal(a, b) for a, b in rows)]


@torch.no_grad()
def by_hand(model: BarkModel, index: int, processors: list[Any], count: int) -> list[int]:
    """Greedy semantic tokens of one row by the plain forward, with Transformers' processors over what has been made."""
    inputs, config, stage = row(batch(), index), model.generation_config.semantic_config, model.semantic
    text = text_prompt(inputs["input_ids"], inputs["attention_mask"], config)
    embed = stage.get_input_embeddings()
    infer = torch.tensor([[config.semantic_infer_token]])
    embeds = torch.cat([embed(text) + embed(history_prompt([None], config, text.device)), embed(infer)], dim=1)
    made: list[int] = []
    while len(made) < count:
        fed = torch.cat([embeds, embed(torch.tensor([made], dtype=torch.long))], dim=1)
        scores = stage(inputs_embeds=fed).logits[:, -1]
        scores = torch.where(torch.arange(scores.shape[1]) <= END, scores, -torch.inf)
        scores = LogitsProcessorList(processors)(torch.tensor([made], dtype=torch.long), scores)
        token = int(scores.argmax())
        if token == END:
            break
        made.append(token)
    return made


OPTIONS: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "repetition_penalty": ({"repetition_penalty": 3.0}, lambda: RepetitionPenaltyLogitsProcessor(3.0)),
    "no_repeat_ngram_size": ({"no_repeat_ngram_size": 2}, lambda: NoRepeatNGramLogitsProcessor(2)),
    "bad_words_ids": (
        {"bad_words_ids": [[35, 38], [35, 10], [11]]},
        lambda: NoBadWordsLogitsProcessor([[35, 38], [35, 10], [11]], [END]),
    ),
    "sequence_bias": ({"sequence_bias": [[[7], 30.0]]}, lambda: SequenceBiasLogitsProcessor({(7,): 30.0})),
    "suppress_tokens": (
        {"suppress_tokens": list(range(0, 40, 2))},
        lambda: SuppressTokensLogitsProcessor(list(range(0, 40, 2))),
    ),
    "begin_suppress_tokens": (
        {"begin_suppress_tokens": list(range(0, 39))},
        lambda: SuppressTokensAtBeginLogitsProcessor(list(range(0, 39)), 0),
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_transformers_processor_over_the_tokens_that_are_made(model: BarkModel, name: str) -> None:
    options, make = OPTIONS[name]
    plain = speak(model, batch(), **GREEDY)
    changed = speak(model, batch(), **GREEDY, **{f"semantic_{name}": options[name]})
    assert differ(plain, changed) == list(STAGES)
    for index, tokens in enumerate(changed.semantic_tokens):
        assert tokens.tolist() == by_hand(model, index, [make()], 40)
    own = speak(model, batch(), **GREEDY, semantic_logits_processor=[make()])
    assert not differ(own, changed), "the same processor, given by the caller"


@pytest.mark.parametrize("name", OPTIONS)
def test_a_field_of_a_stages_config_acts_as_the_option_does(name: str) -> None:
    model = tiny_model(seed=1)
    options, _ = OPTIONS[name]
    said = speak(model, batch(), **GREEDY, **{f"semantic_{name}": options[name]})
    setattr(model.generation_config.semantic_config, name, options[name])
    assert not differ(said, speak(model, batch(), **GREEDY))


def test_a_processor_sees_the_coarse_tokens_of_all_windows_and_of_no_voice(model: BarkModel) -> None:
    seen: list[torch.Tensor] = []

    def look(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert scores.shape == (1, 104) and (scores > -torch.inf).sum() == 32
        seen.append(ids)
        return scores

    output = speak(
        model, row(batch(), 1), history_prompt=tiny_voice(), seed=1, do_sample=True, coarse_logits_processor=look
    )
    codes = output.coarse_codes[0]
    ids = (codes + torch.tensor([[40], [72]])).T.flatten()
    assert len(ids) > 24, "more than two windows"
    assert [len(one[0]) for one in seen] == list(range(len(ids)))
    assert torch.equal(seen[-1][0], ids[:-1])


SAMPLING = {
    "min_p": {"min_p": 0.6},
    "typical_p": {"typical_p": 0.3},
    "epsilon_cutoff": {"epsilon_cutoff": 0.2},
    "eta_cutoff": {"eta_cutoff": 0.3},
    "top_h": {"top_h": 0.2},
}
CAUSAL = {
    "repetition_penalty": {"repetition_penalty": 3.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
}


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
@pytest.mark.parametrize("name", [*SAMPLING, *CAUSAL])
def test_a_prefix_keeps_an_option_to_its_stage(model: BarkModel, stage: str, name: str) -> None:
    options = {**SAMPLING, **CAUSAL}[name]
    sampled = {"do_sample": True, "seed": 3, "min_eos_p": 0.02}
    if stage == "fine" and name in CAUSAL:
        with pytest.raises(TypeError, match=f"fine_{name}.*all frames"):
            speak(model, batch(), **sampled, **{f"fine_{name}": options[name]})
        return
    plain = speak(model, batch(), **sampled)
    changed = speak(model, batch(), **sampled, **{f"{stage}_{name}": options[name]})
    first = {"semantic": 0, "coarse": 1, "fine": 2}[stage]
    assert differ(plain, changed) and differ(plain, changed)[0] == STAGES[first]


def test_without_a_prefix_an_option_reaches_every_stage_that_knows_it(model: BarkModel) -> None:
    sampled = {"do_sample": True, "seed": 3}
    everywhere = {f"{stage}_min_p": 0.6 for stage in ("semantic", "coarse", "fine")}
    assert not differ(speak(model, batch(), **sampled, min_p=0.6), speak(model, batch(), **sampled, **everywhere))
    both = {"semantic_no_repeat_ngram_size": 2, "coarse_no_repeat_ngram_size": 2}
    assert not differ(
        speak(model, batch(), **sampled, no_repeat_ngram_size=2), speak(model, batch(), **sampled, **both)
    )
    alone = {"semantic_suppress_tokens": [1, 2, 3]}
    assert not differ(
        speak(model, batch(), **sampled, suppress_tokens=[1, 2, 3]), speak(model, batch(), **sampled, **alone)
    )


def test_fine_codes_can_be_suppressed(model: BarkModel) -> None:
    output = speak(model, batch(), seed=1, fine_suppress_tokens=list(range(16)))
    assert all((codes[2:] >= 16).all() for codes in output.fine_codes)
    assert any((codes[:2] < 16).any() for codes in output.fine_codes), "the coarse codebooks are not the fine stage's"


def test_a_filter_is_transformers_after_the_original_librarys_order() -> None:
    from transformers_bark.generation.options import SamplingOptions
    from transformers_bark.generation.sampling import probabilities

    logits = torch.randn(3, 50)
    expected = MinPLogitsWarper(0.3)(None, logits / 0.7).softmax(-1)
    assert torch.equal(probabilities(logits, SamplingOptions(True, 0.7, min_p=0.3)), expected)
    assert probabilities(logits[:, None], SamplingOptions(True, 0.7, min_p=0.3)).shape == (3, 1, 50)


ALL = {
    **{name: value for name, value in SAMPLING.items()},
    **{name: options for name, (options, _) in OPTIONS.items()},
    "min_new_tokens": {"min_new_tokens": 30},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (5, 1.5)},
    "coarse_repetition_penalty": {"coarse_repetition_penalty": 3.0},
    "coarse_no_repeat_ngram_size": {"coarse_no_repeat_ngram_size": 2},
    "use_cache": {"use_cache": False},
    "num_return_sequences": {"num_return_sequences": 2},
}


@pytest.mark.parametrize("name", ALL)
def test_a_row_is_the_same_alone_and_in_a_batch_under_every_option(model: BarkModel, name: str) -> None:
    voices: list[VoicePreset | None] = [None, tiny_voice(12, seed=1), tiny_voice(31, seed=2)]
    options = {"do_sample": True, "min_eos_p": 0.02, **ALL[name]}
    copies = options.get("num_return_sequences", 1)
    together = speak(model, batch(), history_prompt=voices, seed=[7, 8, 9], **options)
    for index in range(3):
        alone = speak(model, row(batch(), index), history_prompt=voices[index], seed=7 + index, **options)
        for stage in STAGES:
            of_row = getattr(together, stage)[index * copies : (index + 1) * copies]
            assert all(torch.equal(a, b) for a, b in zip(getattr(alone, stage), of_row, strict=True)), stage


@pytest.mark.parametrize("name", ["repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "use_cache"])
@pytest.mark.parametrize("engine", ["onnxruntime", "compiled"])
def test_every_engine_says_the_same_under_the_options(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a draft too, whose proposals are chosen under the rules."""
    monkeypatch.setattr(onnx_engine, "DRAFTED_WEIGHTS", 0)
    if engine == "compiled":
        monkeypatch.setattr("torch.compile", lambda function, **kwargs: function)
    model = tiny_model(seed=1)
    options = {"do_sample": True, "seed": 3, "min_eos_p": 0.02, **ALL[name]}
    exact = speak(model, row(batch(), 1), **options)
    assert not differ(exact, speak(model.set_engine(engine), row(batch(), 1), **options))


def test_a_processor_of_the_caller_is_asked_once_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may count: a draft must not ask it about tokens that are only tried."""
    monkeypatch.setattr(onnx_engine, "DRAFTED_WEIGHTS", 0)
    model = tiny_model(seed=1).set_engine("onnxruntime")

    class Counting(LogitsProcessor):
        calls = 0

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return scores

    counter = Counting()
    output = speak(model, row(batch(), 1), seed=1, do_sample=True, semantic_logits_processor=counter)
    assert counter.calls in (len(output.semantic_tokens[0]), len(output.semantic_tokens[0]) + 1)


def test_use_cache_false_gives_the_same_tokens_and_keeps_no_cache(
    model: BarkModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = speak(model, batch(), do_sample=True, seed=3, min_eos_p=0.02)
    monkeypatch.setattr("transformers_bark.engines.TorchCausal.step", None)
    assert not differ(plain, speak(model, batch(), do_sample=True, seed=3, min_eos_p=0.02, use_cache=False))


def test_min_new_tokens_forbid_the_end(model: BarkModel) -> None:
    options = {"seed": 2, "do_sample": True}
    assert min(map(len, speak(model, batch(), **options, min_eos_p=0.02).semantic_tokens)) < 9
    for threshold in (0.02, 0.0):
        output = speak(model, batch(), **options, min_eos_p=threshold, min_new_tokens=9)
        assert min(map(len, output.semantic_tokens)) >= 9
    with pytest.raises(ValueError, match="min_new_tokens.*50.*max_new_tokens.*40"):
        speak(model, batch(), min_new_tokens=50)


def test_the_decaying_penalty_brings_the_end(model: BarkModel) -> None:
    lengths = []
    for penalty in ((3, 5.0), (20, 5.0), None, (2, 1e300)):
        output = speak(model, batch(), **GREEDY, exponential_decay_length_penalty=penalty)
        lengths.append(max(map(len, output.semantic_tokens)))
    assert lengths[0] < lengths[1] < lengths[2] and lengths[3] <= 4


def test_several_sequences_of_a_text_each_have_their_draws(model: BarkModel) -> None:
    options = {"do_sample": True, "history_prompt": [None, tiny_voice(12), None]}
    single = speak(model, batch(), seed=[5, 6, 7], **options)
    several = speak(model, batch(), seed=[5, 6, 7], num_return_sequences=3, **options)
    assert len(several.audio) == len(several.semantic_tokens) == 9
    for text in range(3):
        rows = [several.semantic_tokens[3 * text + copy].tolist() for copy in range(3)]
        assert rows[0] == single.semantic_tokens[text].tolist(), "the first is what it would be alone"
        assert len({tuple(one) for one in rows}) == 3
        assert torch.equal(several.fine_codes[3 * text], single.fine_codes[text])
    again = speak(model, batch(), seed=[5, 6, 7], num_return_sequences=3, **options)
    assert not differ(several, again)
    with pytest.raises(ValueError, match="num_return_sequences.*2.*nothing is sampled"):
        speak(model, batch(), **GREEDY, num_return_sequences=2)
    with pytest.raises(ValueError, match="num_return_sequences.*0"):
        speak(model, batch(), num_return_sequences=0)


def test_sub_models_take_the_options_without_a_prefix(model: BarkModel) -> None:
    config = model.generation_config
    whole = speak(model, batch(), do_sample=True, seed=4, repetition_penalty=3.0, num_return_sequences=2)
    options = {"do_sample": True, "seed": 4, "repetition_penalty": 3.0, "num_return_sequences": 2}
    tokens = model.semantic.generate(**batch(), semantic_generation_config=config.semantic_config, **options)
    assert len(tokens) == 6
    for ours, theirs in zip(tokens, whole.semantic_tokens, strict=True):
        assert torch.equal(ours[: len(theirs)], theirs)
    stages = (config.semantic_config, config.coarse_acoustics_config)
    with pytest.raises(TypeError, match="min_new_tokens.*semantic tokens decide"):
        model.coarse_acoustics.generate(tokens, *stages, codebook_size=32, min_new_tokens=3)


class After(StoppingCriteria):
    """Stops a row once the sum of its ids reaches a number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return input_ids.sum(1) >= self.count


@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_a_criterion_ends_a_row_after_its_token(model: BarkModel, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setitem(semantic.UNSEEN_STEPS, "cpu", steps)
    plain = speak(model, batch(), **GREEDY)
    output = speak(model, batch(), **GREEDY, semantic_stopping_criteria=[After(150)])
    for stopped, whole in zip(output.semantic_tokens, plain.semantic_tokens, strict=True):
        sums = whole.cumsum(0)
        count = int((sums < 150).sum()) + 1
        assert count < len(whole) and torch.equal(stopped, whole[:count])


def test_a_criterion_ends_coarse_rows_with_their_frame(model: BarkModel) -> None:
    options = {**GREEDY, "history_prompt": [None, tiny_voice(12), None], "allow_early_stop": False}
    plain = speak(model, batch(), **options)
    output = speak(model, batch(), **options, coarse_stopping_criteria=After(4000))
    assert not [name for name in differ(plain, output) if name == "semantic_tokens"]
    lengths = set()
    for stopped, whole in zip(output.coarse_codes, plain.coarse_codes, strict=True):
        ids = (whole + torch.tensor([[40], [72]])).T.flatten()
        frames = -(-(int((ids.cumsum(0) < 4000).sum()) + 1) // 2)
        assert frames < whole.shape[1] and torch.equal(stopped, whole[:, :frames])
        lengths.add(frames)
    assert len(lengths) > 1, "rows end at times of their own"
    assert [codes.shape[1] for codes in output.fine_codes] == [codes.shape[1] for codes in output.coarse_codes]


def test_max_time_ends_a_stage(model: BarkModel, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    output = speak(model, batch(), **GREEDY, semantic_max_time=6.5)
    assert {len(tokens) for tokens in output.semantic_tokens} == {7}
    output = speak(model, batch(), **GREEDY, coarse_max_time=6.5)
    assert {codes.shape[1] for codes in output.coarse_codes} == {4}, "the frame in which it ends is finished"
    assert max(map(len, output.semantic_tokens)) == 40


def test_a_criterion_that_keeps_what_it_sees_sees_each_token_once(model: BarkModel) -> None:
    lengths: list[int] = []

    def look(ids: torch.Tensor, scores: Any) -> torch.Tensor:
        lengths.append(ids.shape[1])
        return torch.zeros(len(ids), dtype=torch.bool)

    speak(model, row(batch(), 0), **GREEDY, semantic_stopping_criteria=look)
    assert lengths == list(range(1, len(lengths) + 1))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_beams": 4}, "num_beams.*no beams"),
    ({"semantic_num_beams": 4}, "semantic_num_beams.*no beams"),
    ({"penalty_alpha": 0.6}, "penalty_alpha"),
    ({"assistant_model": object()}, "assistant_model.*draft"),
    ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
    ({"constraints": [object()]}, "constraints.*beams"),
    ({"guidance_scale": 2.0}, "guidance_scale"),
    ({"max_length": 100}, "max_length.*max_new_tokens"),
    ({"min_length": 5}, "min_length.*min_new_tokens"),
    ({"streamer": object()}, "generate_stream"),
    ({"output_scores": True}, "output_scores"),
    ({"cache_implementation": "static"}, "cache_implementation.*engine"),
    ({"watermarking_config": {"bias": 2.0}}, "watermarking_config.*audio"),
    ({"coarse_min_new_tokens": 5}, "coarse_min_new_tokens.*semantic tokens decide"),
    ({"fine_max_time": 5}, "fine_max_time.*all frames"),
    ({"semantic_num_return_sequences": 2}, "semantic_num_return_sequences.*whole call"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_cannot_act_is_refused_with_the_reason(
    model: BarkModel, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers_bark.engines.TorchCausal.prefill", None)  # before any stage works
    with pytest.raises(TypeError, match=words):
        speak(model, batch(), **options)


@pytest.mark.parametrize(
    ("stage", "name", "value", "words"),
    [
        ("semantic_config", "num_beams", 4, "semantic_config.num_beams.*4.*no beams"),
        ("semantic_config", "output_scores", True, "semantic_config.output_scores"),
        ("semantic_config", "max_length", 300, "semantic_config.max_length.*max_new_tokens"),
        ("coarse_acoustics_config", "penalty_alpha", 0.6, "coarse_acoustics_config.penalty_alpha"),
        ("coarse_acoustics_config", "max_new_tokens", 9, "coarse_acoustics_config.max_new_tokens.*decide"),
        ("coarse_acoustics_config", "eos_token_id", 9, "coarse_acoustics_config.eos_token_id"),
        ("coarse_acoustics_config", "num_return_sequences", 2, "num_return_sequences.*whole call"),
        ("fine_acoustics_config", "repetition_penalty", 1.2, "fine_acoustics_config.repetition_penalty.*all frames"),
        ("fine_acoustics_config", "num_beams", 2, "fine_acoustics_config.num_beams.*no beams"),
        ("fine_acoustics_config", "top_k", -2, "top_k.*fine.*-2"),
    ],
)
def test_a_field_that_cannot_act_is_refused_with_the_reason(stage: str, name: str, value: Any, words: str) -> None:
    model = tiny_model(seed=1)
    setattr(getattr(model.generation_config, stage), name, value)
    with pytest.raises(ValueError, match=words):
        speak(model, batch())


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 1, "repetition_penalty": 1.0, "max_length": 20, "use_cache": True, "early_stopping": False},
        {"renormalize_logits": True, "bad_words_ids": None, "typical_p": 1.0, "epsilon_cutoff": 0.0, "min_p": 0.0},
        {"suppress_tokens": [], "logits_processor": LogitsProcessorList(), "stopping_criteria": [], "max_time": None},
        {"return_dict_in_generate": True, "num_return_sequences": 1, "output_scores": False, "min_new_tokens": 0},
    ],
)
def test_what_asks_for_nothing_changes_nothing(model: BarkModel, options: dict[str, Any]) -> None:
    plain = speak(model, batch(), seed=1, do_sample=True)
    options = {"return_dict_in_generate": True, **options}
    assert not differ(plain, model.generate(**batch(), seed=1, do_sample=True, **options))


def test_where_nothing_is_asked_for_there_are_no_rules(model: BarkModel) -> None:
    from transformers_bark.generation.options import coarse_options, fine_options, semantic_options

    config = model.generation_config
    for options in (
        semantic_options(config.semantic_config, {"repetition_penalty": 1.0, "use_cache": True}),
        coarse_options(config.coarse_acoustics_config, {}),
        fine_options(config.fine_acoustics_config, {"typical_p": 1.0}),
    ):
        assert TokenRules.of(options, 50, None, torch.device("cpu")) is None and options.warpers is None


def test_a_plain_generation_config_sets_options(model: BarkModel) -> None:
    plain = speak(model, batch(), seed=1)
    assert not differ(plain, speak(model, batch(), seed=1, generation_config={}))
    assert not differ(plain, speak(model, batch(), seed=1, generation_config=GenerationConfig()))
    said = speak(model, batch(), seed=1, max_new_tokens=10, top_k=3, do_sample=True)
    for config in (
        GenerationConfig(max_new_tokens=10, top_k=3, do_sample=True),
        {"max_new_tokens": 10, "top_k": 3, "do_sample": True},
    ):
        assert not differ(said, speak(model, batch(), seed=1, generation_config=config))
    over = speak(model, batch(), seed=1, generation_config=GenerationConfig(max_new_tokens=10), max_new_tokens=4)
    assert {len(tokens) for tokens in over.semantic_tokens} == {4}, "the call's own win"
    part = speak(model, batch(), seed=1, generation_config={"semantic_config": {"max_new_tokens": 6}})
    assert max(map(len, part.semantic_tokens)) == 6
    with pytest.raises(TypeError, match="generation_config.*int"):
        speak(model, batch(), generation_config=3)
    with pytest.raises(ValueError, match="generation_config.num_beams.*no beams"):
        speak(model, batch(), generation_config=GenerationConfig(num_beams=2))
    with pytest.raises(ValueError, match="max_new_tokens.*1000"):
        speak(model, batch(), generation_config=GenerationConfig(max_new_tokens=1000))


def test_a_models_own_config_sets_options_for_all_stages() -> None:
    model = tiny_model(seed=1)
    said = speak(model, batch(), seed=1, do_sample=True, no_repeat_ngram_size=2, num_return_sequences=2)
    model.generation_config.no_repeat_ngram_size = 2
    model.generation_config.do_sample = True
    model.generation_config.num_return_sequences = 2
    assert not differ(said, speak(model, batch(), seed=1))


def test_a_config_with_options_survives_its_file(tmp_path: Any) -> None:
    config = tiny_model(seed=1).generation_config
    config.semantic_config.repetition_penalty = 1.5
    config.fine_acoustics_config.min_p = 0.1
    config.fine_acoustics_config.do_sample = False
    config.max_new_tokens = 9
    config.save_pretrained(tmp_path)
    loaded = BarkGenerationConfig.from_pretrained(tmp_path)
    assert (loaded.semantic_config.repetition_penalty, loaded.fine_acoustics_config.min_p) == (1.5, 0.1)
    assert loaded.fine_acoustics_config.temperature is None, "which is how a greedy fine stage is written"
    assert loaded.max_new_tokens == 9


def test_the_fine_stage_obeys_what_was_set_and_not_what_the_hubs_files_never_meant() -> None:
    hub = BarkFineGenerationConfig(do_sample=False, temperature=0.5, top_k=50)
    assert (hub.temperature, hub.top_k, hub.do_sample) == (0.5, None, None)
    assert BarkFineGenerationConfig(do_sample=False).temperature is None
    model = tiny_model(seed=1)
    greedy = speak(model, batch(), seed=1, fine_temperature=None)
    narrow = speak(model, batch(), seed=1, fine_top_k=2)
    model.generation_config.fine_acoustics_config.do_sample = False
    assert not differ(greedy, speak(model, batch(), seed=1))
    model.generation_config.fine_acoustics_config.do_sample = None
    model.generation_config.fine_acoustics_config.top_k = 2
    assert not differ(narrow, speak(model, batch(), seed=1))


def test_stage_configs_read_as_mappings(model: BarkModel) -> None:
    stage = tiny_model(seed=1).generation_config.semantic_config
    again = BarkSemanticGenerationConfig(**stage)
    assert again == stage
    assert {**again, "transformers_version": None} == {**stage, "transformers_version": None}
    assert stage["max_new_tokens"] == 40 and "temperature" in stage and stage.get("no such thing", 3) == 3
    stage["temperature"] = 0.25
    assert stage.temperature == 0.25 == dict(stage.items())["temperature"]
    with pytest.raises(KeyError, match="no such thing"):
        stage["no such thing"]
    assert len(stage) == len(list(stage.keys()))


def test_a_pad_is_accepted_with_a_warning(model: BarkModel) -> None:
    with pytest.warns(UserWarning, match="pad_token_id.*changes nothing"):
        padded = speak(model, batch(), seed=1, pad_token_id=3)
    assert not differ(padded, speak(model, batch(), seed=1))


@pytest.mark.parametrize("seed", [torch.tensor(3), torch.tensor([3, 3, 3]), [torch.tensor(3)] * 3])
def test_a_seed_may_be_a_tensor(model: BarkModel, seed: Any) -> None:
    assert not differ(speak(model, batch(), do_sample=True, seed=seed), speak(model, batch(), do_sample=True, seed=3))


def test_silence_is_said(model: BarkModel) -> None:
    with pytest.warns(UserWarning, match="nothing was said for row 0, 1, 2.*min_eos_p"):
        speak(model, batch(), min_eos_p=0.0)
    with pytest.warns(UserWarning, match="nothing was said for the text"):
        assert not list(model.generate_stream(**row(batch(), 0), min_eos_p=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        speak(model, batch(), min_eos_p=None, allow_early_stop=False)


def test_a_row_without_text_is_an_error(model: BarkModel) -> None:
    inputs = batch()
    inputs["attention_mask"][1] = 0
    with pytest.raises(ValueError, match="no text in row 1"):
        speak(model, inputs)
    with pytest.raises(ValueError, match="no text in row 0, 1"):
        model.generate(torch.zeros(2, 5, dtype=torch.long))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_coarse_history": 10**6}, "max_coarse_history.*1000000"),
        ({"sliding_window_len": 61}, "sliding_window_len.*61"),
        ({"sliding_window_len": 7}, "sliding_window_len.*7"),
        ({"coarse_bad_words_ids": [[900]]}, "bad_words_ids.*coarse.*900.*103"),
        ({"fine_suppress_tokens": [32]}, "suppress_tokens.*fine.*32.*31"),
        ({"coarse_temperature": -1}, "temperature.*coarse stage.*-1"),
        ({"fine_temperature": 0}, "temperature.*fine stage.*fine_temperature=None.*0"),
        ({"temperature": float("nan")}, "temperature.*nan"),
        ({"temperature": float("inf")}, "temperature.*inf"),
        ({"repetition_penalty": 0}, "repetition_penalty.*0"),
        ({"bad_words_ids": [3]}, "bad_words_ids.*list of lists"),
        ({"suppress_tokens": ["a"]}, "suppress_tokens.*list of token ids"),
        ({"logits_processor": 3}, "logits_processor.*function"),
        ({"max_time": -1}, "max_time.*-1"),
        ({"do_sample": None}, "do_sample.*None"),
    ],
)
@pytest.mark.parametrize("method", ["generate", "generate_stream"])
def test_what_no_stage_can_meet_is_said_before_any_works(
    model: BarkModel, options: dict[str, Any], words: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers_bark.engines.TorchCausal.prefill", None)
    with pytest.raises(ValueError, match=words):
        getattr(model, method)(**row(batch(), 0), **options)


def test_where_nothing_is_left_to_choose_the_stage_is_named(model: BarkModel) -> None:
    with pytest.raises(ValueError, match="no token is left.*semantic"):
        speak(model, batch(), suppress_tokens=list(range(41)))
    with pytest.raises(ValueError, match="no token is left.*coarse"):
        speak(model, batch(), do_sample=True, coarse_suppress_tokens=list(range(40, 104)))
    with pytest.raises(ValueError, match="no token is left.*fine"):
        speak(model, batch(), fine_suppress_tokens=list(range(32)))


@pytest.mark.parametrize("do_sample", [True, False])
@pytest.mark.parametrize("engine", ["torch", "compiled"])
@pytest.mark.parametrize("stage", ["semantic", "coarse_acoustics", "fine_acoustics", "codec_model"])
def test_weights_that_are_not_numbers_are_an_error(
    stage: str, engine: str, do_sample: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.compile", lambda function, **kwargs: function)
    model = tiny_model(seed=1).set_engine(engine)
    with torch.no_grad():
        list(getattr(model, stage).parameters())[-1 if stage == "codec_model" else 2].fill_(torch.nan)
    name = {"codec_model": "codec"}.get(stage, stage.split("_")[0])
    options = {"do_sample": do_sample, "fine_do_sample": do_sample, "seed": 1, "min_eos_p": None}
    with pytest.raises(ValueError, match=f"{name}.*not numbers"):
        speak(model, batch(), **options)
    with pytest.raises(ValueError, match=f"{name}.*not numbers"):
        list(model.generate_stream(**row(batch(), 1), **options))
    if stage == "codec_model":
        with pytest.raises(ValueError, match="codec.*not numbers"):
            model.codec_decode(torch.zeros(1, 4, 10, dtype=torch.long))


@pytest.mark.parametrize("temperature", [1e-37, 1e-46, 5e-324, 1e-20])
def test_a_temperature_near_nothing_is_greedy(model: BarkModel, temperature: float) -> None:
    greedy = speak(model, batch(), **GREEDY)
    cold = speak(model, batch(), do_sample=True, seed=1, temperature=temperature, fine_temperature=temperature)
    assert not differ(greedy, cold)


def test_a_temperature_beyond_floats_samples(model: BarkModel) -> None:
    hot = speak(model, batch(), do_sample=True, seed=1, temperature=1e300, top_k=5, fine_temperature=1e300)
    assert len(hot.audio) == 3
