"""Converts a folder in the Hub's layout back to the original library's files.

    python -m conversion.convert_hf_to_suno bark --output suno

writes `text_2.pt`, `coarse_2.pt`, `fine_2.pt`, `encodec.th`, and where the folder has them `vocab.txt` and
`prompts/*.npz`. `--small` leaves out the `_2`. The names have the prefix of compiled models, as the released files do:
bark.cpp's converter counts on it, and on 32-bit floats.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conversion import encodec_codec, names
from conversion.checkpoints import ConversionError, FolderWeights, new_folder, own_storage
from transformers_bark import output_files
from transformers_bark.configuration_bark import BarkConfig, BarkSubModelConfig
from transformers_bark.voices import KEYS, VoicePreset


def convert(folder: Path, output: Path, small: bool = False, overwrite: bool = False) -> list[str]:
    """Converts a model folder to the original's files in `output`.

    Args:
        folder: `config.json`, weights (safetensors or `pytorch_model.bin`), and what there is of tokenizer and voices.
        small: name the files as the original's small models are named.
        overwrite: replace a folder that is not empty.

    Returns:
        lines that say what was made and left out.

    Raises:
        ConversionError: a missing or damaged file, a name without a place, a parameter without a tensor.
    """
    config = _read_config(folder)
    weights = FolderWeights(folder)
    with new_folder(output, overwrite) as draft:
        report = []
        for stage, stem in names.SUNO_FILES.items():
            file = f"{stem}.pt" if small else f"{stem}_2.pt"
            loss = weights.metadata(f"{stage}.best_val_loss")
            checkpoint = stage_checkpoint(stage, getattr(config, f"{stage}_config"), weights, loss)
            with output_files.open_output(draft / file) as target:
                torch.save(checkpoint, target)
            report.append(f"{stage}: {len(checkpoint['model'])} tensors -> {file}")
            del checkpoint
        state = codec_state(config, weights)
        with output_files.open_output(draft / "encodec.th") as target:
            torch.save(state, target)
        report.append(f"codec: {len(state)} tensors -> encodec.th")
        report.append(_convert_vocabulary(folder, draft))
        report.append(_convert_voices(folder, draft))
    return [*report, "checked: every tensor has a place and every parameter is filled", f"written to {output}"]


def _read_config(folder: Path) -> BarkConfig:
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ConversionError(f"{path}: no such file")
    try:
        return BarkConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ConversionError(f"{path}: not a config of Bark ({error})") from error


def stage_checkpoint(
    stage: str, config: BarkSubModelConfig, weights: FolderWeights, best_val_loss: str | None
) -> dict[str, Any]:
    """What the original's `.pt` file of a stage holds: `model`, `model_args`, `best_val_loss`.

    The loss is a tensor, as the original only calls `.item()` on it and torch loads tensors with `weights_only=True`.

    Raises:
        ConversionError: see `convert`.
    """
    origin = f"{weights.folder} ({stage})"
    state = {name: t for name, t in weights.tensors(f"{stage}.").items() if not names.is_mask(name)}
    state = {name: own_storage(tensor, torch.float32) for name, tensor in state.items()}
    for head, embedding in names.tied_names(config).items():
        if embedding in state:
            if head in state and not torch.equal(state[head], state[embedding]):
                raise ConversionError(
                    f"{origin}: {head} and {embedding} are one parameter in the model but differ in the file"
                )
            state[head] = state[embedding]
    table = {ours: original for original, ours in names.stage_names(config).items()}
    model = names.rename(state, table, origin)
    order = {original: index for index, original in enumerate(table.values())}
    return {
        "model": {names.COMPILED_PREFIX + name: model[name] for name in sorted(model, key=order.__getitem__)},
        "model_args": names.model_args(config),
        "best_val_loss": torch.tensor(math.nan if best_val_loss is None else float(best_val_loss), dtype=torch.float64),
    }


def codec_state(config: BarkConfig, weights: FolderWeights) -> dict[str, Tensor]:
    """The codec's state under the names of the `encodec` library, in 32-bit floats.

    Raises:
        ConversionError: see `convert`, and for a codec that is no EnCodec.
    """
    codec: Any = config.codec_config
    if codec is None or codec.model_type != "encodec":
        raise ConversionError(f"{weights.folder}: the codec is {getattr(codec, 'model_type', None)!r}, not 'encodec'")
    origin = f"{weights.folder} (codec)"
    state = {encodec_codec.new_norm(name): tensor for name, tensor in weights.tensors("codec_model.").items()}
    table = {ours: original for original, ours in encodec_codec.codec_names(codec).items()}
    renamed = names.rename(state, table, origin)
    return {name: own_storage(renamed[name], torch.float32) for name in table.values()}


def _convert_vocabulary(folder: Path, draft: Path) -> str:
    if not (folder / "tokenizer_config.json").is_file() and not (folder / "vocab.txt").is_file():
        return "vocabulary: the folder has no tokenizer"
    from transformers import AutoTokenizer

    vocab = AutoTokenizer.from_pretrained(folder, local_files_only=True).get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)
    if [vocab[token] for token in tokens] != list(range(len(tokens))):
        return "vocabulary: left out, its ids have gaps"
    output_files.write_text(draft / "vocab.txt", "".join(f"{token}\n" for token in tokens))
    return f"vocabulary: {len(tokens)} tokens -> vocab.txt"


def _convert_voices(folder: Path, draft: Path) -> str:
    index = folder / "speaker_embeddings_path.json"
    if not index.is_file():
        return "voices: the folder has none"
    voices = {
        name: files for name, files in json.loads(index.read_text(encoding="utf-8")).items() if name != "repo_or_path"
    }
    for name, files in voices.items():
        target = draft / "prompts" / f"{name}.npz"
        if not target.resolve().is_relative_to((draft / "prompts").resolve()):
            raise ConversionError(f"{index}: the voice {name!r} leaves its folder")
        _read_voice(folder, index, name, files).save(target)
    return f"voices: {len(voices)} -> prompts/"


def _read_voice(folder: Path, index: Path, name: str, files: Any) -> VoicePreset:
    """A voice from its entry in the index: three `.npy` files, or one `.npz` or safetensors file."""
    try:
        places = {"": files} if isinstance(files, str) else {key: files[key] for key in KEYS}
        paths = {key: folder / place for key, place in places.items()}
        if any(not path.resolve().is_relative_to(folder.resolve()) for path in paths.values()):
            raise ValueError("a path leaves the folder")
        if "" in paths:
            return VoicePreset.load(paths[""])
        return VoicePreset.from_arrays({key: np.load(path, allow_pickle=False) for key, path in paths.items()})
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise ConversionError(f"{index}: voice {name!r}: {error!r}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 1, with a message, for what cannot be converted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="model folder in the Hub's layout")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--small", action="store_true", help="name the files text.pt, coarse.pt, fine.pt")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is not empty")
    args = parser.parse_args(arguments)
    try:
        report = convert(args.folder, args.output, args.small, args.overwrite)
    except ConversionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
