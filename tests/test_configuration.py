"""Configs: the Hub's files, round trips with stock, and combinations that cannot be."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig
from transformers.models.bark import configuration_bark as stock
from transformers.models.bark import generation_configuration_bark as stock_generation

from transformers_bark import (
    BarkCoarseConfig,
    BarkCoarseGenerationConfig,
    BarkConfig,
    BarkFineConfig,
    BarkFineGenerationConfig,
    BarkGenerationConfig,
    BarkSemanticConfig,
    BarkSemanticGenerationConfig,
    vocabulary,
)
from transformers_bark.generation_configuration_bark import check_compatible

pytestmark = pytest.mark.compat
HUB = Path(__file__).parent / "data" / "hub"
STAGES = ("semantic_config", "coarse_acoustics_config", "fine_acoustics_config")


@pytest.mark.parametrize(("name", "layers", "width"), [("bark", 24, 1024), ("bark-small", 12, 768)])
def test_the_hubs_files_load_and_fit_each_other(name: str, layers: int, width: int) -> None:
    config, generation = BarkConfig.from_pretrained(HUB / name), BarkGenerationConfig.from_pretrained(HUB / name)
    kinds = (BarkSemanticConfig, BarkCoarseConfig, BarkFineConfig)
    for stage, kind in zip(STAGES, kinds, strict=True):
        part = getattr(config, stage)
        assert type(part) is kind and (part.num_layers, part.hidden_size, part.bias) == (layers, width, False)
    assert config.codec_config.model_type == "encodec" and config.semantic_config.input_vocab_size == 129_600
    check_compatible(config, generation)
    released = BarkGenerationConfig()
    for stage in STAGES:
        for field in type(getattr(released, stage))._own:
            if field not in ("temperature", "do_sample", "output_scores"):
                assert getattr(getattr(generation, stage), field) == getattr(getattr(released, stage), field), field


@pytest.mark.parametrize("name", ["bark", "bark-small"])
def test_round_trips(tmp_path: Path, name: str) -> None:
    config, generation = BarkConfig.from_pretrained(HUB / name), BarkGenerationConfig.from_pretrained(HUB / name)
    config.save_pretrained(tmp_path)
    generation.save_pretrained(tmp_path)
    assert BarkConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert BarkGenerationConfig.from_pretrained(tmp_path).to_dict() == generation.to_dict()
    theirs = stock.BarkConfig.from_pretrained(tmp_path)
    assert theirs.coarse_acoustics_config.hidden_size == config.coarse_acoustics_config.hidden_size
    theirs.save_pretrained(tmp_path / "stock")
    assert (
        BarkConfig.from_pretrained(tmp_path / "stock").fine_acoustics_config.to_dict()
        == config.fine_acoustics_config.to_dict()
    )
    nested = json.loads((tmp_path / "generation_config.json").read_text())
    assert nested["semantic_config"]["semantic_rate_hz"] == 49.9 and nested["model_type"] == "bark"
    assert (
        BarkGenerationConfig.typed(GenerationConfig(**nested)).to_dict()["fine_acoustics_config"]
        == nested["fine_acoustics_config"]
    )


def test_sub_configs_come_as_dicts_or_objects() -> None:
    parts = (
        BarkSemanticConfig(num_layers=3),
        BarkCoarseConfig(),
        BarkFineConfig(),
        stock.AutoConfig.for_model("encodec"),
    )
    assert BarkConfig.from_sub_model_configs(*parts).semantic_config.num_layers == 3
    semantic = BarkSemanticGenerationConfig(min_eos_p=0.2)
    made = BarkGenerationConfig.from_sub_model_configs(
        semantic, BarkCoarseGenerationConfig(), BarkFineGenerationConfig()
    )
    assert made.semantic_config.min_eos_p == 0.2 and made.semantic_config is not semantic
    assert BarkGenerationConfig(semantic_config=semantic).semantic_config is semantic
    assert BarkSemanticGenerationConfig(eos_token_id=7).semantic_pad_token == 7
    with pytest.raises(TypeError, match="semantic_config.*int"):
        BarkGenerationConfig(semantic_config=3)


def test_the_fine_stage_reads_only_its_temperature() -> None:
    config = BarkFineGenerationConfig(do_sample=False, top_k=50, temperature=0.4)
    assert (config.do_sample, config.top_k, config.temperature) == (None, None, 0.4)
    assert BarkFineGenerationConfig().temperature == 0.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BarkSemanticConfig(num_heads=5), "num_heads.*5 heads.*768"),
        (lambda: BarkCoarseConfig(num_layers=0), "num_layers.*0"),
        (lambda: BarkCoarseConfig(dropout=1.0), "dropout.*1.0"),
        (lambda: BarkFineConfig(n_codes_given=8), "n_codes_given.*8 of 8"),
        (lambda: BarkFineConfig(input_vocab_size=1056, output_vocab_size=1000), "output_vocab_size.*1000"),
        (lambda: BarkFineGenerationConfig(max_fine_history_length=2000), "max_fine_history_length.*2000"),
        (lambda: BarkCoarseGenerationConfig(sliding_window_len=0), "sliding_window_len.*0"),
        (lambda: BarkSemanticGenerationConfig(semantic_rate_hz=-1), "semantic_rate_hz.*-1"),
        (lambda: BarkSemanticGenerationConfig(semantic_vocab_size=20_000), "text_encoding_offset.*10048.*19999"),
        (lambda: BarkGenerationConfig(codebook_size=2048), "coarse_semantic_pad_token.*12048.*14095"),
        (
            lambda: BarkGenerationConfig(fine_acoustics_config={"n_fine_codebooks": 1}),
            "n_coarse_codebooks.*2 and 1",
        ),
    ],
)
def test_impossible_sizes_are_named(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BarkSemanticConfig(hidden_size="768"), "hidden_size.*'768'"),
        (lambda: BarkFineConfig(n_codes_total=8.0), "n_codes_total.*8.0"),
        (
            lambda: BarkConfig(semantic_config=BarkCoarseConfig()),
            "semantic_config.*BarkSemanticConfig.*BarkCoarseConfig",
        ),
        (lambda: BarkConfig(fine_acoustics_config=[1]), "fine_acoustics_config.*list"),
        (lambda: BarkSemanticGenerationConfig(eos_token_id=[1, 2]), r"eos_token_id.*\[1, 2\]"),
    ],
)
def test_values_of_the_wrong_kind_are_named(make: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize("name", ["bark", "bark-small"])
def test_the_hubs_files_say_what_they_say_to_stock(name: str) -> None:
    assert BarkConfig.from_pretrained(HUB / name).to_dict() == stock.BarkConfig.from_pretrained(HUB / name).to_dict()
    nested = json.loads((HUB / name / "generation_config.json").read_text())
    ours, theirs = (kind(**nested).to_dict() for kind in (BarkGenerationConfig, stock_generation.BarkGenerationConfig))
    for stage in STAGES:
        assert ours[stage] == theirs[stage], stage


@pytest.mark.parametrize("kind", [BarkSemanticConfig, BarkCoarseConfig, BarkFineConfig])
def test_a_sub_models_config_comes_out_of_the_whole_ones_file(kind: type) -> None:
    part = kind.from_pretrained(HUB / "bark")
    assert type(part) is kind and part.hidden_size == 1024
    assert part.to_dict() == getattr(BarkConfig.from_pretrained(HUB / "bark"), kind.base_config_key).to_dict()


def test_stocks_objects_become_ours() -> None:
    config = BarkConfig(semantic_config=stock.BarkSemanticConfig(num_layers=3), codec_config={"num_filters": 2})
    assert type(config.semantic_config) is BarkSemanticConfig and config.semantic_config.num_layers == 3
    assert config.codec_config.model_type == "encodec" and config.codec_config.num_filters == 2
    theirs = stock_generation.BarkGenerationConfig(semantic_config={"temperature": 0.3})
    typed = BarkGenerationConfig.typed(theirs)
    assert type(typed.semantic_config) is BarkSemanticGenerationConfig and typed.semantic_config.temperature == 0.3


def test_stages_stay_typed_when_they_are_set_later() -> None:
    config = BarkGenerationConfig()
    config.semantic_config = {"max_new_tokens": 9}
    config.update(fine_acoustics_config={"temperature": None})
    assert type(config.semantic_config) is BarkSemanticGenerationConfig and config.semantic_config.max_new_tokens == 9
    assert type(config.fine_acoustics_config) is BarkFineGenerationConfig
    assert copy.deepcopy(config).to_dict() == config.to_dict()
    with pytest.raises(TypeError, match="coarse_acoustics_config.*int"):
        config.coarse_acoustics_config = 3


def test_null_is_the_default_but_a_greedy_fine_stage_stays_greedy(tmp_path: Path) -> None:
    semantic = BarkSemanticGenerationConfig(max_new_tokens=None, eos_token_id=None, min_eos_p=None)
    assert (semantic.max_new_tokens, semantic.eos_token_id, semantic.min_eos_p) == (768, 10_000, None)
    BarkGenerationConfig(fine_acoustics_config={"temperature": None}).save_pretrained(tmp_path)
    assert BarkGenerationConfig.from_pretrained(tmp_path).fine_acoustics_config.temperature is None


def test_a_models_config_says_nothing_of_generation() -> None:
    model_config = BarkConfig(semantic_config={"num_layers": 1})
    for made in (
        BarkGenerationConfig.from_model_config(model_config),
        BarkGenerationConfig.typed(GenerationConfig.from_model_config(model_config)),
        BarkGenerationConfig.typed(GenerationConfig(**model_config.to_dict())),
    ):
        assert all(getattr(made, stage) == getattr(BarkGenerationConfig(), stage) for stage in STAGES)


@pytest.mark.parametrize(
    ("stage", "change", "words"),
    [
        ("semantic_config", {"text_pad_token": 200_000}, "semantic_config.input_vocab_size.*129600.*200001"),
        ("semantic_config", {"eos_token_id": 20_000}, "semantic_config.output_vocab_size.*20001"),
        ("semantic_config", {"max_input_semantic_length": 1024}, "semantic_config.block_size.*1025"),
        ("coarse_acoustics_config", {"coarse_infer_token": 13_000}, "coarse_acoustics_config.input_vocab_size.*13001"),
        (
            "coarse_acoustics_config",
            {"n_coarse_codebooks": 3, "coarse_semantic_pad_token": 13_072, "coarse_infer_token": 13_073},
            "coarse_acoustics_config.input_vocab_size.*12096.*13074",
        ),
        ("coarse_acoustics_config", {"max_coarse_history": 709}, "coarse_acoustics_config.block_size.*1025"),
        ("coarse_acoustics_config", {"max_coarse_input_length": 1000}, "coarse_acoustics_config.block_size"),
        ("fine_acoustics_config", {"max_fine_input_length": 2048}, "fine_acoustics_config.block_size.*2048"),
        ("fine_acoustics_config", {"n_fine_codebooks": 9}, "n_codes_total.*9"),
    ],
)
def test_models_without_room_are_named(stage: str, change: dict[str, Any], words: str) -> None:
    config = BarkConfig.from_pretrained(HUB / "bark-small")
    with pytest.raises(ValueError, match=words):
        check_compatible(config, BarkGenerationConfig(**{stage: change}))


def test_a_codec_without_room_is_named() -> None:
    config = BarkConfig.from_pretrained(HUB / "bark-small")
    config.codec_config.codebook_size = 512
    with pytest.raises(ValueError, match="codec_config.codebook_size.*512.*1024"):
        check_compatible(config, BarkGenerationConfig())


def test_rules_of_the_vocabulary() -> None:
    generation = BarkGenerationConfig()
    ratio = vocabulary.semantic_to_coarse_ratio(generation.semantic_config, generation.coarse_acoustics_config)
    assert ratio == 75 / 49.9 * 2
    assert vocabulary.max_semantic_history(630, ratio) == 209
    assert [vocabulary.n_coarse_tokens(n, ratio, 2) for n in (1, 2, 100)] == [2, 6, 300]
    assert vocabulary.history_lengths(1000, 1500, 630, ratio, 2) == (209, 628)
    assert vocabulary.history_lengths(11, 100, 630, ratio, 2) == (10, 30)
