"""Writing of wave files: 16 bit, mono, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from torch import Tensor


def write_wav(path: str | os.PathLike[str], audio: Any, sampling_rate: int) -> Path:
    """Writes audio [samples] (or [1, samples]) in [-1, 1] as a 16-bit mono WAV file; louder samples are clipped.

    Raises:
        ValueError: audio of another shape.
        FileNotFoundError: the folder does not exist.
    """
    path = Path(path)
    array = audio.detach().float().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio, np.float32)
    array = array[0] if array.ndim == 2 and len(array) == 1 else array
    if array.ndim != 1:
        raise ValueError(f"audio must have the shape [samples], got {tuple(array.shape)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder {path.parent} does not exist")
    handle, draft = tempfile.mkstemp(suffix=".wav", dir=path.parent)
    os.close(handle)
    try:
        soundfile.write(draft, np.clip(array, -1.0, 1.0), sampling_rate, subtype="PCM_16", format="WAV")
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    return path
