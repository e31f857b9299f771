"""`pipeline("text-to-speech")` for Bark: a voice argument, lists in batches, and audio without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

from transformers import GenerationConfig, TextToAudioPipeline

from .modeling_bark import BarkModel
from .processing_bark import BarkProcessor, check_tokenizer

_CALL_OPTIONS = ("preprocess_params", "forward_params", "generate_kwargs", "voice_preset")


def _check_texts(text_inputs: Any) -> Iterable[str]:
    """A text or an iterable of texts -> an iterable of texts; what can be told from the first look is.

    Raises:
        TypeError: something else.
        ValueError: an empty list.
    """
    if isinstance(text_inputs, str):
        return [text_inputs]
    if isinstance(text_inputs, bytes | bytearray | Mapping) or not isinstance(text_inputs, Iterable):
        raise TypeError(f"`text_inputs` must be a text or an iterable of texts, got {type(text_inputs).__name__}")
    if isinstance(text_inputs, Sequence):
        if not text_inputs:
            raise ValueError("`text_inputs` is empty: give at least one text")
        for text in text_inputs:
            if not isinstance(text, str):
                raise TypeError(
                    f"`text_inputs` must be a text or an iterable of texts, got {type(text).__name__} among them"
                )
    return text_inputs


class BarkTextToSpeechPipeline(TextToAudioPipeline):
    """Stock's pipeline for every other model; for Bark also:

    Args of the call:
        text_inputs: a text, or any iterable of texts.
        voice_preset: a voice for all texts or a list with one per text, as `BarkProcessor` takes it.
        batch_size: texts generated together.
        any_length: divide long texts into pieces that fit, spoken together and joined; else what does not fit is cut off.
        forward_params, generate_kwargs: options of `BarkModel.generate`; the latter win.

    All but the texts may also be given to `pipeline(...)`, as defaults of every call.

    Raises, at the call:
        TypeError: something else than texts, such as None, a mapping or bytes.
        ValueError: no texts, a batch size under 1, or a model that lacks weights.

    Returns:
        {"audio": float32 [samples], "sampling_rate": int} for a text; a list of those for a list or tuple of texts; an
        iterator over them, that generates as it goes, for other iterables (generators, datasets).
    """

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        self._options: dict[str, Any] = {}
        if isinstance(model, BarkModel):
            # Transformers would write these into one generation config, or set them aside: that changes between releases
            names = {"generation_config", *vars(GenerationConfig())} & kwargs.keys()
            self._options = {name: kwargs.pop(name) for name in names}
        super().__init__(model, *args, **kwargs)

    def _sanitize_parameters(self, voice_preset: Any = None, **kwargs: Any) -> tuple[dict, dict, dict]:
        given = {} if voice_preset is None else {"voice_preset": voice_preset}
        if not isinstance(self.model, BarkModel):
            return super()._sanitize_parameters(**given, **kwargs)
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        return {**preprocess, **given}, forward, postprocess

    def __call__(
        self,
        text_inputs: Any,
        voice_preset: Any = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        any_length: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any] | list[dict[str, Any]] | Iterator[dict[str, Any]]:
        if isinstance(self.model, BarkModel):
            self.model.check_weights()
        else:
            extra = {"voice_preset": voice_preset, "batch_size": batch_size, "num_workers": num_workers}
            given = {name: value for name, value in extra.items() if value is not None}
            return super().__call__(text_inputs, **given, **kwargs)
        unknown = sorted(kwargs.keys() - set(_CALL_OPTIONS))
        if unknown:
            raise TypeError(f"unknown arguments of the pipeline: {', '.join(unknown)}; see `BarkTextToSpeechPipeline`")
        preprocess, options = self._call_parameters(voice_preset=voice_preset, **kwargs)
        size = self._batch_size if batch_size is None else batch_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"`batch_size` must be a whole number of at least 1, got {size!r}")
        if self.processor is None:
            check_tokenizer(self.tokenizer, self.tokenizer.name_or_path)
        texts = _check_texts(text_inputs)
        outputs = (
            self._narrate(texts, size, preprocess, options)
            if any_length
            else self._speak(texts, size or 1, preprocess, options)
        )
        if isinstance(text_inputs, str):
            return next(outputs)
        return list(outputs) if isinstance(text_inputs, list | tuple) else outputs

    def _call_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of the processor and of `generate`: the call's before those of the pipeline before the model's."""
        preprocess, forward, _ = self._sanitize_parameters(**kwargs)
        options = dict(self._options)
        for kind in ("forward_params", "generate_kwargs"):
            options |= {**self._forward_params.get(kind, {}), **forward.get(kind, {})}
        length = self.model.generation_config.semantic_config.max_input_semantic_length
        return {"max_length": length, **self._preprocess_params, **preprocess}, options

    def _narrate(
        self, texts: Iterable[str], size: int | None, preprocess: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Speaks texts of any length, one after the other, `size` pieces at a time."""
        from .narration.narrator import Narrator

        narrator = Narrator(self.model, self.processor or BarkProcessor(self.tokenizer), batch_size=size)
        voice = preprocess.get("voice_preset")
        for number, text in enumerate(texts):
            chosen = voice[number] if isinstance(voice, list | tuple) else voice
            yield {
                "audio": narrator(text, chosen, **options).audio(),
                "sampling_rate": self.model.generation_config.sample_rate,
            }

    def _speak(
        self, texts: Iterable[str], size: int, preprocess: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Generates `size` texts at a time, each with its voice."""
        processor = self.processor or BarkProcessor(self.tokenizer)
        preprocess = dict(preprocess)
        voice = preprocess.pop("voice_preset", None)
        voices = iter(voice) if isinstance(voice, list | tuple) else None
        if voices is not None and isinstance(texts, Sized) and len(voice) != len(texts):
            raise ValueError(f"`voice_preset` has {len(voice)} voices for {len(texts)} texts")
        remaining = iter(texts)
        while batch := list(islice(remaining, size)):
            chosen = voice if voices is None else list(islice(voices, len(batch)))
            inputs = processor(batch, voice_preset=chosen, device=self.device, **preprocess)
            output = self.model.generate(**inputs, **options, return_dict_in_generate=True)
            for row, length in zip(output.audio.float().cpu().numpy(), output.audio_lengths.tolist(), strict=True):
                yield {"audio": row[:length], "sampling_rate": self.model.generation_config.sample_rate}
