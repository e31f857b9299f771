"""Tables of spectra for training and for measuring, family by family; what is there already is not made again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from transformers_bark import BarkDetectorFeatureExtractor
from transformers_bark.detection.configuration_detector import BarkDetectorConfig

from . import conditions, sources, spectra
from .sources import Clip

KEPT_BACK = ("menardi", "ktuberling", "pocketsphinx", "fillets-nl", "etr", "festival")
"""Families that the shipped weights never saw: a telephone voice, people at home, readers, actors, music, a synthesizer."""

SEEDS = {"train": 0, "test": 1000}
N_CLIPS = {"train": 8, "test": 5}
LARGE = ("asterisk", "klettres", "ktuberling", "hedgewars", "tuxpaint")
"""Packages of many speakers, of which twice as many clips are taken."""


def table(
    kind: str, cache: Path, config: BarkDetectorConfig, bark: Path | None, fetch: bool = True, workers: int = 2
) -> spectra.Table:
    """Spectra of all families that can be had.

    Args:
        kind: "train" or "test": other clips, other sentences and other noise.
        cache: where packages, sounds and spectra are kept.
        bark: folder with audio of the released models.
        fetch: whether packages that are not there are fetched.
    """
    cache.mkdir(parents=True, exist_ok=True)
    names = conditions.CONDITIONS + (conditions.FOR_TRAINING if kind == "train" else ())
    jobs: dict[str, Callable[[], list[Clip]]] = {}
    for name, make in _families(kind, cache, bark, fetch).items():
        if not (cache / f"{kind}-{name}.npz").is_file():
            jobs[name] = make
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        started = []
        for name, make in jobs.items():
            clips = make()
            print(f"{name}: {len(clips)} clips", flush=True)
            path = cache / f"{kind}-{name}.npz"
            if clips:
                started.append(pool.submit(_write, clips, names, config, SEEDS[kind], path, kind == "train"))
        for one in started:
            one.result()
    paths = [cache / f"{kind}-{name}.npz" for name in _families(kind, cache, bark, fetch)]
    return spectra.join([spectra.load(path) for path in paths if path.is_file()])


def _write(
    clips: list[Clip], names: tuple[str, ...], config: BarkDetectorConfig, seed: int, path: Path, pieces: bool
) -> None:
    spectra.save(spectra.make(clips, names, config, seed, pieces), path)


def _families(kind: str, cache: Path, bark: Path | None, fetch: bool) -> dict[str, Callable[[], list[Clip]]]:
    """What makes the clips of each family."""
    seed, few = SEEDS[kind], N_CLIPS[kind]
    made: dict[str, Callable[[], list[Clip]]] = {}
    if bark is not None:
        made["bark"] = lambda: sources.bark_recordings(bark)
    for family, packages in {**sources.HUMAN, **sources.SOUNDS}.items():
        n = 2 * few if family in LARGE else few
        made[family] = lambda family=family, packages=packages, n=n: sources.clips_of_files(
            family, sources.fetch(packages, cache, fetch), n, seed
        )
    for generator in sources.VOICES:
        made[generator] = lambda generator=generator: sources.synthetic_clips(generator, few, seed, cache / "synthetic")
    made["noise"] = lambda: sources.noise_clips(3 * few, seed)
    made["embedded"] = lambda: sources.embedded_clips(2 * few, seed)
    if kind == "train":
        made["codec"] = lambda: sources.through_codec(_some_people(few, seed + 1, cache, fetch))
    return made


def _some_people(n: int, seed: int, cache: Path, fetch: bool) -> list[Clip]:
    clips: list[Clip] = []
    for family, packages in sources.HUMAN.items():
        clips += sources.clips_of_files(family, sources.fetch(packages, cache, fetch), max(1, n // 6), seed)
    return clips


def feature_extractor(config: BarkDetectorConfig) -> BarkDetectorFeatureExtractor:
    """What goes into the folder beside the weights."""
    return BarkDetectorFeatureExtractor(sampling_rate=config.sampling_rate)


def folds(table: spectra.Table, n: int) -> np.ndarray:
    """The part that each row is left out with: sources and families whole, positives and negatives dealt out apart."""
    part = np.zeros(len(table.positive), int)
    codec = np.char.startswith(table.group.astype(str), "codec/")
    released = np.char.startswith(table.family.astype(str), "bark-")
    kinds = np.where(released, "released", np.where(table.positive & ~codec, "embedded", "negative"))
    for kind in ("released", "embedded", "negative"):
        families = sorted(set(table.family[kinds == kind]))
        chance = np.random.default_rng(7)
        for place, name in enumerate(chance.permutation(families)):
            part[table.family == name] = place % n
    return part
