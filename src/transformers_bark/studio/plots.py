"""Pictures of a take, as HTML that takes its colours from the page: waveform, mel spectrogram, tokens, probability over time.

Lines are SVG, which follows the page's theme; what has a value a pixel is a PNG of one byte a pixel inside the page.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..detection.detect import Detection
from ..narration import Spoken
from ..narration.subtitles import cues_of
from ..voices import VoicePreset

_COLUMNS = 480  # of the waveform and the spectrogram
_MEL_BANDS = 80
_MEL_RANGE = 70.0  # dB that are told apart
_TOKEN_SECONDS = 30.0  # of tokens that are shown
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)

_MOSS = ((247, 245, 239), (201, 214, 190), (120, 163, 125), (48, 102, 82), (16, 42, 42))
"""From silence to the loudest, light to dark."""

_TOKENS = ((34, 66, 58), (58, 110, 86), (124, 160, 110), (206, 196, 140), (222, 150, 94), (168, 84, 66))
"""Ids have no order to speak of: neighbours on the palette are neighbours by number, and no more."""


def waveform(audio: np.ndarray, rate: int) -> str:
    """The least and the greatest sample of each column."""
    n_columns = min(_COLUMNS, max(1, len(audio)))
    parts = np.array_split(np.clip(audio, -1, 1), n_columns)
    high = [50 - 48 * float(part.max(initial=0.0)) for part in parts]
    low = [50 - 48 * float(part.min(initial=0.0)) for part in parts]
    points = [f"{x},{y:.1f}" for x, y in enumerate(high)] + [f"{x},{y:.1f}" for x, y in reversed(list(enumerate(low)))]
    picture = (
        f'<svg viewBox="0 0 {n_columns} 100" preserveAspectRatio="none" role="img" aria-label="Waveform">'
        f'<line x1="0" x2="{n_columns}" y1="50" y2="50" class="axis"/><polygon points="{" ".join(points)}"/></svg>'
    )
    return _figure("Waveform", picture, len(audio) / rate, "wave", seek=True)


def mel_spectrogram(audio: np.ndarray, rate: int) -> str:
    """Energy in decibels of 80 mel bands over time."""
    levels = mel_levels(audio, rate)
    image = Image.fromarray(np.round(levels[::-1] * 255).astype(np.uint8), mode=None).convert("P")
    image.putpalette(_palette(_MOSS))
    top = f"{rate / 2000:g} kHz"
    return _figure(
        "Mel spectrogram", _png(image, "Mel spectrogram"), len(audio) / rate, "mel", top=top, bottom="0", seek=True
    )


def mel_levels(audio: np.ndarray, rate: int) -> np.ndarray:
    """float [band, column] from 0, 70 dB below the loudest, to 1."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    window = 1024
    hop = max(240, math.ceil(len(audio) / _COLUMNS))
    filters = mel_filter_bank(window // 2 + 1, _MEL_BANDS, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    padded = np.pad(audio.astype(np.float64), (0, max(0, window - len(audio))))
    shape = window_function(window, "hann")
    power: Any = spectrogram(padded, shape, window, hop, power=2.0, mel_filters=filters, mel_floor=1e-10)
    levels = 10 * np.log10(power)
    return np.clip((levels - levels.max()) / _MEL_RANGE + 1, 0, 1)


def tokens(parts: Sequence[VoicePreset], config: Any) -> str:
    """The tokens of the three stages, those of the pieces one after the other."""
    semantic = np.concatenate([part.semantic_prompt.numpy() for part in parts])[None]
    coarse = np.concatenate([part.coarse_prompt.numpy() for part in parts], axis=1)
    fine = np.concatenate([part.fine_prompt.numpy() for part in parts], axis=1)
    vocabulary, size = config.semantic_config.semantic_vocab_size, config.codebook_size
    rate, frames = config.semantic_config.semantic_rate_hz, config.coarse_acoustics_config.coarse_rate_hz
    shown = (
        ("Semantic", f"what is said: {rate:g} a second, {vocabulary:,} kinds", semantic, rate, vocabulary),
        ("Coarse", f"{len(coarse)} codebooks: {frames:g} a second, {size:,} kinds", coarse, frames, size),
        ("Fine", f"all {len(fine)} codebooks, from which the codec makes the audio", fine, frames, size),
    )
    return "".join(_token_figure(*one) for one in shown)


def _token_figure(name: str, about: str, ids: np.ndarray, rate: float, size: int) -> str:
    """ids [codebook, step] -> a pixel a token, the first codebook on top."""
    n_all = ids.shape[1]
    ids = ids[:, : round(_TOKEN_SECONDS * rate)]
    image = Image.fromarray((ids * 255 // max(1, size - 1)).astype(np.uint8), mode=None).convert("P")
    image.putpalette(_palette(_TOKENS))
    cut = f"; the first {_TOKEN_SECONDS:g} s" if ids.shape[1] < n_all else ""
    title = f"{name} <span>{n_all * len(ids):,} tokens · {html.escape(about)}{cut}</span>"
    picture = _png(image, f"{name} tokens, {len(ids)} x {ids.shape[1]}", style=f"--rows: {len(ids)}")
    ends = {} if len(ids) == 1 else {"top": "1", "bottom": str(len(ids))}
    return _figure(title, picture, ids.shape[1] / rate, "tokens", seek=False, **ends)


def words(spoken: Sequence[Spoken]) -> str:
    """What was said, each word with its time, so that the page can show where the speech is."""
    said = []
    speaker = None
    for one in spoken:
        if one.piece.speaker and one.piece.speaker != speaker:
            speaker = one.piece.speaker
            said.append(f'<b class="speaker">{html.escape(speaker)}</b>')
        for cue in cues_of(one, "word"):
            said.append(f'<span data-start="{cue.start:.3f}" data-end="{cue.end:.3f}">{html.escape(cue.text)}</span>')
    return f'<p class="words" dir="auto">{" ".join(said)}</p>'


def probability(found: Detection) -> str:
    """The probability of each second, and a line for that of the whole."""
    values = [float(value) for value in found.seconds]
    n = len(values)
    bars = "".join(
        f'<rect x="{x}" width="1" y="{100 - 100 * value:.2f}" height="{max(0.6, 100 * value):.2f}"/>'
        for x, value in enumerate(values)
    )
    lines = "".join(f'<line x1="0" x2="{n}" y1="{y}" y2="{y}" class="axis"/>' for y in (0, 50, 100))
    whole = 100 - 100 * found.probability
    picture = (
        f'<svg viewBox="0 0 {n} 100" preserveAspectRatio="none" role="img" aria-label="Probability of each second">'
        f'{lines}{bars}<line x1="0" x2="{n}" y1="{whole:.2f}" y2="{whole:.2f}" class="whole"/></svg>'
    )
    title = "Probability of each second <span>by itself; the line: of the whole recording</span>"
    return _figure(title, picture, max(found.duration, float(n)), "probability", top="1", middle="½", bottom="0")


def _figure(title: str, picture: str, seconds: float, kind: str, *, seek: bool = False, **labels: str) -> str:
    """A picture with its title, labels at its left side, and a line of time."""
    left = "".join(f'<i class="{place}">{html.escape(text)}</i>' for place, text in labels.items())
    # a click goes there in the player, and a line follows it: the page's script does both
    more = f' data-seconds="{seconds:.3f}" tabindex="-1"' if seek else ""
    head = '<span class="playhead" hidden></span>' if seek else ""
    return (
        f'<figure class="picture {kind}"><figcaption>{title}</figcaption>'
        f'<div class="canvas"{more}>{left}{picture}{head}</div><div class="time">{_time_marks(seconds)}</div></figure>'
    )


def _time_marks(seconds: float) -> str:
    step = next((step for step in _STEPS if seconds / step <= 6), 3600.0)
    marks = [index * step for index in range(math.floor(seconds / step + 1e-9) + 1)]
    return "".join(
        f'<i style="left:{100 * at / max(seconds, 1e-9):.2f}%">{clock(at, step)}</i>'
        for at in marks
        if at < seconds * 0.97
    )


def clock(seconds: float, step: float = 1.0) -> str:
    """As in 0.5, 7 s or 1:07."""
    if seconds >= 60:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
    return f"{seconds:.1f} s" if step < 1 else f"{seconds:.0f} s"


def _palette(colours: Sequence[tuple[int, int, int]]) -> list[int]:
    """256 colours between some."""
    at = np.linspace(0, len(colours) - 1, 256)
    channels = [np.interp(at, range(len(colours)), [colour[channel] for colour in colours]) for channel in range(3)]
    return [int(value) for value in np.round(np.stack(channels, axis=1)).reshape(-1)]


def _png(image: Image.Image, about: str, style: str = "") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(about)}" style="{style}" src="data:image/png;base64,{data}">'
