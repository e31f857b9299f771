"""The results of `gpu.py` as tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compare import Line, roofline, table

NANO = Path(__file__).resolve().parents[1] / "src" / "transformers_bark" / "assets" / "nano"
OURS, STOCK = "ours, compiled bf16", "stock Transformers, bf16"


def folder_of(size: str, temporary: str) -> str:
    """Where the weights of a size lie; those of `nano` are in the package."""
    return str(NANO if size == "nano" else Path(temporary, size))


def of_kind(data: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The results of a kind."""
    return [result for result in data["results"] if result["kind"] == kind]


def lines_of(data: dict[str, Any], size: str) -> list[Line]:
    """Measured speed, as `compare.py` has it."""
    fields = ("name", "batch", "seconds", "times", "tokens", "peak_mb")
    found = [
        Line(**{key: result[key] for key in fields}) for result in of_kind(data, "speed") if result["size"] == size
    ]
    return sorted(found, key=lambda line: (not line.name.startswith("stock"), line.name, line.batch))


def rows_to_table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Markdown."""
    header = list(header)
    out = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in out)


def markdown(data: dict[str, Any], folders: dict[str, str]) -> str:
    """The whole report."""
    sections = [
        "# A GPU's run",
        _summary(data),
        "## Machine\n\n" + _facts(data),
        "## Checks\n\n" + _checks(data),
        "## Equality with stock Transformers\n\n" + _parity(data),
    ]
    for size in data["settings"]["sizes"]:
        lines = lines_of(data, size)
        if lines:
            sections.append(f"## Speed, {size}\n\n" + _speed(data, size, lines, folders[size]))
    sections += [
        "## Streaming\n\n" + _streams(data),
        "## One decode step\n\n" + _steps(data),
        "## Parts\n\n"
        + rows_to_table(
            ("part", "how it ended", "seconds", "expected"),
            ([part["name"], part["status"], part["seconds"], f"{part['estimate']:g}"] for part in data["parts"]),
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(data: dict[str, Any]) -> str:
    """The goals beside what was measured."""
    rows = []
    for size in data["settings"]["sizes"]:
        lines = {(line.name, line.batch): line for line in lines_of(data, size)}
        one, stock = lines.get((OURS, 1)), lines.get((STOCK, 1))
        ratio = one.speed / stock.speed if one and stock else None
        rows.append(_goal(f"{size}: one sentence against stock, bf16", ratio, "at least", 8, 20, " x"))
        rows.append(_goal(f"{size}: real-time factor", 1 / one.speed if one else None, "at most", 0.15, 0.05))
        many = lines.get((OURS, 64))
        rows.append(
            _goal(f"{size}: audio seconds a second, 64 rows", many.speed if many else None, "at least", 60, 300)
        )
        first = next(
            (r["first_piece"] for r in of_kind(data, "stream") if (r["name"], r["size"]) == (OURS, size)), None
        )
        rows.append(_goal(f"{size}: first streamed audio", first, "at most", 0.25, None, " s"))
    text = rows_to_table(("goal", "wanted", "great", "measured", ""), rows)
    if data["settings"]["device"] == "cpu":
        text = "This run was a trial on a CPU: its figures say nothing of a GPU.\n\n" + text
    return text


def _goal(what: str, value: float | None, side: str, wanted: float, great: float | None, unit: str = "") -> list[str]:
    limit = [f"{side} {wanted:g}{unit}", "" if great is None else f"{great:g}{unit}"]
    if value is None:
        return [what, *limit, "not measured", ""]
    met = value >= wanted if side == "at least" else value <= wanted
    return [what, *limit, f"{value:.3g}{unit}", "met" if met else "not met"]


def _facts(data: dict[str, Any]) -> str:
    facts = {key: value for result in of_kind(data, "environment") for key, value in result.items() if key != "kind"}
    for result in of_kind(data, "ceilings"):
        facts["memory read"] = f"{result['read_bytes_s'] / 1e9:.0f} GB/s"
        facts["memory copied, read and written"] = f"{result['copy_bytes_s'] / 1e9:.0f} GB/s"
        facts["products in bf16"] = f"{result['bf16_flop_s'] / 1e12:.3g} TFLOP/s"
    return rows_to_table(("", ""), facts.items()) if facts else "not measured"


def _checks(data: dict[str, Any]) -> str:
    checks = of_kind(data, "check")
    wrong = [check for check in checks if not check["passed"]]
    text = f"{len(checks) - len(wrong)} of {len(checks)} that ran hold."
    return "\n".join([text, *(f"- {check['check']}: {check['error']}" for check in wrong)])


def _parity(data: dict[str, Any]) -> str:
    rows = [
        [r["size"], r["name"], r["precision"], r["stage"], f"{r['equal']} of {r['tokens']}", r["until"]]
        for r in of_kind(data, "parity")
    ]
    if not rows:
        return "not measured"
    header = ("size", "engine", "precision", "stage", "equal greedy tokens", "tokens of a row until the first other")
    text = [
        "Two rows of random input for each stage. In bf16 near ties fall otherwise, and after one of them other tokens follow.",
        rows_to_table(header, rows),
        "Logits of the semantic model: norm of the difference from stock in fp32, as a part of its norm.",
    ]
    errors = [
        (r["size"], key, f"{value:.1e}")
        for r in of_kind(data, "logits")
        for key, value in r.items()
        if key not in ("kind", "size")
    ]
    return "\n\n".join([*text, rows_to_table(("size", "", "difference"), errors)])


def _speed(data: dict[str, Any], size: str, lines: list[Line], folder: str) -> str:
    """The table of `compare.py`, what came before the times, and how near single rows come to memory's bound."""
    by_precision = [[line for line in lines if line.name.endswith(precision)] for precision in ("bf16", "fp32")]
    text = [table(group) for group in by_precision if group]
    before = [
        [r["name"], r["batch"], f"{sum(r['before'].values()):.2f}", f"{sum(r['times'].values()):.2f}"]
        for r in of_kind(data, "speed")
        if r["size"] == size
    ]
    text.append(
        "Before a case is timed, the same is run once (for stock and `torch` a short one, before the first case): "
        "what is recorded or compiled is in that."
    )
    text.append(rows_to_table(("implementation", "rows", "run before, s", "timed, s"), before))
    ceilings = of_kind(data, "ceilings")
    config = Path(folder, "config.json")
    if ceilings and config.exists():
        precisions = {line.name: {"precision": line.name.split()[-1]} for line in lines}
        text.append(roofline(lines, Path(folder), precisions, ceilings[0]["read_bytes_s"]))
    return "\n\n".join(text)


