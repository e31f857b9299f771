"""Clips under conditions -> the spectra that the detector judges, kept on the disk as they are slow to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from transformers_bark.detection import features, reading
from transformers_bark.detection.configuration_detector import BarkDetectorConfig

from . import conditions
from .sources import Clip

PIECES = ("clean", "mix", "lines", "mp3 64 kbit/s", "noise 20 dB", "room")
"""Conditions of which training also has single windows, for the probability of a second."""

LONGEST = 8  # seconds of a clip that are used


@dataclass
class Table:
    """Spectra and what is known of each.

    Args:
        prominence: [row, bin], float16.
        windows: [row], windows that each is the mean of.
        whole: [row], whether of the whole clip.
        positive, family, group, condition: [row].
    """

    prominence: np.ndarray
    windows: np.ndarray
    whole: np.ndarray
    positive: np.ndarray
    family: np.ndarray
    group: np.ndarray
    condition: np.ndarray

    def rows(self, chosen: np.ndarray) -> Table:
        """Some of the rows."""
        return Table(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @property
    def speed(self) -> np.ndarray:
        """How fast each row was played, as a factor."""
        return np.array(
            [1 + float(name.split()[1]) / 100 if name.startswith("speed") else 1.0 for name in self.condition]
        )


def make(
    clips: Sequence[Clip], names: Sequence[str], config: BarkDetectorConfig, seed: int, pieces: bool = True
) -> Table:
    """A row for each clip and condition: of the whole; and with `pieces` one more, of one to four windows by chance."""
    spectra, facts = [], []
    for number, clip in enumerate(clips):
        audio = clip.audio[: LONGEST * clip.rate].astype(np.float32) / 32767
        for place, name in enumerate(names):
            chance = np.random.default_rng([seed, number, place])
            changed, rate = conditions.apply(name, audio, clip.rate, chance)
            heard = torch.from_numpy(reading.resample(changed, rate, config.sampling_rate).astype(np.float32))
            with torch.no_grad():
                power = features.analyse(heard[None], config)[0]
                parts = [power]
                if pieces and name in PIECES:
                    count = int(chance.choice([1, 1, 2, 4]))
                    start = int(chance.integers(0, max(1, len(power) - count + 1)))
                    parts.append(power[start : start + count])
                for place_of_part, part in enumerate(parts):
                    spectra.append(features.prominence(part.mean(0)).numpy().astype(np.float16))
                    facts.append((len(part), place_of_part == 0, clip.positive, clip.family, clip.group, name))
    columns = [np.array(column) for column in zip(*facts, strict=True)]
    return Table(np.stack(spectra), *columns)


def save(table: Table, path: Path) -> None:
    """Writes a table."""
    part = path.with_suffix(".part.npz")
    np.savez(part, **{name: getattr(table, name) for name in table.__dataclass_fields__})
    part.rename(path)


def load(path: Path) -> Table:
    """Reads a table."""
    with np.load(path, allow_pickle=False) as file:
        return Table(**{name: file[name] for name in Table.__dataclass_fields__})


def join(tables: Sequence[Table]) -> Table:
    """Tables one below the other."""
    return Table(*(np.concatenate([getattr(table, name) for table in tables]) for name in Table.__dataclass_fields__))


def save_scores(table: Table, scores: np.ndarray, path: Path) -> None:
    """Writes what was said of each row, without the spectra."""
    names = [name for name in table.__dataclass_fields__ if name != "prominence"]
    np.savez(path, scores=scores, **{name: getattr(table, name) for name in names})
