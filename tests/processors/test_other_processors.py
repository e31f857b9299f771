"""The whole numbers of ONNX Runtime are right on a processor without VNNI too: tried on this one with its newer parts hidden."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processors.mask import build_mask

CHECK = """
import tempfile, torch
from transformers_bark import BARK_NANO, BarkModel
from transformers_bark.engines import EngineChoice, kernels
model = BarkModel.from_pretrained(BARK_NANO)
print(torch.backends.cpu.get_cpu_capability(), kernels.exact_weights("int8"), kernels.exact_weights("int7"))
with tempfile.TemporaryDirectory() as cache:
    for precision in ("int8", "int4"):
        for part in (model.semantic, model.coarse_acoustics, model.fine_acoustics):
            report = EngineChoice("onnxruntime", precision, cache).make(part).report
            print(precision, report["relative_difference"])
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler")
def test_int8_stays_near_without_vnni(tmp_path: Path) -> None:
    mask = build_mask(tmp_path)
    environment = {**os.environ, "LD_PRELOAD": str(mask), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, env=environment)
    if "cannot make CPUID fault" in done.stderr:
        pytest.skip("this processor cannot hide what it has")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    # where products of signed weights saturate, as they do in AVX2, others must have been taken
    assert first == "AVX2 uint8 int7"
    differences = {precision: float(value) for precision, value in map(str.split, lines[0:6:3])}
    assert differences["int8"] < 0.1, "saturated products differ by twice as much"
    assert differences["int4"] < 0.6
