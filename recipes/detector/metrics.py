"""How well scores tell positives from negatives, with intervals that count sources and families, not files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

FALSE_ALARMS = 0.01


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve."""
    return float(roc_auc_score(labels, scores))


def equal_error_rate(scores: np.ndarray, labels: np.ndarray) -> float:
    """Where as many positives are missed as negatives are taken."""
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    at = int(np.argmin(np.abs(false - (1 - true))))
    return float((false[at] + 1 - true[at]) / 2)


def hits(scores: np.ndarray, labels: np.ndarray, false_alarms: float = FALSE_ALARMS) -> float:
    """True positives at the highest rate of false alarms that is not above `false_alarms`."""
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(true[false <= false_alarms].max())


def calibration_error(scores: np.ndarray, labels: np.ndarray, n_bins: int = 10) -> float:
    """Expected calibration error of probabilities, with both classes weighed as if there were as many of each."""
    weights = np.where(labels, 0.5 / max(1, labels.sum()), 0.5 / max(1, (~labels).sum()))
    bins = np.minimum((scores * n_bins).astype(int), n_bins - 1)
    error = 0.0
    for one in range(n_bins):
        inside = bins == one
        if weights[inside].sum() > 0:
            share = weights[inside].sum()
            confidence = np.average(scores[inside], weights=weights[inside])
            error += share * abs(confidence - np.average(labels[inside], weights=weights[inside]))
    return float(error)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "AUC": auc,
    "EER": equal_error_rate,
    "TPR at 1 % FPR": hits,
    "ECE": calibration_error,
}


def interval(
    metric: Callable[[np.ndarray, np.ndarray], float],
    scores: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    n_draws: int = 300,
) -> tuple[float, float]:
    """95 % of the metric's values where sources of positives and families of negatives are drawn anew, with repetition."""
    chance = np.random.default_rng(0)
    names = np.asarray(groups)
    sides = [
        [np.flatnonzero((names == name) & (labels == side)) for name in sorted(set(names[labels == side]))]
        for side in (True, False)
    ]
    values = []
    for _ in range(n_draws):
        drawn = np.concatenate([side[one] for side in sides for one in chance.integers(0, len(side), len(side))])
        values.append(metric(scores[drawn], labels[drawn]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