def _streams(data: dict[str, Any]) -> str:
    rows = [
        [
            r["size"],
            r["name"],
            f"{r['audio_s']:.2f}",
            *(f"{r[key]:.3f}" for key in ("first_call", "first_piece", "whole")),
        ]
        for r in of_kind(data, "stream")
    ]
    header = ("size", "implementation", "audio, s", "first piece of the first call, s", "of the third, s", "whole, s")
    return rows_to_table(header, rows) if rows else "not measured"


def _steps(data: dict[str, Any]) -> str:
    steps = of_kind(data, "step")
    if not steps:
        return "not measured"
    rows = [
        [
            r["size"],
            r["rows"],
            "recorded as it is" if r["backend"] == "none" else f"compiled by {r['backend']}",
            f"{1e3 * r['seconds']:.3f}",
            f"{r['ahead']:.2f}",
        ]
        for r in steps
    ]
    text = [
        "The semantic model in bf16.",
        rows_to_table(("size", "rows", "", "ms a step", "before the first, s"), rows),
    ]
    for result in steps:
        found = ([k["name"].replace("|", "/"), f"{k['calls']:.1f}", f"{k['us']:.1f}"] for k in result["kernels"])
        text += [
            f"Kernels, {result['rows']} rows, {result['backend']}:",
            rows_to_table(("kernel", "calls a step", "µs a step"), found),
        ]
    return "\n\n".join(text)


def pictures(data: dict[str, Any], folder: Path) -> None:
    """Speed by rows, and the stages of one sentence; nothing without matplotlib."""
    sizes = [size for size in data["settings"]["sizes"] if lines_of(data, size)]
    if not sizes:
        return
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(sizes), figsize=(4.5 * len(sizes), 4), squeeze=False)
    for size, axis in zip(sizes, axes[0], strict=True):
        lines = lines_of(data, size)
        for name in dict.fromkeys(line.name for line in lines):
            own = [line for line in lines if line.name == name]
            axis.plot([line.batch for line in own], [line.speed for line in own], "o-", label=name)
        axis.set(title=size, xlabel="rows", ylabel="seconds of audio a second", xscale="log", yscale="log")
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / "speed.png", dpi=110)
    pyplot.close(figure)

    single = [(f"{size}\n{line.name}", line) for size in sizes for line in lines_of(data, size) if line.batch == 1]
    figure, axis = pyplot.subplots(figsize=(8, 0.5 * len(single) + 1.5))
    left = [0.0] * len(single)
    for stage in ("semantic", "coarse", "fine", "codec"):
        width = [line.times[stage] for _, line in single]
        axis.barh([label for label, _ in single], width, left=left, label=stage)
        left = [a + b for a, b in zip(left, width, strict=True)]
    axis.set(xlabel=f"seconds for {data['settings']['seconds']:g} s of audio, one row")
    axis.tick_params(axis="y", labelsize=7)
    axis.invert_yaxis()
    axis.legend()
    figure.tight_layout()
    figure.savefig(folder / "stages.png", dpi=110)
    pyplot.close(figure)
