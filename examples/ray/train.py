"""Trains the coarse stage of a checkpoint on workers of Ray Train; goes on from the last checkpoint, with any number of them.

    python examples/ray/train.py ENCODED [--workers 2] [--output runs/ray] [--steps 100] [--batch-size 4] [--model FOLDER]

ENCODED is a folder that `encode_speech(…).save_to_disk(…)` has written (docs/training.md); it and `--output` must be reached by every
worker. The workers share batches of `--batch-size` times their number, so that losses are those of one process with as large a batch.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any


def train(config: dict[str, Any]) -> None:
    """Runs in every worker: Ray has set up the group of processes, which `transformers.Trainer` finds."""
    import ray.train
    import torch
    from datasets import load_from_disk

    from transformers_bark import BarkModel
    from transformers_bark.training import train_stage

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        torch.set_num_threads(1)
    settings = {
        "max_steps": config["steps"],
        "per_device_train_batch_size": config["batch_size"],
        "learning_rate": 1e-4,
        "warmup_steps": 5,
        "lr_scheduler_type": "constant_with_warmup",
        "logging_steps": 1,
        "save_steps": config["save_steps"],
        "use_cpu": not on_gpu,
        "report_to": "none",
    }
    model = BarkModel.from_pretrained(config["model"])
    trainer = train_stage("coarse", model, load_from_disk(config["data"]), config["output"], settings)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    result = None  # with it Ray keeps what is reported
    if ray.train.get_context().get_world_rank() == 0:
        model.save_pretrained(folder := Path(config["output"], "model"))
        result = ray.train.Checkpoint.from_directory(folder)
    ray.train.report({"steps": trainer.state.global_step, "loss": losses[-1], "losses": losses}, checkpoint=result)


def main() -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from transformers_bark import BARK_NANO

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", action="store_true", help="a GPU for each worker")
    parser.add_argument("--output", type=Path, default=Path("runs/ray"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--save-steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--model", default=BARK_NANO)
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    config = {
        "data": str(options.data.absolute()),
        "output": str(options.output.absolute() / "checkpoints"),
        "model": options.model,
        "steps": options.steps,
        "save_steps": options.save_steps,
        "batch_size": options.batch_size,
    }
    trainer = TorchTrainer(
        train,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if options.gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=options.gpus),
        # a worker that dies ends the group; all begin again, from the checkpoint that `train_stage` finds
        run_config=RunConfig(
            storage_path=str(options.output.absolute() / "ray"), failure_config=FailureConfig(max_failures=3)
        ),
    )
    found = trainer.fit().metrics
    print(f"step {found['steps']}: loss {found['loss']:.4f}")


if __name__ == "__main__":
    main()
