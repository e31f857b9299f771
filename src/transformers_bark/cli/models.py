"""The checkpoint that a command works with, and the options that name it."""

from __future__ import annotations

import argparse
import os
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..engines.names import CACHE_PRECISIONS, ENGINES, PRECISIONS
from .running import complain

if TYPE_CHECKING:
    from ..engines import EngineChoice


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the checkpoint's option."""
    parser.add_argument("--model", help="folder or name on the Hub (default: the checkpoint in the package)")


def add_precision(parser: Any) -> None:
    """Adds the options of what the graphs hold."""
    parser.add_argument(
        "--precision", choices=PRECISIONS["auto"], help="of the weights (default: fp32, in auto on CUDA bf16)"
    )
    parser.add_argument(
        "--cache-precision", choices=CACHE_PRECISIONS["auto"], help="of keys and values in onnxruntime (default: fp32)"
    )


def add_engine(parser: Any) -> None:
    """Adds the options of what computes, and where."""
    parser.add_argument("--device", help="cpu, cuda, … (default: cuda if there is one)")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what runs the transformers (default: auto)")
    add_precision(parser)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")


def model_source(options: argparse.Namespace) -> str:
    """Folder or Hub name of the checkpoint.

    Raises:
        FileNotFoundError: it can only be a folder, and is none.
    """
    from .. import BARK_NANO

    source = options.model or BARK_NANO
    local = os.path.isabs(source) or source.startswith(".") or source.count(os.sep) != 1
    if local and not os.path.isdir(source):
        raise FileNotFoundError(f"model folder {source} does not exist")
    return source


def device_named(name: str | None) -> Any:
    """The device to compute on.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {error}") from error
    return device


def load_model(source: str, dtype: str, device: Any, choice: EngineChoice, *, aligned: bool = False) -> Any:
    """The model, whole; for ONNX Runtime without the weights that its graphs hold.

    Args:
        aligned: words are to be found in the attention, which the graphs do not tell: a checkpoint whose heads follow the text is
            loaded whole.

    Raises:
        ValueError: a model of another type, one that lacks weights (it would make noise), or a dtype that the engine does not obey.
    """
    import torch
    from transformers import AutoConfig

    from ..engines.onnx_session import share_threads
    from ..low_memory import find_weights, load_with_engine
    from ..modeling_bark import BarkModel

    share_threads()
    config = AutoConfig.from_pretrained(source)
    if config.model_type != BarkModel.config_class.model_type:
        raise ValueError(f"{source} is a model of type {config.model_type!r}, not 'bark'")
    chosen = choice.for_device(device)
    if chosen.name == "onnxruntime" and dtype != "float32":
        if choice.name != "auto":
            raise ValueError(f"--dtype {dtype} is PyTorch's: with --engine {choice.name} give --precision instead")
        choice = chosen = replace(choice, name="torch")
    whole = aligned and bool(config.semantic_config.alignment_heads)
    if chosen.name == "onnxruntime" and not whole and find_weights(source) is not None:
        precisions = {"precision": chosen.precision, "cache_precision": chosen.cache_precision}
        return BarkModel.from_pretrained(source, engine=choice.name, **precisions, keep_weights=False)
    return load_with_engine(BarkModel, source, device, choice, dtype=getattr(torch, dtype))


def load_asked(options: argparse.Namespace, source: str, device: Any, *, aligned: bool) -> Any:
    """`load_model` with the engine and the dtype that `add_engine`'s options ask for."""
    from ..engines import EngineChoice

    choice = EngineChoice(options.engine, options.precision, cache_precision=options.cache_precision)
    return load_model(source, options.dtype, device, choice, aligned=aligned)


def set_up_logging(quiet: bool, bars: bool) -> None:
    """How much Transformers and warnings say."""
    from transformers.utils import logging

    if not bars:
        logging.disable_progress_bar()
    if quiet:
        logging.set_verbosity_error()


def show_warnings() -> None:
    """Warnings for users become a line each, for the rest of the process or of a `catch_warnings`."""
    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
