"""Semantic tokens: what tells sounds apart, and survives a save."""

from __future__ import annotations

from pathlib import Path

import torch

from transformers_bark.training.semantic_tokenizer import (
    NO_PHONEME,
    Bottleneck,
    PhonemeClassifier,
    PhonemeTargets,
    SemanticTokenizer,
    SemanticTokenizerConfig,
    WordLoss,
    features,
    phoneme_classes,
)


def tones(n: int, samples: int) -> torch.Tensor:
    """Loud and quiet tones of different pitch, [n, samples]."""
    time = torch.arange(samples) / 24_000
    return torch.stack([0.1 * (i + 1) * torch.sin(2 * torch.pi * 200 * (i + 1) * time) for i in range(n)])


def test_semantic_tokens_tell_sounds_apart_and_survive_a_save(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = SemanticTokenizerConfig(n_tokens=4, n_components=8, context=1, stride=1)
    audios = list(tones(4, 24_000))
    bottleneck = Bottleneck(config)
    bottleneck.standardize(torch.cat([features(audio, config) for audio in audios]))
    tokenizer = SemanticTokenizer.fit(config, bottleneck, audios)
    tokens = [tokenizer.encode(audio) for audio in audios]
    assert all(len(row) == 25 and row.dtype == torch.int64 for row in tokens)
    assert len({int(row.mode().values) for row in tokens}) >= 3
    tokenizer.save(tmp_path)
    again = SemanticTokenizer.load(tmp_path)
    assert again.config == config
    assert all(torch.equal(again.encode(audio), row) for audio, row in zip(audios, tokens, strict=True))


def test_louder_speech_has_the_same_tokens() -> None:
    torch.manual_seed(0)
    config = SemanticTokenizerConfig(n_tokens=8, n_components=8, context=1)
    audios = [
        tone * (torch.arange(24_000) % 9000 < 6000) for tone in tones(4, 24_000)
    ]  # with silence, where the floor is
    tokenizer = SemanticTokenizer.fit(config, Bottleneck(config), audios)
    louder = tokenizer.louder(2.0)
    same = [float((louder.encode(2 * audio) == tokenizer.encode(audio)).float().mean()) for audio in audios]
    assert min(same) > 0.9  # the mean is rounded to 16 bits
    assert min(float((tokenizer.encode(4 * a) == tokenizer.encode(a)).float().mean()) for a in audios) < 0.9


def test_the_bottleneck_learns_what_tells_phonemes_apart() -> None:
    torch.manual_seed(0)
    config = SemanticTokenizerConfig(n_components=4, context=2, hidden_size=16)
    rows = [
        {"audio": (tone * 32767).to(torch.int16).numpy(), "classes": [n % 2] * 24}
        for n, tone in enumerate(tones(4, 24_000))
    ]
    batch = PhonemeTargets(config)(rows)
    assert batch["features"].shape == (4 * 24, config.n_features) and batch["labels"].shape == (4 * 24,)
    model = PhonemeClassifier(config, 2)
    model.bottleneck.standardize(batch["features"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = model(**batch)["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_features_are_one_row_a_token() -> None:
    config = SemanticTokenizerConfig(context=4, stride=2)
    assert features(torch.randn(960 * 7 + 500), config).shape == (7, config.n_features) == (7, 5 * 40)


def test_phoneme_classes_follow_the_times() -> None:
    index: dict[str, int] = {}
    # pad of 2 frames, "a" 4, a space 2, stress mark 1 and "b" 3, pad 2: 0.025 s each
    classes = phoneme_classes("a ˈb", [2, 4, 2, 1, 3, 2], 7, 0.05, 0.025, index)
    names = {number: name for name, number in index.items()}
    assert [names.get(c) for c in classes] == [None, "afirst", "asecond", "silence", "bfirst", "bsecond", None]
    assert classes[0] == classes[-1] == NO_PHONEME


def test_the_loss_of_words_hears_what_is_said_and_not_the_rest() -> None:
    torch.manual_seed(0)
    config = SemanticTokenizerConfig(n_components=4, context=2, hidden_size=16)
    bottleneck = Bottleneck(config)
    audio = tones(4, 24_000)
    bottleneck.standardize(features(audio, config).flatten(0, 1))
    loss = WordLoss(config, bottleneck)
    assert float(loss(audio, audio)) == 0 < float(loss(audio.flip(0), audio))
    silent = 1e-4 * torch.randn_like(audio)  # below the floor of the features
    assert float(loss(audio + silent, audio)) < 0.2 * float(loss(audio.flip(0), audio))
    decoded = audio.flip(0).clone().requires_grad_()
    loss(decoded, audio).backward()
    assert decoded.grad is not None and decoded.grad.abs().max() > 0
    assert all(part.grad is None for part in loss.parameters())


def test_rows_have_the_features_that_each_has_alone() -> None:
    config, audio = SemanticTokenizerConfig(context=3), tones(3, 9600)
    together = features(audio, config)
    assert all(torch.allclose(together[row], features(audio[row], config), atol=1e-5) for row in range(3))
