"""Audio files that are written as the audio is made: formats by ending, tags, chapters.

A file is whole or not there (`output_files`). The same samples and tags give the same bytes in every format.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import soundfile

from . import audio_files, output_files
from .audio_files import FORMATS, MP4_FILES

SOUND_FILES = {ending: FORMATS[ending] for ending in (".wav", ".flac", ".mp3", ".ogg", ".opus")}
"""Formats of libsndfile that are written as the audio is made, by ending."""

ENDINGS = (*SOUND_FILES, *MP4_FILES)

_AAC_BITS = 64_000
_BLOCK = 16_384  # samples at once


@dataclass(frozen=True)
class Tags:
    """What a file says of itself, in the tags that players show; `None` leaves one out."""

    title: str | None = None
    artist: str | None = None
    software: str | None = None
    comment: str | None = None

    @classmethod
    def synthetic(cls, model: str | None, title: str | None = None, artist: str | None = None) -> Tags:
        """Tags that say which model made this speech, where that is known, and that it is synthetic.

        Args:
            model: name on the Hub or folder; of a folder only the last part is told.
        """
        from . import __version__

        named = "" if not model else f"; model: {Path(model).name if os.path.isabs(model) else model}"
        return cls(title, artist, f"transformers-bark {__version__}", f"Synthetic speech{named}")

    def as_dict(self) -> dict[str, str]:
        """The tags that are there, by name."""
        return {name: value for name, value in vars(self).items() if value}


class AudioStream(Protocol):
    """A file that is being written."""

    def write(self, audio: np.ndarray) -> None:
        """Appends audio, float32 [samples] in [-1, 1]; what is louder is clipped."""

    def chapter(self, title: str) -> None:
        """What follows is a chapter of this title. Formats without chapters leave it out."""

    def close(self) -> None:
        """Finishes the file."""


def check_ending(path: str | os.PathLike[str]) -> str:
    """The ending of an audio file, in lower case.

    Raises:
        ValueError: no format has that ending.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"audio files end in {', '.join(ENDINGS)}, got {os.fspath(path)!r}")
    return ending


@contextmanager
def open_audio(
    path: str | os.PathLike[str], sampling_rate: int, tags: Tags | None = None, draft: str | None = None
) -> Iterator[AudioStream]:
    """Opens a mono file, in the format that its ending names; it is there when the block ends without an error.

    Args:
        path: as for `output_files.open_output`; `-` is WAV on standard output.
        draft: the file's name until then, in the same folder; what a killed run has left under that name is written over.

    Raises:
        ValueError: an unknown ending.
        OSError: the file cannot be written, or the disk is full.
        ImportError: M4A or M4B without PyAV.
    """
    ending = ".wav" if os.fspath(path) == output_files.STANDARD_OUTPUT else check_ending(path)
    with output_files.open_output(path, draft=draft) as file:
        kind: Any = _Mp4Stream if ending in MP4_FILES else _SoundFileStream
        stream = kind(file, ending, sampling_rate, tags or Tags())
        try:
            yield stream
        except BaseException:
            with suppress(Exception):  # lets go of the file, whatever the disk says
                stream.close()
            raise
        stream.close()


def write_audio(path: str | os.PathLike[str], audio: Any, sampling_rate: int, tags: Tags) -> Path:
    """`audio_files.write_audio` with tags, in the formats that have them here; the others are written without."""
    ending = audio_files.audio_ending(path)
    output_files.write_bytes(path, encode_audio(ending, audio, sampling_rate, tags))
    return Path(path)


def encode_audio(ending: str, audio: Any, sampling_rate: int, tags: Tags) -> bytes:
    """The bytes that `write_audio` writes to a file of this ending."""
    samples = audio_files.as_samples(audio)
    if ending not in SOUND_FILES:
        return audio_files.encode(samples, sampling_rate, *audio_files.FORMATS[ending])
    buffer = io.BytesIO()
    try:
        stream = _SoundFileStream(buffer, ending, sampling_rate, tags)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{ending} cannot hold audio of {sampling_rate} samples a second ({error})") from error
    stream.write(samples)
    stream.close()
    return buffer.getvalue()


