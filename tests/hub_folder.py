"""A folder as the Hub has it: exact configs, `pytorch_model.bin` with old names, tokenizer, voices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from tests.tiny import SIZES, randomize, tiny_tokenizer
from transformers_bark import BarkConfig, BarkModel, VoicePreset

DATA = Path(__file__).parent / "data"
PARTS = ("semantic_config", "coarse_acoustics_config", "fine_acoustics_config")


def hub_config(name: str, full_size: bool) -> dict:
    """The Hub's `config.json`; small layers in place of the real ones unless `full_size`."""
    config = json.loads((DATA / "hub" / name / "config.json").read_text())
    for part in PARTS if not full_size else ():
        config[part].update({key: value for key, value in SIZES.items() if key != "bias"})
    if not full_size:
        config["codec_config"].update(num_filters=2, hidden_size=16, codebook_dim=16)
    return config


def old_names(model: BarkModel) -> dict[str, torch.Tensor]:
    """The state dict as old versions wrote it: causal masks, and weight normalization by its former names."""
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in model.state_dict().items()
    }
    for part in ("semantic", "coarse_acoustics"):
        config = getattr(model, part).config
        mask = torch.ones(config.block_size, config.block_size, dtype=torch.bool).tril()[None, None]
        state.update({f"{part}.layers.{i}.attn.bias": mask for i in range(config.num_layers)})
    return state


def hub_folder(folder: Path, name: str = "bark-small", full_size: bool = False) -> tuple[Path, BarkModel]:
    """Writes the folder; gives it and the model that its weights came from."""
    folder.mkdir(parents=True)
    config = hub_config(name, full_size)
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(DATA / "hub" / name / "generation_config.json", folder)
    torch.manual_seed(3)
    model = BarkModel(BarkConfig(**config)).eval()
    randomize(model, seed=3)
    torch.save(old_names(model), folder / "pytorch_model.bin")
    tiny_tokenizer(folder, max_length=512).save_pretrained(folder)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "processor_class": "BarkProcessor"}))
    listed: dict[str, object] = {"repo_or_path": "ylacombe/bark-large"}
    for path in sorted((DATA / "presets").rglob("*.npz")):
        voice = path.relative_to(DATA / "presets").with_suffix("").as_posix()
        listed[voice] = {}
        for key, part in VoicePreset.load(path).as_dict().items():
            file = folder / "speaker_embeddings" / f"{voice}_{key}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, part.numpy())
            listed[voice][key] = file.relative_to(folder).as_posix()  # type: ignore[index]
    (folder / "speaker_embeddings_path.json").write_text(json.dumps(listed))
    return folder, model
