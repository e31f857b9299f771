"""A run: the manifest is read and planned, workers make what is left, and the output is put in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import shards
from .ledger import Ledger
from .manifest import read_manifest
from .plan import Bucket, plan
from .progress import Progress
from .rows import Row, RowError, file_stem, row_of
from .settings import PARQUET, Settings
from .store import Store
from .worker import PARTS, WORK, Entry, Worker

Make = Callable[[Settings, Sequence[Bucket]], Iterable[tuple[Bucket, list[Entry]]]]
"""Makes buckets, in any order -> each with its entries as soon as they are written."""

MOST_CHARACTERS = 20_000


@dataclass(frozen=True)
class Summary:
    """What a run has done.

    Args:
        rows: of the manifest.
        made: in this run.
        seconds: of all audio that is there for the manifest.
        failures: rows without audio, with their reasons.
    """

    rows: int
    made: int
    seconds: float
    failures: tuple[Entry, ...]


def run(
    manifest: str,
    settings: Settings,
    make: Make | None = None,
    *,
    card: bool = False,
    split: str | None = None,
    most_characters: int = MOST_CHARACTERS,
    progress: bool | None = None,
) -> Summary:
    """Makes the rows of a manifest that are not there yet, and writes the output's own manifest.

    A run that was killed goes on when it is started again: what is written stays, and is not made again.

    Args:
        manifest: see `read_manifest`.
        make: who makes buckets; by default a worker in this process.
        card: whether to write a data set card.
        split: of a saved `DatasetDict`.

    Raises:
        ValueError: a manifest or an output folder that cannot be used.
        OSError: a file that cannot be read or written.
    """
    store = Store(settings.out)
    with _alone(store):
        rows, refused = read_rows(manifest, split, most_characters)
        run_key = settings.run_key()
        keys = {row.number: row.key(run_key) for row in rows}
        ledger = Ledger(store)
        _check_replaced(settings, ledger, rows, keys)
        finished = ledger.finished()
        buckets = plan(rows, keys, finished, settings.together)
        for bucket in buckets:  # what is left of a run that failed for all of its rows: they are tried again
            store.remove(f"{PARTS}/{bucket.name}.jsonl")
        left = sum(len(bucket.rows) for bucket in buckets)
        shown = Progress(left, sum(bucket.seconds for bucket in buckets), len(rows) - left, progress)
        made = 0
        for bucket, entries in (make or _here)(settings, buckets) if buckets else ():
            ledger.add(entries)
            made += sum("error" not in entry for entry in entries)
            shown.add(entries, bucket.seconds)
        shown.close()
        return _finish(store, settings, ledger, rows, refused, made, card)


def read_rows(manifest: str, split: str | None, most_characters: int) -> tuple[list[Row], list[Entry]]:
    """Rows that can be tried, and entries of those that cannot."""
    rows: list[Row] = []
    refused: list[Entry] = []
    seen: dict[str, int] = {}
    names: dict[str, str] = {}
    for number, values in enumerate(read_manifest(manifest, split), 1):
        try:
            if "error" in values:
                raise RowError(values["error"])
            row = row_of(number, values, most_characters)
            if row.id in seen:
                raise RowError(f"the id {row.id[:60]!r} is that of row {seen[row.id]}")
            other = names.setdefault(file_stem(row.id).rpartition("/")[2].casefold(), row.id)
            if other != row.id:
                raise RowError(f"the id differs from {other[:60]!r} in case alone, which file names may not tell")
            seen[row.id] = number
            rows.append(row)
        except RowError as error:
            shown = values.get("id")
            refused.append({"id": shown if isinstance(shown, str | int) else None, "row": number, "error": str(error)})
    if not rows and not refused:
        raise ValueError(f"{manifest} has no rows")
    return rows, refused


def _here(settings: Settings, buckets: Sequence[Bucket]) -> Iterator[tuple[Bucket, list[Entry]]]:
    """In this process."""
    worker = Worker(settings)
    for bucket in buckets:
        yield bucket, worker.make(bucket)


def _check_replaced(settings: Settings, ledger: Ledger, rows: Sequence[Row], keys: dict[int, str]) -> None:
    """A row that is asked for otherwise than before replaces its file; a shard holds rows that nobody takes out."""
    if settings.format != PARQUET:
        return
    for row in rows:
        entry = ledger.entries.get(row.id)
        in_shard = entry is not None and str(entry.get("file", "")).startswith("data/")
        if entry is not None and in_shard and entry["key"] != keys[row.number]:
            raise ValueError(
                f"{settings.out} holds row {row.id[:60]!r} with another text, voice, seed, model or option: name another folder"
            )


def _finish(
    store: Store,
    settings: Settings,
    ledger: Ledger,
    rows: Sequence[Row],
    refused: Sequence[Entry],
    made: int,
    card: bool,
) -> Summary:
    """Puts the output in order; each step may be killed and done again."""
    ledger.read_parts()
    if settings.format == PARQUET:
        ledger.entries |= shards.merge(store, ledger.entries, settings.shard_bytes)
    elif card:
        shards.write_metadata(store, ledger.entries.values())
    order = [row.id for row in rows]
    if card:
        shards.write_card(store, settings, [*ledger.entries.values(), *refused])
    ledger.write(order, refused)
    store.remove_drafts("audio")
    store.remove_folder(WORK)
    entries = [ledger.entries[name] for name in order]
    failures = [*refused, *(entry for entry in entries if "error" in entry)]
    seconds = sum(entry.get("seconds", 0.0) for entry in entries)
    return Summary(len(rows) + len(refused), made, seconds, tuple(failures))


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """One run at a time in a folder of this machine.

    Raises:
        ValueError: another run is there.
    """
    if store.path is None:
        yield
        return
    from filelock import FileLock, Timeout

    store.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(store.path, ".bark-batch.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another run works in {store.address}") from None
    try:
        yield
    finally:
        lock.release()
