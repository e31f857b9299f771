"""The original library's checkpoints -> one folder in the Hub's layout.

    python -m conversion.suno_to_hf --text text.pt --coarse coarse.pt --fine fine.pt --codec encodec_24khz.th \\
        --tokenizer FOLDER --voices FOLDER --output FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, EncodecConfig, EncodecModel

from conversion import names
from conversion.checkpoints import finished_folder, load_checkpoint
from transformers_bark import (
    BarkCoarseConfig,
    BarkCoarseModel,
    BarkConfig,
    BarkFineConfig,
    BarkFineModel,
    BarkGenerationConfig,
    BarkProcessor,
    BarkSemanticConfig,
    BarkSemanticModel,
    VoicePreset,
    hub,
    vocabulary,
)

_ARGS = {
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "hidden_size",
    "block_size": "block_size",
    "bias": "bias",
    "dropout": "dropout",
    "input_vocab_size": "input_vocab_size",
    "output_vocab_size": "output_vocab_size",
    "n_codes_total": "n_codes_total",
    "n_codes_given": "n_codes_given",
}
"""The original's `model_args` and our config's names."""


@dataclass(frozen=True)
class Stage:
    """One transformer: its file's option, our prefix and classes, and its table of names."""

    option: str
    prefix: str
    config: type[Any]
    model: type[Any]
    table: names.Table


STAGES = (
    Stage("text", "semantic", BarkSemanticConfig, BarkSemanticModel, names.CAUSAL),
    Stage("coarse", "coarse_acoustics", BarkCoarseConfig, BarkCoarseModel, names.CAUSAL),
    Stage("fine", "fine_acoustics", BarkFineConfig, BarkFineModel, names.FINE),
)


def original_generation_config() -> BarkGenerationConfig:
    """The sampling values of the original library."""
    causal = {"do_sample": True, "temperature": vocabulary.TEMPERATURE}
    return BarkGenerationConfig(
        semantic_config={**causal, "min_eos_p": vocabulary.MIN_EOS_P},
        coarse_acoustics_config=causal,
        fine_acoustics_config={"temperature": vocabulary.FINE_TEMPERATURE},
    )


def stage_config(stage: Stage, model_args: dict[str, Any], path: Path) -> Any:
    """The config that a file's `model_args` ask for.

    Raises:
        ValueError: an argument that is not known.
    """
    args = dict(model_args)
    if "vocab_size" in args:
        size = args.pop("vocab_size")
        args.setdefault("input_vocab_size", size)
        args.setdefault("output_vocab_size", size)
    unknown = sorted(set(args) - set(_ARGS))
    if unknown:
        raise ValueError(f"{path}: unknown model_args {', '.join(unknown)}")
    return stage.config(**{_ARGS[name]: value for name, value in args.items()})


