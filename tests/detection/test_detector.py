"""The detector as a model of Transformers: its ways in, its batches, its files; and the features it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from tests.detection.recordings import RATE, voice_like
from transformers_bark import (
    BARK_DETECTOR,
    BarkDetector,
    BarkDetectorConfig,
    BarkDetectorFeatureExtractor,
    detect_audio,
    load_detector,
)
from transformers_bark.detection import detect, features


@pytest.fixture(scope="module")
def detector() -> BarkDetector:
    model = load_detector()
    assert isinstance(model, BarkDetector)
    return model


def lines(rate: float, seconds: float = 4.0, level: float = 0.003, speed: float = 1.0) -> np.ndarray:
    """A voice with lines at the multiples of `rate`, 40 dB below it."""
    time = np.arange(int(seconds * RATE)) / RATE
    chance = np.random.default_rng(3)
    teeth = np.arange(1, int(11_000 / rate)) * rate * speed
    comb = np.sin(2 * np.pi * teeth[:, None] * time + chance.uniform(0, 6, (len(teeth), 1))).sum(0)
    return (voice_like(seconds, 1) + level * comb / np.sqrt(len(teeth))).astype(np.float32)


def test_the_auto_classes_and_the_folder_know_it(detector: BarkDetector, tmp_path: Path) -> None:
    assert type(AutoConfig.from_pretrained(BARK_DETECTOR)) is BarkDetectorConfig
    assert type(AutoFeatureExtractor.from_pretrained(BARK_DETECTOR)) is BarkDetectorFeatureExtractor
    assert detector.config.id2label == {0: "other", 1: "bark"}
    detector.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path).eval()
    audio = torch.from_numpy(voice_like(2, 0))[None]
    assert type(loaded) is BarkDetector
    assert torch.equal(loaded(audio).logits, detector(audio).logits)


def test_the_shipped_file_is_small() -> None:
    assert sum(file.stat().st_size for file in Path(BARK_DETECTOR).iterdir()) <= 3_000_000
    assert [file.name for file in Path(BARK_DETECTOR).glob("*.safetensors")] == ["model.safetensors"]


def test_a_row_does_not_depend_on_its_batch(detector: BarkDetector) -> None:
    extractor = BarkDetectorFeatureExtractor.from_pretrained(BARK_DETECTOR)
    recordings = [voice_like(seconds, seed) for seed, seconds in enumerate((0.3, 1.0, 4.2))]
    together = detector(**extractor(recordings, sampling_rate=RATE, return_tensors="pt"))
    for row, audio in enumerate(recordings):
        alone = detector(**extractor(audio, sampling_rate=RATE, return_tensors="pt"))
        torch.testing.assert_close(together.logits[row], alone.logits[0])
        n_windows = alone.window_logits.shape[1]
        torch.testing.assert_close(together.window_logits[row, :n_windows], alone.window_logits[0])


def test_the_same_audio_gives_the_same_result(detector: BarkDetector) -> None:
    audio = voice_like(3, 5)
    first, second = detect_audio(detector, audio, RATE), detect_audio(detector, audio, RATE)
    assert first.probability == second.probability and np.array_equal(first.seconds, second.seconds)


@pytest.mark.parametrize("size", [997, 50_000, 10**9])
def test_pieces_say_what_the_whole_says(detector: BarkDetector, size: int) -> None:
    audio = np.concatenate([voice_like(21, 2), lines(75.0, 20.3)])
    pieces = (audio[start : start + size] for start in range(0, len(audio), size))
    power = torch.cat(list(detect.stream_power(detector, pieces)))
    torch.testing.assert_close(power, detector.window_power(torch.from_numpy(audio)), rtol=1e-3, atol=1e-2)
    found = detect_audio(detector, audio, RATE)
    whole = detector(torch.from_numpy(audio)[None]).logits.softmax(-1)[0, 1]
    assert found.probability == pytest.approx(float(whole), abs=1e-3)
    assert len(found.seconds) == round(len(audio) / RATE)


def test_whitening_forgets_level_and_timbre() -> None:
    audio = torch.from_numpy(voice_like(3, 1))[None]
    config = BarkDetectorConfig()
    flat = features.prominence(features.analyse(audio, config).mean(1))
    quiet = features.prominence(features.analyse(0.1 * audio, config).mean(1))
    assert torch.corrcoef(torch.cat([flat, quiet]))[0, 1] > 0.9
    darker = torch.cat([audio[:, :1], audio[:, 1:] + 0.6 * audio[:, :-1]], 1)  # a filter of two taps
    changed = features.prominence(features.analyse(darker, config).mean(1))
    assert torch.corrcoef(torch.cat([flat, changed]))[0, 1] > 0.8


@pytest.mark.parametrize("speed", [0.95, 1.0, 1.05])
def test_a_judge_finds_lines_at_any_speed(speed: float) -> None:
    config = BarkDetectorConfig()
    peaks = features.highest_of_three(
        features.prominence(features.analyse(torch.from_numpy(lines(75.0, speed=speed))[None], config).mean(1))
    )
    factors = features.speeds(config.max_speed, config.n_speeds)
    teeth, gaps = features.comb_bins(75.0, factors, config.max_frequency, 1.0)
    sums = features.comb(peaks, teeth, gaps).mean(-1)[0]
    assert float(factors[sums.argmax()]) == pytest.approx(speed, abs=0.0005)
    assert sums.max() > sums.mean() + 4 * sums.std()


def test_silence_and_short_audio_are_judged(detector: BarkDetector) -> None:
    for audio in (np.zeros(RATE, np.float32), np.zeros(1, np.float32), np.ones(10, np.float32)):
        found = detect_audio(detector, audio, RATE)
        assert found.probability < 0.5 and len(found.seconds) == 1


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0), "shape"),
        (np.zeros((2, 3, 4)), r"\(2, 3, 4\)"),
        (np.array([0.0, np.nan]), "NaN"),
    ],
)
def test_what_is_no_audio_is_refused(detector: BarkDetector, audio: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detect_audio(detector, audio, RATE)
    with pytest.raises(ValueError, match=message):
        BarkDetectorFeatureExtractor()(audio, sampling_rate=RATE)


def test_inputs_of_another_shape_are_refused(detector: BarkDetector) -> None:
    with pytest.raises(ValueError, match="batch, samples"):
        detector(torch.zeros(100))
    with pytest.raises(ValueError, match="rows of"):
        detector(torch.zeros(1, 100), torch.zeros(1, 100))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"whitening_hop": 700}, "700"),
        ({"window_hop": 7_000}, "7000"),
        ({"frame_rates": [5.0]}, "frame_rates"),
        ({"max_speed": 0.7}, "0.7"),
        ({"max_frequency": 12_000.0}, "12000"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BarkDetectorConfig(**options)


def test_another_model_is_no_detector(tmp_path: Path) -> None:
    config = Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(8,), conv_kernel=(10,),
        conv_stride=(5,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_feat_extract_layers=1,
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Wav2Vec2ForSequenceClassification"):
        load_detector(tmp_path)


def test_labels_give_a_loss_that_trains(detector: BarkDetector) -> None:
    model = BarkDetector(BarkDetectorConfig(n_speeds=4))
    audio = torch.from_numpy(np.stack([voice_like(1, 0), lines(75.0, 1.0)]))
    loss = model(audio, labels=torch.tensor([0, 1])).loss
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
