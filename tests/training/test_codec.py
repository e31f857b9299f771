"""The codec learns to carry sound, hands its codebooks over, and goes on after a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EncodecConfig, EncodecModel
from transformers.trainer_utils import get_last_checkpoint

from transformers_bark import codec
from transformers_bark.training import run_training
from transformers_bark.training.codec import (
    CodecForTraining,
    RandomCrops,
    SoundLoss,
    make_louder,
    scale_to_unit_variance,
    trust_less,
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


def test_each_part_of_the_loss_hears_its_own() -> None:
    loss, time = SoundLoss(24_000), torch.arange(9600) / 24_000

    def heard(frequency: float, phase: float = 0.0) -> dict[str, float]:
        """Of a tone of 200 Hz, decoded as another."""
        tone, other = (
            0.1 * torch.sin(2 * torch.pi * f * time + p)[None, None] for f, p in ((200.0, 0.0), (frequency, phase))
        )
        return {name: float(part) for name, part in loss(other, tone).items()}

    same, shifted, higher = heard(200.0), heard(200.0, 1.0), heard(215.0)
    assert abs(same["spectral"]) < 1e-3 and abs(same["harmonic"]) < 1e-3 and same["low_band"] == pytest.approx(-30)
    assert shifted["low_band"] > -2 and higher["low_band"] > 0
    assert shifted["harmonic"] < 0.5 * higher["harmonic"]  # magnitudes hear a phase at the edges alone
    assert heard(2000.0)["low_band"] == pytest.approx(
        0, abs=0.1
    )  # nothing of the tone is there, nothing else under 500 Hz


def test_the_low_band_leads_and_then_makes_way() -> None:
    model, weights = CodecForTraining(SMALL, commitment_weight=0.0, warmup_steps=2, n_pooled=16), []
    scale_to_unit_variance(model.codec, tones())
    for step in (1, 2, 4, 8):
        model.step.fill_(step - 1)
        result = model(tones())
        others = 0.3 * step / 2 * result["spectral"] if step <= 2 else result["spectral"] + 0.5 * result["harmonic"]
        weights.append(float((result["loss"] - others).detach() / result["low_band"]))
    assert weights == pytest.approx([0.25, 0.25, 0.25 / 4, 0.25 / 16], rel=1e-2)


def test_codebooks_that_are_trusted_less_count_for_less() -> None:
    torch.manual_seed(0)
    model = EncodecModel(SMALL).eval()
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_()
    codes = torch.randint(0, SMALL.codebook_size, (model.quantizer.num_quantizers, 1, 9))
    said = [model.quantizer.decode(codes[:n]) for n in (2, len(codes))]
    trust_less(model, 2, 0.25)
    assert torch.allclose(model.quantizer.decode(codes), said[0] + 0.25 * (said[1] - said[0]), atol=1e-5)


def test_a_louder_codec_has_the_same_codes() -> None:
    torch.manual_seed(0)
    model, audio = EncodecModel(SMALL).eval(), tones()
    scale_to_unit_variance(model, audio)
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_()
    with torch.no_grad():
        codes = codec.encode(model, audio)
        decoded = codec.decode(model, list(codes))
        make_louder(model, 2.0)
        assert torch.equal(codec.encode(model, 2 * audio), codes)
        assert torch.allclose(torch.stack(codec.decode(model, list(codes))), 2 * torch.stack(decoded), atol=1e-5)


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


def test_crops_reach_both_ends_and_repeat_with_the_seed() -> None:
    row = [{"audio": np.arange(104, dtype=np.int16)}]
    crops, again = RandomCrops(100, seed=0), RandomCrops(100, seed=0)
    starts = [int(crops(row)["audio"][0, 0] * 32768) for _ in range(60)]
    assert set(starts) == {0, 1, 2, 3, 4}
    assert starts == [int(again(row)["audio"][0, 0] * 32768) for _ in range(60)]


def test_all_codebooks_start_from_the_pooled_latents() -> None:
    model = CodecForTraining(SMALL, warmup_steps=2, n_pooled=64)
    scale_to_unit_variance(model.codec, tones())
    for step in range(1, 4):
        model(tones())
        started = [bool(layer._codebook.initted) for layer in model.quantizer.layers]
        assert all(started) if step > 2 else not any(started)
    assert model.pool == [] and model.quantizer.quantize_dropout


def test_a_warm_up_that_was_cut_short_is_made_up_for() -> None:
    """The pool is not saved: a run that goes on past the warm-up must not start its codebooks from a handful of latents."""
    stopped = CodecForTraining(SMALL, warmup_steps=2, n_pooled=128)
    for _ in range(2):
        stopped(tones())
    resumed = CodecForTraining(SMALL, warmup_steps=2, n_pooled=128)
    resumed.load_state_dict(stopped.state_dict())
    sizes = []
    for _ in range(3):
        resumed(tones())
        sizes.append((sum(map(len, resumed.pool)), resumed._started()))
    assert sizes == [(64, False), (128, False), (0, True)]


def test_without_codebooks_there_is_nothing_to_export() -> None:
    model = CodecForTraining(SMALL, warmup_steps=5)
    model(tones())
    with pytest.raises(ValueError, match="after 1 steps"):
        model.export()


def test_every_codebook_adds_to_the_latents() -> None:
    """Codebooks are in order of what they carry, so that the coarse stage gets what matters."""
    model = CodecForTraining(SMALL, warmup_steps=2, n_pooled=256)
    scale_to_unit_variance(model.codec, tones())
    audio = tones() + 0.05 * torch.randn(4, 9600)
    for _ in range(30):
        with torch.no_grad():
            model(audio)
    exported = model.eval().export()
    with torch.no_grad():
        latent = exported.encoder(audio[:, None])
        codes = codec.encode(exported, audio).transpose(0, 1)
        errors = [
            float((exported.quantizer.decode(codes[:n]) - latent).square().mean()) for n in range(1, len(codes) + 1)
        ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.5 * float(latent.square().mean())


def test_training_takes_its_step_and_codebooks_along(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"audio": [(tone * 32767).to(torch.int16).tolist() for tone in tones()]})
    settings = {
        "per_device_train_batch_size": 4,
        "save_steps": 3,
        "report_to": "none",
        "use_cpu": True,
        "logging_steps": 100,
    }

    def train(steps: int) -> CodecForTraining:
        model = CodecForTraining(SMALL, warmup_steps=1, n_pooled=64)
        run_training(model, rows, RandomCrops(4800, 0), tmp_path, {**settings, "max_steps": steps})
        return model

    train(3)
    before = get_last_checkpoint(str(tmp_path))
    resumed = train(4)
    assert before is not None and before.endswith("checkpoint-3")
    assert int(resumed.step) == 4 and resumed._started()
    folder = tmp_path / "codec"
    resumed.export().save_pretrained(folder)
    audio = tones()
    loaded = EncodecModel.from_pretrained(folder).eval()
    assert torch.equal(codec.encode(loaded, audio), codec.encode(resumed.codec, audio))
