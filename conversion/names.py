"""The original library's names and this package's names for the parameters and sizes of the three transformers.

Each table is expanded with a stage's config into a plain dict, source name -> target name, that lists every parameter of
the stage. The same dict, turned round, leads back. `rename` holds both sides to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from transformers_bark.configuration_bark import (
    BarkCoarseConfig,
    BarkFineConfig,
    BarkSemanticConfig,
    BarkSubModelConfig,
)

from .checkpoints import ConversionError

STAGES: dict[str, type[BarkSubModelConfig]] = {
    "semantic": BarkSemanticConfig,
    "coarse_acoustics": BarkCoarseConfig,
    "fine_acoustics": BarkFineConfig,
}
"""Name of a stage (its prefix in a checkpoint) -> its config class."""

SUNO_FILES = {"semantic": "text", "coarse_acoustics": "coarse", "fine_acoustics": "fine"}
"""Name of a stage -> stem of the original's file; the large models' files have `_2` after it."""

COMPILED_PREFIX = "_orig_mod."
"""What `torch.compile` puts before every name; the released files have it."""

MODEL_ARGS = {
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "hidden_size",
    "block_size": "block_size",
    "bias": "bias",
    "dropout": "dropout",
    "input_vocab_size": "input_vocab_size",
    "output_vocab_size": "output_vocab_size",
}
FINE_MODEL_ARGS = {**MODEL_ARGS, "n_codes_total": "n_codes_total", "n_codes_given": "n_codes_given"}

_ENDS = {"transformer.wpe.weight": "position_embeds_layer.weight", "transformer.ln_f.weight": "layernorm_final.weight"}
_CAUSAL = {"transformer.wte.weight": "input_embeds_layer.weight", "lm_head.weight": "lm_head.weight"}
_NORMS = {"ln_1": "layernorm_1", "ln_2": "layernorm_2"}
_LINEARS = {
    "attn.c_attn": "attn.att_proj",
    "attn.c_proj": "attn.out_proj",
    "mlp.c_fc": "mlp.in_proj",
    "mlp.c_proj": "mlp.out_proj",
}


def stage_names(config: BarkSubModelConfig) -> dict[str, str]:
    """Every parameter of a stage: the original's name -> ours. Tied heads are listed beside their embeddings."""
    names = dict(_ENDS)
    norm_bias = config.bias
    if isinstance(config, BarkFineConfig):
        norm_bias = True  # the original's fine model uses torch's LayerNorm, whatever `bias` says
        for index in range(config.n_codes_total):
            names[f"transformer.wtes.{index}.weight"] = f"input_embeds_layers.{index}.weight"
        for index in range(config.n_codes_total - config.n_codes_given):
            names[f"lm_heads.{index}.weight"] = f"lm_heads.{index}.weight"
    else:
        names.update(_CAUSAL)
    if norm_bias:
        names["transformer.ln_f.bias"] = "layernorm_final.bias"
    for layer in range(config.num_layers):
        for table, bias in ((_NORMS, norm_bias), (_LINEARS, config.bias)):
            for source, target in table.items():
                for part in ("weight", "bias") if bias else ("weight",):
                    names[f"transformer.h.{layer}.{source}.{part}"] = f"layers.{layer}.{target}.{part}"
    return names


def tied_names(config: BarkSubModelConfig) -> dict[str, str]:
    """Our name of each tied head -> our name of the embedding that it shares. Empty for the causal stages."""
    if not isinstance(config, BarkFineConfig):
        return {}
    heads = range(config.n_codes_total - config.n_codes_given)
    return {f"lm_heads.{index}.weight": f"input_embeds_layers.{index + 1}.weight" for index in heads}


def is_mask(name: str) -> bool:
    """Whether a name is that of a causal mask, which some files carry and no model needs."""
    return name.endswith(".attn.bias")


def clean_suno_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's state without compile prefix and mask buffers, the two things that are dropped."""
    plain = {name.removeprefix(COMPILED_PREFIX): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in plain.items() if not is_mask(name)}


def rename(state: Mapping[str, Tensor], names: Mapping[str, str], origin: str) -> dict[str, Tensor]:
    """`state` under its new names.

    Args:
        names: old name -> new name, for every tensor that there must be.
        origin: what the state is, for the error.

    Raises:
        ConversionError: a tensor that has no new name, or a new name that no tensor fills; all are listed.
    """
    unmapped = sorted(set(state) - set(names))
    unfilled = [f"{names[old]} (from {old})" for old in sorted(set(names) - set(state))]
    faults = []
    if unmapped:
        faults.append(f"names without a place in the model: {', '.join(unmapped)}")
    if unfilled:
        faults.append(f"parameters that nothing fills: {', '.join(unfilled)}")
    if faults:
        raise ConversionError(f"{origin}: {'; '.join(faults)}")
    return {names[old]: tensor for old, tensor in state.items()}


def check_shapes(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], origin: str) -> None:
    """Checks names and shapes against a model's state (on the meta device).

    Raises:
        ConversionError: a name too many or too few, or another shape; all are listed.
    """
    rename(tensors, {name: name for name in wanted}, origin)
    wrong = [
        f"{name} is {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
        for name, tensor in tensors.items()
        if tensor.shape != wanted[name].shape
    ]
    if wrong:
        raise ConversionError(f"{origin}: wrong shapes: {'; '.join(wrong)}")


def stage_config(stage: str, model_args: Mapping[str, object], origin: str) -> BarkSubModelConfig:
    """The config of a stage from the original's `model_args`.

    Raises:
        ConversionError: an argument that is missing or unknown, or impossible sizes.
    """
    table = FINE_MODEL_ARGS if stage == "fine_acoustics" else MODEL_ARGS
    args = dict(model_args)
    if "vocab_size" in args:
        size = args.pop("vocab_size")
        args.setdefault("input_vocab_size", size)
        args.setdefault("output_vocab_size", size)
    if stage == "fine_acoustics":  # the original's defaults
        args = {"n_codes_total": 8, "n_codes_given": 1, **args}
    args.setdefault("dropout", 0.0)
    unknown, missing = sorted(set(args) - set(table)), sorted(set(table) - set(args))
    if unknown or missing:
        raise ConversionError(
            f"{origin}: `model_args` lacks {missing or 'nothing'} and has unknown {unknown or 'nothing'}"
        )
    try:
        return STAGES[stage](**{table[name]: value for name, value in args.items()})
    except (TypeError, ValueError) as error:
        raise ConversionError(f"{origin}: bad `model_args`: {error}") from error


def model_args(config: BarkSubModelConfig) -> dict[str, object]:
    """The original's `model_args` from the config of a stage."""
    table = FINE_MODEL_ARGS if isinstance(config, BarkFineConfig) else MODEL_ARGS
    return {source: getattr(config, target) for source, target in table.items()}
