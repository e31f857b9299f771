"""What `import transformers_bark` changes in Transformers, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel
from transformers import BarkModel as StockBarkModel

import transformers_bark
from transformers_bark import BarkCoarseModel, BarkFineModel, BarkModel, BarkSemanticModel

PARTS = {"semantic": BarkSemanticModel, "coarse_acoustics": BarkCoarseModel, "fine_acoustics": BarkFineModel}


@pytest.mark.compat
@pytest.mark.parametrize("part", sorted(PARTS))
def test_sub_models_load_by_their_own_type(part: str, model: BarkModel, tmp_path: Path) -> None:
    getattr(model, part).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is PARTS[part].config_class
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is PARTS[part]
    wanted = getattr(model, part).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


@pytest.mark.compat
def test_stock_stays_reachable_by_its_own_name(checkpoint: Path) -> None:
    theirs = StockBarkModel.from_pretrained(checkpoint)
    assert type(theirs).__module__ == "transformers.models.bark.modeling_bark"
    assert type(AutoModel.from_config(BarkModel.from_pretrained(checkpoint).config)) is BarkModel


def test_every_public_name_is_there() -> None:
    assert all(hasattr(transformers_bark, name) for name in transformers_bark.__all__)
    assert isinstance(transformers_bark.BARK_NANO, str)


def test_a_plain_import_registers_in_a_fresh_process(checkpoint: Path) -> None:
    program = (
        "import transformers_bark, sys\n"
        "from transformers import AutoModelForTextToWaveform, AutoProcessor\n"
        f"print(type(AutoModelForTextToWaveform.from_pretrained({str(checkpoint)!r})).__module__)\n"
        f"print(type(AutoProcessor.from_pretrained({str(checkpoint)!r})).__module__)\n"
        "print(any(name.startswith(('bark.', 'transformers.models.bark')) for name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = ["transformers_bark.modeling_bark", "transformers_bark.processing_bark", "False"]
    assert done.stdout.split()[-3:] == modules
