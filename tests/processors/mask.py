"""Builds the library that hides instruction sets (`cpuid_mask.c`): `python -m tests.processors.mask FOLDER` prints its path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("cpuid_mask.c")


def build_mask(folder: Path) -> Path:
    """The path of the built library, to be named in `LD_PRELOAD`."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "cpuid_mask.so"
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # not for the compiler
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, env=environment)
    return library


if __name__ == "__main__":
    print(build_mask(Path(sys.argv[1])))
