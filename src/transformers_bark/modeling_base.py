"""What all Bark models share: loading, saving, engines, devices and the stack of blocks."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from . import input_files
from .compat import PASSED_BY_TRANSFORMERS
from .configuration_bark import BarkConfig
from .engines import EngineChoice, engine_of

_FILES = ("config.json", "generation_config.json", "*.index.json", "*.safetensors", "pytorch_model*.bin")
"""Files that a model is loaded from."""

PACKING = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
"""What `DataCollatorWithFlattening` says of the sequences that it lays in one row."""


def reject_unknown(model: nn.Module, kwargs: Mapping[str, Any]) -> None:
    unknown = sorted(set(kwargs) - PASSED_BY_TRANSFORMERS - set(PACKING))
    if unknown:
        raise TypeError(f"{type(model).__name__}.forward() got unexpected keyword arguments: {', '.join(unknown)}")


def cross_entropy(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """Mean over the labels that are not -100; over `num_items_in_batch` where the trainer counts for itself."""
    flat, target = logits.float().flatten(0, -2), labels.to(logits.device).flatten()
    if num_items_in_batch is None:
        return nn.functional.cross_entropy(flat, target, ignore_index=-100)
    return nn.functional.cross_entropy(flat, target, ignore_index=-100, reduction="sum") / num_items_in_batch


def _check_configs(folder: Path) -> None:
    """Refuses a folder for whose configs Transformers would put those of the released models, without a word.

    Raises:
        FileNotFoundError: there is no config.
        ValueError: the generation config is damaged.
    """
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise FileNotFoundError(f"no config.json in {folder}")
        if (folder / "generation_config.json").exists():
            input_files.check_file(folder / "generation_config.json")


def _state_of(weight: Tensor) -> tuple[int, int]:
    """Changes when a parameter is replaced or written to."""
    return id(weight), 0 if weight.is_inference() else weight._version


def packed_positions(kwargs: Mapping[str, Any], length: int) -> Tensor | None:
    """Positions [1 or batch, length] that start anew with every packed sequence, where only its ends or numbers are given."""
    if (ends := kwargs.get("cu_seq_lens_q")) is not None:
        places = torch.arange(length, device=ends.device)
        return (places - ends.long()[torch.searchsorted(ends.long(), places, right=True) - 1])[None]
    if (numbers := kwargs.get("seq_idx")) is not None:
        places = torch.arange(length, device=numbers.device).expand_as(numbers)
        changes = torch.diff(numbers, prepend=numbers[:, :1] - 1, dim=-1) != 0
        return places - torch.where(changes, places, 0).cummax(-1).values
    return None


def same_sequence(position_ids: Tensor) -> Tensor | None:
    """Which positions are of one sequence where several are packed, bool [batch, 1, length, length]; None for one a row."""
    starts = torch.diff(position_ids, prepend=position_ids[:, :1] - 1, dim=-1) != 1
    if not torch.compiler.is_compiling() and not starts.any():
        return None
    number = starts.cumsum(-1)
    return (number[:, :, None] == number[:, None, :])[:, None]


class BarkPreTrainedModel(PreTrainedModel):
    """What all Bark models share: loading, saving, devices and the stack of blocks."""

    config: BarkConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["BarkBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # masks that checkpoints of older versions hold; they are computed here
    _keys_to_ignore_on_load_unexpected = [r"\.attn\.bias$"]

    engine_choice: EngineChoice = EngineChoice()
    graph_key: str | None = None
    """Names the graph of a model whose blocks were never loaded: see `transformers_bark.low_memory`."""
    random_weights: Mapping[str, tuple[int, int]] = {}
    """Weights that the checkpoint lacked, and what tells whether they have changed since: see `check_weights`."""
    made_engine: tuple[Any, Any] | None = None
    """The engine that was made last, and what it was made from."""

    @classmethod
    def from_pretrained(
        cls,
        *args: Any,
        engine: str = "torch",
        precision: str | None = None,
        cache_precision: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `PreTrainedModel.from_pretrained`, and `set_engine`.

        Warns of weights that the checkpoint lacks; see `check_weights`.

        Raises:
            ValueError: a damaged file, which it names.
        """
        choice = EngineChoice(engine, precision, None, cache_precision)  # says what is wrong before anything is read
        source = (args[0] if args else kwargs.get("pretrained_model_name_or_path")) or ""
        wants_info = kwargs.pop("output_loading_info", False)
        with input_files.errors_name_files(source, *_FILES):
            if len(args) < 2 and "config" not in kwargs:
                _check_configs(Path(source, kwargs.get("subfolder") or ""))
            model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model.use_engine(choice)
        model.note_random_weights(str(source), info)
        return (model, info) if wants_info else model

    def note_random_weights(self, source: str, info: Mapping[str, Any]) -> None:
        """Remembers which weights a checkpoint did not fill, and warns of them."""
        random = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
        weights = dict(self.named_parameters())
        self.random_weights = {name: _state_of(weights[name]) for name in sorted(random) if name in weights}
        if random:
            warnings.warn(
                f"{source} lacks {len(random)} weights, {min(random)} among them: they are random, and until they are trained "
                "the model makes noise",
                stacklevel=3,
            )

    def check_weights(self) -> "BarkPreTrainedModel":
        """Refuses to speak with weights that the checkpoint lacked and that nothing has set or trained since.

        Raises:
            ValueError: it names one.
        """
        weights = dict(self.named_parameters())
        random = [name for name, state in self.random_weights.items() if _state_of(weights[name]) == state]
        if random:
            source = self.name_or_path or "the checkpoint"
            raise ValueError(f"{source} lacks {len(random)} weights, {random[0]} among them: it would make noise")
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: not the engine, whose session can be neither copied nor pickled."""
        return {**super().__getstate__(), "made_engine": None}

    def set_engine(
        self,
        engine: str,
        precision: str | None = None,
        cache_dir: str | Path | None = None,
        cache_precision: str | None = None,
    ) -> "BarkPreTrainedModel":
        """Chooses what runs the transformers in `generate`.

        Args:
            engine: "torch", PyTorch with the weights as they are; "compiled", a decode step of fixed shapes, compiled on a CPU and
                recorded as one graph on CUDA; "onnxruntime", graphs built from the weights, on the CPU (extra `onnx`); "auto", the
                fastest here that is exact enough: "compiled" in bf16 on CUDA, "onnxruntime" in fp32 on a CPU that has it, else
                "torch".
            precision: of the weights: "fp32" (the default), "int8" or "int4" in "onnxruntime"; "fp32" or "bf16" in the others, by
                default the model's own, else a copy of the transformers' weights.
            cache_dir: where graphs are kept; by default under `HF_HOME`.
            cache_precision: of keys and values in "onnxruntime": "fp32" (the default) or "int8", a quarter of the memory and faster
                steps.

        Raises:
            ValueError: an unknown name, a precision that the engine does not have, or another choice for a model that was loaded
                without the weights of its blocks.
        """
        return self.use_engine(EngineChoice(engine, precision, cache_dir, cache_precision))

    def use_engine(self, choice: EngineChoice) -> "BarkPreTrainedModel":
        """`set_engine`, for a choice that is made."""
        models = [module for module in self.modules() if isinstance(module, BarkPreTrainedModel)]
        if any(model.graph_key for model in models) and choice != self.engine_choice:
            raise ValueError(f"the model was loaded with `keep_weights=False` for {self.engine_choice}: load it anew")
        for model in models:
            model.engine_choice = choice
        return self

    @property
    def engine(self) -> Any:
        """What runs this transformer: see `transformers_bark.generation.engine`.

        Raises:
            ValueError: "onnxruntime", whose graphs are built from the weights alone, for a model with adapters.
        """
        choice = self.engine_choice
        if self._has_adapters() and choice.for_device(self.device).name == "onnxruntime":
            if choice.name != "auto":
                raise ValueError(
                    "the engine 'onnxruntime' does not see adapters: merge them into the weights, or use 'torch'"
                )
            choice = EngineChoice()
        return engine_of(self, choice)

    def _has_adapters(self) -> bool:
        """Whether an adapter stands in the place of a linear module of the blocks."""
        return any(hasattr(part, "base_layer") for block in self.layers for part in block.modules())

    @property
    def device(self) -> torch.device:
        """Where the model runs: under offload the execution device of its hooks, else that of its parameters."""
        for module in self.modules():
            device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
            if device is not None:
                return torch.device(device)
        return super().device

    def _run_blocks(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        output_attentions: bool,
        output_hidden_states: bool,
        first: int = 0,
        **packing: Any,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """All blocks and the final norm -> last hidden state, hidden states of every depth, attention weights.

        The last block leaves positions before `first` out. `packing` reaches the attention's implementation.
        """
        if output_attentions and attention_mask is not None and attention_mask.ndim != 4:
            raise ValueError(
                f"`output_attentions=True` needs `attn_implementation` 'eager' or 'sdpa', got {self.config._attn_implementation!r}"
            )
        depths: list[Tensor] = []
        attentions: list[Tensor] = []
        for block in self.layers:
            depths.append(hidden_states)
            hidden_states, weights = block(
                hidden_states,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                output_attentions=output_attentions,
                first=first if block is self.layers[-1] else 0,
                **packing,
            )
            attentions.append(weights)
        hidden_states = self.layernorm_final(hidden_states)
        depths.append(hidden_states)
        return (
            hidden_states,
            tuple(depths) if output_hidden_states else None,
            tuple(attentions) if output_attentions else None,
        )

    def _embed_positions(
        self, inputs_embeds: Tensor, position_ids: Tensor | None = None, past: int | Tensor = 0
    ) -> Tensor:
        """inputs_embeds [batch, length, hidden] plus the embedding of each position.

        The length of a static cache is a tensor and stays on its device: its own room bounds it.
        """
        weight, length = self.position_embeds_layer.weight, inputs_embeds.shape[1]
        if position_ids is None:
            position_ids = (torch.arange(length, device=weight.device) + past)[None]
        if isinstance(past, int) and past + length > weight.shape[0] and int(position_ids.max()) >= weight.shape[0]:
            raise ValueError(
                f"position {int(position_ids.max())} is past the last one, `block_size` is {weight.shape[0]}"
            )
        return self.drop(inputs_embeds.to(weight.device) + self.position_embeds_layer(position_ids.to(weight.device)))

    def _packing(self, kwargs: Mapping[str, Any], position_ids: Tensor | None) -> dict[str, Any]:
        """What says to an attention without a mask where packed sequences end."""
        if self.config._attn_implementation in ("sdpa", "eager"):
            return {}
        said = {name: kwargs[name] for name in PACKING if kwargs.get(name) is not None}
        return said if position_ids is None else {**said, "position_ids": position_ids}

    def _flags(self, *flags: tuple[str, bool | None]) -> list[bool]:
        """Each flag as given, or as the config has it."""
        return [bool(getattr(self.config, name) if value is None else value) for name, value in flags]


def require_one(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> None:
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("exactly one of `input_ids` and `inputs_embeds` must be given")
