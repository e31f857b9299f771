"""Any length from a function that says one piece: for models that are not one `BarkModel`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .checks import check
from .joining import Joiner, audio_of
from .limits import Limits
from .pieces import Piece
from .readers import read
from .speaking import Finished

Say = Callable[[str, Any], tuple[Any, np.ndarray]]
"""A text and a voice -> the whole generation, which can be a voice, and its audio, float32 [samples]."""


def speak(text: str, voice: Any, say: Say, limits: Limits, sampling_rate: int, token_rate: float) -> np.ndarray:
    """Audio of a text of any length, float32 [samples]: its pieces one after the other, each from the same voice.

    Without a voice, the first piece's generation is the voice.

    Raises:
        ValueError: there is nothing to say.
    """
    script = read(text, limits=limits)
    if not len(script):
        raise ValueError("there is nothing to say in the text")

    def finished() -> Iterator[tuple[Piece, Finished]]:
        chosen = voice
        for piece in script:
            made, audio = say(piece.text, chosen)
            chosen = made if chosen is None else chosen
            checked = check(piece.text, audio, sampling_rate, [], token_rate, limits)
            yield piece, Finished(checked.audio, None, checked.doubts, 0, 1)

    return np.concatenate(audio_of(Joiner(sampling_rate).join(finished(), script.lead_pause or 0.0)))
