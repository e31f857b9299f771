"""How far a run is: rows, hours of audio, hours of audio an hour, what is left, failures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

_EVERY = {True: 0.5, False: 30.0}  # seconds between lines, on a terminal and in a log


class Progress:
    """Tells of a run on a stream: one line that changes on a terminal, a line now and then in a log.

    Args:
        rows: to be made in this run.
        seconds: of audio that they may last.
        done: rows that were there before.
        show: False says nothing; None shows where the stream is a terminal.
    """

    def __init__(
        self,
        rows: int,
        seconds: float,
        done: int,
        show: bool | None,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream: IO[str] = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._show = self._is_terminal if show is None else show
        self._clock, self._begun = clock, clock()
        self._told = self._begun
        self._rows, self._expected, self._before = rows, seconds, done
        self.rows = self.failures = 0
        self.audio = self._foretold = 0.0

    def add(self, entries: Iterable[dict[str, Any]], foretold: float) -> None:
        """A bucket is made, that was foretold to last so long."""
        for entry in entries:
            self.rows += 1
            self.failures += "error" in entry
            self.audio += entry.get("seconds", 0.0)
        self._foretold += foretold
        now = self._clock()
        if self._show and (now - self._told >= _EVERY[self._is_terminal] or self.rows >= self._rows):
            self._told = now
            self._write(self.line())

    def line(self) -> str:
        """As in "1200/5000 rows, 1.32 h of audio, 4.1 h an hour, 0:42:10 left, 3 failed"."""
        taken = max(1e-6, self._clock() - self._begun)
        left = taken * max(0.0, self._expected - self._foretold) / max(1e-6, self._foretold)
        total, done = self._rows + self._before, self.rows + self._before
        line = f"{done}/{total} rows, {self.audio / 3600:.2f} h of audio, {self.audio / taken:.1f} h an hour"
        return f"{line}, {_time(left)} left, {self.failures} failed"

    def close(self) -> None:
        """Ends the line."""
        if self._show and self._is_terminal and self.rows:
            self._stream.write("\n")

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")
        self._stream.flush()


def _time(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
