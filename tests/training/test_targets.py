"""Training targets are what generation builds, and the losses lead where they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from tests.tiny import tiny_model, tiny_tokenizer
from transformers_bark import vocabulary
from transformers_bark.engines import TorchCausal
from transformers_bark.generation import semantic as semantic_stage
from transformers_bark.generation.coarse import generate_coarse
from transformers_bark.generation.options import CoarseOptions
from transformers_bark.generation.sampling import Draws
from transformers_bark.training import (
    CoarseForTraining,
    CoarseTargets,
    FineTargets,
    SemanticForTraining,
    SemanticTargets,
    run_training,
)
from transformers_bark.training.targets import IGNORE, astray, token_times


def rows(n: int = 4, seed: int = 0) -> list[dict[str, Any]]:
    """Encoded utterances of the odd sizes, each with its own text."""
    random = np.random.default_rng(seed)
    texts = ["hello my dog", "the quick cat is cooler", "you, hello!", "my dog is a dog"]
    made = []
    for index in range(n):
        text = texts[index % len(texts)]
        n_semantic = int(random.integers(14, 22))
        words = [[m, m + 2] for m in range(0, len(text) - 2, 4)]
        made.append(
            {
                "text": text,
                "word_chars": words,
                "word_frames": [[i * 4, i * 4 + 3] for i in range(len(words))],
                "semantic": random.integers(0, 40, n_semantic).tolist(),
                "codes": random.integers(0, 32, (4, round(n_semantic * 1.6))).tolist(),
                "length": n_semantic,
            }
        )
    return made


def test_token_times_follow_the_words() -> None:
    times = token_times([(0, 2), (2, 4), (5, 8), (8, 9)], [[0, 4], [5, 8]], [[2, 6], [8, 10]], 0.025)
    assert np.allclose(times, [0.05, 0.1, 0.2, 0.25])


def test_semantic_prompt_is_that_of_generation(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(tmp_path)
    config = model.generation_config
    targets = SemanticTargets(tokenizer, config, 0.025, seed=1, p_join=0.0)
    batch = targets(rows())
    stage = config.semantic_config
    for index, row in enumerate(rows()):
        ids = torch.tensor([tokenizer(row["text"], add_special_tokens=False)["input_ids"]])
        assert torch.equal(batch["text_ids"][index : index + 1], semantic_stage.text_prompt(ids, None, stage))
        n = len(row["semantic"])
        assert batch["labels"][index, : n + 1].tolist() == [*row["semantic"], 40]
        assert (batch["labels"][index, n + 1 :] == IGNORE).all()
        spoken = batch["spoken"][index, :n]
        assert (spoken.diff() >= 0).all() and spoken[0] == 0 and spoken[-1] < ids.shape[1]
    histories = {tuple(row["semantic"][-16:]) for row in rows()}
    for history in batch["history_ids"]:
        real = tuple(history[history != stage.semantic_pad_token].tolist())
        assert not real or real in histories


def test_semantic_loss_is_that_of_the_prompt_that_generation_embeds(tmp_path: Path) -> None:
    model = tiny_model()
    config = model.generation_config
    batch = SemanticTargets(tiny_tokenizer(tmp_path), config, 0.025, seed=1)(rows())
    result = SemanticForTraining(model.semantic, config, guided=())(**batch)
    prompt = semantic_stage.prompt_embeds(
        model.semantic, batch["text_ids"], batch["history_ids"], config.semantic_config
    )
    embeds = torch.cat([prompt, model.semantic.input_embeds_layer(batch["tokens"])], dim=1)
    logits = model.semantic(inputs_embeds=embeds).logits[:, prompt.shape[1] - 1 : -1]
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE)
    assert torch.allclose(result["loss"], wanted, atol=1e-5)


def test_coarse_windows_are_those_of_generation() -> None:
    """Every window that generation prefills, with the row's own codes forced, is one that the targets make."""
    model = tiny_model()
    config = model.generation_config
    stage = config.coarse_acoustics_config
    row = rows(1)[0]
    targets = CoarseTargets(config, seed=0, p_voice=0.0)
    made = {
        tuple(ids[: ids.index(137) + 1]): (ids, labels)
        for ids, labels, _ in (targets._window(row, None) for _ in range(60))
    }
    seen = []
    original = TorchCausal.prefill

    def spy(engine: TorchCausal, embeds: Any, room: int, span: Any) -> Any:
        seen.append((embeds[0], room))
        return original(engine, embeds, room, span)

    TorchCausal.prefill = spy
    try:
        options = CoarseOptions(False, max_coarse_history=40, sliding_window_len=12)
        semantic = [torch.tensor(row["semantic"])]
        codes = generate_coarse(
            model.coarse_acoustics, semantic, [None], config.semantic_config, stage, 32, options, Draws()
        )
    finally:
        TorchCausal.prefill = original
    assert len(seen) > 2
    own = vocabulary.coarse_ids(torch.tensor(row["codes"])[:2], 40, 32)
    assert codes[0].numel() == vocabulary.n_coarse_tokens(len(row["semantic"]), targets.ratio, 2) <= len(own)
    embed = model.coarse_acoustics.input_embeds_layer
    for prompt, _ in seen:
        # the prompt up to the infer token; what follows it is history, which the targets take from the row
        head = prompt[: stage.max_coarse_input_length + 1]
        assert any(torch.equal(embed(torch.tensor(key)), head) for key in made)
    for ids, labels in made.values():
        kept = [label for label in labels if label != IGNORE]
        assert ids[-len(kept) :] == kept
        assert any(own[i : i + len(kept)].tolist() == kept for i in range(len(own)))


