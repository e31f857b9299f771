"""The command `bark-tts`: text in, an audio file out."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import audio_files, interrupts, output_files
from .engines import CACHE_PRECISIONS, ENGINES, PRECISIONS, EngineChoice


def build_parser() -> argparse.ArgumentParser:
    """The arguments, those of the original library's command included."""
    parser = argparse.ArgumentParser(prog="bark-tts", description="Speak text with a Bark model.")
    parser.add_argument(
        "text",
        nargs="?",
        help="what to say; - reads standard input; `voices` lists voices; `export` builds ONNX graphs ahead",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="audio file to write: .wav, .flac, .mp3, .ogg, .opus, …; - is WAV on standard output (default: speech.wav)",
    )
    parser.add_argument("--model", help="folder or name on the Hub (default: the checkpoint in the package)")
    parser.add_argument(
        "--voice", "--history_prompt", dest="voice", help="a voice's name, or an .npz or .safetensors file"
    )
    parser.add_argument("--seed", type=_seed, help="makes the result repeatable")
    parser.add_argument("--device", help="cpu, cuda, … (default: cuda if there is one)")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what runs the transformers (default: auto)")
    parser.add_argument(
        "--precision", choices=PRECISIONS["auto"], help="of the weights (default: fp32, in auto on CUDA bf16)"
    )
    parser.add_argument(
        "--cache-precision",
        choices=CACHE_PRECISIONS["auto"],
        help="of keys and values in onnxruntime (default: fp32)",
    )
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument(
        "--save-voice", type=Path, metavar="FILE", help="keep the result as a voice (.npz or .safetensors)"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, and no output but errors and warnings")
    parser.add_argument("--version", action="store_true", help="print the version")
    _add_sampling(parser.add_argument_group("sampling (default: as the checkpoint says)"))
    old = parser.add_argument_group("the original library's command (names above that have a _ are its, too)")
    old.add_argument("--text", dest="old_text", metavar="TEXT", help="what to say, whatever it is")
    old.add_argument("--output_filename", metavar="NAME")
    old.add_argument("--output_dir", type=Path, metavar="FOLDER", help="made if it is not there")
    old.add_argument("--silent", nargs="?", const=True, default=False, type=_flag, metavar="BOOL", help="--quiet")
    old.add_argument(
        "--output_full", nargs="?", const=True, default=False, type=_flag, metavar="BOOL", help="also save the voice"
    )
    return parser


def _add_sampling(group: Any) -> None:
    positive = _number("a positive number", lambda value: 0 < value < float("inf"))
    share = _number("a number in (0, 1]", lambda value: 0 < value <= 1)
    probability = _number("a number in [0, 1]", lambda value: 0 <= value <= 1)
    group.add_argument("--temperature", type=positive, help="of the semantic and the coarse stage")
    group.add_argument("--semantic-temperature", "--text_temp", dest="semantic_temperature", type=positive)
    group.add_argument("--coarse-temperature", "--waveform_temp", dest="coarse_temperature", type=positive)
    group.add_argument("--fine-temperature", type=positive)
    group.add_argument("--top-k", type=_seed, help="choose among so many tokens (0: all)")
    group.add_argument("--top-p", type=share, help="choose among the tokens that reach this probability together")
    group.add_argument("--min-eos-p", type=probability, help="end when the end is at least this probable")
    group.add_argument("--greedy", action="store_true", help="take the most probable token in every stage")


def _flag(text: str) -> bool:
    if text.lower() in ("true", "1", "t", "yes", "y"):
        return True
    if text.lower() in ("false", "0", "f", "no", "n"):
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def _number(what: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not fits(value):
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return convert


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 when it worked, 1 when it failed.

    Raises:
        SystemExit: with 2 for bad usage.
    """
    interrupts.as_usual()
    started = time.perf_counter()
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.version:
        from . import __version__

        print(__version__)
        return 0
    if options.text == "voices" and options.old_text is None:
        return _guarded(_list_voices, options)
    if options.text == "export" and options.old_text is None:
        return _guarded(_export, options)
    options.quiet = options.quiet or options.silent
    options.text = _text(parser, options)
    _resolve_output(parser, options)
    return _guarded(_speak, options, started)


def _text(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """What to say, from wherever it comes."""
    if options.text is not None and options.old_text is not None:
        parser.error("give the text once, as it is or after --text")
    text = options.text if options.old_text is None else options.old_text
    if text is None:
        parser.error("give a text, or - to read it from standard input")
    try:
        if options.text == "-":
            text = sys.stdin.read()
        # bytes that were not UTF-8 come from the shell, and on some systems from a pipe, as lone surrogates
        text.encode()
    except UnicodeError:
        parser.error("the text is not UTF-8")
    if not text.strip():
        parser.error("the text is empty")
    return text


def _resolve_output(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Sets `options.output`, and checks what can be checked before a model is loaded."""
    if options.output is not None and (options.output_filename or options.output_dir):
        parser.error("-o takes the place of --output_filename and --output_dir: give one or the other")
    if options.output is None:
        default = "speech.wav" if options.old_text is None else "bark_generation.wav"
        options.output = (options.output_dir or Path()) / (options.output_filename or default)
    try:
        audio_files.audio_format(options.output)
    except ValueError as error:
        parser.error(str(error))
    if options.output_full and options.save_voice is None:
        if output_files.is_standard_output(options.output):
            parser.error(
                "--output_full names the voice after the audio file, which standard output is not: give --save-voice"
            )
        options.save_voice = options.output.with_suffix(".npz")
    if options.save_voice and options.save_voice.suffix not in (".npz", ".safetensors"):
        parser.error(f"--save-voice must end in .npz or .safetensors, got {options.save_voice}")
    if options.output_dir is not None:
        try:
            options.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--output_dir {options.output_dir}: {error.strerror}")
    for path in (options.output, options.save_voice):
        if path is not None:
            _check_writable(parser, path)


def _check_writable(parser: argparse.ArgumentParser, path: Path) -> None:
    if path.is_dir():
        parser.error(f"{path} is a folder; name a file in it")
    try:
        output_files.check_writable(path)
    except OSError as error:
        parser.error(f"{path}: {error.strerror}")


def _guarded(action: Callable[..., None], *arguments: Any) -> int:
    """Runs `action`; the errors that users can cause become a message on standard error."""
    from safetensors import SafetensorError

    try:
        action(*arguments)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, SafetensorError) as error:
        print(f"bark-tts: {_message(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _message(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _say(line: str, file: Any = None) -> None:
    """Prints a line to standard output, or to `file`.

    Raises:
        OSError: nobody reads it.
    """
    file = file or sys.stdout
    try:
        print(line, file=file, flush=True)
    except OSError as error:
        # what is left in the buffer would fail once more when the interpreter ends
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), file.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error


def _model_source(options: argparse.Namespace) -> str:
    """Folder or Hub name of the checkpoint.

    Raises:
        FileNotFoundError: it can only be a folder, and is none.
    """
    from . import BARK_NANO

    source = options.model or BARK_NANO
    local = os.path.isabs(source) or source.startswith(".") or source.count(os.sep) != 1
    if local and not os.path.isdir(source):
        raise FileNotFoundError(f"model folder {source} does not exist")
    return source


def _list_voices(options: argparse.Namespace) -> None:
    from .processing_bark import BarkProcessor

    for name in BarkProcessor.from_pretrained(_model_source(options)).available_voice_presets:
        _say(name)


def _export(options: argparse.Namespace) -> None:
    """Builds the graphs that `--engine onnxruntime` will load, and says how near they are to PyTorch."""
    import torch

    from .low_memory import build_graphs, find_weights

    source = _model_source(options)
    model = _load_model(source, "float32", torch.device("cpu"), EngineChoice())
    choice = EngineChoice("onnxruntime", options.precision, cache_precision=options.cache_precision)
    for report in build_graphs(model, choice, find_weights(source)):
        _say(f"{report['model']}: largest logit difference from PyTorch {report['largest_logit_difference']:.3g}")


def _generation_options(options: argparse.Namespace) -> dict[str, Any]:
    """The sampling options given; one that shapes a stage's sampling also turns it on there."""
    names = ("temperature", "semantic_temperature", "coarse_temperature", "fine_temperature", "top_k", "top_p")
    given = {name: getattr(options, name) for name in (*names, "min_eos_p") if getattr(options, name) is not None}
    if options.greedy:
        return {**given, "do_sample": False}
    for_both = given.keys() & {"temperature", "top_k", "top_p"}
    for stage in ("semantic", "coarse"):
        if for_both or f"{stage}_temperature" in given:
            given[f"{stage}_do_sample"] = True
    return given


def _device(name: str | None) -> Any:
    """The device to compute on.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {error}") from error
    return device


def _load_model(source: str, dtype: str, device: Any, choice: EngineChoice) -> Any:
    """The model, whole; for ONNX Runtime without the weights that its graphs hold.

    Raises:
        ValueError: a model of another type, or one that lacks weights: it would make noise.
    """
    import torch
    from transformers import AutoConfig

    from .low_memory import find_weights
    from .modeling_bark import BarkModel

    config = AutoConfig.from_pretrained(source)
    if config.model_type != BarkModel.config_class.model_type:
        raise ValueError(f"{source} is a model of type {config.model_type!r}, not 'bark'")
    chosen = choice.for_device(device)
    if chosen.name == "onnxruntime" and dtype != "float32":
        raise ValueError(
            f"--dtype {dtype} is PyTorch's: with --engine {choice.name} here give --precision, or --engine torch"
        )
    if chosen.name == "onnxruntime" and find_weights(source) is not None:
        precisions = {"precision": chosen.precision, "cache_precision": chosen.cache_precision}
        return BarkModel.from_pretrained(source, engine=choice.name, **precisions, keep_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of missing weights, which are an error here
        model = BarkModel.from_pretrained(source, dtype=getattr(torch, dtype)).check_weights()
    return model.to(device).eval().use_engine(choice)


def _load(options: argparse.Namespace, device: Any) -> tuple[Any, Any]:
    """Model and inputs; the cheap parts first, so that mistakes show before the model is read."""
    from .processing_bark import BarkProcessor

    source = _model_source(options)
    processor = BarkProcessor.from_pretrained(source)
    voice = processor.load_voice(options.voice)
    choice = EngineChoice(options.engine, options.precision, cache_precision=options.cache_precision)
    model = _load_model(source, options.dtype, device, choice)
    length = model.generation_config.semantic_config.max_input_semantic_length
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"bark-tts: warning: {message}", file=sys.stderr)
        inputs = processor(options.text, voice_preset=voice, max_length=length, device=device)
    return model, inputs


def _speak(options: argparse.Namespace, started: float) -> None:
    from transformers.utils import logging

    progress = False if options.quiet or options.no_progress else None
    if progress is False or not sys.stderr.isatty():
        logging.disable_progress_bar()
    if options.quiet:
        logging.set_verbosity_error()
    model, inputs = _load(options, _device(options.device))
    before = time.perf_counter()
    output = model.generate(
        **inputs,
        **_generation_options(options),
        seed=options.seed,
        progress=progress,
        return_dict_in_generate=True,
    )
    audio = output.audio[0, : int(output.audio_lengths[0])].float().cpu()  # waits for the device
    computed = time.perf_counter() - before
    if not len(audio):
        raise RuntimeError("the model ended before it said anything; try another --seed or a higher --min-eos-p")
    rate = model.generation_config.sample_rate
    audio_files.write_audio(options.output, audio, rate)
    if options.save_voice:
        output.voice_preset(0).save(options.save_voice)
    if not options.quiet:
        seconds = len(audio) / rate
        # standard output that takes the audio takes nothing else
        taken = [
            path for path in (options.output, options.save_voice) if path and output_files.is_standard_output(path)
        ]
        _say(
            f"{options.output}: {seconds:.2f} s at {rate} Hz; real-time factor {computed / seconds:.2f} "
            f"({computed:.2f} s to generate, {time.perf_counter() - started:.2f} s in all)",
            sys.stderr if taken else None,
        )
