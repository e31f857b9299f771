"""The core of what must hold with every release of Transformers 5; `make compat` runs what is marked `compat`, here and elsewhere."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextToWaveform,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    GenerationMixin,
    Trainer,
    TrainingArguments,
    pipeline,
)

from tests.compat import record
from tests.tiny import tiny_model
from transformers_bark import BARK_NANO, BarkModel, BarkProcessor, cli, hub
from transformers_bark.modeling_bark import BarkCausalModel

pytestmark = pytest.mark.compat
RECORDED = json.loads(record.FILE.read_text(encoding="utf-8"))
HUB = Path(__file__).parents[1] / "data" / "hub"


@pytest.fixture(scope="module")
def nano() -> BarkModel:
    return AutoModel.from_pretrained(BARK_NANO, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor() -> BarkProcessor:
    return AutoProcessor.from_pretrained(BARK_NANO)


def test_the_record_is_of_these_weights_and_has_margins() -> None:
    assert RECORDED["weights"] == record.digest(), "the checkpoint has changed: python -m tests.compat.record"
    for case in RECORDED["cases"]:
        least = record.LEAST_RATIO if case["options"]["do_sample"] else record.LEAST_MARGIN
        assert case["margin"] >= least, case["text"]


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["text"])
def test_the_embedded_checkpoint_says_what_was_recorded(
    nano: BarkModel, processor: BarkProcessor, case: dict[str, Any]
) -> None:
    output = record.speak(nano, processor, case)
    assert output.semantic_tokens[0].tolist() == case["semantic"]
    assert output.coarse_codes[0].tolist() == case["coarse"]
    assert output.audio_lengths.tolist() == [len(case["fine"][0]) * 600]


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["text"])
def test_the_fine_model_finds_the_recorded_codes_as_likely_as_then(nano: BarkModel, case: dict[str, Any]) -> None:
    assert record.fine_losses(nano, torch.tensor(case["fine"])) == pytest.approx(case["fine_losses"], abs=1e-4)


@pytest.mark.parametrize("name", ["bark", "bark-small"])
def test_the_hubs_config_files_load_by_the_auto_classes(name: str) -> None:
    config = AutoConfig.from_pretrained(HUB / name)
    assert (type(config).__module__, config.codec_config.model_type) == (
        "transformers_bark.configuration_bark",
        "encodec",
    )
    assert (
        config.semantic_config.num_layers == config.fine_acoustics_config.num_layers == (24 if name == "bark" else 12)
    )


def test_what_is_saved_loads_again_and_says_the_same(nano: BarkModel, processor: BarkProcessor, tmp_path: Path) -> None:
    nano.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, texts = AutoModelForTextToWaveform.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is BarkModel and type(texts) is BarkProcessor
    assert texts.available_voice_presets == processor.available_voice_presets
    weights = nano.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    assert {**again.config.to_dict(), "_name_or_path": ""} == {**nano.config.to_dict(), "_name_or_path": ""}
    assert again.generation_config.to_dict() == nano.generation_config.to_dict()
    case = RECORDED["cases"][1]
    assert record.speak(again, texts, case).semantic_tokens[0].tolist() == case["semantic"]


def test_every_release_saves_the_same_sizes(nano: BarkModel, tmp_path: Path) -> None:
    nano.config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    embedded = json.loads((Path(BARK_NANO) / "config.json").read_text())
    passing = {"transformers_version", "dtype", "architectures", "codec_config"}
    for part in ("semantic_config", "coarse_acoustics_config", "fine_acoustics_config"):
        assert {k: v for k, v in saved.pop(part).items() if k not in passing} == {
            k: v for k, v in embedded.pop(part).items() if k not in passing
        }, part
    assert {k: v for k, v in saved.items() if k not in passing} == {
        k: v for k, v in embedded.items() if k not in passing
    }


def test_the_pipeline_speaks() -> None:
    synthesiser = pipeline("text-to-speech", BARK_NANO, device="cpu", do_sample=False, voice_preset="en_heart")
    short = {"semantic_max_new_tokens": 12, "fine_temperature": None}
    one = synthesiser("Hello.", forward_params=short)
    again, other = synthesiser(["Hello.", "Come in."], batch_size=2, generate_kwargs={**short, "seed": [1, 2]})
    assert one["sampling_rate"] == 24_000 and one["audio"].dtype == np.float32 and len(one["audio"]) > 4_800
    assert np.allclose(one["audio"], again["audio"], atol=1e-4), (
        "`do_sample=False` of the pipeline holds for every call"
    )
    assert not np.array_equal(one["audio"], other["audio"])


def test_the_snippets_of_the_card_we_write_run(tmp_path: Path) -> None:
    card = hub.write_model_card(tmp_path, 24_000, name=BARK_NANO).read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], scope)
    assert scope["speech"]["sampling_rate"] == 24_000 and len(scope["speech"]["audio"]) > 4_800


def test_the_tokenizer_loads_alone(processor: BarkProcessor) -> None:
    ids = AutoTokenizer.from_pretrained(BARK_NANO)("Good morning.", add_special_tokens=False)["input_ids"]
    assert ids == processor.tokenizer("Good morning.", add_special_tokens=False)["input_ids"] and len(ids) >= 2


def test_the_command_line_speaks(tmp_path: Path) -> None:
    assert not cli.main(["Come in.", "-o", str(tmp_path / "out.wav"), "--seed", "1"])
    assert soundfile.info(tmp_path / "out.wav").samplerate == 24_000


@pytest.mark.parametrize("part", ["semantic", "coarse_acoustics"])
def test_whatever_transformers_own_generate_passes_is_known(part: str) -> None:
    model = getattr(tiny_model(), part)
    ids = torch.randint(1, 40, (1, 12), generator=torch.Generator().manual_seed(0))
    assistant = BarkCausalModel(model.config).eval()  # its `generate` is Transformers' own
    assistant.load_state_dict(model.state_dict())
    generate = partial(GenerationMixin.generate, model, ids, max_new_tokens=6, pad_token_id=0, eos_token_id=1)
    greedy = generate(do_sample=False)
    assert torch.equal(generate(do_sample=False, attention_mask=torch.ones_like(ids)), greedy)
    assert torch.equal(generate(do_sample=False, cache_implementation="static"), greedy)
    assert torch.equal(generate(do_sample=False, use_cache=False), greedy)
    assert torch.equal(generate(do_sample=False, assistant_model=assistant), greedy)
    assert torch.equal(generate(do_sample=False, prompt_lookup_num_tokens=2), greedy)
    assert torch.equal(generate(GenerationConfig(do_sample=False)), greedy)
    output = generate(
        do_sample=True,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_hidden_states=True,
        output_attentions=True,
        output_logits=True,
    )
    assert output.sequences.shape == (2, 18) and len(output.logits) == 6
    cache = output.past_key_values
    assert cache.get_seq_length() == 17


def test_a_training_step_and_an_evaluation(tmp_path: Path) -> None:
    model = tiny_model().semantic
    ids = torch.randint(0, 40, (4, 20), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        max_steps=5,
        learning_rate=0.01,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    assert trainer.predict(rows).predictions.shape == (4, 20, model.config.output_vocab_size), "the cache is left out"


def test_the_release_that_is_imported_is_the_one_to_be_tested() -> None:
    wanted = os.environ.get("COMPAT_RELEASE", transformers.__version__)
    assert transformers.__version__ == wanted, transformers.__file__
