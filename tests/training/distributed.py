"""Trains one stage of a tiny model: run by `accelerate launch` or alone, as tests/training/test_distributed.py says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from tests.tiny import tiny_model, tiny_tokenizer
from transformers_bark.training import train_stage

ROWS = 10


def rows() -> Dataset:
    """Texts of several lengths with random tokens and codes: 25 semantic tokens and 40 frames a second."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for number in range(ROWS):
        n_tokens = 5 + 3 * (number % 4)
        n_frames = round(n_tokens * 1.6)
        semantic = torch.randint(0, 40, (n_tokens,), generator=generator).tolist()
        codes = torch.randint(0, 32, (4, n_frames), generator=generator).tolist()
        found.append(
            {"text": " ".join(["hello my dog", "the cat"][: 1 + number % 2]), "semantic": semantic, "codes": codes}
        )
    return Dataset.from_list(found)


def main(folder: str, stage: Any, batch_size: str, steps: str, save: str) -> None:
    torch.set_num_threads(1)
    output = Path(folder, stage)
    settings = {
        "per_device_train_batch_size": int(batch_size),
        "max_steps": int(steps),
        "learning_rate": 3e-3,
        "warmup_steps": 1,
        "lr_scheduler_type": "constant_with_warmup",  # a run that is to go on does not end its schedule
        "logging_steps": 1,
        "save_steps": int(save),
        "use_cpu": True,
        "report_to": "none",
    }
    tokenizer = tiny_tokenizer(Path(folder, f"tokenizer-{os.environ.get('RANK', '0')}"))
    trainer = train_stage(stage, tiny_model(), rows(), output, settings, tokenizer)
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        total = sum(float(part.detach().double().sum()) for part in trainer.model.parameters())
        Path(folder, f"{stage}.json").write_text(json.dumps({"losses": losses, "total": total}))


if __name__ == "__main__":
    main(*sys.argv[1:])
