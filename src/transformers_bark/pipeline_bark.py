"""`pipeline("text-to-speech")` for Bark: a voice argument, lists in batches, and audio without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from transformers import TextToAudioPipeline

from .modeling_bark import BarkModel


class BarkTextToSpeechPipeline(TextToAudioPipeline):
    """Stock's pipeline for every other model; for Bark also:

    Args of the call:
        text_inputs: a text, or any iterable of texts.
        voice_preset: a voice for all texts or a list with one per text, as `BarkProcessor` takes it.
        batch_size: texts generated together.
        forward_params, generate_kwargs: options of `BarkModel.generate`; the latter win.

    Returns:
        {"audio": float32 [samples], "sampling_rate": int}, or a list of those for several texts.
    """

    def __call__(
        self, text_inputs: Any, voice_preset: Any = None, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Any] | list[dict[str, Any]]:
        if not isinstance(self.model, BarkModel):
            extra = {"voice_preset": voice_preset, "batch_size": batch_size}
            given = {name: value for name, value in extra.items() if value is not None}
            return super().__call__(text_inputs, **given, **kwargs)
        single = isinstance(text_inputs, str)
        texts: Iterable[str] = [text_inputs] if single else text_inputs
        size = batch_size or self._batch_size or 1
        options = {**self._forward_params, **kwargs}
        outputs = list(self._speak(texts, voice_preset, size, **options))
        return outputs[0] if single else outputs

    def _speak(
        self,
        texts: Iterable[str],
        voice_preset: Any,
        size: int,
        forward_params: dict[str, Any] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        preprocess_params: dict[str, Any] | None = None,
        **unknown: Any,
    ) -> Iterator[dict[str, Any]]:
        if unknown:
            raise TypeError(f"unknown arguments of the pipeline: {', '.join(sorted(unknown))}")
        prepared = {
            "max_length": self.model.generation_config.semantic_config.max_input_semantic_length,
            **(preprocess_params or {}),
        }
        voice_preset = prepared.pop("voice_preset", None) if voice_preset is None else voice_preset
        options = {**(forward_params or {}), **(generate_kwargs or {})}
        remaining = iter(texts)
        voices = iter(voice_preset) if isinstance(voice_preset, list | tuple) else None
        while batch := list(islice(remaining, size)):
            chosen = voice_preset if voices is None else list(islice(voices, len(batch)))
            inputs = self.processor(batch, voice_preset=chosen, device=self.device, **prepared)
            with torch.no_grad():
                output = self.model.generate(**inputs, **options, return_dict_in_generate=True)
            for row, length in zip(output.audio.float().cpu().numpy(), output.audio_lengths.tolist(), strict=True):
                yield {"audio": row[:length], "sampling_rate": self.model.generation_config.sample_rate}
