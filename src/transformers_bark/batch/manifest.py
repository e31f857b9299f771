"""Manifests: CSV, JSON lines, Parquet, or a `datasets` folder, on this machine or behind an fsspec address.

Nothing of a row is run, unpickled or made into a path. What one row has wrong is told as its failure, with its number.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from .rows import COLUMNS, NEEDED

ENDINGS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

_SAVED = ("dataset_info.json", "state.json", "dataset_dict.json")  # what `Dataset.save_to_disk` leaves
_LONGEST_FIELD = (
    2**27
)  # characters of a CSV field; a quote that is never closed would else be read to the end of the file

Values = Mapping[str, Any]
"""A row's values by column, or `{"error": why}` for one that could not be read."""


def read_manifest(address: str, split: str | None = None) -> Iterator[Values]:
    """Rows of a manifest in order.

    Args:
        address: a file, or a folder that `datasets` has saved or that holds such files; a path, or as in "s3://bucket/rows.parquet".
        split: of a saved `DatasetDict`.

    Raises:
        ValueError: another kind of file, a column that is missing, or a file that is damaged.
        OSError: it cannot be opened.
    """
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(address)
    if not fs.exists(path):
        raise FileNotFoundError(2, "there is no such manifest", address)
    if not fs.isdir(path):
        yield from _read_file(fs, path, address)
        return
    if any(fs.exists(f"{path}/{name}") for name in _SAVED):
        yield from _read_saved(address, split)
        return
    files = sorted(name for name in fs.find(path) if _kind(name))
    if not files:
        raise ValueError(f"{address} holds no manifest: neither a saved data set nor {', '.join(ENDINGS)}")
    for file in files:
        yield from _read_file(fs, file, os.path.basename(file))


def _kind(path: str) -> str | None:
    return ENDINGS.get(os.path.splitext(path)[1].lower())


def _read_file(fs: Any, path: str, name: str) -> Iterator[Values]:
    kind = _kind(path)
    if kind is None:
        raise ValueError(f"the ending of a manifest is one of {', '.join(ENDINGS)}, got {name!r}")
    with fs.open(path, "rb") as file:
        if kind == "parquet":
            yield from _read_parquet(file, name)
        elif kind == "jsonl":
            yield from _read_lines(file)
        else:
            yield from _read_csv(file, name, "\t" if path.lower().endswith(".tsv") else ",")


def _check_columns(found: Sequence[str], name: str) -> None:
    missing = [column for column in NEEDED if column not in found]
    if missing:
        has = ", ".join(repr(str(column)[:40]) for column in found[:20]) or "none"
        raise ValueError(f"{name} has no column {' and no column '.join(map(repr, missing))}; its columns: {has}")


def _read_csv(file: IO[bytes], name: str, delimiter: str) -> Iterator[Values]:
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")  # a bad byte is its row's failure
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        reader = csv.DictReader(text, delimiter=delimiter)
        _check_columns(list(reader.fieldnames or []), name)
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield {"error": f"line {reader.line_num} is not CSV: {error}"}
                continue
            if values.get(None):  # type: ignore[call-overload]
                yield {"error": f"line {reader.line_num} has more fields than the first line", "id": values["id"]}
                continue
            yield {column: values.get(column) for column in COLUMNS}
    finally:
        csv.field_size_limit(before)


def _read_lines(file: IO[bytes]) -> Iterator[Values]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            yield {"error": f"line {number} is not JSON: {error}"}
            continue
        if not isinstance(values, dict):
            yield {"error": f"line {number} must hold an object, got {type(values).__name__}"}
            continue
        yield {column: values.get(column) for column in COLUMNS}


def _read_parquet(file: Any, name: str) -> Iterator[Values]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'transformers-bark[batch]'") from error
    try:
        table = parquet.ParquetFile(file)
    except Exception as error:  # pyarrow's errors have no common parent
        raise ValueError(f"{name} is not Parquet, or damaged: {error}") from error
    _check_columns(table.schema_arrow.names, name)
    columns = [column for column in COLUMNS if column in table.schema_arrow.names]
    for batch in table.iter_batches(batch_size=1024, columns=columns):
        yield from batch.to_pylist()


def _read_saved(address: str, split: str | None) -> Iterator[Values]:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("a saved data set needs datasets: pip install 'transformers-bark[batch]'") from error
    found = datasets.load_from_disk(address)
    if isinstance(found, datasets.DatasetDict):
        names = list(found)
        if split is None and len(names) != 1:
            raise ValueError(f"{address} has the splits {', '.join(names)}: name one with --split")
        if split is not None and split not in found:
            raise ValueError(f"{address} has no split {split!r}; its splits: {', '.join(names)}")
        found = found[split or names[0]]
    _check_columns(found.column_names, address)
    yield from found.select_columns([column for column in COLUMNS if column in found.column_names])
