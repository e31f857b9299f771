"""Tables and pictures of how well a detector does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import conditions, metrics
from .spectra import Table

WHOLE = "whole recordings"


def judged(table: Table) -> np.ndarray:
    """Rows that count: whole recordings under single conditions, none through the codec for training alone."""
    single = np.isin(table.condition, conditions.CONDITIONS)
    return single & table.whole & ~np.char.startswith(table.group.astype(str), "codec/")


def show(table: Table, scores: np.ndarray, title: str, unseen: Sequence[str] = ()) -> None:
    """Prints the tables, in Markdown: by condition, by family of negatives, by source of positives."""
    rows = judged(table)
    table, scores = table.rows(rows), scores[rows]
    print(f"\n### {title}\n")
    _summary(table, scores)
    for side, name in (
        ("released models", _released(table)),
        ("embedded checkpoint", table.positive & ~_released(table)),
    ):
        if name.any():
            _by_condition(table, scores, name | ~table.positive, side)
    _by_family(table, scores, unseen)
    _by_source(table, scores)


def _released(table: Table) -> np.ndarray:
    return np.char.startswith(table.family.astype(str), "bark-")


def _summary(table: Table, scores: np.ndarray) -> None:
    clean = table.condition == "clean"
    sources, families = len(set(table.family[table.positive])), len(set(table.family[~table.positive]))
    print(
        f"{(clean & table.positive).sum()} recordings of Bark from {sources} sources, {(clean & ~table.positive).sum()} others "
        f"from {families} families. In brackets: 95 % of the values where sources and families are drawn anew.\n"
    )


def _by_condition(table: Table, scores: np.ndarray, taken: np.ndarray, side: str) -> None:
    print(f"| {side} | " + " | ".join(metrics.METRICS) + " |")
    print("|---|" + "---|" * len(metrics.METRICS))
    for name in ("clean", *conditions.CONDITIONS[1:], "all of these"):
        rows = taken & ((table.condition == name) | (name == "all of these"))
        cells = []
        for metric in metrics.METRICS.values():
            value = metric(scores[rows], table.positive[rows])
            low, high = metrics.interval(metric, scores[rows], table.positive[rows], table.family[rows].tolist())
            cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}]")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def _by_family(table: Table, scores: np.ndarray, unseen: Sequence[str]) -> None:
    """Each family of negatives against all positives."""
    print("| family of others | clips | AUC clean | AUC, all conditions | lowest condition | false alarms at 0.5 |")
    print("|---|---|---|---|---|---|")
    for family in sorted(set(table.family[~table.positive])):
        mine = table.positive | (table.family == family)
        of = {name: _auc(scores, table.positive, mine & (table.condition == name)) for name in conditions.CONDITIONS}
        worst = min(of, key=lambda name: of[name])
        rows = ~table.positive & (table.family == family)
        mark = "*" if family in unseen else ""
        print(
            f"| {family}{mark} | {(rows & (table.condition == 'clean')).sum()} | {of['clean']:.3f} | "
            f"{_auc(scores, table.positive, mine):.3f} | {of[worst]:.3f} ({worst}) | {(scores[rows] >= 0.5).mean():.3f} |"
        )
    print()


def _by_source(table: Table, scores: np.ndarray) -> None:
    """Each source of positives against all negatives; the released models' in one row each."""
    print("| source of Bark | clips | AUC clean | AUC, all conditions | found at 0.5, clean | all conditions |")
    print("|---|---|---|---|---|---|")
    for family in sorted(set(table.family[table.positive])):
        mine = ~table.positive | (table.family == family)
        rows = table.positive & (table.family == family)
        clean = table.condition == "clean"
        print(
            f"| {family} | {(rows & clean).sum()} | {_auc(scores, table.positive, mine & clean):.3f} | "
            f"{_auc(scores, table.positive, mine):.3f} | {(scores[rows & clean] >= 0.5).mean():.2f} | "
            f"{(scores[rows] >= 0.5).mean():.2f} |"
        )
    print()


def _auc(scores: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> float:
    return metrics.auc(scores[rows], labels[rows])


def plots(table: Table, scores: np.ndarray, folder: Path) -> None:
    """ROC curves by condition, and how probabilities and shares agree."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from sklearn.metrics import roc_curve

    rows = judged(table) & (_released(table) | ~table.positive)
    table, scores = table.rows(rows), scores[rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name in conditions.CONDITIONS:
        some = table.condition == name
        false, true, _ = roc_curve(table.positive[some], scores[some])
        left.plot(np.maximum(false, 1e-3), true, label=f"{name}: {_auc(scores, table.positive, some):.3f}", linewidth=1)
    left.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1), xlabel="false alarms", ylabel="found")
    left.set_title("released models, sources and families left out in turn", fontsize=9)
    left.legend(fontsize=7, title="area under the curve", title_fontsize=7)
    weights = np.where(table.positive, 0.5 / table.positive.sum(), 0.5 / (~table.positive).sum())
    bins = np.minimum((scores * 10).astype(int), 9)
    points = [
        (
            np.average(scores[bins == one], weights=weights[bins == one]),
            np.average(table.positive[bins == one], weights=weights[bins == one]),
        )
        for one in range(10)
        if (bins == one).any()
    ]
    right.plot([0, 1], [0, 1], color="grey", linewidth=1)
    right.plot(*zip(*points, strict=True), marker="o")
    right.set(xlabel="probability that is said", ylabel="share that Bark made", xlim=(0, 1), ylim=(0, 1))
    right.set_title("calibration, all conditions, as many of both", fontsize=9)
    figure.savefig(folder / "detector.png", dpi=110)
    plt.close(figure)
