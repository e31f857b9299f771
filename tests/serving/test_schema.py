"""The OpenAPI page says what the service does: requests of all kinds, made from it, find no difference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.conftest import Serve
from transformers_bark.serving.auth import Keys

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("keyed", [False, True])
def test_schemathesis_finds_nothing(serve: Serve, tmp_path: Path, keyed: bool) -> None:
    keys = Keys(["a-key"]) if keyed else None
    with serve(folder=tmp_path / "voices", keys=keys) as one:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{one.url}/openapi.json", "--checks", "all"]
        command += ["--max-examples", "25", "--seed", "1", "--continue-on-failure"]
        command += ["-H", "Authorization: Bearer a-key"] if keyed else []
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        one.settle()
