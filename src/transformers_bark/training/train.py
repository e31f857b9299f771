"""The training loop shared by all stages: `transformers.Trainer` with settings from a recipe, resuming after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from .muon import MuonWithAdamW


def _computes_bfloat16() -> bool:
    """Whether there is a GPU, or a processor with bfloat16 products of its own."""
    found = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.cuda.is_available() or any(asks() for asks in found if asks is not None)


def run_training(
    model: nn.Module,
    dataset: Any,
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
    output: str | Path,
    settings: dict[str, Any],
) -> Trainer:
    """Trains `model` until `settings["max_steps"]`, from the last checkpoint in `output` where there is one.

    `settings` are fields of `transformers.TrainingArguments`; the defaults here suit small models on a CPU. Beyond those of
    Transformers, `optim` may be "muon": `MuonWithAdamW`. `bf16` counts where the processor computes in it: others take ten times as
    long as in fp32.
    """
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 200,
        "weight_decay": 0.01,
        "logging_steps": 50,
        "save_steps": 500,
        "save_total_limit": 2,
        "report_to": "tensorboard",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "seed": 1,
    }
    fields = defaults | settings
    fields["bf16"] = fields.get("bf16", False) and _computes_bfloat16()
    muon = fields.get("optim") == "muon"
    if muon:
        del fields["optim"]
    arguments = TrainingArguments(output_dir=str(output), **fields)
    betas = (arguments.adam_beta1, arguments.adam_beta2)
    optimizer = MuonWithAdamW(model, arguments.learning_rate, betas, arguments.weight_decay) if muon else None
    trainer = Trainer(
        model=model, args=arguments, train_dataset=dataset, data_collator=collator, optimizers=(optimizer, None)
    )
    checkpoint = get_last_checkpoint(str(output)) if Path(output).is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer
