"""`bark-tts voices`: the voices of a checkpoint and what is known of each, without loading a model; a sample of one."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import audio_files, input_files, output_files
from . import models, older, player
from .parsing import Parser
from .running import Clock, guarded, quiet_interrupts, say_line

EXAMPLES = (
    ("bark-tts voices", "what the checkpoint in the package has"),
    ("bark-tts voices --model suno/bark-small", "what another one has"),
    ("bark-tts voices --json", "for programs"),
    ("bark-tts voices --sample en_heart --play", "hear a voice"),
    ("bark-tts voices --sample my.npz -o my.wav", "or write it to a file"),
)
_LIST = "speaker_embeddings_path.json"
_NOT_A_VOICE = "repo_or_path"
_DEFAULT_RATE = 49.9  # semantic tokens a second of the released models
_LANGUAGES = {
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "tr": "Turkish",
    "zh": "Chinese",
}


@dataclass(frozen=True)
class Voice:
    """What is known of a voice; `None` where it is not.

    Args:
        name: as `--voice` takes it.
        language: as in "en", from the name.
        seconds: of speech in its prompt, where its file is on this machine.
        file: in the checkpoint's folder.
        source: the checkpoint.
    """

    name: str
    language: str | None
    seconds: float | None
    file: str
    source: str


def build_parser() -> Parser:
    """The command's arguments."""
    parser = Parser("bark-tts voices", "bark-tts voices [options]", "List voices, or hear one.", EXAMPLES)
    models.add_model(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--long", action="store_true", help="all that is known (default on a terminal; else names alone)")
    how.add_argument("--json", action="store_true", help="all that is known, as a list of JSON objects")
    how.add_argument("--sample", metavar="NAME", help="the speech that a voice, or an .npz or .safetensors file, holds")
    parser.add_argument("-o", "--output", type=Path, help="audio file for the sample (default: NAME.wav)")
    parser.add_argument("--play", action="store_true", help="play the sample; written only where -o is given")
    return parser


def run(arguments: Sequence[str], clock: Clock) -> int:
    """Runs the command."""
    parser = build_parser()
    options = older.parse(parser, arguments)
    if options.play and options.sample is None:
        parser.error("--play plays a sample: give --sample NAME")
    if options.sample is None:
        return guarded(_list, options)
    if options.play and player.find() is None:
        parser.error(f"--play needs one of {', '.join(player.NAMES)}, and none is there: give -o FILE")
    if options.output is None and not options.play:
        options.output = Path(f"{Path(options.sample).stem}.wav")
    if options.output is not None:
        try:
            audio_files.audio_format(options.output)
            output_files.check_writable(options.output)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    return guarded(_sample, options)


def _list(options: argparse.Namespace) -> None:
    source = models.model_source(options)
    if not (options.json or options.long or (sys.stdout is not None and sys.stdout.isatty())):
        for name in _entries(source):
            say_line(name)
        return
    voices = list_voices(source)
    if options.json:
        say_line(json.dumps([asdict(voice) for voice in voices], indent=2, ensure_ascii=False))
        return
    width = max((len(voice.name) for voice in voices), default=0)
    for voice in voices:
        language = _LANGUAGES.get(voice.language or "", "?")
        seconds = "      ?" if voice.seconds is None else f"{voice.seconds:5.1f} s"
        say_line(f"{voice.name:{width}}  {language:10}  {seconds}  {voice.source}/{voice.file}")


def list_voices(source: str) -> list[Voice]:
    """The voices of a checkpoint in the order of its list; no voice is fetched for it."""
    rate = _semantic_rate(source)
    return [_describe(source, name, entry, rate) for name, entry in _entries(source).items()]


def _entries(source: str) -> dict[str, Any]:
    """The checkpoint's list: names and files."""
    path = _find(source, _LIST, fetch=True)
    entries = {} if path is None else input_files.read_json(path)
    return {name: entry for name, entry in entries.items() if name != _NOT_A_VOICE}


def _describe(source: str, name: str, entry: Any, rate: float) -> Voice:
    from ..narration import languages

    file = entry if isinstance(entry, str) else entry.get("semantic_prompt", "") if isinstance(entry, dict) else ""
    path = _find(source, str(file)) if file else None
    tokens = None if path is None else _count_tokens(path)
    shown = os.path.basename(source) if os.path.isdir(source) else source
    return Voice(name, languages.of_voice(name), None if tokens is None else round(tokens / rate, 2), str(file), shown)


def _find(source: str, file: str, fetch: bool = False) -> Path | None:
    """A checkpoint's file on this machine; of the Hub's, what is in the cache already, or is fetched."""
    if os.path.isdir(source):
        path = Path(source, file)
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    if fetch:
        try:
            return Path(hf_hub_download(source, file))
        except EntryNotFoundError:
            return None
    found = try_to_load_from_cache(source, file)
    return Path(found) if isinstance(found, str) else None


def _semantic_rate(source: str) -> float:
    path = _find(source, "generation_config.json")
    semantic = {} if path is None else input_files.read_json(path).get("semantic_config") or {}
    return float(semantic.get("semantic_rate_hz", _DEFAULT_RATE))


def _count_tokens(path: Path) -> int | None:
    """Semantic tokens of a voice's file, from its head alone; `None` for a file that cannot be read."""
    import numpy as np

    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "np") as file:
                return int(file.get_slice("semantic_prompt").get_shape()[0])
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive, archive.open("semantic_prompt.npy") as part:
                return _npy_length(part, np)
        with path.open("rb") as part:
            return _npy_length(part, np)
    except Exception:  # each reader has its own errors; the voice says what is wrong when it is used
        return None


def _npy_length(file: Any, np: Any) -> int:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, _ = read(file)
    return int(shape[0])


def _sample(options: argparse.Namespace) -> None:
    """Decodes a voice's codes."""
    source = models.model_source(options)
    _check_name(source, options.sample)
    with quiet_interrupts():
        from ..audio_streams import Tags, write_audio
        from ..modeling_bark import BarkModel
        from ..processing_bark import BarkProcessor
    models.set_up_logging(quiet=False, bars=False)
    voice = BarkProcessor.from_pretrained(source).load_voice(options.sample)
    assert voice is not None
    model = BarkModel.from_pretrained(source).eval()
    audio = model.codec_decode(voice.fine_prompt[None])[0].detach()
    rate = model.generation_config.sample_rate
    if options.output is not None:
        write_audio(options.output, audio, rate, Tags.synthetic(source))
        taken = output_files.is_standard_output(options.output)
        say_line(f"{options.output}: {len(audio) / rate:.2f} s at {rate} Hz", sys.stderr if taken else None)
    if options.play:
        player.play(audio, rate)


def _check_name(source: str, name: str) -> None:
    """Refuses a voice that is not there before torch is imported."""
    if Path(name).suffix in (".npz", ".safetensors") or Path(f"{name}.npz").is_file():
        return
    names = set(_entries(source))
    # the processor takes names in any case
    if name not in names and name.lower() not in {one.lower() for one in names}:
        near = difflib.get_close_matches(name, names, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "`bark-tts voices` lists them"
        raise ValueError(f"there is no voice {name!r}; {hint}")
