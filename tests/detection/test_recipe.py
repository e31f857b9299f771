"""The detector's recipe: metrics, conditions, and that nothing of what is judged was learnt from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from recipes.detector import conditions, data, metrics, sources, spectra, training
from tests.detection.recordings import RATE, voice_like
from transformers_bark import BarkDetectorConfig


def test_metrics_of_known_scores() -> None:
    labels = np.array([True] * 100 + [False] * 100)
    apart = np.concatenate([np.linspace(0.6, 1, 100), np.linspace(0, 0.4, 100)])
    assert metrics.auc(apart, labels) == 1 and metrics.equal_error_rate(apart, labels) == 0
    assert metrics.hits(apart, labels) == 1
    mixed = apart.copy()
    mixed[100:110] = 0.95  # 10 % false alarms above most positives
    assert metrics.hits(mixed, labels) == pytest.approx(0.12, abs=0.02)
    assert metrics.equal_error_rate(mixed, labels) == pytest.approx(0.1, abs=0.02)
    sure = np.where(labels, 1.0, 0.0)
    assert metrics.calibration_error(sure, labels) == 0
    assert metrics.calibration_error(np.full(200, 0.9), labels) == pytest.approx(0.4)


def test_intervals_count_groups_not_files() -> None:
    chance = np.random.default_rng(0)
    labels = np.arange(400) < 200
    scores = np.where(labels, 0.3, 0.0) + chance.random(400)
    many = [str(number) for number in range(400)]
    few = [f"{number % 200 // 100}{labels[number]}" for number in range(400)]
    worst = scores + np.where(np.arange(400) % 200 >= 100, 0.5, 0)  # files of a group are alike
    narrow, wide = (metrics.interval(metrics.auc, worst, labels, groups) for groups in (many, few))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


@pytest.mark.parametrize("name", [*conditions.CONDITIONS, *conditions.FOR_TRAINING])
def test_conditions_change_what_they_say(name: str) -> None:
    audio = voice_like(3, 0, 22_050)
    before = audio.copy()
    changed, rate = conditions.apply(name, audio, 22_050, np.random.default_rng(0))
    again, _ = conditions.apply(name, audio, 22_050, np.random.default_rng(0))
    assert np.array_equal(audio, before) and np.array_equal(changed, again)
    assert changed.dtype == np.float32 and np.abs(changed).max() <= 1
    wanted = {"crop 1 s": 1.0, "speed +5 %": 3 / 1.05, "speed -5 %": 3 / 0.95}.get(name, 3.0)
    assert len(changed) / rate == pytest.approx(wanted, abs=0.12)
    if name.startswith("noise"):
        noise = changed - audio
        ratio = 10 * np.log10(np.mean(audio**2) / np.mean(noise**2))
        assert ratio == pytest.approx(float(name.split()[1]), abs=0.5)
    with pytest.raises(ValueError, match="there is no condition"):
        conditions.apply("mp7", audio, RATE, np.random.default_rng(0))


def table(families: dict[str, bool]) -> spectra.Table:
    clips = [
        sources.Clip((voice_like(1.2, seed) * 32767).astype(np.int16), RATE, family, f"{family}/x", positive)
        for family, positive in families.items()
        for seed in range(2)
    ]
    return spectra.make(clips, ("clean", "8 kHz"), BarkDetectorConfig(), 0)


def test_sources_and_families_are_left_out_whole() -> None:
    families = {f"bark-{n:02}": True for n in range(7)} | {f"f{n}": False for n in range(5)} | {"embedded x": True}
    made = table(families)
    part = data.folds(made, 3)
    for family in families:
        assert len(set(part[made.family == family])) == 1
    for fold in range(3):
        assert made.positive[part == fold].any() and (~made.positive[part == fold]).any()


def test_what_goes_through_the_codec_stays_in_its_family() -> None:
    made = table({"klettres": False, "bark-00": True, "f1": False})
    made.group = made.group.copy()
    through = spectra.Table(
        **{
            **vars(made),
            "positive": np.ones(len(made.positive), bool),
            "group": np.char.add("codec/", made.group.astype(str)),
        }
    )
    both = spectra.join([made, through])
    part = data.folds(both, 2)
    rows = both.family == "klettres"
    assert len(set(part[rows])) == 1 and both.positive[rows].any() and (~both.positive[rows]).any()


def test_training_is_deterministic_and_saved_tables_are_read(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    made = table({"bark-00": True, "embedded": True, "f0": False, "f1": False})
    spectra.save(made, tmp_path / "t.npz")
    config = BarkDetectorConfig(n_speeds=20, hidden_size=4)
    one = training.fit(made, config).state_dict()
    two = training.fit(spectra.load(tmp_path / "t.npz"), config).state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_clips_are_of_one_folder_and_long_enough(tmp_path: Path) -> None:
    for speaker in ("a", "b"):
        (tmp_path / "pkg" / speaker).mkdir(parents=True)
        for number in range(6):
            soundfile.write(tmp_path / "pkg" / speaker / f"{number}.ogg", voice_like(0.8, number), RATE)
    clips = sources.clips_of_files("pkg", [tmp_path / "pkg"], 6, 0)
    assert len(clips) == 6 and {clip.group for clip in clips} <= {"pkg/a", "pkg/b"}
    assert all(len(clip.audio) >= clip.rate and clip.family == "pkg" and not clip.positive for clip in clips)
    assert sources.clips_of_files("pkg", [], 3, 0) == []


def test_braces_of_package_names() -> None:
    assert sources.expand("a-{b,c}-{d,e} f") == ["a-b-d", "a-b-e", "a-c-d", "a-c-e", "f"]
