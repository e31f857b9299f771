"""Many texts from a manifest: in one process, or on many machines with Ray. See docs/batch.md."""

from .run import Settings, Summary, run

__all__ = ["Settings", "Summary", "run"]
