"""Encoded audio as it is made: one stream from its first byte to its trailer, in every format of OpenAI's interface.

Encoders of MP3 and AAC begin with a frame of their own past, and such streams have nowhere to say so. That frame is left out, and
a few milliseconds of silence stand before the speech in its place, so that what any player decodes is as long as the speech within
30 ms. Both are coded at 48 kHz, where a frame, to which the end is filled up, is half as long as at 24 kHz. PCM, WAV, FLAC and
Opus are as long as the speech to the sample.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from ..audio_files import as_int16

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

MEDIA_TYPES: dict[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""Formats, and what HTTP calls them."""

_UNKNOWN = 0xFFFFFFFF  # length of a WAV file that is not finished
_LEAD = 0.004  # seconds of silence before speech in MP3 and AAC


@dataclass(frozen=True)
class _Coding:
    """How PyAV writes a format: container, codec, its rate (None: that of the speech), bits a second, and the frames to leave out."""

    container: str
    codec: str
    rate: int | None = None
    bits: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    muxing: tuple[tuple[str, str], ...] = ()
    own_frames: int = 0


_CODINGS = {
    # without a reservoir of bits each frame can be decoded without those before
    "mp3": _Coding(
        "mp3",
        "libmp3lame",
        48_000,
        96_000,
        (("reservoir", "0"),),
        (("write_xing", "0"), ("id3v2_version", "0")),
        own_frames=1,
    ),
    "aac": _Coding("adts", "aac", 48_000, 96_000, own_frames=1),
    "opus": _Coding("ogg", "libopus", None, 48_000, muxing=(("page_duration", "200000"),)),  # microseconds
    "flac": _Coding("flac", "flac"),
}


class Encoder:
    """One stream of encoded audio.

    Args:
        format: see `MEDIA_TYPES`.
        rate: samples a second of what is added.
        length: samples in all, where that is known before the first byte is given: then heads say it.

    Raises:
        ValueError: another format.
        ImportError: a format that PyAV writes, without PyAV.
    """

    def __init__(self, format: str, rate: int, length: int | None = None) -> None:
        if format not in MEDIA_TYPES:
            raise ValueError(f"`format` must be one of {', '.join(MEDIA_TYPES)}, got {format!r}")
        self._plain = format in ("pcm", "wav")
        self._head = _wav_head(rate, length) if format == "wav" else b""
        self._av = None if self._plain else _AvEncoder(_CODINGS[format], rate, format == "flac" and length is not None)

    def add(self, audio: np.ndarray) -> bytes:
        """Speech, float32 [samples] -> what of the stream is finished with it."""
        if self._av is not None:
            return self._av.add(audio)
        head, self._head = self._head, b""
        return head + as_int16(audio).astype("<i2").tobytes()

    def finish(self) -> bytes:
        """The rest of the stream."""
        if self._av is not None:
            return self._av.finish()
        head, self._head = self._head, b""
        return head

    def close(self) -> None:
        """Lets go of a stream that will not be finished."""
        if self._av is not None:
            self._av.close()


def encode(format: str, audio: np.ndarray, rate: int) -> bytes:
    """A whole file of float32 [samples], whose head says how long it is."""
    encoder = Encoder(format, rate, len(audio))
    return encoder.add(audio) + encoder.finish()


def _wav_head(rate: int, length: int | None) -> bytes:
    size = _UNKNOWN if length is None else 2 * length
    whole = _UNKNOWN if length is None else 36 + size
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", size)


class _Pipe:
    """A file that can only be written to, as a client's connection is."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


class _AvEncoder:
    """By PyAV (FFmpeg)."""

    def __init__(self, coding: _Coding, rate: int, seekable: bool) -> None:
        try:
            import av
        except ImportError as error:
            raise ImportError(f"{coding.codec} needs PyAV: pip install 'transformers-bark[serve]'") from error
        self._av, self._coding, self._rate = av, coding, rate
        self._file: Any = io.BytesIO() if seekable else _Pipe()
        # "bitexact" leaves out times and versions, which would make every stream another
        muxing = {"fflags": "bitexact", **dict(coding.muxing)}
        self._container = av.open(self._file, "w", format=coding.container, options=muxing)
        stream: Any = self._container.add_stream(
            coding.codec, rate=coding.rate or rate, layout="mono", options=dict(coding.options)
        )
        if coding.bits is not None:
            stream.bit_rate = coding.bits
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        self._stream = stream
        self._resampler = None
        if coding.rate not in (None, rate):
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=coding.rate)
        self._left_out = self._added = 0
        self._lead = np.zeros(round(_LEAD * rate) if coding.own_frames else 0, np.float32)

    def add(self, audio: np.ndarray) -> bytes:
        samples = np.concatenate([self._lead, audio]) if len(self._lead) else audio
        self._lead = self._lead[:0]
        if len(samples):
            self._encode(self._frame(samples))
        return self._take()

    def _frame(self, samples: np.ndarray) -> Any:
        if self._coding.codec == "flac":
            frame = self._av.AudioFrame.from_ndarray(as_int16(samples)[None], format="s16", layout="mono")
        else:
            clipped = np.ascontiguousarray(samples[None], np.float32).clip(-1.0, 1.0)
            frame = self._av.AudioFrame.from_ndarray(clipped, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._added, Fraction(1, self._rate)
        self._added += len(samples)
        return frame

    def _encode(self, frame: Any) -> None:
        for part in [frame] if self._resampler is None else self._resampler.resample(frame):
            self._mux(self._stream.encode(part))

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            if self._left_out < self._coding.own_frames:
                self._left_out += 1
            else:
                self._container.mux(packet)

    def _take(self) -> bytes:
        return self._file.take() if isinstance(self._file, _Pipe) else b""

    def finish(self) -> bytes:
        if self._resampler is not None and self._added:
            for part in self._resampler.resample(None):
                self._mux(self._stream.encode(part))
        self._mux(self._stream.encode(None))
        self.close()
        return self._file.take() if isinstance(self._file, _Pipe) else self._file.getvalue()

    def close(self) -> None:
        self._container.close()
