"""What is finished: the output's manifest, and the parts that workers have written since.

manifest.jsonl       a line a row: what was asked, what was made, or why not
.bark-batch/parts/   a file a bucket, until the run ends
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from .settings import PARQUET
from .store import Store
from .worker import PARTS, Entry

MANIFEST = "manifest.jsonl"


class Ledger:
    """Entries of an output folder, the newest of each id.

    Raises:
        ValueError: the folder's manifest is not one of ours.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.entries: dict[str, Entry] = {}
        for line in (store.read(MANIFEST) or b"").splitlines():
            try:
                entry = json.loads(line)
                is_ours = isinstance(entry, dict) and ("key" in entry or "error" in entry)
            except ValueError:
                is_ours = False
            if not is_ours:
                raise ValueError(f"{store.address}/{MANIFEST} is not of `bark-tts batch`: name another folder")
            if "key" in entry:
                self.entries[entry["id"]] = entry
        self.read_parts()

    def read_parts(self) -> None:
        """Takes in what workers have written."""
        for name in sorted(self._store.sizes(PARTS)):
            if name.endswith(".jsonl"):
                self.add(json.loads(line) for line in (self._store.read(name) or b"").splitlines())

    def add(self, entries: Iterable[Entry]) -> None:
        """Takes in what a bucket gave: audio counts more than an error of the same row."""
        for entry in entries:
            before = self.entries.get(entry["id"])
            if before is None or before["key"] != entry["key"] or "error" not in entry or "error" in before:
                self.entries[entry["id"]] = entry

    def finished(self) -> set[str]:
        """Keys of rows whose audio is there, as long as it was when it was written."""
        sizes = self._store.sizes("audio") | self._store.sizes("data") | self._store.sizes(PARTS)
        return {entry["key"] for entry in self.entries.values() if "error" not in entry and _is_there(entry, sizes)}

    def write(self, order: Sequence[str], refused: Sequence[Entry]) -> None:
        """Writes the manifest: the rows in order, then those of earlier runs, then rows that could not be tried."""
        names = dict.fromkeys([*order, *self.entries])
        lines = [self.entries[name] for name in names if name in self.entries]
        text = "".join(json.dumps(_public(line), ensure_ascii=False) + "\n" for line in [*lines, *refused])
        self._store.write(MANIFEST, text.encode(errors="backslashreplace"))


def _is_there(entry: Entry, sizes: dict[str, int]) -> bool:
    size = sizes.get(entry["file"])
    return size is not None and (entry["file"].endswith(f".{PARQUET}") or size == entry["bytes"])


def _public(entry: Entry) -> dict[str, Any]:
    """An entry with what tells most in front."""
    first = ("id", "file", "seconds", "error")
    return {name: entry[name] for name in first if name in entry} | entry
