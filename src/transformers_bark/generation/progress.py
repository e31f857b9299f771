"""Progress of the stages: bars on a terminal, and a callback for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is. `total` is the most there can be: the semantic stage usually ends before it."""

    stage: str
    done: int
    total: int
    rows: int


StageCallback = Callable[[StageProgress], None]
Advance = Callable[[int], None]
"""Called by a stage with the number of steps just made."""


def ignore(steps: int) -> None:
    """An `Advance` that does nothing."""


@dataclass(frozen=True)
class Reporter:
    """Where progress goes. `bars` None shows bars when standard error is a terminal."""

    bars: bool | None = None
    callback: StageCallback | None = None

    @contextmanager
    def stage(self, name: str, total: int, rows: int) -> Iterator[Advance]:
        """Reports one stage of `total` steps: yields the function to call after each step."""
        shown = sys.stderr.isatty() if self.bars is None else self.bars
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            bar.update(steps)
            if self.callback is not None:
                self.callback(StageProgress(name, done, total, rows))

        with tqdm(total=total, desc=name, disable=not shown, leave=False) as bar:
            yield advance
