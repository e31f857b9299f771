"""Pieces -> takes: batches of generations, each with its own seed, checked, and said again where they fail."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..audio_files import as_int16
from ..unknown_text import known_text, says_something
from ..voices import VoicePreset
from .alignment import Aligner, Alignment, Word
from .checks import Checked, Doubt, check
from .limits import Limits
from .pieces import Piece

Verify = Callable[[str, np.ndarray, int, str | None], Sequence[Doubt]]
"""Text, audio [samples], its rate and language -> what a recogniser has to say of it."""

_MOST_ROUNDED = 16  # tokens


def batch_size_on(device: str) -> int:
    """Pieces to generate together on a kind of device, "cpu" or "cuda".

    On a CPU 16 are only 6% faster than 8, and take 100 MB more with the embedded checkpoint.
    """
    return 32 if device == "cuda" else 8


@dataclass(frozen=True, eq=False)
class Request:
    """What a piece is asked to be: the piece, its voice, the seed of all pieces, and options of `generate`."""

    piece: Piece
    voice: VoicePreset | None
    seed: int
    options: Mapping[str, Any]

    def key(self) -> dict[str, Any]:
        """What decides the audio beside number and seed, as JSON values."""
        options = json.dumps(dict(self.options), sort_keys=True, default=repr)
        return {"text": self.piece.text, "voice": digest(self.voice), "options": options}


@dataclass(frozen=True, eq=False)
class Finished:
    """A piece that is spoken, the best of its takes.

    Args:
        audio: float32 [samples] without silence at its ends, rounded to 16 bits.
        words: when each word is said; `None` where that is not known.
        doubts: what speaks against it.
        seed: that of the generation.
        takes: how often it was said.
        voice: all tokens of the generation, where something goes on from them.
    """

    audio: np.ndarray
    words: tuple[Word, ...] | None
    doubts: tuple[Doubt, ...]
    seed: int
    takes: int
    voice: VoicePreset | None = None


def is_known(tokenizer: Any, text: str) -> bool:
    """Whether the tokenizer knows any word of a text."""
    known, unknown = known_text(tokenizer, text)
    return not unknown or says_something(tokenizer, known)


def digest(voice: VoicePreset | None) -> str:
    """A short name of a voice's tokens; empty where there is none."""
    if voice is None:
        return ""
    total = hashlib.sha256()
    for part in voice.as_dict().values():
        total.update(repr(tuple(part.shape)).encode() + part.cpu().numpy().astype("<i4").tobytes())
    return total.hexdigest()[:16]


def piece_seed(seed: int, piece: Piece, attempt: int = 0) -> int:
    """The seed of a piece's generation, from that of the whole and its number, or from its own.

    So any piece can be made again alone; attempts after the first have other seeds.
    """
    if piece.seed is not None:
        if attempt == 0:
            return piece.seed
        sequence = np.random.SeedSequence(piece.seed, spawn_key=(attempt,))
    else:
        sequence = np.random.SeedSequence(seed, spawn_key=(piece.number, attempt))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(2))


def rounded(audio: np.ndarray) -> np.ndarray:
    """Audio as 16 bits hold it, float32 [samples]: what is kept on disk and what is not are then equal."""
    return as_int16(audio) / np.float32(32768)


