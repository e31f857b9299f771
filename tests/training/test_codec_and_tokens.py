"""Codec training, semantic tokens and the making of texts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from transformers import EncodecConfig, EncodecModel

from transformers_bark import codec
from transformers_bark.training.codec import CodecForTraining, RandomCrops, scale_to_unit_variance
from transformers_bark.training.data import compose_texts, fill_template, split_phrases
from transformers_bark.training.semantic_tokenizer import (
    SemanticTokenizer,
    SemanticTokenizerConfig,
    features,
    phoneme_classes,
)

SMALL = EncodecConfig(
    upsampling_ratios=[8, 5, 5, 3],
    num_filters=4,
    hidden_size=16,
    codebook_dim=16,
    codebook_size=16,
    num_lstm_layers=1,
    target_bandwidths=[1.6],
)


def tones(n: int = 4, samples: int = 9600) -> torch.Tensor:
    """Loud and quiet tones of different pitch, [n, samples]."""
    time = torch.arange(samples) / 24_000
    return torch.stack([0.1 * (i + 1) * torch.sin(2 * torch.pi * 200 * (i + 1) * time) for i in range(n)])


def test_scaling_brings_the_latents_to_life() -> None:
    torch.manual_seed(0)
    model = EncodecModel(SMALL)
    audio = tones()
    before = model.encoder(audio[:, None]).std()
    scale_to_unit_variance(model, audio)
    after = model.encoder(audio[:, None])
    assert before < 0.1 < 0.9 < after.std() < 1.1
    assert 0.01 < model.decoder(after).std() < 0.25


def test_codec_learns_and_exports_its_codebooks() -> None:
    torch.manual_seed(0)
    model, audio = CodecForTraining(SMALL, warmup_steps=20, n_pooled=64), tones()
    scale_to_unit_variance(model.codec, audio)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(60):
        result = model(audio)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(float(result["spectral"]))
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    model.eval()
    exported = model.export()
    with torch.no_grad():
        codes = codec.encode(exported, audio)
        ours = exported.decoder(exported.quantizer.decode(codes.transpose(0, 1)))
        latent = exported.encoder(audio[:, None])
        trained = exported.decoder(model.quantizer(latent.transpose(1, 2))[0].transpose(1, 2))
    assert codes.shape == (4, len(model.quantizer.layers), 16) and torch.allclose(ours, trained, atol=1e-5)


def test_crops_come_from_the_rows() -> None:
    rows = [{"audio": np.arange(1000, dtype=np.int16)}, {"audio": np.ones(10, np.int16)}]
    batch = RandomCrops(100, seed=0)(rows)["audio"] * 32768
    assert batch.shape == (2, 100) and (batch[0].diff() == 1).all()
    assert batch[1].sum() == 10


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


def test_texts_are_repeatable_and_leave_out_what_is_held_out() -> None:
    corpus = ["The quick brown fox jumps over the lazy dog, and then it sleeps.", "Nothing else happened on that day."]
    everyday = {"templates": ["the {thing} is here now"], "slots": {"thing": ["cat", "dog"]}}
    texts = compose_texts(corpus, everyday, 5, 5, 3, ["a brown fox jumps over it"])
    assert texts == compose_texts(corpus, everyday, 5, 5, 3, ["a brown fox jumps over it"])
    assert not any("brown fox jumps over" in text for text in texts)
    assert any("Nothing else happened" in text for text in texts)
    assert {"The cat is here now", "The dog is here now"} & set(texts)


def test_phrases_are_short_and_whole() -> None:
    sentence = " ".join(f"word{i}" for i in range(40)) + ", and a few more of them."
    phrases = split_phrases(sentence, random.Random(0))
    assert all(2 <= len(phrase.split()) <= 12 for phrase in phrases)
    assert fill_template("{a} {a}", {"a": ["x"]}, random.Random(0)) == "X x"
