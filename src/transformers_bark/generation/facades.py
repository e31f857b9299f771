"""Between the models' `generate` methods and the stages: voices, options, padding and the order of the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .. import codec, vocabulary
from ..generation_configuration_bark import (
    BarkCoarseGenerationConfig,
    BarkFineGenerationConfig,
    BarkGenerationConfig,
    BarkSemanticGenerationConfig,
)
from ..voices import as_history_rows
from .coarse import generate_coarse
from .fine import generate_fine
from .options import coarse_options, fine_options, semantic_options, split_options
from .output import BarkGenerateOutput
from .progress import Reporter, StageCallback
from .sampling import Draws
from .semantic import generate_semantic


def speech(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    history_prompt: Any,
    config: BarkGenerationConfig,
    seed: int | Sequence[int] | None,
    progress: bool | None,
    stage_callback: StageCallback | None,
    options: Mapping[str, Any],
) -> BarkGenerateOutput:
    """Text ids [batch, length] -> audio, by way of every stage; see `BarkModel.generate`."""
    _check_text(input_ids, attention_mask)
    routed = split_options(options)
    semantic_config, coarse_config = config.semantic_config, config.coarse_acoustics_config
    fine_config, size = config.fine_acoustics_config, config.codebook_size
    for_semantic = semantic_options(semantic_config, routed["semantic"])
    for_coarse = coarse_options(coarse_config, routed["coarse"])
    for_fine = fine_options(fine_config, routed["fine"])
    batch = len(input_ids)
    voices = as_history_rows(history_prompt, batch, model.device, config)
    draws, report = Draws.from_seed(seed, batch), Reporter(progress, stage_callback)

    past = [voice.semantic_prompt if voice else None for voice in voices]
    with report.stage("semantic", for_semantic.max_new_tokens, batch) as advance:
        tokens = generate_semantic(
            model.semantic, input_ids, attention_mask, past, semantic_config, for_semantic, draws, advance
        )
    ratio = vocabulary.semantic_to_coarse_ratio(semantic_config, coarse_config)
    n_steps = max(vocabulary.n_coarse_tokens(len(t), ratio, coarse_config.n_coarse_codebooks) for t in tokens)
    pairs = [(voice.semantic_prompt, voice.coarse_prompt) if voice else None for voice in voices]
    with report.stage("coarse", n_steps, batch) as advance:
        coarse_codes = generate_coarse(
            model.coarse_acoustics, tokens, pairs, semantic_config, coarse_config, size, for_coarse, draws, advance
        )
    n_windows = -(-n_steps // coarse_config.n_coarse_codebooks // fine_config.max_fine_history_length)
    with report.stage("fine", n_windows, batch) as advance:
        codes = generate_fine(
            model.fine_acoustics,
            coarse_codes,
            [voice.fine_prompt if voice else None for voice in voices],
            fine_config,
            size,
            for_fine,
            draws,
            advance,
        )
    audio = _decode(model, codes)
    return BarkGenerateOutput(
        audio=pad_sequence(audio, batch_first=True),
        audio_lengths=torch.tensor([len(row) for row in audio]),
        semantic_tokens=tokens,
        coarse_codes=coarse_codes,
        fine_codes=codes,
    )


def _check_text(input_ids: Tensor, attention_mask: Tensor | None) -> None:
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2 or not input_ids.numel():
        shape = tuple(input_ids.shape) if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise ValueError(f"`input_ids` must be a tensor of shape [batch, length] with some text, got {shape}")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"`attention_mask` must have the shape of `input_ids`, {tuple(input_ids.shape)}, got {tuple(attention_mask.shape)}"
        )


def _decode(model: Any, codes: Sequence[Tensor]) -> list[Tensor]:
    """Codes -> audio [samples] a row. Offload hooks act on `forward`, which the codec's parts do not go through."""
    if model.fine_acoustics_hook is not None:
        model.fine_acoustics_hook.offload()
    if model.codec_model_hook is not None:
        model.codec_model.to(model.device)
    audio = codec.decode(model.codec_model, codes)
    if model.codec_model_hook is not None:
        model.codec_model_hook.offload()
    return audio


