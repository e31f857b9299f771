"""The first codebook says the semantic token, the second what it leaves open, and the codec stays a stock EnCodec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EncodecModel

from tests.training.test_codec import SMALL, tones
from transformers_bark import codec
from transformers_bark.training.codebooks import CodebooksForTraining, FrameSound, TokenCrops
from transformers_bark.training.codec import scale_to_unit_variance


@pytest.fixture
def module() -> CodebooksForTraining:
    torch.manual_seed(0)
    model = EncodecModel(SMALL)
    scale_to_unit_variance(model, tones())
    return CodebooksForTraining(model, torch.randn(16, 6), warmup_steps=3, n_pooled=60)


def _learn(
    module: CodebooksForTraining, audio: torch.Tensor, tokens: torch.Tensor, n_steps: int
) -> list[dict[str, float]]:
    optimizer = torch.optim.AdamW([part for part in module.parameters() if part.requires_grad], 3e-3)
    losses = []
    for _ in range(n_steps):
        result = module(audio, tokens)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append({name: float(part.detach()) for name, part in result.items()})
    return losses


def test_the_first_codebook_says_the_token_and_the_second_the_rest(
    module: CodebooksForTraining, tmp_path: Path
) -> None:
    audio = tones()
    tokens = torch.arange(4)[:, None].expand(4, 16) * 3  # a token for each tone
    losses = _learn(module, audio, tokens, 60)
    for part in ("spectral", "told", "phonetic", "token"):
        assert losses[-1][part] < 0.9 * losses[0][part], part
    module.export(list(audio)).save_pretrained(tmp_path)
    stock = EncodecModel.from_pretrained(tmp_path).eval()
    codes = codec.encode(stock, audio)
    assert codes.shape == (4, 10, 16)
    assert (codes[:, 0] == tokens).float().mean() > 0.9
    # what stock's quantizer gives for a token is its cluster, whatever the second codebook says
    latent = stock.quantizer.decode(codes[:, :2].transpose(0, 1))
    assert torch.allclose(latent[:, :6].transpose(1, 2), module.centres[codes[:, 0]], atol=1e-5)


def test_what_is_kept_stands(module: CodebooksForTraining) -> None:
    before = {name: part.clone() for name, part in module.codec.state_dict().items()}
    _learn(module, tones(), torch.zeros(4, 16, dtype=torch.long), 2)
    moved = {name for name, part in module.codec.state_dict().items() if not torch.equal(part, before[name])}
    kept = tuple(f"encoder.layers.{number}." for number in range(module.n_kept))
    learned = ("encoder.", "decoder.layers.0.", "decoder.layers.1.")
    assert moved and all(name.startswith(learned) and not name.startswith(kept) for name in moved)


def test_no_export_before_there_is_a_codebook(module: CodebooksForTraining) -> None:
    with pytest.raises(ValueError, match="no codebook after 0 steps"):
        module.export([tones()[0]])


@pytest.mark.parametrize("shape", [(15, 6), (16, 16)])
def test_centres_must_fit(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="16 entries"):
        CodebooksForTraining(EncodecModel(SMALL), torch.zeros(shape))


def test_a_frame_is_described_by_its_own_sound() -> None:
    sound, time = FrameSound(24_000, 600), torch.arange(6000) / 24_000
    audio = torch.sin(2 * torch.pi * 200 * time)[None] * (time < 0.125)
    spectra, low = sound.spectra(audio), sound.low_band(audio)
    assert spectra.shape == (1, 10, 240) and low.shape == (1, 10, 30)
    assert spectra[0, :4].amax(-1).min() > 2 + spectra[0, 6:].amax()
    assert low[0, 6:].abs().max() < 0.1 * low[0, :4].abs().max()
    high = torch.sin(2 * torch.pi * 2000 * time)[None]
    assert sound.low_band(high).abs().max() < 0.05 < 0.8 < low.abs().max()


def test_crops_keep_tokens_and_samples_together() -> None:
    frames = np.arange(30)
    row = {"tokens": frames, "audio": np.repeat(frames, 4).astype(np.int16)}
    crops = TokenCrops(5, 4, 0)
    starts = set()
    for _ in range(20):
        batch = crops([row, row])
        assert torch.equal((batch["audio"][:, ::4] * 32768).long(), batch["tokens"])
        starts.add(int(batch["tokens"][0, 0]))
    assert len(starts) > 5