class _Blocks:
    """Samples in blocks of one length: what some encoders make of them depends on how they are cut."""

    def __init__(self, write: Callable[[np.ndarray], None]) -> None:
        self._write = write
        self._rest = np.zeros(0, np.float32)

    def add(self, audio: np.ndarray) -> None:
        """Adds audio [samples]; what is louder than 1 is clipped."""
        samples = np.concatenate([self._rest, np.clip(audio, -1.0, 1.0).astype(np.float32, copy=False)])
        for start in range(0, len(samples) - _BLOCK + 1, _BLOCK):
            self._write(samples[start : start + _BLOCK])
        self._rest = samples[len(samples) // _BLOCK * _BLOCK :].copy()

    def finish(self) -> None:
        """Writes what is left."""
        if len(self._rest):
            self._write(self._rest)
        self._rest = self._rest[:0]


class _Shifted:
    """A file as libsndfile sees it: from an offset on, and with the first error of a write kept, which libsndfile hides."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        self._file, self._offset = file, offset
        self.error: OSError | None = None
        self.seek(0)

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            return 0

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(place + self._offset if whence == os.SEEK_SET else place, whence) - self._offset
        except OSError as error:  # what was written before goes to the disk now
            self.error = self.error or error
            return self.tell()

    def tell(self) -> int:
        return self._file.tell() - self._offset

    def check(self) -> None:
        """Raises what a write has raised."""
        if self.error is not None:
            raise self.error


class _SoundFileStream:
    """By libsndfile: WAV, FLAC, MP3, Ogg Vorbis and Opus."""

    def __init__(self, file: IO[bytes], ending: str, sampling_rate: int, tags: Tags) -> None:
        container, coding = SOUND_FILES[ending]
        self._is_ogg = container == "OGG"
        self._bytes = file
        head = _id3(tags.as_dict()) if container == "MP3" and tags.as_dict() else b""  # libsndfile would write Latin-1
        file.write(head)
        self._shifted = _Shifted(file, len(head))
        self._file = soundfile.SoundFile(self._shifted, "w", sampling_rate, 1, coding, format=container)
        self._blocks = _Blocks(self._write)
        for name, value in tags.as_dict().items() if not head else ():
            setattr(self._file, name, value)

    def write(self, audio: np.ndarray) -> None:
        self._blocks.add(audio)

    def _write(self, block: np.ndarray) -> None:
        try:
            self._file.write(block)
        except (soundfile.SoundFileError, AssertionError):  # the latter where less was written than given
            self._shifted.check()
            raise
        self._shifted.check()

    def chapter(self, title: str) -> None:
        pass

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            self._blocks.finish()
        finally:
            self._file.close()
        self._shifted.check()
        if self._is_ogg:
            self._bytes.flush()
            _number_streams(self._bytes)


class _Mp4Stream:
    """By PyAV: AAC in MP4, with chapters."""

    def __init__(self, file: IO[bytes], ending: str, sampling_rate: int, tags: Tags) -> None:
        try:
            import av
        except ImportError as error:
            raise ImportError(f"{ending} files need PyAV: pip install 'transformers-bark[audio]'") from error
        self._av = av
        self._rate = sampling_rate
        # "bitexact" leaves out times and versions, which would make every file another
        self._container = av.open(file, "w", format="ipod", options={"fflags": "bitexact"})
        said = tags.as_dict()
        software = said.pop("software", None)
        if software:  # "bitexact" leaves out its own tag as well
            said["comment"] = "; ".join(part for part in (said.get("comment"), f"software: {software}") if part)
        self._container.metadata.update(said)
        self._stream: Any = self._container.add_stream("aac", rate=sampling_rate, layout="mono")
        self._stream.bit_rate = _AAC_BITS
        self._stream.codec_context.flags |= av.codec.context.Flags.bitexact
        self._blocks = _Blocks(self._write)
        self._done = self._encoded = 0
        self._chapters: list[tuple[str, int]] = []
        self._closed = False

    def write(self, audio: np.ndarray) -> None:
        self._done += len(audio)
        self._blocks.add(audio)

    def _write(self, block: np.ndarray) -> None:
        frame = self._av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._encoded, Fraction(1, self._rate)
        self._encoded += len(block)
        self._container.mux(self._stream.encode(frame))

    def chapter(self, title: str) -> None:
        self._chapters.append((title, self._done))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._blocks.finish()
        self._container.mux(self._stream.encode(None))
        ends = [*(start for _, start in self._chapters[1:]), self._done][: len(self._chapters)]
        self._container.set_chapters(
            [
                {
                    "id": number,
                    "start": start,
                    "end": end,
                    "time_base": Fraction(1, self._rate),
                    "metadata": {"title": title},
                }
                for number, ((title, start), end) in enumerate(zip(self._chapters, ends, strict=True))
            ]
        )
        self._container.close()


_ID3_FRAMES = {"title": b"TIT2", "artist": b"TPE1", "software": b"TSSE", "comment": b"COMM"}


def _id3(tags: Mapping[str, str]) -> bytes:
    """Tags as ID3 2.4, in UTF-8."""
    frames = b""
    for name, value in tags.items():
        utf8 = b"\x03"
        body = utf8 + (b"eng\x00" if name == "comment" else b"") + value.encode()
        frames += _ID3_FRAMES[name] + _id3_size(len(body)) + b"\x00\x00" + body
    return b"ID3\x04\x00\x00" + _id3_size(len(frames)) + frames


def _id3_size(size: int) -> bytes:
    """A size in four bytes of seven bits."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


_PAGE = struct.Struct("<4sBBqIIIB")
"""An Ogg page's head: mark, version, kind, position, number of the stream, of the page, checksum, and how many segments."""

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _number_streams(file: IO[bytes]) -> None:
    """Gives the streams of an Ogg file, whose numbers are random, the number 1 and those after it."""
    numbers: dict[int, int] = {}
    start = file.seek(0)
    while len(head := file.read(_PAGE.size)) == _PAGE.size:
        mark, version, kind, position, stream, page, _, n_segments = _PAGE.unpack(head)
        if mark != b"OggS":
            raise ValueError(f"byte {start} begins no Ogg page")
        stream = numbers.setdefault(stream, len(numbers) + 1)
        segments = file.read(n_segments)
        body = file.read(sum(segments))
        fields = (mark, version, kind, position, stream, page)
        checksum = _ogg_checksum(_PAGE.pack(*fields, 0, n_segments) + segments + body)
        file.seek(start)
        file.write(_PAGE.pack(*fields, checksum, n_segments))
        start += _PAGE.size + n_segments + len(body)
        file.seek(start)


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 as Ogg has it: zlib's polynomial, but the highest bit first, from 0 and not inverted."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


__all__ = ["ENDINGS", "AudioStream", "Tags", "check_ending", "open_audio", "write_audio"]