def _stage_call(options: Mapping[str, Any], batch: int, stage: str, total: int) -> tuple[dict[str, Any], Draws, Any]:
    """Splits the arguments that every stage takes from its sampling options."""
    own = dict(options)
    draws = Draws.from_seed(own.pop("seed", None), batch)
    report = Reporter(own.pop("progress", None), own.pop("stage_callback", None))
    return own, draws, report.stage(stage, total, batch)


def _require(**configs: Any) -> None:
    for name, config in configs.items():
        if config is None:
            raise ValueError(f"`{name}` has to be given")


def semantic(
    model: Any,
    input_ids: Tensor,
    config: BarkSemanticGenerationConfig | None,
    history_prompt: Any,
    attention_mask: Tensor | None,
    options: Mapping[str, Any],
) -> Tensor:
    """`BarkSemanticModel.generate`: padded tokens [batch, longest row]."""
    _require(semantic_generation_config=config)
    assert config is not None
    _check_text(input_ids, attention_mask)
    own, draws, stage = _stage_call(options, len(input_ids), "semantic", config.max_new_tokens)
    voices = as_history_rows(history_prompt, len(input_ids), model.device)
    past = [voice.semantic_prompt if voice else None for voice in voices]
    with stage as advance:
        rows = generate_semantic(
            model, input_ids, attention_mask, past, config, semantic_options(config, own), draws, advance
        )
    return pad_sequence(rows, batch_first=True, padding_value=config.semantic_pad_token)


def coarse(
    model: Any,
    semantic_output: Tensor,
    semantic_config: BarkSemanticGenerationConfig | None,
    coarse_config: BarkCoarseGenerationConfig | None,
    codebook_size: int,
    history_prompt: Any,
    return_output_lengths: bool,
    options: Mapping[str, Any],
) -> Tensor | tuple[Tensor, Tensor]:
    """`BarkCoarseModel.generate`: padded coarse ids [batch, longest row], and the number of each row if asked for."""
    _require(semantic_generation_config=semantic_config, coarse_generation_config=coarse_config)
    assert semantic_config is not None and coarse_config is not None
    pads = (semantic_config.semantic_pad_token, coarse_config.coarse_semantic_pad_token)
    rows = [row[~torch.isin(row, row.new_tensor(pads))] for row in semantic_output]
    own, draws, stage = _stage_call(options, len(rows), "coarse", 0)
    voices = as_history_rows(history_prompt, len(rows), model.device)
    pairs = [(voice.semantic_prompt, voice.coarse_prompt) if voice else None for voice in voices]
    with stage as advance:
        codes = generate_coarse(
            model,
            rows,
            pairs,
            semantic_config,
            coarse_config,
            codebook_size,
            coarse_options(coarse_config, own),
            draws,
            advance,
        )
    ids = [vocabulary.coarse_ids(row, semantic_config.semantic_vocab_size, codebook_size) for row in codes]
    padded = pad_sequence(ids, batch_first=True, padding_value=coarse_config.coarse_semantic_pad_token)
    return (padded, torch.tensor([len(row) for row in ids])) if return_output_lengths else padded


def fine(
    model: Any,
    coarse_output: Tensor,
    semantic_config: BarkSemanticGenerationConfig | None,
    coarse_config: BarkCoarseGenerationConfig | None,
    fine_config: BarkFineGenerationConfig | None,
    codebook_size: int,
    history_prompt: Any,
    options: Mapping[str, Any],
) -> Tensor:
    """`BarkFineModel.generate`: codes [batch, codebook, longest row], 0 after the end of a row."""
    _require(
        semantic_generation_config=semantic_config,
        coarse_generation_config=coarse_config,
        fine_generation_config=fine_config,
    )
    assert semantic_config is not None and coarse_config is not None and fine_config is not None
    first, n_codebooks = semantic_config.semantic_vocab_size, coarse_config.n_coarse_codebooks
    rows = [row[row < first + n_codebooks * codebook_size] for row in coarse_output]
    codes = [vocabulary.coarse_codes(row, n_codebooks, first, codebook_size) for row in rows]
    own, draws, stage = _stage_call(options, len(rows), "fine", 0)
    voices = as_history_rows(history_prompt, len(rows), model.device)
    with stage as advance:
        filled = generate_fine(
            model,
            codes,
            [voice.fine_prompt if voice else None for voice in voices],
            fine_config,
            codebook_size,
            fine_options(fine_config, own),
            draws,
            advance,
        )
    return pad_sequence([row.T for row in filled], batch_first=True).transpose(1, 2)
