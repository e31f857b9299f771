"""`bark-tts export`: builds the graphs that `--engine onnxruntime` will load, and says how near they are to PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import models, older
from .parsing import Parser
from .running import Clock, guarded, quiet_interrupts, say_line

EXAMPLES = (
    ("bark-tts export", "the checkpoint in the package"),
    ("bark-tts export --model suno/bark-small", "another one"),
    ("bark-tts export --precision int8", "smaller and faster, and nearly the same"),
    ("bark-tts export --cache-precision int8", "keys and values too"),
    ('bark-tts "Hello." --engine onnxruntime --precision int8', "what they are for"),
)


def build_parser() -> Parser:
    """The command's arguments."""
    parser = Parser(
        "bark-tts export",
        "bark-tts export [options]",
        "Build the graphs that --engine onnxruntime loads, and say how near they are to PyTorch.",
        EXAMPLES,
    )
    models.add_model(parser)
    models.add_precision(parser)
    return parser


def run(arguments: Sequence[str], clock: Clock) -> int:
    """Runs the command."""
    return guarded(_export, older.parse(build_parser(), arguments))


def _export(options: argparse.Namespace) -> None:
    source = models.model_source(options)
    with quiet_interrupts():
        import torch

        from ..engines import EngineChoice
        from ..low_memory import build_graphs, find_weights
        from ..modeling_bark import BarkModel  # noqa: F401 - slow to import
    model = models.load_model(source, "float32", torch.device("cpu"), EngineChoice())
    choice = EngineChoice("onnxruntime", options.precision, cache_precision=options.cache_precision)
    for report in build_graphs(model, choice, find_weights(source)):
        say_line(f"{report['model']}: largest logit difference from PyTorch {report['largest_logit_difference']:.3g}")