def test_coarse_voice_is_cut_as_in_generation() -> None:
    config = tiny_model().generation_config
    targets = CoarseTargets(config, seed=0)
    voice = rows(2, seed=3)[1]
    semantic, ids = targets._voice(voice)
    n_frames = len(voice["codes"][0])
    kept, n_coarse = vocabulary.history_lengths(len(voice["semantic"]), n_frames, 40, targets.ratio, 2)
    own = vocabulary.coarse_ids(torch.tensor(voice["codes"])[:2], 40, 32)
    assert semantic.tolist() == voice["semantic"][-kept:] and ids.tolist() == own[-n_coarse:-2].tolist()


def test_fine_targets_hide_what_is_to_come() -> None:
    config = tiny_model().generation_config
    targets = FineTargets(config, seed=0, p_voice=0.0)
    for _ in range(5):
        batch = targets(rows())
        codebook = int(batch["codebook_idx"])
        for index, row in enumerate(rows()):
            codes = torch.tensor(row["codes"])[:, :32]
            n = codes.shape[1]
            assert torch.equal(batch["input_ids"][index, :n, :codebook].T, codes[:codebook])
            assert (batch["input_ids"][index, :, codebook:] == 32).all() and (batch["input_ids"][index, n:] == 32).all()
            assert (
                torch.equal(batch["labels"][index, :n], codes[codebook])
                and (batch["labels"][index, n:] == IGNORE).all()
            )


def test_astray_is_zero_when_all_look_where_they_should() -> None:
    targets = torch.tensor([[2, 5, IGNORE]])
    weights = torch.zeros(1, 3, 8)
    weights[0, 0, 1] = weights[0, 0, 3] = 0.5
    weights[0, 1, 5] = 1.0
    assert astray(weights, targets).abs() < 1e-3
    assert astray(weights.roll(4, dims=-1), targets) > 5


SETTINGS = {
    "per_device_train_batch_size": 4,
    "learning_rate": 5e-3,
    "warmup_steps": 5,
    "save_steps": 60,
    "logging_steps": 1000,
    "report_to": "none",
    "use_cpu": True,
}


def test_rows_go_on_from_their_own_voice_only() -> None:
    config = tiny_model().generation_config
    batch = [{**row, "voice": voice} for row, voice in zip(rows(5), ["a", "b", "a", "b", "c"], strict=True)]
    targets = FineTargets(config, 1, p_voice=0.0, default_voice="a")
    for _ in range(10):
        assert [targets._history(batch, index) for index in range(5)] == [None, 3, None, 1, None]
    always = FineTargets(config, 1, p_voice=1.0, default_voice="a")
    assert [always._history(batch, index) for index in range(5)] == [2, 3, 0, 1, None]
    assert {always._history(rows(3), 0) for _ in range(50)} == {1, 2}


def test_guidance_ends_after_its_steps() -> None:
    model = tiny_model()
    batch = CoarseTargets(model.generation_config, 1)(rows())
    part = CoarseForTraining(model.coarse_acoustics, guided=((0, 0),), guided_steps=2).train()
    assert ["astray" in part(**batch) for _ in range(3)] == [True, True, False]
    assert "astray" in CoarseForTraining(model.coarse_acoustics, guided=((0, 0),)).eval()(**batch)


def test_overfitting_leads_to_the_training_data(tmp_path: Path) -> None:
    """From random weights, the three stages learn four utterances by heart, and generation says them."""
    model, tokenizer, data = tiny_model(), tiny_tokenizer(tmp_path / "tok"), rows()
    config = model.generation_config
    for part in (model.semantic, model.coarse_acoustics, model.fine_acoustics):
        part.apply(part._init_weights)
    stages = [
        (
            SemanticForTraining(model.semantic, config, guided=((0, 0),)),
            SemanticTargets(tokenizer, config, 0.025, 1, 0.0),
            150,
        ),
        (CoarseForTraining(model.coarse_acoustics, guided=((0, 0),)), CoarseTargets(config, 1, 0.0), 250),
        (model.fine_acoustics, FineTargets(config, 1, 0.0), 200),
    ]
    for number, (part, targets, steps) in enumerate(stages):
        part.train()
        run_training(part, Dataset.from_list(data), targets, tmp_path / str(number), {**SETTINGS, "max_steps": steps})
    model.eval()
    inputs = tokenizer([row["text"] for row in data], add_special_tokens=False, padding=True, return_tensors="pt")
    output = model.generate(
        inputs["input_ids"], inputs["attention_mask"], do_sample=False, return_dict_in_generate=True, progress=False
    )
    assert [tokens.tolist() for tokens in output.semantic_tokens] == [row["semantic"] for row in data]
    for row, codes in zip(data, output.fine_codes, strict=True):
        wanted = torch.tensor(row["codes"])[:, : codes.shape[1]]
        assert (codes == wanted).float().mean() > 0.9


@pytest.mark.parametrize("optimizer", ["adamw_torch", "muon"])
def test_training_goes_on_where_it_was_stopped(tmp_path: Path, optimizer: str) -> None:
    def train(folder: str, steps: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = tiny_model().fine_acoustics
        data = Dataset.from_list(rows())
        settings = {**SETTINGS, "save_steps": 5, "lr_scheduler_type": "constant", "optim": optimizer}
        run_training(model, data, FixedFine(), tmp_path / folder, {**settings, "max_steps": steps})
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    whole = train("whole", 10)
    half = train("parts", 5)
    assert torch.allclose(train("parts", 10), whole, atol=1e-6)
    assert not torch.allclose(half, whole, atol=1e-3)


class FixedFine:
    """The same batch at every step, so that a run in two parts sees what a whole one does."""

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        return FineTargets(tiny_model().generation_config, seed=0)(rows())
