"""Fits a detector to a table of spectra: first what a comb looks like, then how much it says."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transformers_bark.detection import features
from transformers_bark.detection.configuration_detector import BarkDetectorConfig
from transformers_bark.detection.modeling_detector import BarkDetector, CombJudge

from . import data
from .spectra import Table

N_SPEEDS = 6  # speeds of a row that are looked at in one step
ROUNDS = (4, 4)  # epochs before and after the hardest speeds of each negative are known
BATCH = 256
RATE = 8e-3  # of learning, at its highest


def is_of(table: Table, frame_rate: float) -> np.ndarray:
    """Positives whose codec has this frame rate: the released models' sources are named `bark-…`."""
    released = np.char.startswith(table.family.astype(str), "bark-")
    return table.positive & (released == (frame_rate == 75.0))


def fit(table: Table, config: BarkDetectorConfig, seed: int = 0) -> BarkDetector:
    """A detector for a table's rows."""
    torch.manual_seed(seed)
    model = BarkDetector(config)
    peaks = features.highest_of_three(torch.from_numpy(table.prominence.astype(np.float32)))
    weight = torch.from_numpy(balance(table)).float()
    for judge in model.judges:
        _fit_judge(judge, peaks, torch.from_numpy(is_of(table, judge.frame_rate)), table, weight, seed)
    model.eval()
    _fit_verdict(model, table, weight)
    return model


def balance(table: Table) -> np.ndarray:
    """Weights of rows: positives as much as negatives, and every family of a side as much as the others, up to its size."""
    weights = np.zeros(len(table.positive))
    for side in (True, False):
        for family in set(table.family[table.positive == side]):
            rows = (table.family == family) & (table.positive == side)
            weights[rows] = 1 / np.sqrt(rows.sum())
        weights[table.positive == side] /= weights[table.positive == side].sum()
    return weights * len(weights) / 2


def _fit_judge(judge: CombJudge, peaks: Tensor, wanted: Tensor, table: Table, weight: Tensor, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    n_all = len(judge.teeth)
    middle, span = n_all // 2, float(features.speeds(judge.max_speed, judge.n_speeds)[-1] - 1)
    true = torch.from_numpy((middle + (table.speed - 1) / span * middle).round()).long().clamp(0, n_all - 1)
    hard: Tensor | None = None
    optimizer = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=0.05)
    n_steps = sum(ROUNDS) * -(-len(peaks) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=n_steps)
    share = wanted.float().mean().clamp(min=1e-3)
    judge.train()
    for number, epochs in enumerate(ROUNDS):
        if number:
            hard = _hardest(judge, peaks)
        for _ in range(epochs):
            for rows in torch.randperm(len(peaks), generator=chance).split(BATCH):
                speed = torch.randint(0, n_all, (len(rows), N_SPEEDS), generator=chance)
                speed[:, 0] = torch.where(wanted[rows], true[rows], speed[:, 0])
                if hard is not None:
                    some = torch.randint(0, hard.shape[1], (len(rows), N_SPEEDS // 2), generator=chance)
                    taken = hard[rows].gather(1, some)
                    speed[:, 1 : 1 + N_SPEEDS // 2] = torch.where(
                        wanted[rows, None], speed[:, 1 : 1 + N_SPEEDS // 2], taken
                    )
                labels = (speed - true[rows, None]).abs().le(2) & wanted[rows, None]
                near = (speed - true[rows, None]).abs().le(12) & wanted[rows, None] & ~labels
                scores = judge.judge(_combs_at(judge, peaks[rows], speed))
                loss = F.binary_cross_entropy_with_logits(scores, labels.float(), reduction="none")
                factor = torch.where(labels, 0.5 / share, 1.0 / N_SPEEDS) * weight[rows, None] * ~near
                (loss * factor).mean().backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    judge.eval()


def _combs_at(judge: CombJudge, peaks: Tensor, speed: Tensor) -> Tensor:
    """Teeth above gaps of each row at speeds of its own: [row, bin], [row, speed] -> [row, speed, tooth]."""
    at = lambda bins: peaks.gather(1, bins[speed].flatten(1)).view(*speed.shape, -1)  # noqa: E731
    between = at(judge.gaps)
    return at(judge.teeth) - 0.5 * (between[..., 1:] + between[..., :-1])


@torch.no_grad()
def _hardest(judge: CombJudge, peaks: Tensor, n: int = 12) -> Tensor:
    """The speeds at which each row looks most like the codec, [row, n]."""
    judge.eval()
    found = torch.cat([judge(rows).topk(n, 1).indices for rows in peaks.split(32)])
    judge.train()
    return found


def _fit_verdict(model: BarkDetector, table: Table, weight: Tensor) -> None:
    """The last layers, on what the judges find."""
    evidence = evidence_of(model, table)
    labels = torch.from_numpy(table.positive).long()
    parameters = [*model.weigh.parameters(), *model.classifier.parameters()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model.verdict(evidence), labels, reduction="none")
        total = (loss * weight).mean() + 1e-3 * sum(one.square().sum() for one in parameters)
        total.backward()
        return total

    optimizer.step(closure)


@torch.no_grad()
def evidence_of(model: BarkDetector, table: Table) -> Tensor:
    """What the judges find in each row, [row, feature]."""
    parts = []
    for start in range(0, len(table.windows), 32):
        rows = slice(start, start + 32)
        spectra = torch.from_numpy(table.prominence[rows].astype(np.float32))
        parts.append(model.evidence(spectra, torch.from_numpy(table.windows[rows])))
    return torch.cat(parts)


@torch.no_grad()
def probabilities(model: BarkDetector, table: Table) -> np.ndarray:
    """Probability of each row."""
    return model.verdict(evidence_of(model, table)).softmax(-1)[:, 1].numpy()


def left_out(table: Table, config: BarkDetectorConfig, n_folds: int) -> np.ndarray:
    """Probability of each row, from a detector that saw nothing of its source or family."""
    part = data.folds(table, n_folds)
    scores = np.full(len(part), np.nan)
    for fold in range(n_folds):
        out = part == fold
        scores[out] = probabilities(fit(table.rows(~out), config, fold), table.rows(out))
        print(f"part {fold + 1} of {n_folds}: {out.sum()} rows", flush=True)
    return scores
