"""`python -m transformers_bark.training`: runs the stages of a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .stages import STAGES, Recipe, run


def main() -> None:
    """Parses the arguments and runs."""
    parser = argparse.ArgumentParser(prog="python -m transformers_bark.training", description=__doc__)
    parser.add_argument("stage", choices=["all", *STAGES])
    parser.add_argument("--recipe", type=Path, required=True, help="folder with a settings file per stage")
    parser.add_argument("--runs", type=Path, default=Path("runs/nano"), help="folder for data, states and results")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    run(Recipe(options.recipe, options.runs), options.stage)


if __name__ == "__main__":
    main()
