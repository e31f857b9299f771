"""Training and evaluation of one stage of a whole model on an encoded dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer

from ..modeling_bark import BarkModel
from .targets import IGNORE, CoarseForTraining, CoarseTargets, FineTargets, SemanticForTraining, SemanticTargets
from .train import run_training

Stage = Literal["semantic", "coarse", "fine"]


def train_stage(
    stage: Stage,
    model: BarkModel,
    dataset: Dataset,
    output: str | Path,
    settings: dict[str, Any],
    tokenizer: Any = None,
) -> Trainer:
    """Trains one stage of `model` in place; the others, and the codec, stay as they are.

    Args:
        stage: "semantic", "coarse" or "fine".
        model: from `from_pretrained`, or from a config to start from nothing.
        dataset: rows of `encode_speech`.
        output: folder of checkpoints and losses; a run that was stopped goes on from there.
        settings: fields of `transformers.TrainingArguments`, as for `run_training`.
        tokenizer: of the checkpoint; the semantic stage needs it.

    Raises:
        ValueError: another stage, an empty dataset, or no tokenizer for the semantic stage.
    """
    module, targets = _module_and_targets(stage, model, dataset, tokenizer, int(settings.get("seed", 1)))
    module.train()
    trainer = run_training(module, dataset, targets, output, settings)
    model.eval()
    return trainer


@torch.no_grad()
def evaluate_stage(
    stage: Stage, model: BarkModel, dataset: Dataset, tokenizer: Any = None, batch_size: int = 16, seed: int = 0
) -> float:
    """Mean loss of one stage over the labels of `dataset`, in nats a token; the same for the same seed.

    Args:
        stage, model, dataset, tokenizer: as for `train_stage`.
        seed: fixes windows, voices and codebooks, which are drawn for each row.

    Raises:
        ValueError: as `train_stage`.
    """
    module, targets = _module_and_targets(stage, model, dataset, tokenizer, seed)
    module.eval()
    total, count = 0.0, 0
    for first in range(0, len(dataset), batch_size):
        batch = targets([dataset[index] for index in range(first, min(first + batch_size, len(dataset)))])
        batch = {name: value.to(model.device) for name, value in batch.items()}
        output = module(**batch)
        labels = int((batch["labels"] != IGNORE).sum())
        total, count = total + float(output["loss"]) * labels, count + labels
    return total / count


def _module_and_targets(
    stage: Stage, model: BarkModel, dataset: Dataset, tokenizer: Any, seed: int
) -> tuple[nn.Module, Any]:
    if stage not in get_args(Stage):
        raise ValueError(f"`stage` must be one of {', '.join(get_args(Stage))}, got {stage!r}")
    if not len(dataset):
        raise ValueError("`dataset` is empty")
    config = model.generation_config
    if stage == "fine":
        return model.fine_acoustics, FineTargets(config, seed)
    if stage == "coarse":
        return CoarseForTraining(model.coarse_acoustics, guided=()), CoarseTargets(config, seed)
    if tokenizer is None:
        raise ValueError("the semantic stage needs the checkpoint's `tokenizer`")
    return SemanticForTraining(model.semantic, config, guided=()), SemanticTargets(tokenizer, config, None, seed)
