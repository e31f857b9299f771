"""A folder in the Hub's layout -> the original library's checkpoints, for tools that read those.

    python -m conversion.hf_to_suno --model FOLDER --output FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from conversion import names
from conversion.checkpoints import finished_folder
from conversion.suno_to_hf import _ARGS, STAGES, Stage
from transformers_bark import BarkModel

_LARGE_LAYERS = 24
"""Depth of the released large models, whose files end in `_2`."""


def original_names(stage: Stage, config: Any, wanted: Sequence[str]) -> dict[str, str]:
    """For each of our names the original's."""
    layers = [f"transformer.h.{i}." for i in range(config.num_layers)]
    parts = ("ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    candidates = [f"{layer}{part}.{kind}" for layer in layers for part in parts for kind in ("weight", "bias")]
    candidates += ["transformer.ln_f.weight", "transformer.ln_f.bias", "transformer.wpe.weight"]
    if stage.option == "fine":
        candidates += [f"transformer.wtes.{i}.weight" for i in range(config.n_codes_total)]
        candidates += [f"lm_heads.{i}.weight" for i in range(config.n_codes_total - config.n_codes_given)]
    else:
        candidates += ["transformer.wte.weight", "lm_head.weight"]
    return names.reverse(stage.table, wanted, candidates)


def stage_checkpoint(stage: Stage, model: Any) -> dict[str, Any]:
    """What the original library reads: `model`, `model_args` and `best_val_loss`."""
    config, weights = model.config, model.state_dict()
    table = original_names(stage, config, list(weights))
    arguments = {old: getattr(config, new) for old, new in _ARGS.items() if hasattr(config, new)}
    return {
        "model": {table[name]: value.float().contiguous() for name, value in weights.items()},
        "model_args": arguments,
        # the original prints it; nothing is known of it here
        "best_val_loss": torch.tensor(float("nan")),
    }


def convert(arguments: argparse.Namespace) -> None:
    """Writes `text`, `coarse` and `fine`, with `_2` in the name for the large size."""
    model = BarkModel.from_pretrained(arguments.model)
    with finished_folder(arguments.output, arguments.overwrite) as folder:
        for stage in STAGES:
            part = getattr(model, stage.prefix)
            suffix = "_2" if part.config.num_layers >= _LARGE_LAYERS else ""
            checkpoint = stage_checkpoint(stage, part)
            torch.save(checkpoint, folder / f"{stage.option}{suffix}.pt")
            print(f"{stage.option}{suffix}.pt: {len(checkpoint['model'])} tensors")
    print(f"written to {arguments.output}")


def build_parser() -> argparse.ArgumentParser:
    """The script's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder, or name on the Hub")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script; 1 when it failed."""
    try:
        convert(build_parser().parse_args(arguments))
    except (ValueError, TypeError, OSError) as error:
        print(f"hf_to_suno: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
