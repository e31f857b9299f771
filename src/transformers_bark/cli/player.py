"""Plays audio with whatever player the machine has."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .. import audio_files

_PLAYERS = {
    "ffplay": ("-nodisp", "-autoexit", "-loglevel", "error"),
    "pw-play": (),
    "paplay": (),
    "aplay": ("-q",),
    "afplay": (),
    "play": ("-q",),
    "mpv": ("--no-video", "--really-quiet"),
}
"""Players of FFmpeg, PipeWire, PulseAudio, ALSA, macOS, SoX and mpv, and their arguments before the file."""

NAMES = tuple(_PLAYERS)


def find() -> list[str] | None:
    """The command of the first player that is there, without the file; `None` where there is none."""
    for name, arguments in _PLAYERS.items():
        path = shutil.which(name)
        if path is not None:
            return [path, *arguments]
    return None


def play(audio: Any, sampling_rate: int) -> None:
    """Plays audio [samples], and waits for its end.

    Raises:
        RuntimeError: there is no player, or it failed.
    """
    command = find()
    if command is None:
        raise RuntimeError(f"no player is there: install one of {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        file = audio_files.write_wav(Path(folder, "speech.wav"), audio, sampling_rate)
        done = subprocess.run([*command, str(file)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {' '.join(done.stderr.split()) or done.returncode}")
