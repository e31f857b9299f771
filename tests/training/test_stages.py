"""A whole recipe, from texts to a folder that speaks, with sizes that take seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EncodecModel

from tests.training.tones import ToneTeacher
from transformers_bark import BarkModel, BarkProcessor, codec
from transformers_bark.configuration_bark import BarkCoarseConfig, BarkFineConfig
from transformers_bark.modeling_bark import BarkCoarseModel, BarkFineModel
from transformers_bark.training import __main__ as command
from transformers_bark.training import data
from transformers_bark.training.stages import SHARED, STAGES, Recipe, _repeated, run

_TRAINING = {"seed": 1, "max_steps": 3, "per_device_train_batch_size": 2, "warmup_steps": 1, "save_steps": 2}
_SMALL = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "bias": False}

RECIPE: dict[str, Any] = {
    "model": {
        "semantic_config": {**_SMALL, "input_vocab_size": 120, "output_vocab_size": 17, "block_size": 160},
        "coarse_acoustics_config": {**_SMALL, "input_vocab_size": 50, "output_vocab_size": 48, "block_size": 200},
        "fine_acoustics_config": {
            **_SMALL,
            **{"input_vocab_size": 17, "output_vocab_size": 17, "block_size": 64, "n_codes_total": 4},
        },
    },
    "generation_config": {
        "codebook_size": 16,
        "semantic_config": {
            **{"semantic_vocab_size": 16, "eos_token_id": 16, "text_encoding_offset": 18, "text_pad_token": 118},
            **{"semantic_infer_token": 119, "max_input_semantic_length": 32, "semantic_rate_hz": 25.0},
            **{"max_new_tokens": 60, "min_eos_p": None},
        },
        "coarse_acoustics_config": {
            **{"coarse_semantic_pad_token": 48, "coarse_infer_token": 49, "coarse_rate_hz": 40},
            **{"max_coarse_input_length": 64, "max_coarse_history": 60, "sliding_window_len": 20},
        },
        "fine_acoustics_config": {
            **{"max_fine_history_length": 32, "max_fine_input_length": 64, "n_fine_codebooks": 4},
        },
    },
    "everyday": {"templates": ["{a} {b}"], "slots": {"a": ["one", "two", "red"], "b": ["cat", "dog", "fox"]}},
    "data": {
        **{"corpus": "corpus.txt", "held_out": "held_out.txt", "n_everyday": 20, "n_words": 4, "n_texts": 12},
        **{"seed": 1, "speeds": [1.0, 1.1], "shard_size": 4, "voices": {"high": 1.0, "low": 0.5}},
    },
    "codec": {
        "model": {
            **{"sampling_rate": 24_000, "upsampling_ratios": [8, 5, 5, 3], "num_filters": 2, "hidden_size": 8},
            **{"codebook_dim": 8, "codebook_size": 16, "num_lstm_layers": 1, "target_bandwidths": [0.64]},
            **{"normalize": False},
        },
        "n_shards": 1,
        "crop_samples": 9600,
        "quantizer": {"warmup_steps": 1, "n_pooled": 8},
        "training": _TRAINING,
    },
    "semantic_tokenizer": {
        "n_shards": 2,
        "tokenizer": {"n_tokens": 16, "context": 2, "n_components": 4, "hidden_size": 8, "seed": 1},
        "training": _TRAINING,
    },
    "text_tokenizer": {"vocab_size": 60},
    "encode": {"max_length": 150},
    "semantic": {"guided": [[0, 0]], "guidance": 0.3, "training": {**_TRAINING, "optim": "muon"}},
    "coarse": {
        **{"guided": [[0, 0]], "guidance": 1.0, "guided_steps": 1},
        "training": {
            **_TRAINING,
            **{"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 1}},
        },
    },
    "fine": {"training": _TRAINING},
    "decoder": {"crop_frames": 20, "n_codebooks": 2, "decay": 0.5, "training": _TRAINING},
    "export": {"gain": 2.0, "voices": {"tone": {"voice": "high", "row": 0}, "hum": {"voice": "low", "row": 0}}},
}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe folder, with tones for a teacher."""
    monkeypatch.setattr(data, "Teacher", ToneTeacher)
    folder = tmp_path / "recipe"
    folder.mkdir()
    for name, settings in RECIPE.items():
        (folder / f"{name}.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "corpus.txt").write_text("The cat sat on the old red mat.\n", encoding="utf-8")
    (folder / "held_out.txt").write_text("The dog sat on the new green mat.\n", encoding="utf-8")
    (folder / "NOTICE").write_text("Tones.\n", encoding="utf-8")
    (folder / "card.md").write_text("# Tones\nseed {seed}, data {data_sha256}\n", encoding="utf-8")
    return Recipe(folder, tmp_path / "runs")


def test_a_recipe_ends_in_a_folder_that_speaks(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["training", "all", "--recipe", str(recipe.folder), "--runs", str(recipe.runs)]
    monkeypatch.setattr(sys, "argv", arguments)
    command.main()
    printed = capsys.readouterr().out
    assert all(
        f"{stage}: 3 steps of 2, about" in printed
        for stage in ("codec", "semantic_tokenizer", "semantic", "coarse", "fine", "decoder")
    )
    assert all(recipe.done(stage).exists() for stage in STAGES if stage not in (*SHARED, "retuned"))
    assert not recipe.retunes() and not recipe.done("retuned").exists()

    folder = recipe.done("checkpoint")
    model, processor = BarkModel.from_pretrained(folder).eval(), BarkProcessor.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert str(recipe.runs) not in (folder / "config.json").read_text(encoding="utf-8")
    assert processor.available_voice_presets == ["tone", "hum"]
    output = model.generate(**processor("one cat", voice_preset="tone"), seed=0, return_dict_in_generate=True)
    assert output.fine_codes[0].shape[0] == 4 and torch.isfinite(output.audio).all()
    assert f"# Tones\nseed 1, data {data.data_hash(recipe.shards())}" in (folder / "README.md").read_text(
        encoding="utf-8"
    )


def test_what_is_finished_is_not_made_again(recipe: Recipe) -> None:
    for stage in ("data", "semantic_tokenizer", "text_tokenizer"):
        run(recipe, stage)
    made = recipe.done("text_tokenizer") / "vocab.txt"
    made.write_text("kept", encoding="utf-8")
    (recipe.folder / "codec.json").write_text("broken on purpose", encoding="utf-8")
    with pytest.raises(json.JSONDecodeError):
        run(recipe, "all")
    assert made.read_text(encoding="utf-8") == "kept"


_RETUNED = {
    "generation_config": {
        "semantic_config": {"semantic_rate_hz": 40.0},
        "coarse_acoustics_config": {
            **{"n_coarse_codebooks": 3, "coarse_semantic_pad_token": 64, "coarse_infer_token": 65},
            **{"sliding_window_len": 21},
        },
    },
    "semantic_tokenizer": {"tokenizer": {"hop": 600, "frame_hop": 200}},
    "model": {"coarse_acoustics_config": {"input_vocab_size": 66, "output_vocab_size": 64}},
    "retuned": {"n_shards": 2, "crop_frames": 16, "losses": {"decay": 0.5}, "training": _TRAINING},
    "decoder": {"word_weight": 1.0, "n_codebooks": 3},
}
"""What differs where the codec goes on, and the coarse stage says a codebook more."""


def _variant(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A recipe that has `recipe` for its base."""
    folder = recipe.folder / "variant"
    folder.mkdir()
    for name, settings in {"recipe": {"base": ".."}, **changes}.items():
        (folder / f"{name}.json").write_text(json.dumps(settings), encoding="utf-8")
    return Recipe(folder, recipe.runs)


def test_a_recipe_holds_what_differs_from_its_base(recipe: Recipe) -> None:
    variant = _variant(recipe, _RETUNED)
    assert variant.settings("semantic_tokenizer")["tokenizer"] == {
        **RECIPE["semantic_tokenizer"]["tokenizer"],
        **{"hop": 600, "frame_hop": 200},
    }
    assert variant.settings("coarse") == RECIPE["coarse"]
    assert variant.file("corpus.txt").read_text() == recipe.file("corpus.txt").read_text()
    assert variant.retunes() and not recipe.retunes()
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        variant.settings("absent")


def test_the_codes_are_those_of_the_codec_that_went_on(recipe: Recipe) -> None:
    variant = _variant(recipe, _RETUNED)
    run(variant, "all")
    codec_model, before = variant.codec(), EncodecModel.from_pretrained(variant.done("codec"))
    assert not torch.equal(codec_model.encoder.layers[-1].conv.bias, before.encoder.layers[-1].conv.bias)
    row, spoken = (data.load_shards(variant.runs / name)[0][0] for name in ("encoded", "data"))
    audio = torch.from_numpy(data.as_float(np.asarray(spoken["audio"], np.int16)))
    assert row["id"] == spoken["id"] and row["codes"] == codec.encode_recording(codec_model, audio).tolist()
    model = BarkModel.from_pretrained(variant.done("checkpoint"))
    assert model.generation_config.coarse_acoustics_config.n_coarse_codebooks == 3


def test_stages_go_on_from_weights_before(recipe: Recipe) -> None:
    variant = _variant(recipe, _RETUNED | {"coarse": {"before": "coarse_before"}, "fine": {"before": "fine_before"}})
    for stage in ("data", "codec", "semantic_tokenizer", "text_tokenizer", "retuned", "encoded", "semantic"):
        run(variant, stage)
    torch.manual_seed(7)
    coarse = BarkCoarseModel(BarkCoarseConfig(**recipe.settings("model")["coarse_acoustics_config"]))
    coarse.save_pretrained(variant.done("coarse_before"))
    sizes = recipe.settings("model")["fine_acoustics_config"]
    BarkFineModel(BarkFineConfig(**sizes)).save_pretrained(variant.done("fine_before"))
    run(variant, "coarse")
    run(variant, "fine")
    after = BarkCoarseModel.from_pretrained(variant.done("coarse")).state_dict()
    for name, part in coarse.state_dict().items():
        if part.shape == after[name].shape and "position" not in name:
            # three steps move little; other weights would differ by more
            assert (after[name] - part).abs().max() < 0.1, name


NANO = Path(__file__).parents[2] / "recipes" / "nano"


@pytest.mark.parametrize("name", ["small", "words"])
def test_the_variants_of_nano_change_settings_that_there_are(name: str) -> None:
    base, variant = Recipe(NANO, Path()), Recipe(NANO / name, Path())
    new = {"retuned"} if name == "words" else set()
    for path in (NANO / name).glob("*.json"):
        if path.stem != "recipe" and path.stem not in new:
            settings, known = variant.settings(path.stem), base.settings(path.stem)
            extra = {"quantizer", "before", "word_weight", "repeats"}  # they have defaults
            assert set(settings) - extra == set(known), path
            if "training" in known:
                assert set(settings["training"]) == set(known["training"]), path
    for stage in ("codec", "semantic", "coarse", "fine", "decoder"):
        training = variant.settings(stage)["training"]
        decay = training.get("lr_scheduler_kwargs", {}).get("num_decay_steps", 0)
        assert training["warmup_steps"] + decay <= training["max_steps"], stage
    assert variant.retunes() == (name == "words")


def test_voices_may_be_seen_more_often() -> None:
    rows = Dataset.from_dict({"voice": ["a", "b", "a"], "id": ["0", "1", "2"]})
    assert _repeated(rows, {})["id"] == ["0", "1", "2"]
    assert _repeated(rows, {"b": 3})["id"] == ["0", "1", "1", "1", "2"]
