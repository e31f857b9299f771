"""`bark-tts batch`: the rows of a manifest, on this machine or on many with Ray."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import models
from .parsing import Parser, count, positive, whole_number
from .running import Clock, complain, guarded, quiet_interrupts, say_line

if TYPE_CHECKING:
    from ..batch import Summary
    from ..batch.settings import Settings

FAILED = 3
"""Exit status where all is done and some rows have failed."""

_SHOWN = 10  # failures that are told one by one

EXAMPLES = (
    ("bark-tts batch lines.csv --out speech/", "columns id and text; a file a row, and speech/manifest.jsonl"),
    ("bark-tts batch lines.csv --out speech/ --ray local", "a worker a core"),
    ("bark-tts batch s3://b/rows.parquet --out s3://b/speech --ray ray://head:10001 --gpus 1", "many machines"),
    ("bark-tts batch lines.jsonl --out corpus/ --format parquet --card", "a data set for the Hub"),
)


def build_parser() -> Parser:
    """The command's arguments."""
    parser = Parser(
        "bark-tts batch",
        "bark-tts batch MANIFEST --out DIR [options]",
        "Speak the rows of a manifest. The same command goes on where a run was interrupted. See docs/batch.md.",
        EXAMPLES,
    )
    parser.add_argument(
        "manifest",
        help="CSV, JSON lines, Parquet, or a folder of `datasets`; a path or an address as in s3://, gs://, hf://. "
        "Columns: id, text, and voice, seed, language where you like",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the results, a path or an address")
    parser.add_argument("--format", default="flac", help="of audio files, or parquet, with the audio inside")
    parser.add_argument("--card", action="store_true", help="write a data set card, README.md")
    parser.add_argument("--split", metavar="NAME", help="of a saved DatasetDict")
    models.add_model(parser)
    speech = parser.add_argument_group("speech")
    speech.add_argument("--voice", help="of rows that name none: a name or a file (default: the seed decides)")
    speech.add_argument("--language", help='of rows that name none, as in "en"')
    speech.add_argument("--tries", type=whole_number, default=2, help="for pieces that fail their checks (default: 2)")
    speech.add_argument("--temperature", type=positive, help="of all stages")
    speech.add_argument("--max-characters", type=whole_number, default=20_000, help="of a text (default: 20000)")
    models.add_engine(parser)
    parser.add_argument("--batch-size", type=count, help="generations at once in a worker (default: 8, on CUDA 32)")
    many = parser.add_argument_group("many workers")
    many.add_argument("--ray", metavar="ADDRESS", help="a cluster of Ray, or local for one on this machine")
    many.add_argument("--workers", type=count, help="at once (default: as many as there is room for)")
    many.add_argument("--cpus", type=count, help="cores of a worker (default: 1)")
    many.add_argument("--gpus", type=_share, help="GPUs of a worker; 0.5 lets two share one (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress, no list of failures")
    return parser


def _share(text: str) -> float:
    return 0.0 if text == "0" else positive(text)


def run(arguments: Sequence[str], clock: Clock) -> int:
    """Runs the command.

    Returns:
        0; 1 where it could not go on; `FAILED` where some rows have failed.
    """
    parser = build_parser()
    options = parser.parse_args(list(arguments))
    if options.ray is None:
        for name in ("workers", "cpus", "gpus"):
            if getattr(options, name) is not None:
                parser.error(f"--{name} is of workers under Ray: give --ray local, or a cluster's address")
    state = argparse.Namespace(failed=0)
    return guarded(_batch, options, clock, state) or (FAILED if state.failed else 0)


def _batch(options: argparse.Namespace, clock: Clock, state: argparse.Namespace) -> None:
    source = models.model_source(options)
    with quiet_interrupts():
        from ..batch import run as run_batch
        from ..engines.onnx_session import share_threads
    share_threads()
    models.set_up_logging(quiet=True, bars=False)
    warnings.simplefilter("ignore", UserWarning)  # of single texts: what is wrong with one is told with its row
    summary = run_batch(
        options.manifest,
        _settings(options, source),
        _cluster(options),
        card=options.card,
        split=options.split,
        most_characters=options.max_characters,
        progress=not options.quiet,
    )
    state.failed = len(summary.failures)
    _tell(options, summary, clock)


def _settings(options: argparse.Namespace, source: str) -> Settings:
    from ..batch import Settings

    given: dict[str, Any] = {}
    if options.temperature is not None:
        given = {"temperature": options.temperature, "semantic_do_sample": True, "coarse_do_sample": True}
    under_ray = options.ray is not None
    device = str(options.device or ("cuda" if options.gpus else "cpu")) if under_ray else None
    return Settings(
        out=options.out,
        model=source,
        format=options.format,
        voice=options.voice,
        language=options.language,
        tries=options.tries,
        batch_size=options.batch_size,
        device=device or str(models.device_named(options.device)),
        engine=options.engine,
        precision=options.precision,
        cache_precision=options.cache_precision,
        dtype=options.dtype,
        options=given,
    )


def _cluster(options: argparse.Namespace) -> Any:
    if options.ray is None:
        return None
    from ..batch.on_ray import Cluster

    return Cluster(options.ray, options.workers, options.cpus or 1, options.gpus or 0.0)


def _tell(options: argparse.Namespace, summary: Summary, clock: Clock) -> None:
    if options.quiet:
        return
    for entry in summary.failures[:_SHOWN]:
        complain(f"row {entry['row']}, {entry['id']!r}: {entry['error']}")
    if len(summary.failures) > _SHOWN:
        complain(f"… and {len(summary.failures) - _SHOWN} more rows failed: see {options.out}/manifest.jsonl")
    good = summary.rows - len(summary.failures)
    said = f"{options.out}: {good} of {summary.rows} rows, {summary.seconds / 3600:.2f} h of audio"
    say_line(f"{said}; {summary.made} made in {clock.seconds:.0f} s")
