"""Parquet shards with the audio inside, and a data set card: a folder that `datasets` loads and the Hub shows."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .settings import PARQUET, Settings
from .store import Store
from .worker import PARTS, Entry

COLUMNS = ("id", "text", "voice", "language", "seed", "seconds", "takes", "sha256", "samples_sha256")
CARD, METADATA = "README.md", "audio/metadata.jsonl"


def _features(rate: int) -> Any:
    """The shards' columns, as `datasets` knows them."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError("Parquet with audio needs datasets: pip install 'transformers-bark[batch]'") from error
    kinds = {"seed": "int64", "takes": "int64", "seconds": "float64"}
    columns = {name: datasets.Value(kinds.get(name, "string")) for name in COLUMNS}
    checks = {name: datasets.Value("string") for name in ("kind", "reason")}
    checks |= {"piece": datasets.Value("int64"), "weight": datasets.Value("float64")}
    return datasets.Features(
        {"id": columns.pop("id"), "audio": datasets.Audio(sampling_rate=rate), **columns, "checks": [checks]}
    )


def part_bytes(records: Sequence[tuple[Entry, dict[str, Any]]], rate: int) -> bytes:
    """Rows and their audio, `{"bytes", "path"}` -> a Parquet file."""
    import pyarrow
    import pyarrow.parquet as parquet

    features = _features(rate)
    rows = [{**{name: entry.get(name) for name in features}, "audio": audio} for entry, audio in records]
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema), sink, compression="none")
    return sink.getvalue().to_pybytes()


def merge(store: Store, entries: dict[str, Entry], shard_bytes: int) -> dict[str, Entry]:
    """Moves the rows of all parts into shards behind those that are there -> the entries that name them.

    The order is that of the parts' names, which are hashes: neither by length nor by worker, and the same in a run that a kill has
    interrupted here, whose shards are written over.
    """
    by_part: dict[str, dict[str, str]] = {}
    for name, entry in entries.items():
        if str(entry.get("file", "")).startswith(f"{PARTS}/"):
            by_part.setdefault(entry["file"], {})[name] = entry["key"]
    kept = {entry["file"] for entry in entries.values() if str(entry.get("file", "")).startswith("data/")}
    number = 1 + max((int(Path(name).stem.rpartition("-")[2]) for name in kept), default=-1)
    moved: dict[str, Entry] = {}
    with tempfile.TemporaryDirectory() as folder:
        for group in _groups(sorted(by_part), store.sizes(PARTS), shard_bytes):
            shard = f"data/train-{number:05d}.{PARQUET}"
            local = Path(folder, "shard.part")
            _write(store, group, by_part, local)
            store.upload(local, shard)
            for part in group:
                moved |= {name: {**entries[name], "file": shard} for name in by_part[part]}
            number += 1
    return moved


def _groups(parts: Sequence[str], sizes: dict[str, int], most: int) -> Iterator[list[str]]:
    group: list[str] = []
    total = 0
    for part in parts:
        if group and total + sizes.get(part, 0) > most:
            yield group
            group, total = [], 0
        group.append(part)
        total += sizes.get(part, 0)
    if group:
        yield group


def _write(store: Store, parts: Sequence[str], ids: dict[str, dict[str, str]], path: Path) -> None:
    """Rows of some parts, those alone that the ledger finds there -> a Parquet file."""
    import pyarrow
    import pyarrow.parquet as parquet

    writer: Any = None
    try:
        for part in parts:
            data = store.read(part)
            assert data is not None, part
            table = parquet.read_table(pyarrow.BufferReader(data))
            wanted = pyarrow.array([row in ids[part] for row in table.column("id").to_pylist()])
            table = table.filter(wanted)
            writer = writer or parquet.ParquetWriter(path, table.schema, write_page_index=True)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def write_metadata(store: Store, entries: Iterable[Entry]) -> None:
    """What `datasets` and the Hub read beside a folder of audio files."""
    lines = []
    for entry in entries:
        if "error" not in entry:
            about = {"file_name": entry["file"].removeprefix("audio/")}
            lines.append(json.dumps(about | {name: entry.get(name) for name in COLUMNS}, ensure_ascii=False) + "\n")
    store.write(METADATA, "".join(lines).encode())


def write_card(store: Store, settings: Settings, entries: Sequence[Entry]) -> None:
    """A data set card: what there is, what made it, and that it is synthetic."""
    from huggingface_hub import DatasetCardData

    made = [entry for entry in entries if "error" not in entry]
    files = f"data/*.{PARQUET}" if settings.format == PARQUET else "audio/**"
    languages = sorted({str(entry["language"]) for entry in made if entry.get("language")})
    about = DatasetCardData(
        language=languages or None,
        task_categories=["text-to-speech"],
        tags=["audio", "synthetic", "transformers-bark"],
        size_categories=[_size(len(made))],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
    )
    hours = sum(entry["seconds"] for entry in made) / 3600
    voices = Counter(str(entry.get("voice") or "drawn by the seed") for entry in made)
    doubtful = sum(any(check["weight"] for check in entry["checks"]) for entry in made)
    text = f"""---
{about.to_yaml()}
---

# Synthetic speech

{len(made)} recordings, {hours:.2f} hours, {made[0]["sampling_rate"] if made else 0} Hz, mono. **All of it is synthetic**: made by the
model `{settings.model_name}` with `transformers-bark`; nobody has said it. Whoever publishes or trains on it should say so too.

| | |
|---|---|
| voices | {", ".join(f"{name} ({count})" for name, count in voices.most_common(12))} |
| mean length | {3600 * hours / max(1, len(made)):.1f} s |
| recordings with a check that failed | {doubtful}; column `checks` says which |
| rows that could not be spoken | {len(entries) - len(made)}; `manifest.jsonl` says why |

Columns: `audio`, `text`, and for each row `voice`, `language`, `seed`, `seconds`, how often it was said (`takes`), and SHA-256 of the
file (`sha256`) and of its 16-bit samples (`samples_sha256`). The same model, text, voice and seed give the same samples.
"""
    store.write(CARD, text.encode())


def _size(count: int) -> str:
    steps = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for most, name in steps if count < most), "1M<n<10M")
