"""State of the `encodec` library <-> state of `transformers.EncodecModel`: a table of names made from the config."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from .checkpoints import ConversionError, read_torch, tensor_state
from .names import check_shapes, rename

_CONV = {
    "bias": "bias",
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
"""A weight-normalised convolution: magnitude and direction, under torch's old and new names."""

_CODEBOOK = ("inited", "cluster_size", "embed", "embed_avg")
STATISTICS = re.compile(r"\.codebook\.(inited|cluster_size|embed_avg)$")
"""What only the codec's training reads."""

_BANDWIDTHS = (1.5, 3.0, 6.0, 12.0, 24.0)


def codec_names(config: EncodecConfig) -> dict[str, str]:
    """Every tensor of a codec: `encodec`'s name -> Transformers' name."""
    return {
        **dict(_encoder(config)),
        **dict(_decoder(config)),
        **{
            f"quantizer.vq.layers.{index}._codebook.{part}": f"quantizer.layers.{index}.codebook.{part}"
            for index in range(config.num_quantizers)
            for part in _CODEBOOK
        },
    }


def _conv(source: str, target: str, kind: str = "conv") -> Iterator[tuple[str, str]]:
    for old, new in _CONV.items():
        yield f"{source}.{kind}.{kind}.{old}", f"{target}.conv.{new}"


def _lstm(side: str, index: int, config: EncodecConfig) -> Iterator[tuple[str, str]]:
    for layer in range(config.num_lstm_layers):
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            yield f"{side}.model.{index}.lstm.{part}_l{layer}", f"{side}.layers.{index}.lstm.{part}_l{layer}"


def _residual(side: str, index: int, config: EncodecConfig) -> Iterator[tuple[str, str]]:
    for part in ("block.1", "block.3", *(["shortcut"] if config.use_conv_shortcut else [])):
        yield from _conv(f"{side}.model.{index}.{part}", f"{side}.layers.{index}.{part}")


def _encoder(config: EncodecConfig) -> Iterator[tuple[str, str]]:
    """Convolution, (residual blocks, activation, convolution) a ratio, LSTM, activation, convolution."""
    yield from _conv("encoder.model.0", "encoder.layers.0")
    index = 1
    for _ in config.upsampling_ratios:
        for _ in range(config.num_residual_layers):
            yield from _residual("encoder", index, config)
            index += 1
        yield from _conv(f"encoder.model.{index + 1}", f"encoder.layers.{index + 1}")
        index += 2
    yield from _lstm("encoder", index, config)
    yield from _conv(f"encoder.model.{index + 2}", f"encoder.layers.{index + 2}")


def _decoder(config: EncodecConfig) -> Iterator[tuple[str, str]]:
    """Convolution, LSTM, (activation, transposed convolution, residual blocks) a ratio, activation, convolution."""
    yield from _conv("decoder.model.0", "decoder.layers.0")
    yield from _lstm("decoder", 1, config)
    index = 2
    for _ in config.upsampling_ratios:
        yield from _conv(f"decoder.model.{index + 1}", f"decoder.layers.{index + 1}", "convtr")
        index += 2
        for _ in range(config.num_residual_layers):
            yield from _residual("decoder", index, config)
            index += 1
    yield from _conv(f"decoder.model.{index + 1}", f"decoder.layers.{index + 1}")


def read_encodec(
    path: Any, sampling_rate: int = 24_000, checksums: bool = True
) -> tuple[EncodecConfig, dict[str, Tensor]]:
    """A codec's config and tensors under Transformers' names, from an `encodec` state (`.th` or `.pt`).

    Sizes are read off the shapes; the sampling rate is in no file.

    Raises:
        ConversionError: as `read_torch`; a name without a place, a tensor that is missing, another kind of codec.
    """
    content = read_torch(path, checksums)
    if isinstance(content, Mapping) and isinstance(content.get("best_state"), Mapping):
        content = content["best_state"]  # what training writes
    state = {_old_norm(name): tensor for name, tensor in tensor_state(content, str(path)).items()}
    config = codec_config(state, sampling_rate, str(path))
    tensors = rename(state, codec_names(config), str(path))
    check_shapes(tensors, empty_codec(config).state_dict(), str(path))
    return config, tensors


def empty_codec(config: EncodecConfig) -> EncodecModel:
    """The codec on the meta device: names and shapes without memory."""
    with torch.device("meta"):
        return EncodecModel(config)


def _old_norm(name: str) -> str:
    for old, new in list(_CONV.items())[1:]:
        name = name.replace(new, old)
    return name


def new_norm(name: str) -> str:
    """A Transformers name of any version under the present names of weight normalisation."""
    for old, new in list(_CONV.items())[1:]:
        name = re.sub(rf"\.{old}$", f".{new}", name)
    return name


def codec_config(state: Mapping[str, Tensor], sampling_rate: int, origin: str) -> EncodecConfig:
    """The config that a state's shapes tell.

    Raises:
        ConversionError: the state is no weight-normalised EnCodec.
    """
    try:
        first = state["encoder.model.0.conv.conv.weight_v"]
        blocks = _indices(state, r"encoder\.model\.(\d+)\.block\.1\.")
        upsample = _indices(state, r"decoder\.model\.(\d+)\.convtr\.")
        block = state[f"encoder.model.{blocks[0]}.block.1.conv.conv.weight_v"]
        last = state[f"encoder.model.{max(_indices(state, r'encoder.model.([0-9]+).conv.'))}.conv.conv.weight_v"]
        codebook = state["quantizer.vq.layers.0._codebook.embed"]
        ratios = [state[f"decoder.model.{index}.convtr.convtr.weight_v"].shape[-1] // 2 for index in upsample]
        sizes = {
            "num_filters": first.shape[0],
            "audio_channels": first.shape[1],
            "kernel_size": first.shape[2],
            "residual_kernel_size": block.shape[2],
            "compress": block.shape[1] // block.shape[0],
            "num_residual_layers": len(blocks) // len(ratios),
            "hidden_size": last.shape[0],
            "last_kernel_size": last.shape[2],
            "codebook_size": codebook.shape[0],
            "codebook_dim": codebook.shape[1],
            "num_lstm_layers": len(_indices(state, r"encoder\.model\.\d+\.lstm\.weight_ih_l(\d+)")),
        }
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise ConversionError(
            f"{origin}: not the state of a weight-normalised EnCodec ({error!r} is missing)"
        ) from error
    config = EncodecConfig(
        **sizes,
        upsampling_ratios=ratios,
        sampling_rate=sampling_rate,
        use_conv_shortcut=any(".shortcut." in name for name in state),
    )
    n_codebooks = len(_indices(state, r"quantizer\.vq\.layers\.(\d+)\."))
    most = n_codebooks * config.frame_rate * config.codebook_nbits / 1000
    config.target_bandwidths = [*(rate for rate in _BANDWIDTHS if rate < most), most]
    if config.num_quantizers != n_codebooks:
        raise ConversionError(f"{origin}: {n_codebooks} codebooks of {config.codebook_size} have no exact bandwidth")
    return config


def _indices(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted({int(match[1]) for name in state if (match := re.match(pattern, name))})