def convert_stage(stage: Stage, path: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Config and memory-mapped weights of one stage, under our names without prefix.

    Raises:
        ValueError: what the file should hold is missing, or its names or shapes are not the model's.
    """
    checkpoint = load_checkpoint(path)
    missing = [key for key in ("model", "model_args") if key not in checkpoint]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it is not a checkpoint of the original library")
    config = stage_config(stage, checkpoint["model_args"], path)
    weights = names.rename(checkpoint["model"], stage.table, names.DROPPED)
    if stage.prefix == "fine_acoustics":
        weights, config.tie_word_embeddings = _without_tied_heads(weights)
    with torch.device("meta"):
        wanted = stage.model(config).state_dict()
    if stage.prefix == "fine_acoustics" and config.tie_word_embeddings:
        wanted = {name: value for name, value in wanted.items() if not name.startswith("lm_heads.")}
    names.require_total(weights, wanted, str(path))
    wrong = [f"{name} {tuple(weights[name].shape)}" for name in wanted if weights[name].shape != wanted[name].shape]
    if wrong:
        raise ValueError(f"{path}: shapes that the model_args do not ask for: {', '.join(wrong)}")
    return config, weights


def _without_tied_heads(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], bool]:
    """Drops heads that equal the embedding they are tied to; if any differs, all stay and the model is untied."""
    heads = [name for name in weights if name.startswith("lm_heads.")]
    tied = all(
        torch.equal(weights[name], weights[f"input_embeds_layers.{int(name.split('.')[1]) + 1}.weight"]) for name in heads
    )
    return {name: value for name, value in weights.items() if not (tied and name in heads)}, tied


def convert_codec(path: Path) -> tuple[EncodecConfig, dict[str, torch.Tensor]]:
    """Config and weights of the 24 kHz EnCodec."""
    config = EncodecConfig()
    weights = names.rename(load_checkpoint(path), names.CODEC)
    for old, new in names.WEIGHT_NORM:
        weights = {name.replace(old, new) if name.endswith(old) else name: value for name, value in weights.items()}
    with torch.device("meta"):
        wanted = EncodecModel(config).state_dict()
    names.require_total(weights, wanted, str(path))
    return config, weights


def _save_shard(weights: dict[str, torch.Tensor], prefix: str, file: Path, dtype: torch.dtype | None) -> dict[str, str]:
    """Writes one stage's weights and gives its lines of the index."""
    tensors = {
        f"{prefix}.{name}": (value.to(dtype) if dtype is not None and value.is_floating_point() else value).contiguous()
        for name, value in weights.items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    return dict.fromkeys(tensors, file.name)


def _copy_voices(source: Path, tokenizer: Any, folder: Path) -> int:
    """Saves tokenizer and every `.npz` voice below `source`, named by its path."""
    paths = {path.relative_to(source).with_suffix("").as_posix(): path for path in sorted(source.rglob("*.npz"))}
    for path in paths.values():
        VoicePreset.load(path).check()
    entries = {name: path.relative_to(source).as_posix() for name, path in paths.items()}
    BarkProcessor(tokenizer, {"repo_or_path": str(source.absolute()), **entries}).save_pretrained(folder)
    return len(paths)


def convert(arguments: argparse.Namespace) -> None:
    """Converts everything that the arguments name; the output folder appears when all is done."""
    dtype = None if arguments.dtype is None else getattr(torch, arguments.dtype)
    with finished_folder(arguments.output, arguments.overwrite) as folder:
        configs: dict[str, Any] = {}
        index: dict[str, str] = {}
        for number, stage in enumerate(STAGES, 1):
            # one stage at a time, so that no more than one file is ever mapped
            config, weights = convert_stage(stage, getattr(arguments, stage.option))
            configs[f"{stage.prefix}_config"] = config.to_dict()
            shard = folder / f"model-{number:05d}-of-00004.safetensors"
            index |= _save_shard(weights, stage.prefix, shard, dtype)
            print(f"{stage.option}: {len(weights)} tensors, {sum(map(torch.Tensor.numel, weights.values())) / 1e6:.1f} M values")
            del weights
        config, weights = convert_codec(arguments.codec)
        configs["codec_config"] = config.to_dict()
        index |= _save_shard(weights, "codec_model", folder / "model-00004-of-00004.safetensors", dtype)
        print(f"codec: {len(weights)} tensors")
        del weights
        _write_configs(folder, configs, index, arguments.dtype)
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
        if arguments.voices is None:
            tokenizer.save_pretrained(folder)
        else:
            print(f"voices: {_copy_voices(arguments.voices, tokenizer, folder)}")
        hub.write_model_card(folder, vocabulary.SAMPLE_RATE)
        if arguments.verify:
            from conversion.verify import verify

            verify(folder, arguments)
    print(f"written to {arguments.output}")
    if arguments.push_to_hub:
        _push(arguments.output, arguments.push_to_hub)


def _write_configs(folder: Path, configs: dict[str, Any], index: dict[str, str], dtype: str | None) -> None:
    config = BarkConfig(**configs, architectures=["BarkModel"], dtype=dtype or "float32")
    config.save_pretrained(folder)
    original_generation_config().save_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    content = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _push(folder: Path, repository: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=folder)


def build_parser() -> argparse.ArgumentParser:
    """The script's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for stage in STAGES:
        parser.add_argument(f"--{stage.option}", type=Path, required=True, help=f"the original's {stage.option} checkpoint, small or large")
    parser.add_argument("--codec", type=Path, required=True, help="state of the 24 kHz EnCodec")
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer (bert-base-multilingual-cased)")
    parser.add_argument("--voices", type=Path, help="folder of .npz voices")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: as in the files")
    parser.add_argument("--verify", action="store_true", help="run the original's code on the same inputs and compare")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the finished folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script; 1 when it failed."""
    try:
        convert(build_parser().parse_args(arguments))
    except (ValueError, TypeError, OSError) as error:
        print(f"suno_to_hf: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
