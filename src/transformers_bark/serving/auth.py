"""Keys: who may call."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path


class Keys:
    """The keys that are let in. They are kept and compared as digests of one length, in constant time.

    Args:
        keys: none lets everybody in.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Keys:
        """A key a line; empty lines and lines that begin with # are left out.

        Raises:
            ValueError: no key in the file: everybody would be let in.
            OSError: it cannot be read.
        """
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ValueError(f"{path} holds no key")
        return cls(keys)

    @property
    def are_needed(self) -> bool:
        return bool(self._digests)

    def let_in(self, authorization: str | None) -> bool:
        """Whether a header `Authorization: Bearer KEY` holds one of the keys."""
        if not self.are_needed:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        given = _digest(key.strip())
        # all are compared, so that the time does not tell which one was near
        found = [hmac.compare_digest(given, known) for known in self._digests]
        return any(found) and scheme.lower() == "bearer"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
