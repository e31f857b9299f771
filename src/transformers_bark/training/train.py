"""The training loop shared by all stages: `transformers.Trainer` with settings from a recipe, resuming after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


def run_training(
    model: nn.Module,
    dataset: Any,
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
    output: str | Path,
    settings: dict[str, Any],
) -> Trainer:
    """Trains `model` until `settings["max_steps"]`, from the last checkpoint in `output` where there is one.

    `settings` are fields of `transformers.TrainingArguments`; the defaults here suit small models on a CPU.
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
    arguments = TrainingArguments(output_dir=str(output), **(defaults | settings))
    trainer = Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collator)
    checkpoint = get_last_checkpoint(str(output)) if Path(output).is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer
