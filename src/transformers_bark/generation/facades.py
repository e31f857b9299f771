"""Between the models' `generate` methods and the stages: voices, options, padding and the order of the stages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from ..voices import VoicePreset, as_history_rows
from .coarse import count_tokens, generate_coarse
from .fine import count_windows, generate_fine
from .options import (
    CoarseOptions,
    FineOptions,
    SemanticOptions,
    coarse_options,
    fine_options,
    semantic_options,
    split_options,
)
from .output import BarkGenerateOutput
from .progress import Reporter, StageCallback
from .sampling import Draws
from .semantic import generate_semantic
from .streaming import BarkStreamOutput, stream_audio


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
    stages = (config.semantic_config, config.coarse_acoustics_config, config.fine_acoustics_config)
    for_semantic, for_coarse, for_fine = _read_options(config, options)
    voices = as_history_rows(history_prompt, len(input_ids), model.device, config)
    run = _Run(voices, config.codebook_size, Draws.from_seed(seed, len(voices)), Reporter(progress, stage_callback))

    tokens = run.semantic(model.semantic, input_ids, attention_mask, stages[0], for_semantic)
    coarse_codes = run.coarse(model.coarse_acoustics, tokens, stages[0], stages[1], for_coarse)
    codes = run.fine(model.fine_acoustics, coarse_codes, stages[2], for_fine)
    audio = _decode(model, codes)
    return BarkGenerateOutput(
        audio=pad_sequence(audio, batch_first=True),
        audio_lengths=torch.tensor([len(row) for row in audio]),
        semantic_tokens=tokens,
        coarse_codes=coarse_codes,
        fine_codes=codes,
    )


def _read_options(
    config: BarkGenerationConfig, options: Mapping[str, Any]
) -> tuple[SemanticOptions, CoarseOptions, FineOptions]:
    """The options of every stage, all read before the first stage works."""
    routed = split_options(options)
    return (
        semantic_options(config.semantic_config, routed["semantic"]),
        coarse_options(config.coarse_acoustics_config, routed["coarse"]),
        fine_options(config.fine_acoustics_config, routed["fine"]),
    )


def stream(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    history_prompt: Any,
    config: BarkGenerationConfig,
    chunk_seconds: float,
    seed: int | None,
    stage_callback: StageCallback | None,
    options: Mapping[str, Any],
) -> Iterator[BarkStreamOutput]:
    """Text ids [1, length] -> pieces of audio; see `BarkModel.generate_stream`."""
    _check_text(input_ids, attention_mask)
    if len(input_ids) != 1:
        raise ValueError(f"one text is streamed at a time, got {len(input_ids)} rows")
    if not chunk_seconds > 0:
        raise ValueError(f"`chunk_seconds` must be positive, got {chunk_seconds!r}")
    for_semantic, for_coarse, for_fine = _read_options(config, options)
    voices = as_history_rows(history_prompt, 1, model.device, config)
    run = _Run(voices, config.codebook_size, Draws.from_seed(seed, 1), Reporter(False, stage_callback))
    decoder = codec.StreamDecoder(model.codec_model)
    n_frames = math.ceil(chunk_seconds * config.coarse_acoustics_config.coarse_rate_hz)

    def pieces() -> Iterator[BarkStreamOutput]:
        (tokens,) = run.semantic(model.semantic, input_ids, attention_mask, config.semantic_config, for_semantic)
        with run.report.stage(
            "coarse", count_tokens([tokens], config.semantic_config, config.coarse_acoustics_config), 1
        ) as advance:
            parts = (config, for_coarse, for_fine, run.draws, n_frames, advance)
            yield from stream_audio(model, decoder, tokens, voices[0], *parts)

    return pieces()  # what is wrong with the arguments shows at the call, not at the first piece


@dataclass(frozen=True)
class _Run:
    """What the stages of one call share: a voice or None per row, the size of a codebook, draws and progress."""

    voices: Sequence[VoicePreset | None]
    codebook_size: int
    draws: Draws
    report: Reporter

    @classmethod
    def of_stage(
        cls, options: Mapping[str, Any], history_prompt: Any, batch: int, device: torch.device, codebook_size: int = 0
    ) -> tuple[_Run, dict[str, Any]]:
        """For a sub-model's `generate`: takes `seed`, `progress` and `stage_callback` out of the options."""
        own = dict(options)
        draws = Draws.from_seed(own.pop("seed", None), batch)
        report = Reporter(own.pop("progress", None), own.pop("stage_callback", None))
        return cls(as_history_rows(history_prompt, batch, device), codebook_size, draws, report), own

    def semantic(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor | None, config: Any, options: SemanticOptions
    ) -> list[Tensor]:
        past = [voice.semantic_prompt if voice else None for voice in self.voices]
        with self.report.stage("semantic", options.max_new_tokens, len(past)) as advance:
            return generate_semantic(model, input_ids, attention_mask, past, config, options, self.draws, advance)

    def coarse(
        self, model: Any, tokens: Sequence[Tensor], semantic_config: Any, config: Any, options: CoarseOptions
    ) -> list[Tensor]:
        pairs = [(voice.semantic_prompt, voice.coarse_prompt) if voice else None for voice in self.voices]
        total = count_tokens(tokens, semantic_config, config)
        with self.report.stage("coarse", total, len(pairs)) as advance:
            return generate_coarse(
                model, tokens, pairs, semantic_config, config, self.codebook_size, options, self.draws, advance
            )

    def fine(self, model: Any, coarse_codes: Sequence[Tensor], config: Any, options: FineOptions) -> list[Tensor]:
        past = [voice.fine_prompt if voice else None for voice in self.voices]
        with self.report.stage("fine", count_windows(coarse_codes, past, config), len(past)) as advance:
            return generate_fine(model, coarse_codes, past, config, self.codebook_size, options, self.draws, advance)


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
    run, own = _Run.of_stage(options, history_prompt, len(input_ids), model.device)
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
    run, own = _Run.of_stage(options, history_prompt, len(rows), model.device, codebook_size)
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
    run, own = _Run.of_stage(options, history_prompt, len(rows), model.device, codebook_size)
    filled = run.fine(model, codes, fine_config, fine_options(fine_config, own))
    return pad_sequence([row.T for row in filled], batch_first=True).transpose(1, 2)
