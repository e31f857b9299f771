"""The files that a conversion from the original's format starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sources:
    """Files to convert.

    Args:
        text, coarse, fine: the original's `.pt` files, of any size each.
        codec: state of the `encodec` library's 24 kHz model.
        tokenizer: folder of a tokenizer, or a WordPiece `vocab.txt`; None leaves it out.
        voices: folder with the original's `.npz` presets, sub-folders included; None leaves them out.
        generation_config: JSON file in place of the released models' settings.
    """

    text: Path
    coarse: Path
    fine: Path
    codec: Path
    tokenizer: Path | None = None
    voices: Path | None = None
    generation_config: Path | None = None

    def missing(self) -> list[str]:
        """Names of the sources that do not exist."""
        return [f"{name} ({path})" for name, path in vars(self).items() if path is not None and not Path(path).exists()]
