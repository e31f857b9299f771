"""`bark-tts detect`: how probable it is that Bark's codec made a recording, for the whole and by second."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import output_files
from . import models
from .parsing import Parser, probability
from .running import Clock, complain, guarded, message, quiet_interrupts, say_line

if TYPE_CHECKING:
    from ..detection.detect import Detection

FOUND = 3
"""Exit status with `--threshold` where a file reaches it."""

EXAMPLES = (
    ("bark-tts detect speech.wav", "one file"),
    ("bark-tts detect recordings/ 'more/*.mp3'", "folders and patterns"),
    ("bark-tts detect speech.wav --json", "for programs: also the probability of each second"),
    ("bark-tts detect talk.mp3 --plot talk.png", "draw it over time"),
    ("bark-tts detect *.wav --threshold 0.9", "exit status 3 if one reaches it"),
)


def build_parser() -> Parser:
    """The command's arguments."""
    parser = Parser(
        "bark-tts detect",
        "bark-tts detect FILE… [options]",
        "Tell whether Bark's codec made a recording. What it can and cannot tell: docs/detection.md.",
        EXAMPLES,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio files, folders, or patterns with *")
    parser.add_argument("--json", action="store_true", help="a list of JSON objects")
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the probability of each second (needs matplotlib)"
    )
    parser.add_argument(
        "--threshold", type=probability, metavar="P", help=f"exit with {FOUND} if a file's probability is P or more"
    )
    parser.add_argument("--model", help="folder or name on the Hub (default: the detector in the package)")
    return parser


def run(arguments: Sequence[str], clock: Clock) -> int:
    """Runs the command.

    Returns:
        0; 1 if a file could not be read; `FOUND` if all could and one reaches the threshold.
    """
    parser = build_parser()
    options = parser.parse_args(list(arguments))
    if options.plot is not None:
        try:
            output_files.check_writable(options.plot)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    state = argparse.Namespace(failed=False, found=False)
    status = guarded(_detect, options, state)
    return status or (1 if state.failed else FOUND if state.found else 0)


def _detect(options: argparse.Namespace, state: argparse.Namespace) -> None:
    from ..detection import reading  # no torch yet: a name that is wrong is told at once

    paths = reading.find_files(options.files)
    if options.plot is not None:
        _import_matplotlib()
    model = _load(options.model)
    found: list[tuple[Path, Detection]] = []
    width = max(len(str(path)) for path in paths)
    for path, detection in _each(model, paths, state):
        found.append((path, detection))
        if not options.json:
            said = f"{detection.probability:6.1%}  {detection.words:14}  {_time(detection.duration):>8}"
            say_line(f"{path!s:{width}}  {said}")
    if options.json:
        say_line(json.dumps([_as_json(path, detection) for path, detection in found], indent=2, ensure_ascii=False))
    if options.plot is not None and found:
        _plot(options.plot, found)
    if options.threshold is not None:
        state.found = any(detection.probability >= options.threshold for _, detection in found)


def _load(source: str | None) -> Any:
    with quiet_interrupts():
        from ..detection.detect import load_detector
    models.set_up_logging(quiet=True, bars=False)
    return load_detector(source)


def _each(model: Any, paths: list[Path], state: argparse.Namespace) -> Iterator[tuple[Path, Detection]]:
    """What is found in each file; one that cannot be read is told and passed over."""
    from ..detection.detect import detect_file

    for path in paths:
        try:
            yield path, detect_file(model, path)
        except (ValueError, OSError) as error:
            complain(message(error))
            state.failed = True


def _as_json(path: Path, detection: Detection) -> dict[str, Any]:
    return {
        "file": str(path),
        "probability": round(detection.probability, 4),
        "verdict": detection.words,
        "duration": round(detection.duration, 3),
        "seconds": [round(float(value), 4) for value in detection.seconds],
    }


def _time(seconds: float) -> str:
    """As in 0:07 or 1:02:03."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _import_matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'transformers-bark[detect]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _plot(path: Path, found: list[tuple[Path, Detection]]) -> None:
    """One row a file: the probability of each second, and that of the whole."""
    import io

    plt = _import_matplotlib()
    height = min(2.0 * len(found) + 0.6, 100)
    figure, rows = plt.subplots(len(found), 1, figsize=(9, height), squeeze=False, layout="constrained")
    for axes, (file, detection) in zip(rows[:, 0], found, strict=True):
        values = detection.seconds.tolist()
        axes.stairs(values, range(len(values) + 1), fill=True, color="tab:blue", alpha=0.6)
        axes.axhline(detection.probability, color="tab:red", linewidth=1)
        axes.set(ylim=(0, 1), xlim=(0, math.ceil(detection.duration)), ylabel="probability")
        axes.set_title(f"{file.name}: {detection.probability:.1%}, {detection.words}", fontsize=9)
    rows[-1, 0].set_xlabel("seconds (blue: each by itself; red: the whole)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    output_files.write_bytes(path, buffer.getvalue())
