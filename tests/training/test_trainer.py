"""What users of `Trainer` and of Transformers' collators do with the sub-models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AttentionInterface,
    DataCollatorWithFlattening,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from tests.tiny import tiny_model

LENGTHS = (7, 12, 3)


def rows() -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(2)
    return [{"input_ids": torch.randint(0, 41, (length,), generator=generator).tolist()} for length in LENGTHS]


def separate(model: nn.Module, features: list[dict[str, Any]]) -> torch.Tensor:
    """Mean loss over the labels of rows that are read one by one."""
    total, count = torch.zeros(()), 0
    for row in features:
        ids = torch.tensor([row["input_ids"]])
        n_labels = ids.shape[1] - 1
        total, count = total + model(input_ids=ids, labels=ids).loss * n_labels, count + n_labels
    return total / count


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_flash_attn_kwargs": True},
        {"return_flash_attn_kwargs": True, "return_position_ids": False},
        {"return_seq_idx": True, "return_position_ids": False},
    ],
    ids=["positions", "flash", "flash alone", "sequence numbers alone"],
)
@pytest.mark.parametrize("part", ["semantic", "coarse_acoustics"])
def test_packed_sequences_train_as_separate_rows(
    part: str, options: dict[str, Any], attention: str, training: bool
) -> None:
    model = getattr(tiny_model(), part).train(training)
    model.set_attn_implementation(attention)
    packed = DataCollatorWithFlattening(**options)(rows())
    losses = [model(**packed).loss, separate(model, rows())]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
    gradients = [torch.autograd.grad(loss, model.input_embeds_layer.weight)[0] for loss in losses]
    assert torch.allclose(*gradients, atol=1e-5)


def test_packed_frames_are_read_as_separate_rows() -> None:
    model = tiny_model().fine_acoustics
    parts = [torch.randint(0, 32, (1, length, 4)) for length in LENGTHS]
    ends = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        apart = torch.cat([model(3, part).logits for part in parts], dim=1)
        for told in ({"position_ids": positions}, {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}):
            assert torch.allclose(model(3, torch.cat(parts, dim=1), **told).logits, apart, atol=1e-5)
        assert not torch.allclose(model(3, torch.cat(parts, dim=1)).logits, apart, atol=1e-2)


@pytest.mark.parametrize("part", ["semantic", "fine_acoustics"])
def test_an_attention_without_masks_is_told_where_sequences_end(part: str) -> None:
    told: list[dict[str, Any]] = []

    def probe(module: nn.Module, query: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        told.append(kwargs)
        return query.transpose(1, 2), None

    AttentionInterface.register("probe", probe)
    model = getattr(tiny_model(), part)
    model.set_attn_implementation("probe")
    packed = DataCollatorWithFlattening(return_flash_attn_kwargs=True)(rows())
    if part == "fine_acoustics":
        codes = torch.zeros(1, sum(LENGTHS), 4, dtype=torch.long)
        packed = {**packed, "codebook_idx": 2, "input_ids": codes, "labels": codes[..., 2]}
    model(**packed)
    assert len(told) == 2
    for kwargs in told:
        assert kwargs["cu_seq_lens_q"].tolist() == kwargs["cu_seq_lens_k"].tolist() == [0, 7, 19, 22]
        assert kwargs["max_length_q"] == kwargs["max_length_k"] == 12
        assert kwargs["position_ids"][0, 7] == 0


class Recording(Trainer):
    """Keeps the loss that is reported of each step."""

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        self.reported = [*getattr(self, "reported", []), *([logs["loss"]] if "loss" in logs else [])]


def reported_loss(model: nn.Module, folder: Path, features: list[dict[str, Any]], **settings: Any) -> float:
    """What `Trainer` reports of one step that changes nothing, over all features."""
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=len(features),
        max_steps=1,
        learning_rate=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        **settings,
    )
    trainer = Recording(model=model, args=arguments, train_dataset=features, data_collator=default_data_collator)  # type: ignore[arg-type]
    trainer.train()
    return trainer.reported[0]


@pytest.mark.parametrize("part", ["semantic", "coarse_acoustics"])
def test_trainer_reports_the_loss_over_the_labels_that_count(part: str, tmp_path: Path) -> None:
    """The label of the first token is of no position: counted all the same, it made 3.82 of 4.16."""
    model = getattr(tiny_model(), part)
    ids = torch.randint(0, 41, (3, 12))
    features = [{"input_ids": row, "labels": row} for row in ids]
    true = model(ids, labels=ids).loss.item()
    assert reported_loss(model, tmp_path, features) == pytest.approx(true, abs=1e-3)
    shifted = [
        {"input_ids": row, "shift_labels": nn.functional.pad(row[1:], (0, 1), value=-100), "labels": row} for row in ids
    ]
    assert reported_loss(model, tmp_path, shifted) == pytest.approx(true, abs=1e-3)


@pytest.mark.parametrize("part", ["semantic", "fine_acoustics"])
def test_label_smoothing_looks_at_the_labels_that_the_loss_does(part: str, tmp_path: Path) -> None:
    model = getattr(tiny_model(), part)
    if part == "semantic":
        ids = torch.randint(0, 41, (3, 12))
        features = [{"input_ids": row, "labels": row} for row in ids]
        logits, labels = model(ids).logits[:, :-1], ids[:, 1:]
    else:
        ids = torch.randint(0, 32, (3, 12, 4))
        features = [{"input_ids": row, "labels": row[:, 2], "codebook_idx": 2} for row in ids]
        logits, labels = model(2, ids).logits, ids[..., 2]
    smooth = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    reported = reported_loss(model, tmp_path, features, label_smoothing_factor=0.1)
    assert reported == pytest.approx(float(smooth), abs=1e-3)


def test_shifted_labels_are_taken_as_they_are() -> None:
    model = tiny_model().semantic
    ids = torch.randint(0, 41, (2, 9))
    shifted = nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    assert torch.equal(model(ids, shift_labels=shifted).loss, model(ids, labels=ids).loss)
    with pytest.raises(ValueError, match="logits_to_keep"):
        model(ids, shift_labels=shifted, logits_to_keep=1)


def test_a_codebook_may_be_stacked_row_by_row() -> None:
    model = tiny_model().fine_acoustics
    features = [{"input_ids": torch.randint(0, 32, (6, 4)), "codebook_idx": 2} for _ in range(3)]
    batch = default_data_collator(features)
    assert batch["codebook_idx"].tolist() == [2, 2, 2]
    assert torch.equal(model(**batch).logits, model(2, batch["input_ids"]).logits)
    with pytest.raises(ValueError, match=r"codebook_idx.*\[1, 2\]"):
        model(torch.tensor([2, 1, 2]), batch["input_ids"])
