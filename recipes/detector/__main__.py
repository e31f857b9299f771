"""How the shipped detector is made and measured.

    python -m recipes.detector evaluate          the table, from the committed weights
    python -m recipes.detector train             data, training, leave-one-out, export

Both make or fetch what they need below `--cache`. `--bark FOLDER` (or the environment's BARK_AUDIO) adds audio of the released models.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from transformers_bark import BARK_DETECTOR, BARK_NANO, load_detector
from transformers_bark.detection.configuration_detector import BarkDetectorConfig

from . import data, report, spectra, training


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.detector", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("train", "evaluate"))
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/detector"), help="what is fetched and made (default: runs/detector)"
    )
    parser.add_argument("--bark", default=os.environ.get("BARK_AUDIO"), help="folder with audio of the released models")
    parser.add_argument("--output", type=Path, default=Path(BARK_DETECTOR), help="where training writes the weights")
    parser.add_argument("--folds", type=int, default=4, help="parts that the sources and families are left out in")
    parser.add_argument("--offline", action="store_true", help="fetch no packages")
    options = parser.parse_args()
    if options.command == "train":
        train(options)
    else:
        evaluate(options)


def config() -> BarkDetectorConfig:
    """The shipped detector's, with the frame rate of the embedded checkpoint's codec."""
    codec = json.loads((Path(BARK_NANO) / "config.json").read_text())["codec_config"]
    embedded = codec["sampling_rate"] / float(np.prod(codec["upsampling_ratios"]))
    return BarkDetectorConfig(frame_rates=(75.0, embedded))


def train(options: argparse.Namespace) -> None:
    """Leave-one-out figures, and weights of all sources but those that are kept for `evaluate`."""
    if not options.bark:
        raise SystemExit("training needs audio of the released models: --bark FOLDER, or BARK_AUDIO in the environment")
    settings = config()
    table = data.table("train", options.cache, settings, Path(options.bark), fetch=not options.offline)
    scores = training.left_out(table, settings, options.folds)
    spectra.save_scores(table, scores, options.cache / "left_out.npz")
    report.show(
        table.rows(~np.isnan(scores)), scores[~np.isnan(scores)], "each source and family left out of training in turn"
    )
    report.plots(table, scores, Path("docs/images"))
    kept = ~np.isin(table.family, data.KEPT_BACK)
    model = training.fit(table.rows(kept), settings)
    model.save_pretrained(options.output)
    data.feature_extractor(settings).save_pretrained(options.output)
    print(f"wrote {options.output}: {sum(file.stat().st_size for file in options.output.iterdir()) / 1e6:.2f} MB")


def evaluate(options: argparse.Namespace) -> None:
    """The table of the committed weights, on other clips than those of training."""
    model = load_detector()
    bark = Path(options.bark) if options.bark else None
    table = data.table("test", options.cache, model.config, bark, fetch=not options.offline)
    scores = training.probabilities(model, table)
    title = "the committed weights; families marked * were not in training, others with other clips"
    report.show(table, scores, title, data.KEPT_BACK)


if __name__ == "__main__":
    main()
