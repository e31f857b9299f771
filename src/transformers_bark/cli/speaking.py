"""What `bark-tts say` does once its arguments are known: reads, loads, speaks, reports."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import audio_files, output_files
from . import models
from .running import Clock, complain, quiet_interrupts, say_line

if TYPE_CHECKING:
    from ..narration import Narration, Report, Script, Spoken

_NARRATED = (
    "continuity",
    "tries",
    "verify",
    "batch_size",
    "work",
    "only",
    "loudness",
    "max_speed",
    "subtitles",
    "split",
)
"""Options that make a short text a narration, too."""

_SHOWN = 60  # characters of a doubtful piece


def speak(options: argparse.Namespace, clock: Clock) -> None:
    """Speaks what the options name."""
    source = models.model_source(options)
    with quiet_interrupts():
        from ..modeling_bark import BarkModel  # noqa: F401 - all that is slow to import
        from ..narration import Narrator  # noqa: F401
        from ..processing_bark import BarkProcessor
    bars = not (options.quiet or options.no_progress) and sys.stderr is not None and sys.stderr.isatty()
    models.set_up_logging(options.quiet, bars)
    processor = BarkProcessor.from_pretrained(source)
    voice = processor.load_voice(options.voice)
    for name in options.cast.values():
        processor.load_voice(name)
    with warnings.catch_warnings():
        models.show_warnings()
        limits = _limits(processor, source)
        script = _read(options, limits)
        if options.dry_run:
            _show(script, limits)
            return
        plain = _plain_text(script, options)
        device = models.device_named(options.device)
        model = models.load_asked(options, source, device, aligned=plain is None)
        if plain is not None:
            _speak_at_once(options, clock, model, processor, plain, voice)
        else:
            _narrate(options, clock, model, processor, script, voice, limits)


def _limits(processor: Any, source: str) -> Any:
    """What the checkpoint can say at once; `None` where that is too little to say anything."""
    from ..generation_configuration_bark import BarkGenerationConfig
    from ..narration import Limits

    try:
        return Limits.of(processor, BarkGenerationConfig.from_pretrained(source))
    except OSError:  # a checkpoint without a generation config is one of the released kind
        return Limits.of(processor)
    except ValueError:
        return None


def _read(options: argparse.Namespace, limits: Any) -> Script:
    """The pieces of the text or file."""
    from ..narration import read

    return read(
        options.text if options.file is None else options.file,
        options.format,
        cast=options.cast,
        voice=_voice_name(options.voice),
        language=options.language,
        limits=limits,
    )


def _voice_name(voice: str | None) -> str | None:
    return None if voice is None else Path(voice).stem if voice.endswith((".npz", ".safetensors")) else voice


def _plain_text(script: Script, options: argparse.Namespace) -> str | None:
    """The text, if it is one generation and nothing more; `None` for a narration."""
    if options.output.suffix.lower() in audio_files.MP4_FILES:
        return None
    if any(getattr(options, name) not in (None, False) for name in _NARRATED) or options.resume:
        return None
    if not script.pieces:  # it says nothing that could be cut
        return options.text if options.text is not None else script.text
    if not script.is_plain:
        return None
    return options.text if options.text is not None else script.text


def generation_options(options: argparse.Namespace) -> dict[str, Any]:
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


def _progress(options: argparse.Namespace) -> bool | None:
    return False if options.quiet or options.no_progress else None


def _speak_at_once(
    options: argparse.Namespace, clock: Clock, model: Any, processor: Any, text: str, voice: Any
) -> None:
    """One text in one generation."""
    from ..audio_streams import Tags, write_audio

    length = model.generation_config.semantic_config.max_input_semantic_length
    inputs = processor(text, voice_preset=voice, max_length=length, device=model.device)
    before = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a text that gave no audio, which is an error here
        output = model.generate(
            **inputs,
            **generation_options(options),
            seed=options.seed,
            progress=_progress(options),
            return_dict_in_generate=True,
        )
    audio = output.audio[0, : int(output.audio_lengths[0])].float().cpu()  # waits for the device
    computed = time.perf_counter() - before
    if not len(audio):
        raise RuntimeError("the model ended before it said anything; try another --seed or a higher --min-eos-p")
    rate = model.generation_config.sample_rate
    tags = Tags() if options.no_tags else Tags.synthetic(model.config._name_or_path)
    write_audio(options.output, audio, rate, tags)
    if options.save_voice:
        output.voice_preset(0).save(options.save_voice)
    _report(options, clock, f"{options.output}: {len(audio) / rate:.2f} s at {rate} Hz", len(audio) / rate, computed)


def _report(
    options: argparse.Namespace, clock: Clock, what: str, seconds: float, computed: float, more: str = ""
) -> None:
    if options.quiet:
        return
    # standard output that takes the audio takes nothing else
    taken = [path for path in (options.output, options.save_voice) if path and output_files.is_standard_output(path)]
    say_line(
        f"{what}; real-time factor {computed / max(seconds, 1e-9):.2f} "
        f"({computed:.2f} s to generate, {clock.seconds:.2f} s in all){more}",
        sys.stderr if taken else None,
    )


def _narrate(
    options: argparse.Namespace, clock: Clock, model: Any, processor: Any, script: Script, voice: Any, limits: Any
) -> None:
    """A text of any length, piece by piece."""
    from ..narration import Narrator

    before = time.perf_counter()
    narrator = Narrator(model, processor, batch_size=options.batch_size, limits=limits, verify=options.verify)
    with _work_folder(options) as (work, resume):
        narration = narrator(
            script,
            voice,
            seed=options.seed,
            continuity=options.continuity or "preset",
            tries=2 if options.tries is None else options.tries,
            loudness=options.loudness,
            max_speed=options.max_speed or 1.0,
            work=work,
            resume=resume,
            only=options.only or (),
            progress=_progress(options),
            **generation_options(options),
        )
        report = _write(options, narration)
    if options.save_voice:
        _save_voice(narration, options.save_voice)
    computed = time.perf_counter() - before
    files = str(options.output) if len(report.files) == 1 else f"{report.files[0]} to {report.files[-1].name}"
    made = f"{report.pieces} pieces" if report.pieces != 1 else "1 piece"
    if report.made < report.pieces:
        made += f", {report.made} of them made now"
    rate = model.generation_config.sample_rate
    what = f"{files}: {report.seconds:.2f} s at {rate} Hz in {made}"
    _report(options, clock, what, report.seconds, computed, f"; seed {report.seed}")
    _tell_doubts(options, report)


def _save_voice(narration: Narration, path: Path) -> None:
    if narration.voice is None:
        raise ValueError("the narrator has said nothing, so there is no voice to save")
    narration.voice.save(path)


@contextlib.contextmanager
def _work_folder(options: argparse.Namespace) -> Iterator[tuple[Path | None, bool]]:
    """The folder of finished pieces, and whether to go on with what it holds.

    Without --work it is beside the output, is gone on with by the same command, and is removed when all is written.
    """
    if options.work is not None or output_files.is_standard_output(options.output) or not _is_regular(options.output):
        yield options.work, options.resume
        return
    folder = options.output.with_name(f".{options.output.name}.work")
    if (folder / "manifest.jsonl").is_file() and not options.quiet:
        complain(f"going on with the finished pieces in {folder}")
    try:
        yield folder, True
    except BaseException:
        if (folder / "pieces").is_dir() and any((folder / "pieces").iterdir()):
            complain(f"finished pieces are kept in {folder}: the same command goes on with them")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _is_regular(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _write(options: argparse.Namespace, narration: Narration) -> Report:
    """Writes the narration; by way of a WAV file where it cannot be written as it is made."""
    from ..audio_streams import ENDINGS

    about: dict[str, Any] = {
        "subtitles": options.subtitles,
        "subtitles_by": options.subtitles_by or "sentence",
        "split": options.split,
        "tags": not options.no_tags,
    }
    path = options.output
    streamed = not output_files.is_standard_output(path) and _is_regular(path) and not path.is_symlink()
    if streamed and path.suffix.lower() in ENDINGS:
        return narration.write(path, **about)
    if options.split is not None:
        raise ValueError(f"--split writes {', '.join(ENDINGS)}, got {path}")
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, "speech.wav")
        report = narration.write(draft, **about)
        if audio_files.audio_format(path) == audio_files.FORMATS[".wav"]:
            with output_files.open_output(path) as target, draft.open("rb") as file:
                shutil.copyfileobj(file, target)
        else:
            import soundfile

            audio_files.write_audio(path, *soundfile.read(draft, dtype="float32"))
    return report


def _tell_doubts(options: argparse.Namespace, report: Report) -> None:
    """A line for each piece that may not have been said as it should."""
    for spoken in report.doubtful:
        complain(f"warning: piece {spoken.piece.number} is doubtful: {_reasons(spoken)}: {_short(spoken.piece.text)!r}")
    if report.doubtful and not options.quiet:
        listed = ",".join(str(spoken.piece.number) for spoken in report.doubtful)
        work = options.work if options.work is not None else "DIR"
        first = "" if options.work is not None else "run with --work DIR, then "
        complain(
            f"to say {'it' if len(report.doubtful) == 1 else 'them'} again: {first}add --work {work} --only {listed}"
        )


def _reasons(spoken: Spoken) -> str:
    return ", ".join(doubt.reason for doubt in spoken.doubts if doubt.weight)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _show(script: Script, limits: Any) -> None:
    """The pieces, and how long they will last."""
    from ..narration.joining import pause_after
    from ..narration.limits import Limits

    seconds_of = (limits or Limits()).seconds_of
    total, chapter = script.lead_pause or 0.0, None
    for piece in script:
        if piece.chapter != chapter:
            chapter = piece.chapter
            say_line(f"# {chapter}")
        seconds = seconds_of(piece.text)
        who = " ".join(part for part in (piece.speaker, f"({piece.voice})" if piece.voice else None) if part)
        say_line(f"{piece.number:5}  {seconds:5.1f} s  {f'{who}: ' if who else ''}{' '.join(piece.text.split())}")
        total += seconds + pause_after(piece)
    for note in script.notes:
        say_line(f"not spoken: {note}")
    voices = ", ".join(voice or "the narrator's" for voice in script.voices)
    say_line(f"{len(script)} pieces, about {_duration(total)}; voices: {voices}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
