"""Which rows are made together: buckets of about the same length, the longest first.

The plan is made of the whole manifest, so a bucket's rows are the same however many workers there are and whatever is finished.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..narration.limits import estimate_seconds
from .rows import Row

_PIECE_SECONDS = 8.0
"""Of a longer text a piece is about so long: a row of several counts as several."""


@dataclass(frozen=True)
class Bucket:
    """Rows that one call of a worker makes.

    Args:
        name: a digest of the rows, so that a worker finds what another has made of the same ones.
        seconds: that their audio may last, foretold.
    """

    name: str
    rows: tuple[Row, ...]
    keys: tuple[str, ...]
    seconds: float

    def as_json(self) -> str:
        rows = [row.as_dict() for row in self.rows]
        return json.dumps({"name": self.name, "rows": rows, "keys": self.keys, "seconds": self.seconds})

    @classmethod
    def from_json(cls, text: str) -> Bucket:
        read = json.loads(text)
        rows = tuple(Row(**row) for row in read["rows"])
        return cls(read["name"], rows, tuple(read["keys"]), read["seconds"])


def plan(rows: Iterable[Row], keys: Mapping[int, str], finished: set[str], size: int) -> list[Bucket]:
    """Buckets of what is left to do.

    Args:
        keys: of the rows, by number.
        finished: keys of rows that are there.
        size: generations in a full bucket.
    """
    timed = sorted(((estimate_seconds(row.text), row) for row in rows), key=lambda one: (-one[0], one[1].number))
    buckets: list[Bucket] = []
    group: list[tuple[float, Row]] = []
    places = 0
    for seconds, row in timed:
        needed = max(1, math.ceil(seconds / _PIECE_SECONDS))
        if group and places + needed > size:
            buckets += _bucket(group, keys, finished)
            group, places = [], 0
        group.append((seconds, row))
        places += needed
    return buckets + _bucket(group, keys, finished)


def _bucket(group: list[tuple[float, Row]], keys: Mapping[int, str], finished: set[str]) -> list[Bucket]:
    """The rows of a group that are left, as a bucket; none where nothing is."""
    left = [(seconds, row) for seconds, row in group if keys[row.number] not in finished]
    if not left:
        return []
    names = tuple(keys[row.number] for _, row in left)
    digest = hashlib.sha256("".join(names).encode()).hexdigest()[:24]
    return [Bucket(digest, tuple(row for _, row in left), names, sum(seconds for seconds, _ in left))]
