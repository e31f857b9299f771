"""Semantic tokens: what tells sounds apart, and survives a save."""

from __future__ import annotations

from pathlib import Path

import torch

from transformers_bark.training.semantic_tokenizer import (
    SemanticTokenizer,
    SemanticTokenizerConfig,
    features,
    phoneme_classes,
)


def tones(n: int, samples: int) -> torch.Tensor:
    """Loud and quiet tones of different pitch, [n, samples]."""
    time = torch.arange(samples) / 24_000
    return torch.stack([0.1 * (i + 1) * torch.sin(2 * torch.pi * 200 * (i + 1) * time) for i in range(n)])


def test_semantic_tokens_tell_sounds_apart_and_survive_a_save(tmp_path: Path) -> None:
    config = SemanticTokenizerConfig(n_tokens=4, n_components=2, context=1)
    audios = [tone.numpy() for tone in tones(4, 24_000)]
    tokenizer = SemanticTokenizer.fit(config, audios, [[i % 3] * 25 for i in range(4)])
    tokens = [tokenizer.encode(torch.from_numpy(audio)) for audio in audios]
    assert all(len(row) == 25 and row.dtype == torch.int64 for row in tokens)
    assert len({int(row.mode().values) for row in tokens}) >= 3
    tokenizer.save(tmp_path)
    again = SemanticTokenizer.load(tmp_path)
    assert again.config == config
    assert all(torch.equal(again.encode(torch.from_numpy(a)), t) for a, t in zip(audios, tokens, strict=True))


def test_features_are_one_row_a_token() -> None:
    config = SemanticTokenizerConfig(context=2)
    assert features(torch.randn(960 * 7 + 500), config).shape == (7, 5 * 40)


def test_phoneme_classes_follow_the_times() -> None:
    index: dict[str, int] = {}
    # pad of 2 frames, "a" 4, a space 2, stress mark 1 and "b" 3, pad 2: 0.025 s each
    classes = phoneme_classes("a ˈb", [2, 4, 2, 1, 3, 2], 7, 0.05, 0.025, index)
    names = {number: name for name, number in index.items()}
    assert [names.get(c) for c in classes] == [None, "afirst", "asecond", "silence", "bfirst", "bsecond", None]
