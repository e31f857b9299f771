"""Text -> speech: the order of the stages, whole or as a stream.

`speech` is `BarkModel.generate`, `stream` is `BarkModel.generate_stream`. Options are read, and what cannot be met is refused,
before the first stage works.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .. import codec
from ..generation_configuration_bark import BarkGenerationConfig
from ..voices import VoicePreset, as_history_rows
from . import coarse, fine, semantic
from .coarse import count_tokens, generate_coarse
from .fine import count_windows, generate_fine
from .options import (
    CoarseOptions,
    FineOptions,
    SemanticOptions,
    coarse_options,
    config_options,
    fine_options,
    semantic_options,
    split_options,
)
from .output import BarkGenerateOutput
from .processors import check_audio
from .progress import Reporter, StageCallback
from .sampling import Draws
from .semantic import generate_semantic
from .streaming import BarkStreamOutput, Pieces, stream_audio


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
    check_text(input_ids, attention_mask)
    options, copies = take_copies({**config_options(config), **options})
    for_semantic, for_coarse, for_fine = _read_options(model, config, options)
    if copies > 1 and not any(stage.do_sample for stage in (for_semantic, for_coarse, for_fine)):
        raise ValueError(f"`num_return_sequences` is {copies}, but nothing is sampled: all would be the same")
    run = StageRun.of(
        config, history_prompt, len(input_ids), copies, model.device, seed, Reporter(progress, stage_callback)
    )
    stages = (config.semantic_config, config.coarse_acoustics_config, config.fine_acoustics_config)

    tokens = run.semantic(model.semantic, input_ids, attention_mask, stages[0], for_semantic)
    coarse_codes = run.coarse(model.coarse_acoustics, tokens, stages[0], stages[1], for_coarse)
    codes = run.fine(model.fine_acoustics, coarse_codes, stages[2], for_fine)
    audio = _decode(model, codes)
    _warn_of_silence(codes)
    return BarkGenerateOutput(
        audio=pad_sequence(audio, batch_first=True),
        audio_lengths=torch.tensor([len(row) for row in audio]),
        semantic_tokens=tokens,
        coarse_codes=coarse_codes,
        fine_codes=codes,
    )


def take_copies(options: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The options of the stages, and the number of sequences a text."""
    given = dict(options)
    copies = given.pop("num_return_sequences", None)
    if copies is not None and (isinstance(copies, bool) or not isinstance(copies, int) or copies < 1):
        raise ValueError(f"`num_return_sequences` must be a whole number of at least 1, got {copies!r}")
    return given, copies or 1


def _read_options(
    model: Any, config: BarkGenerationConfig, options: Mapping[str, Any]
) -> tuple[SemanticOptions, CoarseOptions, FineOptions]:
    """The options of every stage, all read and checked before the first stage works."""
    routed = split_options(options)
    for_semantic = semantic_options(config.semantic_config, routed["semantic"])
    for_coarse = coarse_options(config.coarse_acoustics_config, routed["coarse"])
    for_fine = fine_options(config.fine_acoustics_config, routed["fine"])
    semantic.check_options(model.semantic, config.semantic_config, for_semantic)
    coarse.check_options(model.coarse_acoustics, config.coarse_acoustics_config, for_coarse)
    fine.check_options(config.codebook_size, for_fine, model.device)
    return for_semantic, for_coarse, for_fine


def _warn_of_silence(codes: Sequence[Tensor]) -> None:
    silent = [str(row) for row, of_row in enumerate(codes) if not of_row.shape[-1]]
    if silent:
        rows = f"row {', '.join(silent)}" if len(codes) > 1 else "the text"
        warnings.warn(
            f"nothing was said for {rows}: the model ended at once; `min_eos_p` or `min_new_tokens` may be the reason",
            UserWarning,
            stacklevel=5,
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
    check_text(input_ids, attention_mask)
    if len(input_ids) != 1:
        raise ValueError(f"one text is streamed at a time, got {len(input_ids)} rows")
    options, copies = take_copies({**config_options(config), **options})
    if copies > 1:
        raise ValueError(f"one sequence is streamed at a time, `num_return_sequences` is {copies}")
    for_semantic, for_coarse, for_fine = _read_options(model, config, options)
    run = StageRun.of(config, history_prompt, 1, 1, model.device, seed, Reporter(False, stage_callback))
    made = Pieces(model, run.voices[0], config, for_fine, run.draws, chunk_seconds)

    def pieces() -> Iterator[BarkStreamOutput]:
        (tokens,) = run.semantic(model.semantic, input_ids, attention_mask, config.semantic_config, for_semantic)
        total, is_silent = count_tokens([tokens], config.semantic_config, config.coarse_acoustics_config), True
        with run.report.stage("coarse", total, 1) as advance:
            for piece in stream_audio(model, made, tokens, run.voices[0], config, for_coarse, run.draws, advance):
                is_silent = False
                yield piece
        if is_silent:
            _warn_of_silence([tokens[:0]])

    return pieces()  # what is wrong with the arguments shows at the call, not at the first piece


@dataclass(frozen=True)
class StageRun:
    """What the stages of one call share.

    Args:
        voices: a voice or None per row; `copies` rows in a line are sequences of one text.
        codebook_size: codes in each codebook.
    """

    voices: Sequence[VoicePreset | None]
    codebook_size: int
    draws: Draws
    report: Reporter
    copies: int = 1

    @classmethod
    def of(
        cls,
        config: BarkGenerationConfig | int,
        history_prompt: Any,
        n_texts: int,
        copies: int,
        device: torch.device,
        seed: Any,
        report: Reporter,
    ) -> StageRun:
        """For so many texts. The config checks the voices; where there is none, a codebook's size in its place."""
        size, whole = (config, ()) if isinstance(config, int) else (config.codebook_size, (config,))
        voices = [voice for voice in as_history_rows(history_prompt, n_texts, device, *whole) for _ in range(copies)]
        return cls(voices, size, Draws.from_seed(seed, n_texts, copies), report, copies)

    def semantic(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor | None, config: Any, options: SemanticOptions
    ) -> list[Tensor]:
        past = [voice.semantic_prompt if voice else None for voice in self.voices]
        if self.copies > 1:
            input_ids = input_ids.repeat_interleave(self.copies, dim=0)
            attention_mask = None if attention_mask is None else attention_mask.repeat_interleave(self.copies, dim=0)
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


def check_text(input_ids: Tensor, attention_mask: Tensor | None) -> None:
    """Checks the shapes of what the processor gives."""
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
    check_audio(audio)
    return audio
