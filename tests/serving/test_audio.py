"""Every format decodes to the speech that was given, whole or in bits of any size."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import soundfile

from transformers_bark.serving.audio import MEDIA_TYPES, Encoder, encode

RATE = 24_000
FORMATS = tuple(MEDIA_TYPES)
LENGTHS = (2_400, 24_000, 75_301, *range(30_000, 30_600, 97))


def tone(length: int) -> np.ndarray:
    time = np.arange(length) / RATE
    return (0.4 * np.sin(2 * np.pi * 220 * time) * np.hanning(length + 2)[1:-1]).astype(np.float32)


def stream(format: str, audio: np.ndarray, bit: int) -> bytes:
    encoder = Encoder(format, RATE)
    parts = [encoder.add(audio[start : start + bit]) for start in range(0, len(audio), bit)]
    return b"".join([*parts, encoder.finish()])


def decode(format: str, data: bytes) -> np.ndarray:
    """As FFmpeg's players hear it, float32 [samples] at the speech's rate."""
    if format == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(io.BytesIO(data)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_stream_is_as_long_as_the_speech(format: str, streamed: bool) -> None:
    """No first or last milliseconds are lost, and no more than 30 ms are added, for any length."""
    for length in LENGTHS:
        audio = tone(length)
        heard = decode(format, stream(format, audio, 7001) if streamed else encode(format, audio, RATE))
        over = len(heard) - length
        assert -1 <= over <= 0.030 * RATE, (length, over)
        if format in ("pcm", "wav", "flac", "opus"):
            assert over == 0, (length, over)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_decoded_is_what_was_said(format: str) -> None:
    """In its place, to its end, and without a click where bits meet."""
    audio = tone(40_000)
    heard = decode(format, stream(format, audio, 3_333))
    span = len(audio) - 1_000
    shifts = range(0, max(1, len(heard) - span), 1)
    errors = [float(np.abs(heard[shift : shift + span] - audio[:span]).max()) for shift in shifts]
    assert min(errors) < (0.001 if format in ("pcm", "wav", "flac") else 0.05)
    steps = np.abs(np.diff(heard)).max()
    assert steps < 1.5 * np.abs(np.diff(audio)).max()


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_do_not_depend_on_how_speech_comes(format: str) -> None:
    audio = tone(50_000)
    assert stream(format, audio, 480) == stream(format, audio, 20_011)


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_the_head_of_a_whole_file_says_how_long_it_is(format: str) -> None:
    audio = tone(30_001)
    data = encode(format, audio, RATE)
    read, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == RATE and len(read) == soundfile.info(io.BytesIO(data)).frames == len(audio)
    assert np.abs(read - audio).max() < 1e-4


def test_a_wav_stream_is_read_to_its_end() -> None:
    read, _ = soundfile.read(io.BytesIO(stream("wav", tone(30_001), 999)))
    assert len(read) == 30_001


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="'ogg'"):
        Encoder("ogg", RATE)
