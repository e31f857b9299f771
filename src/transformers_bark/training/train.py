"""The training loop shared by all stages: `transformers.Trainer` with settings from a recipe, resuming after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from .muon import MuonWithAdamW


def _computes_bfloat16() -> bool:
    """Whether there is a GPU, or a processor with bfloat16 products of its own."""
    found = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.cuda.is_available() or any(asks() for asks in found if asks is not None)


class Share:
    """A process's rows of a batch that all processes read: what is drawn for a row depends on the rows around it.

    Args:
        collator: of the whole batch.
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]], index: int, count: int) -> None:
        self._collator, self._index, self._count = collator, index, count

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows of the whole batch -> tensors of this process's share; numbers of the whole stay.

        Raises:
            ValueError: fewer rows than processes.
        """
        batch = self._collator(rows)
        size = max(len(value) for value in batch.values() if value.ndim)
        if size < self._count:
            raise ValueError(f"a batch of {size} rows cannot be shared by {self._count} processes: use a larger one")
        first, last = (size * place // self._count for place in (self._index, self._index + 1))
        return {name: value[first:last] if value.ndim else value for name, value in batch.items()}


class SharingTrainer(Trainer):
    """A `Trainer` whose processes share batches that are as large as those of one process would be, in the same order.

    Each reads and collates all of a batch, which is little beside training on its part, and so losses are those of one process
    with a batch as large as all of theirs.
    """

    def get_train_dataloader(self) -> DataLoader:
        """The batches of all processes, of which this one gets its share."""
        count = self.args.world_size
        if count == 1:
            return super().get_train_dataloader()
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size * count,
            sampler=self._get_train_sampler(self.train_dataset),
            collate_fn=Share(self.data_collator, self.args.process_index, count),
            drop_last=self.args.dataloader_drop_last,
        )
        # as for a single process: the batches are not to be dealt out once more
        return prepare_data_loader(
            loader,
            self.args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            use_seedable_sampler=True,
            data_seed=self.args.data_seed,
        )


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
    long as in fp32. Several processes (`accelerate launch`) share batches so many times as large, and a run may go on with another
    number of them.
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
    trainer = SharingTrainer(
        model=model, args=arguments, train_dataset=dataset, data_collator=collator, optimizers=(optimizer, None)
    )
    checkpoint = get_last_checkpoint(str(output)) if Path(output).is_dir() else None
    if checkpoint is not None and hasattr(collator, "batches"):  # those that were read before are passed over unread
        state = json.loads(Path(checkpoint, "trainer_state.json").read_text(encoding="utf-8"))
        collator.batches = int(state["global_step"]) * arguments.gradient_accumulation_steps
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer
