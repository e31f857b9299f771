"""An audio player that plays what is yielded, without the `ffmpeg` program.

Gradio encodes streamed audio with that program, which is not there everywhere; the service's encoder does the same with PyAV, whose
wheels bring FFmpeg's libraries. Gradio's component asks three methods of its own for the pieces of a stream: these take their place.
"""

from __future__ import annotations

import io
from typing import Any

import anyio
import gradio as gr
import numpy as np
import soundfile
from gradio.audio_stream_encoder import parse_adts_frames

from ..serving.audio import Encoder

_RATE = 48_000  # at which the service codes AAC
_FRAME = 1024  # samples


class AacStreams:
    """Streams that are being encoded, by the name that Gradio gives them.

    Args:
        rate: samples a second of what comes.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._encoders: dict[str, Encoder] = {}

    async def stream_output(self, value: Any, output_id: str, first_chunk: bool) -> tuple[Any, dict[str, Any]]:
        """A piece of audio, float32 [samples] as bytes of a WAV file, or None -> what is sent of it, and the stream's file."""
        file = {
            "path": output_id,
            "is_stream": True,
            "orig_name": "speech.aac",
            "meta": {"_type": "gradio.FileData"},
        }
        if first_chunk:
            self.end_stream_output(output_id)
            self._encoders[output_id] = Encoder("aac", self._rate)
        encoder = self._encoders.get(output_id)
        if value is None or encoder is None:
            return None, file
        data = await anyio.to_thread.run_sync(encoder.add, as_samples(value))
        return _chunk(data), file

    async def flush_stream_output(self, output_id: str) -> Any:
        """The rest of a stream."""
        encoder = self._encoders.pop(output_id, None)
        return None if encoder is None else _chunk(await anyio.to_thread.run_sync(encoder.finish))

    def end_stream_output(self, output_id: str) -> None:
        """Lets go of a stream that will not be finished."""
        encoder = self._encoders.pop(output_id, None)
        if encoder is not None:
            encoder.close()


def _chunk(data: bytes) -> dict[str, Any] | None:
    frames, _ = parse_adts_frames(data)
    if not frames:
        return None
    return {"data": b"".join(frames), "duration": len(frames) * _FRAME / _RATE, "extension": ".aac"}


def as_bytes(audio: np.ndarray, rate: int) -> bytes:
    """Audio float32 [samples] -> what a handler yields for the player: a WAV file of the same floats."""
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def as_samples(data: bytes) -> np.ndarray:
    """The samples of `as_bytes`."""
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]


def streamed_audio(rate: int, **settings: Any) -> Any:
    """`gr.Audio(streaming=True)` that plays pieces of `as_bytes` as they are yielded."""
    player = gr.Audio(streaming=True, interactive=False, **settings)
    streams = AacStreams(rate)
    for name in ("stream_output", "flush_stream_output", "end_stream_output"):
        setattr(player, name, getattr(streams, name))
    return player
