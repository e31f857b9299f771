"""The command `bark-tts`: text in, a WAV file out."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def build_parser() -> argparse.ArgumentParser:
    """The arguments, those of the original library's command included."""
    parser = argparse.ArgumentParser(prog="bark-tts", description="Speak text with a Bark model.")
    parser.add_argument("text", nargs="?", help="what to say; - reads standard input; `voices` lists the voices")
    parser.add_argument("-o", "--output", type=Path, help="WAV file to write (default: speech.wav)")
    parser.add_argument("--model", help="folder or name on the Hub (default: the checkpoint in the package)")
    parser.add_argument(
        "--voice", "--history_prompt", dest="voice", help="a voice's name, or an .npz or .safetensors file"
    )
    parser.add_argument("--seed", type=int, help="makes the result repeatable")
    parser.add_argument("--temperature", type=float, help="of the semantic and the coarse stage")
    parser.add_argument("--semantic-temperature", "--text_temp", dest="semantic_temperature", type=float)
    parser.add_argument("--coarse-temperature", "--waveform_temp", dest="coarse_temperature", type=float)
    parser.add_argument("--fine-temperature", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--min-eos-p", type=float, help="end when the end is at least this probable")
    parser.add_argument("--greedy", action="store_true", help="take the most probable token in every stage")
    parser.add_argument("--device", help="cpu, cuda, … (default: cuda if there is one)")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument(
        "--save-voice", type=Path, metavar="FILE", help="keep the result as a voice (.npz or .safetensors)"
    )
    parser.add_argument("--quiet", "--silent", dest="quiet", nargs="?", const=True, default=False, type=_flag)
    parser.add_argument("--version", action="store_true", help="print the version")
    old = parser.add_argument_group("arguments of the original library's command")
    old.add_argument("--text", dest="old_text")
    old.add_argument("--output_filename")
    old.add_argument("--output_dir", type=Path)
    old.add_argument(
        "--output_full", nargs="?", const=True, default=False, type=_flag, help="also save the voice, as .npz"
    )
    return parser


def _flag(text: str) -> bool:
    return text.lower() in ("true", "1", "t", "yes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 when it worked, 1 when it failed, 2 for bad usage."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    if options.version:
        from . import __version__

        print(__version__)
        return 0
    text = options.old_text if options.text is None else options.text
    if text is None:
        parser.error("give a text, or - to read it from standard input")
    if text == "voices" and options.old_text is None:
        return _guarded(_list_voices, options)
    options.text = sys.stdin.read() if text == "-" else text
    if not options.text.strip():
        parser.error("the text is empty")
    _resolve_output(parser, options)
    return _guarded(_speak, options, started)


def _resolve_output(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Sets `options.output`, and checks what can be checked before a model is loaded."""
    if options.output is None:
        default = "bark_generation.wav" if options.output_dir else "speech.wav"
        options.output = (options.output_dir or Path()) / (options.output_filename or default)
    if options.output_full and options.save_voice is None:
        options.save_voice = options.output.with_suffix(".npz")
    if not options.output.parent.is_dir():
        parser.error(f"folder {options.output.parent} does not exist")
    if options.save_voice and options.save_voice.suffix not in (".npz", ".safetensors"):
        parser.error(f"--save-voice must end in .npz or .safetensors, got {options.save_voice}")


def _guarded(action: Any, *arguments: Any) -> int:
    """Runs `action`; the errors that users can cause become one line on standard error."""
    try:
        action(*arguments)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        print(f"bark-tts: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _load_processor(options: argparse.Namespace) -> Any:
    from . import BARK_NANO
    from .processing_bark import BarkProcessor

    return BarkProcessor.from_pretrained(options.model or BARK_NANO)


def _list_voices(options: argparse.Namespace) -> None:
    for name in _load_processor(options).available_voice_presets:
        print(name)


def _generation_options(options: argparse.Namespace) -> dict[str, Any]:
    names = (
        "temperature",
        "semantic_temperature",
        "coarse_temperature",
        "fine_temperature",
        "top_k",
        "top_p",
        "min_eos_p",
    )
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.greedy:
        given["do_sample"] = False
    elif any("temperature" in name or name.startswith("top_") for name in given):
        given["do_sample"] = True
    return given


def _speak(options: argparse.Namespace, started: float) -> None:
    import torch
    from transformers.utils import logging

    from . import BARK_NANO, BarkModel, audio_files

    if options.quiet or not sys.stderr.isatty():
        logging.disable_progress_bar()

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    processor = _load_processor(options)
    voice = processor.load_voice(options.voice)
    model = BarkModel.from_pretrained(options.model or BARK_NANO, dtype=getattr(torch, options.dtype)).to(device).eval()
    length = model.generation_config.semantic_config.max_input_semantic_length
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"bark-tts: warning: {message}", file=sys.stderr)
        inputs = processor(options.text, voice_preset=voice, max_length=length, device=device)
    before = time.perf_counter()
    output = model.generate(
        **inputs,
        **_generation_options(options),
        seed=options.seed,
        progress=False if options.quiet else None,
        return_dict_in_generate=True,
    )
    computed = time.perf_counter() - before
    if not int(output.audio_lengths[0]):
        raise RuntimeError("the model ended before it said anything; try another --seed or a lower --min-eos-p")
    rate = model.generation_config.sample_rate
    audio_files.write_wav(options.output, output.audio[0], rate)
    if options.save_voice:
        output.voice_preset(0).save(options.save_voice)
    if not options.quiet:
        seconds = int(output.audio_lengths[0]) / rate
        print(
            f"{options.output}: {seconds:.2f} s at {rate} Hz; real-time factor {computed / seconds:.2f} "
            f"({computed:.2f} s to generate, {time.perf_counter() - started:.2f} s in all)"
        )
