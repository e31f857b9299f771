"""`bark-tts studio`: a page on which one types, hears and keeps what was made."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from . import listening, models, older
from .parsing import Parser, count, positive
from .running import Clock, guarded, quiet_interrupts, say_line

EXAMPLES = (
    ("bark-tts studio", "on http://127.0.0.1:7860, for this machine alone"),
    ("bark-tts studio --model suno/bark-small --open", "another model, and open the browser"),
    ("bark-tts studio --host 0.0.0.0", "for everybody who can reach this machine"),
)


def build_parser() -> Parser:
    """The command's arguments."""
    parser = Parser(
        "bark-tts studio",
        "bark-tts studio [options]",
        "Open a page to speak texts, look at what was made, compare it and keep it.",
        EXAMPLES,
    )
    models.add_model(parser)
    listening.add_address(parser, 7860)
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    models.add_engine(parser)
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-characters", type=count, default=4096, help="of a text (default: 4096)")
    limits.add_argument("--seconds", type=positive, default=900.0, help="that a take may take (default: 900)")
    limits.add_argument("--queue", type=count, default=32, help="visitors who wait for the model (default: 32)")
    return parser


def run(arguments: Sequence[str], clock: Clock) -> int:
    """Runs the command."""
    return guarded(_open, older.parse(build_parser(), arguments), clock)


def _open(options: argparse.Namespace, clock: Clock) -> None:
    listening.check_address(options)
    source = models.model_source(options)
    with quiet_interrupts():
        try:
            from ..studio import server
            from ..studio.takes import StudioLimits
        except ModuleNotFoundError as error:
            raise ImportError(f"the studio needs {error.name}: pip install 'transformers-bark[studio]'") from error
        from ..modeling_bark import BarkModel  # noqa: F401 - slow to import

    models.set_up_logging(quiet=True, bars=False)
    warnings.simplefilter("ignore", UserWarning)  # the page tells them, and they quote what visitors type
    model = models.load_asked(options, source, models.device_named(options.device), aligned=True)
    limits = StudioLimits(options.max_characters, options.seconds, waiting=options.queue)
    page = server.load(source, model, limits)

    def tell(url: str) -> None:
        say_line(f"the studio is open on {url} ({clock.seconds:.1f} s to load)", sys.stderr)

    server.run(page, options.host, options.port, options.open, tell)
