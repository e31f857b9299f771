"""Every token offset, rate, special token and interleaving rule of Bark, in one place.

The constants are those of the released models; they are only the defaults of the generation configs. The functions take
sizes as arguments, so a checkpoint with other vocabularies or rates follows the same rules.

Sources: the original library's `generation.py` and the Hub's `generation_config.json` of `suno/bark`.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor

SEMANTIC_VOCAB_SIZE = 10_000
SEMANTIC_RATE_HZ = 49.9
TEXT_ENCODING_OFFSET = 10_048
TEXT_PAD_TOKEN = 129_595
SEMANTIC_INFER_TOKEN = 129_599
MAX_TEXT_LENGTH = 256
MAX_SEMANTIC_TOKENS = 768
MIN_EOS_P = 0.2

COARSE_SEMANTIC_PAD_TOKEN = 12_048
COARSE_INFER_TOKEN = 12_050
COARSE_RATE_HZ = 75
CODEBOOK_SIZE = 1024
N_COARSE_CODEBOOKS = 2
MAX_COARSE_INPUT_LENGTH = 256
MAX_COARSE_HISTORY = 630
SLIDING_WINDOW_LEN = 60
COARSE_HISTORY_CUT = 2
"""Tokens dropped from the end of the coarse history: the original does so for time alignment ("sounds better")."""

N_FINE_CODEBOOKS = 8
MAX_FINE_HISTORY_LENGTH = 512
MAX_FINE_INPUT_LENGTH = 1024

SAMPLE_RATE = 24_000

TEMPERATURE = 0.7
FINE_TEMPERATURE = 0.5


class SemanticRates(Protocol):
    """What the rules here read of a semantic generation config."""

    semantic_rate_hz: float


class CoarseRates(Protocol):
    """What the rules here read of a coarse generation config."""

    coarse_rate_hz: float
    n_coarse_codebooks: int


def semantic_to_coarse_ratio(semantic: SemanticRates, coarse: CoarseRates) -> float:
    """Coarse tokens (all codebooks counted) per semantic token."""
    return coarse.coarse_rate_hz / semantic.semantic_rate_hz * coarse.n_coarse_codebooks


def n_coarse_tokens(n_semantic: int, ratio: float, n_codebooks: int) -> int:
    """Coarse tokens that `n_semantic` semantic tokens ask for: whole frames, rounded down."""
    return int(round(math.floor(n_semantic * ratio / n_codebooks) * n_codebooks))


def tokens_past(seconds: float, rate: float, most: int) -> int:
    """The number of tokens, `rate` a second, that first exceed `seconds`; `most` at most.

    Durations are added up token by token, as the original does: at 49.9 Hz, 499 tokens come out a hair over 10 s.
    """
    count, total = 0, 0.0
    while count < most and total <= seconds:
        count, total = count + 1, total + 1 / rate
    return count


def max_semantic_history(max_coarse_history: int, ratio: float) -> int:
    """Semantic tokens that cover the longest coarse history."""
    return int(math.floor(max_coarse_history / ratio))


def interleave(codes: Tensor) -> Tensor:
    """[..., codebook, frame] -> [..., frame * codebook], frame-major."""
    return codes.transpose(-1, -2).flatten(-2)


def deinterleave(tokens: Tensor, n_codebooks: int) -> Tensor:
    """[..., frame * codebook], frame-major -> [..., codebook, frame]."""
    return tokens.unflatten(-1, (-1, n_codebooks)).transpose(-1, -2)


def codebook_offsets(codes: Tensor, codebook_size: int) -> Tensor:
    """[..., codebook, frame] -> the start of each codebook's range among the coarse tokens, [codebook, 1]."""
    return codes.new_tensor(range(codes.shape[-2])).mul(codebook_size)[:, None]


def coarse_ids(codes: Tensor, semantic_vocab_size: int, codebook_size: int) -> Tensor:
    """Codes [..., codebook, frame] in [0, codebook_size) -> ids of the coarse model [..., frame * codebook].

    The coarse vocabulary holds the semantic tokens first, then one range of `codebook_size` a codebook.
    """
    return interleave(codes + codebook_offsets(codes, codebook_size)) + semantic_vocab_size


def coarse_codes(ids: Tensor, n_codebooks: int, semantic_vocab_size: int, codebook_size: int) -> Tensor:
    """The inverse of `coarse_ids`: ids [..., frame * codebook] -> codes [..., codebook, frame]."""
    codes = deinterleave(ids - semantic_vocab_size, n_codebooks)
    return codes - codebook_offsets(codes, codebook_size)


def history_lengths(
    n_semantic: int, n_frames: int, max_coarse_history: int, ratio: float, n_codebooks: int
) -> tuple[int, int]:
    """How much of a voice the coarse stage keeps: (semantic tokens, coarse tokens before the cut of the last two).

    An odd semantic token is dropped first, as in the original.
    """
    kept = min(
        max_semantic_history(max_coarse_history, ratio),
        n_semantic - n_semantic % 2,
        int(math.floor(n_frames * n_codebooks / ratio)),
    )
    return kept, int(round(kept * ratio))