class Speaker:
    """Says pieces with a model.

    Args:
        batch_size: pieces generated together.
        tries: how often a piece that fails its checks is said again, at most.
        verify: a recogniser.
    """

    def __init__(
        self, model: Any, processor: Any, limits: Limits, batch_size: int | None, tries: int, verify: Verify | None
    ) -> None:
        self.model, self.processor, self.limits = model, processor, limits
        self.batch_size = batch_size or batch_size_on(model.device.type)
        self.tries = tries
        self.verify = verify
        self.aligner = Aligner.of(model, processor)
        config = model.generation_config
        self.sampling_rate: int = config.sample_rate
        self.token_rate: float = config.semantic_config.semantic_rate_hz
        self.most_tokens: int = config.semantic_config.max_new_tokens

    def say(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Finished]]:
        """Says all, longest first, and again what fails; yields each as soon as nothing is to be done to it."""
        best: dict[Request, Finished] = {}  # not by number: requests of several texts may come together
        known = [one for one in requests if is_known(self.processor.tokenizer, one.piece.text)]
        for request in requests:
            if request not in known:
                yield request, self.unknown()
        waiting = sorted(known, key=lambda one: (-self.limits.seconds_of(one.piece.text), one.piece.number))
        for attempt in range(self.tries + 1):
            again = []
            for batch in self._batches(waiting):
                for request, take in zip(batch, self._generate(batch, attempt), strict=True):
                    best[request] = better(best.get(request), take, attempt)
                    if self.is_to_be_said_again(best[request], attempt):
                        again.append(request)
                    else:
                        yield request, best.pop(request)
            waiting = again

    def unknown(self) -> Finished:
        """What becomes of a piece of which the tokenizer knows nothing."""
        doubt = Doubt("unknown", "the tokenizer knows nothing of it", 20.0)
        return Finished(np.zeros(0, np.float32), None, (doubt,), 0, self.tries + 1)

    def is_to_be_said_again(self, best: Finished, attempt: int) -> bool:
        """Whether the best of the takes, of which `attempt` came last, is to be followed by another."""
        return penalty(best) > 0 and attempt < self.tries

    def _batches(self, requests: Iterable[Request]) -> Iterator[list[Request]]:
        """Requests that may be generated together: those with the same options."""
        alike: dict[str, list[Request]] = {}
        for request in requests:
            alike.setdefault(request.key()["options"], []).append(request)
        for group in alike.values():
            for start in range(0, len(group), self.batch_size):
                yield group[start : start + self.batch_size]

    def _generate(self, requests: Sequence[Request], attempt: int) -> Iterator[Finished]:
        voices = [request.voice for request in requests]
        inputs = self.processor(
            [request.piece.text for request in requests],
            voice_preset=voices if any(voice is not None for voice in voices) else None,
            device=self.model.device,
        )
        seeds = [piece_seed(request.seed, request.piece, attempt) for request in requests]
        output = self.model.generate(
            **inputs, **requests[0].options, seed=seeds, progress=False, return_dict_in_generate=True
        )
        rows = output.audio.float().cpu().numpy()
        for row, request in enumerate(requests):
            audio = rows[row][: int(output.audio_lengths[row])]
            yield self.check(request, audio, output.voice_preset(row), seeds[row])

    def check(self, request: Request, audio: np.ndarray, made: VoicePreset, seed: int) -> Finished:
        """A take of a piece: its audio [samples] without what is before and after the speech, and what speaks against it."""
        text, tokens = request.piece.text, made.semantic_prompt
        alignment: Alignment | None = None
        if self.aligner is not None:
            alignment = self.aligner(text, tokens, request.voice)
        most = int(
            request.options.get("semantic_max_new_tokens", request.options.get("max_new_tokens", self.most_tokens))
        )
        checked: Checked = check(
            text,
            audio,
            self.sampling_rate,
            tokens.tolist(),
            self.token_rate,
            self.limits,
            len(tokens) >= most,
            alignment,
        )
        doubts = checked.doubts
        if self.verify is not None and len(checked.audio):
            doubts += tuple(self.verify(text, checked.audio, self.sampling_rate, request.piece.language))
        return Finished(rounded(checked.audio), checked.words, doubts, seed, 1, made)


def penalty(finished: Finished) -> float:
    """How bad a take is; 0 for one without a doubt."""
    return sum(doubt.weight for doubt in finished.doubts)


def better(best: Finished | None, take: Finished, attempt: int) -> Finished:
    """The better of a new take, numbered from 0, and the best of those before."""
    if best is None or penalty(take) < penalty(best):
        best = take
    return replace(best, takes=attempt + 1)


def longer(history: VoicePreset | None, made: VoicePreset, seconds: float, config: Any) -> VoicePreset:
    """What a next piece goes on from: the last `seconds` of what was said, as a short piece alone is too little of a voice."""
    if history is not None:
        old, new = history.as_dict(), made.as_dict()
        made = VoicePreset(*(torch.cat([old[name].cpu(), new[name].cpu()], dim=-1) for name in new))
    return made.trim(seconds, config)


def usable(voice: VoicePreset, config: Any) -> VoicePreset | None:
    """What of a generation can be gone on from: all but the rounding of its frames; `None` where there is too little."""
    ratio = config.coarse_acoustics_config.coarse_rate_hz / config.semantic_config.semantic_rate_hz
    n_tokens, n_frames = len(voice.semantic_prompt), voice.fine_prompt.shape[1]
    for kept in range(n_tokens, max(0, n_tokens - _MOST_ROUNDED), -1):
        frames = min(round(kept * ratio), n_frames)
        if not frames:
            break
        part = VoicePreset(
            voice.semantic_prompt[-kept:], voice.coarse_prompt[:, -frames:], voice.fine_prompt[:, -frames:]
        )
        try:
            return part.check(config)
        except ValueError:
            continue
    return None
