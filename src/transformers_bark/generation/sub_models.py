"""What the sub-models' `generate` methods do: the arguments that Transformers users know -> one stage, padded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .. import vocabulary
from ..generation_configuration_bark import (
    BarkCoarseGenerationConfig,
    BarkFineGenerationConfig,
    BarkSemanticGenerationConfig,
)
from .options import coarse_options, fine_options, semantic_options
from .progress import Reporter
from .speech import StageRun, check_text, take_copies


def _run(
    options: Mapping[str, Any], history_prompt: Any, n_rows: int, device: torch.device, codebook_size: int = 0
) -> tuple[StageRun, dict[str, Any]]:
    """Takes what is of the call, not of the stage, out of the options."""
    own, copies = take_copies(options)
    report = Reporter(own.pop("progress", None), own.pop("stage_callback", None))
    run = StageRun.of(codebook_size, history_prompt, n_rows, copies, device, own.pop("seed", None), report)
    return run, own


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
    check_text(input_ids, attention_mask)
    run, own = _run(options, history_prompt, len(input_ids), model.device)
    rows = run.semantic(model, input_ids, attention_mask, config, semantic_options(config, own))
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
    # ids past the semantic tokens are the end and the pads of either stage
    rows = [row[row < semantic_config.semantic_vocab_size] for row in semantic_output]
    run, own = _run(options, history_prompt, len(rows), model.device, codebook_size)
    rows = [row for row in rows for _ in range(run.copies)]
    codes = run.coarse(model, rows, semantic_config, coarse_config, coarse_options(coarse_config, own))
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
    run, own = _run(options, history_prompt, len(rows), model.device, codebook_size)
    codes = [row for row in codes for _ in range(run.copies)]
    filled = run.fine(model, codes, fine_config, fine_options(fine_config, own))
    return pad_sequence([row.T for row in filled], batch_first=True).transpose(1, 2)
