"""`bark-tts serve`: the model behind OpenAI's interface, for many callers at once."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from . import listening, models, older
from .parsing import Parser, count, positive, whole_number
from .running import Clock, guarded, quiet_interrupts, say_line

EXAMPLES = (
    ("bark-tts serve", "on http://127.0.0.1:8000, for this machine alone"),
    ("bark-tts serve --host 0.0.0.0 --api-key-file keys.txt", "for others, who need a key"),
    (
        "bark-tts serve --model suno/bark-small --slots 8 --queue 32",
        "another model, so many at once, so many that wait",
    ),
)


def build_parser() -> Parser:
    """The command's arguments."""
    parser = Parser(
        "bark-tts serve",
        "bark-tts serve [options]",
        "Serve a model: OpenAI's POST /v1/audio/speech and more; http://127.0.0.1:8000/docs shows all.",
        EXAMPLES,
    )
    models.add_model(parser)
    listening.add_address(parser, 8000)
    models.add_engine(parser)
    callers = parser.add_argument_group("callers")
    callers.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys that are let in, one a line")
    callers.add_argument(
        "--allow-origin", action="append", default=[], metavar="URL", help="pages of this site may call; * for all"
    )
    callers.add_argument("--log-text", action="store_true", help="log what is said, too")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-characters", type=count, default=4096, help="of a text (default: 4096)")
    limits.add_argument("--slots", type=count, help="generations at once (default: 16 on a CPU, 64 on a GPU)")
    limits.add_argument("--queue", type=whole_number, default=64, help="requests that wait beside them (default: 64)")
    limits.add_argument("--seconds", type=positive, default=300.0, help="that a request may take (default: 300)")
    limits.add_argument("--max-batch", type=count, default=32, help="texts in one request (default: 32)")
    voices = parser.add_argument_group("voices")
    voices.add_argument("--voices", type=Path, metavar="FOLDER", help="where voices that callers store are kept")
    voices.add_argument("--max-voices", type=whole_number, default=100, help="how many; 0 for none (default: 100)")
    return parser


def run(arguments: Sequence[str], clock: Clock) -> int:
    """Runs the command."""
    return guarded(_serve, older.parse(build_parser(), arguments), clock)


def _serve(options: argparse.Namespace, clock: Clock) -> None:
    listening.check_address(options)
    source = models.model_source(options)
    with quiet_interrupts():
        try:
            from ..serving import server
            from ..serving.app import create_app
            from ..serving.auth import Keys
            from ..serving.service import ServiceLimits
        except ModuleNotFoundError as error:
            raise ImportError(f"serving needs {error.name}: pip install 'transformers-bark[serve]'") from error
        from ..modeling_bark import BarkModel  # noqa: F401 - slow to import

    keys = Keys() if options.api_key_file is None else Keys.read(options.api_key_file)
    models.set_up_logging(quiet=True, bars=False)
    warnings.simplefilter("ignore", UserWarning)  # they quote texts, which are the callers' own
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("transformers_bark.serving").setLevel(logging.INFO)
    model = models.load_asked(options, source, models.device_named(options.device), aligned=True)
    limits = ServiceLimits(options.max_characters, options.queue, options.seconds, options.max_batch)
    folder = None if options.max_voices == 0 else options.voices or server.default_folder()
    service = server.load(source, model, folder, most_voices=options.max_voices, limits=limits, slots=options.slots)
    app = create_app(service, keys, options.allow_origin, options.log_text)

    def tell(host: str, port: int) -> None:
        say_line(f"serving {service.name} on {server.url_of(host, port)} ({clock.seconds:.1f} s to load)", sys.stderr)

    server.run(app, service, options.host, options.port, tell)
