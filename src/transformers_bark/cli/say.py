"""`bark-tts say`, or `bark-tts` alone: a text or a file in, an audio file out.

A text that fits into one generation is spoken in one, with the seed as given; a longer one, or one with marks for pauses and
voices, is narrated piece by piece (see `narrating`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import audio_files, output_files
from ..narration import FORMATS, Cast
from . import models, older, speaking
from .parsing import Parser, flag, near_command, number, numbers, positive, probability, share, whole_number
from .running import Clock, guarded

EXAMPLES = (
    ('bark-tts "Hello there."', "writes speech.wav"),
    ('bark-tts "Hello there." -o hello.mp3 --voice en_heart --seed 1', "a voice, and the same every time"),
    ("bark-tts -f book.epub -o book.m4b", "any length; an interrupted run goes on"),
    ('bark-tts -f talk.script --voice-of "Anna=en_heart" --voice-of "Ben=en_bright"', "a dialogue"),
    ("bark-tts -f film.srt -o film.wav --subtitles said.srt", "at the times of its cues"),
)
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
"""Endings of files that can be read."""


def build_parser() -> Parser:
    """The arguments, those of the original library's command included."""
    usage = 'bark-tts [say] "TEXT" [options]\n       bark-tts [say] -f FILE [options]\n       bark-tts COMMAND --help'
    summary = "Speak text of any length with a Bark model."
    parser = Parser("bark-tts", usage, summary, EXAMPLES)
    parser.description = f"{parser.description}\n\ncommands:\n{_commands()}"
    parser.add_argument("text", nargs="?", help="what to say, in quotes; - reads standard input")
    parser.add_argument("-f", "--file", type=Path, metavar="FILE", help=f"read a file: {', '.join(ENDINGS)}")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="audio file to write: .wav, .flac, .mp3, .ogg, .opus, .m4b, …; - is WAV on standard output (default: speech.wav)",
    )
    models.add_model(parser)
    parser.add_argument(
        "--voice", "--history_prompt", dest="voice", help="a voice's name, or an .npz or .safetensors file"
    )
    parser.add_argument("--seed", type=whole_number, help="makes the result repeatable")
    models.add_engine(parser)
    parser.add_argument(
        "--save-voice", type=Path, metavar="FILE", help="keep the result as a voice (.npz or .safetensors)"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, and no output but errors and warnings")
    parser.add_argument("--version", action="store_true", help="print the version")
    _add_reading(parser.add_argument_group("texts and scripts"))
    _add_narration(parser.add_argument_group("long texts"))
    _add_sampling(parser.add_argument_group("sampling (default: as the checkpoint says)"))
    _add_original(parser.add_argument_group("the original library's command (names above that have a _ are its, too)"))
    return parser


def _commands() -> str:
    from . import COMMANDS

    return "\n".join(f"  {name:8}{what}" for name, what in COMMANDS.items())


def _add_reading(group: Any) -> None:
    group.add_argument("--format", choices=tuple(FORMATS), help="of the text (default: by the file's ending)")
    group.add_argument("--language", help='of the text, as in "de" (default: by the voice\'s name, or the letters)')
    group.add_argument(
        "--voice-of", action="append", default=[], metavar="NAME=VOICE", help="a speaker's voice; may be repeated"
    )
    group.add_argument("--cast", type=Path, metavar="FILE", help="speakers' voices: a line NAME = VOICE for each")
    group.add_argument("--dry-run", action="store_true", help="show pieces, voices and seconds, and speak nothing")


def _add_narration(group: Any) -> None:
    loudness = number("a loudness in LUFS from -60 to 0", lambda value: -60 <= value <= 0)
    speed = number("a speed from 1 to 2", lambda value: 1 <= value <= 2)
    group.add_argument(
        "--continuity", choices=("preset", "carry"), help="every piece from the voice, or each from the one before"
    )
    group.add_argument(
        "--tries", type=whole_number, help="say a piece that fails its checks again so often (default: 2)"
    )
    group.add_argument("--verify", type=Path, metavar="FOLDER", help="check the words with this faster-whisper model")
    group.add_argument("--batch-size", type=whole_number, metavar="N", help="pieces spoken together")
    group.add_argument("--work", type=Path, metavar="DIR", help="keep finished pieces there, also when all is done")
    group.add_argument("--resume", action="store_true", help="go on with the pieces that --work holds")
    group.add_argument("--only", type=numbers, metavar="12,15-18", help="make these pieces of --work anew, with --seed")
    group.add_argument("--loudness", type=loudness, metavar="LUFS", help="even the level, to -18 for instance")
    group.add_argument("--max-speed", type=speed, metavar="X", help="speed a cue's speech up so much to fit its time")
    group.add_argument("--subtitles", type=Path, metavar="FILE", help="write an .srt or .vtt file too")
    group.add_argument("--subtitles-by", choices=("sentence", "word"), help="(default: sentence)")
    group.add_argument("--split", choices=("piece", "chapter"), help="a file a piece or chapter")
    group.add_argument("--no-tags", action="store_true", help="files do not say what made them")


def _add_sampling(group: Any) -> None:
    group.add_argument("--temperature", type=positive, help="of the semantic and the coarse stage")
    group.add_argument("--semantic-temperature", "--text_temp", dest="semantic_temperature", type=positive)
    group.add_argument("--coarse-temperature", "--waveform_temp", dest="coarse_temperature", type=positive)
    group.add_argument("--fine-temperature", type=positive)
    group.add_argument("--top-k", type=whole_number, help="choose among so many tokens (0: all)")
    group.add_argument("--top-p", type=share, help="choose among the tokens that reach this probability together")
    group.add_argument("--min-eos-p", type=probability, help="end when the end is at least this probable")
    group.add_argument("--greedy", action="store_true", help="take the most probable token in every stage")


def _add_original(group: Any) -> None:
    switch: dict[str, Any] = {"nargs": "?", "const": True, "default": False, "type": flag, "metavar": "BOOL"}
    group.add_argument("--text", dest="old_text", metavar="TEXT", help="what to say, whatever it is")
    group.add_argument("--output_filename", metavar="NAME")
    group.add_argument("--output_dir", type=Path, metavar="FOLDER", help="made if it is not there")
    group.add_argument("--silent", **switch, help="--quiet")
    group.add_argument("--output_full", **switch, help="also save the voice")


def run(arguments: Sequence[str], clock: Clock, named: bool = True) -> int:
    """Runs the command.

    Args:
        named: whether `say` was typed; if not, the text may be another command's name.
    """
    from importlib import import_module

    from . import COMMANDS
    from . import __name__ as package

    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.version:
        from .. import __version__

        print(__version__)
        return 0
    if not named and options.old_text is None and options.text in COMMANDS:
        words = older.command_first(arguments, options.text)
        return int(import_module(f".{options.text}", package).run(words, clock))
    if not named and options.text is not None:
        _refuse_slips(parser, options.text)
    options.quiet = options.quiet or options.silent
    options.text = _text(parser, options)
    _check_narration(parser, options)
    _resolve_output(parser, options)
    return guarded(speaking.speak, options, clock)


def _refuse_slips(parser: Parser, text: str) -> None:
    """Refuses one word that is nearly a command, or a file's name: hardly anybody wants to hear those."""
    from . import COMMANDS

    near = near_command(text, tuple(COMMANDS))
    if near is not None:
        parser.error(f"there is no command {text!r}; did you mean {near}? To speak the word: bark-tts say {text}")
    if text.lower().endswith(ENDINGS) and Path(text).is_file():
        parser.error(f"{text} is a file: -f {text} reads it, and --text {text} speaks its name")


def _text(parser: Parser, options: argparse.Namespace) -> str | None:
    """What to say, from wherever it comes; `None` for a file."""
    given = [one for one in (options.text, options.old_text, options.file) if one is not None]
    if len(given) > 1:
        parser.error("give the text once, as it is or after --text, or a file after -f")
    if not given:
        parser.error('give a text in quotes, -f FILE, or - to read standard input, as in bark-tts "Hello there."')
    if options.file is not None:
        if not options.file.is_file():
            parser.error(f"there is no file {options.file}")
        if options.format is None and options.file.suffix.lower() not in ENDINGS:
            parser.error(f"what {options.file} holds is not known by its ending: give --format, as in --format text")
        return None
    text = options.text if options.old_text is None else options.old_text
    try:
        if options.text == "-":
            text = sys.stdin.read()
        # bytes that were not UTF-8 come from the shell, and on some systems from a pipe, as lone surrogates
        text.encode()
    except UnicodeError:
        parser.error("the text is not UTF-8")
    if not text.strip():
        parser.error("the text is empty")
    if options.format == "epub":
        parser.error("a book is a file: give -f FILE")
    return str(text)


def _check_narration(parser: Parser, options: argparse.Namespace) -> None:
    """Refuses what can be seen to fail before a model is loaded."""
    try:
        cast = Cast.read(options.cast) if options.cast is not None else Cast()
        options.cast = cast | Cast.from_options(options.voice_of)
    except OSError as error:
        parser.error(f"{options.cast}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
    if options.only and options.work is None:
        parser.error("--only makes pieces anew that an earlier run with --work DIR has kept: give that --work DIR")
    if options.batch_size == 0:
        parser.error("--batch-size must be at least 1")
    if options.subtitles is not None:
        if options.subtitles.suffix.lower() not in (".srt", ".vtt"):
            parser.error(f"--subtitles must end in .srt or .vtt, got {options.subtitles}")
        _check_writable(parser, options.subtitles)
    if options.subtitles_by is not None and options.subtitles is None:
        parser.error("--subtitles-by is of subtitles: give --subtitles FILE")
    if options.verify is not None and not options.verify.is_dir():
        parser.error(f"--verify needs the folder of a faster-whisper model, and {options.verify} is none")


def _resolve_output(parser: Parser, options: argparse.Namespace) -> None:
    """Sets `options.output`, and checks what can be checked before a model is loaded."""
    if options.output is not None and (options.output_filename or options.output_dir):
        parser.error("-o takes the place of --output_filename and --output_dir: give one or the other")
    if options.output is None:
        default = "speech.wav" if options.old_text is None else "bark_generation.wav"
        options.output = (options.output_dir or Path()) / (options.output_filename or default)
    if options.output.suffix.lower() not in audio_files.MP4_FILES:
        try:
            audio_files.audio_format(options.output)
        except ValueError as error:
            parser.error(f"{error}; or one of {', '.join(audio_files.MP4_FILES)}")
    if options.split is not None and output_files.is_standard_output(options.output):
        parser.error("--split writes several files, which standard output cannot take: give -o FILE")
    _resolve_voice(parser, options)
    if options.output_dir is not None:
        try:
            options.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--output_dir {options.output_dir}: {error.strerror}")
    for path in (options.output, options.save_voice):
        if path is not None:
            _check_writable(parser, path)


def _resolve_voice(parser: Parser, options: argparse.Namespace) -> None:
    """Sets `options.save_voice`."""
    if options.output_full and options.save_voice is None:
        if output_files.is_standard_output(options.output):
            parser.error(
                "--output_full names the voice after the audio file, which standard output is not: give --save-voice"
            )
        options.save_voice = options.output.with_suffix(".npz")
    if options.save_voice and options.save_voice.suffix not in (".npz", ".safetensors"):
        parser.error(f"--save-voice must end in .npz or .safetensors, got {options.save_voice}")


def _check_writable(parser: Parser, path: Path) -> None:
    if path.is_dir():
        parser.error(f"{path} is a folder; name a file in it")
    try:
        output_files.check_writable(path)
    except OSError as error:
        parser.error(f"{path}: {error.strerror}")
