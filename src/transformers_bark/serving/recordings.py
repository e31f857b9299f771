"""Recordings that callers ask about: did Bark's codec make them?"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..detection.detect import Detection, detect_pieces, load_detector
from ..detection.reading import read_pieces
from .errors import BadValueError, TooLongError


class Recordings:
    """Judges recordings one after the other; the detector is loaded for the first.

    Args:
        most_seconds: that a recording may last. A small file can hold hours.
    """

    def __init__(self, most_seconds: float) -> None:
        self._most_seconds = most_seconds
        self._lock = threading.Lock()
        self._model: Any = None

    def judge(self, data: bytes) -> Detection:
        """Judges a file in any container that libsndfile or PyAV reads.

        Raises:
            BadValueError: it cannot be read, or holds no audio.
            TooLongError: it lasts longer than it may.
        """
        with self._lock:
            if self._model is None:
                self._model = load_detector()
            try:
                return detect_pieces(self._model, self._pieces(data, self._model.config.sampling_rate))
            except ValueError as error:
                raise BadValueError(f"the recording cannot be judged: {error}", "file", "invalid_audio") from error

    def _pieces(self, data: bytes, rate: int) -> Iterator[np.ndarray]:
        n_samples = 0
        for piece in read_pieces(io.BytesIO(data), rate):
            n_samples += len(piece)
            if n_samples > self._most_seconds * rate:
                raise TooLongError(f"the recording lasts longer than {self._most_seconds:g} s", "file")
            yield piece
