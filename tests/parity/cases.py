"""What is compared: logits, and cases that give True where every token is equal."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from transformers.models.bark import generation_configuration_bark as stock_configs

from tests.parity.oracles import MAX_SEMANTIC, VOICES, Models, Original, as_arrays, load_voice, text_inputs
from transformers_bark import VoicePreset, vocabulary
from transformers_bark.generation.coarse import generate_coarse
from transformers_bark.generation.fine import generate_fine
from transformers_bark.generation.options import CoarseOptions, FineOptions, SemanticOptions
from transformers_bark.generation.sampling import Draws
from transformers_bark.generation.semantic import generate_semantic

STAGES = ("semantic", "coarse", "fine")


@torch.no_grad()
def logit_differences(models: Models) -> dict[str, float]:
    """The largest difference from stock's logits: by model, attention, mask and cache."""
    worst: dict[str, float] = {}
    for attention in ("eager", "sdpa"):
        models.ours.set_attn_implementation(attention)
        for name in ("semantic", "coarse_acoustics"):
            ours, stock = getattr(models.ours, name), getattr(models.stock, name)
            for key, difference in _causal_differences(ours, stock):
                worst[f"{name} {attention} {key}"] = difference
        for key, difference in _fine_differences(models.ours.fine_acoustics, models.stock.fine_acoustics):
            worst[f"fine_acoustics {attention} {key}"] = difference
    models.ours.set_attn_implementation("sdpa")
    return worst


def _causal_differences(ours: Any, stock: Any) -> Iterator[tuple[str, float]]:
    ids = torch.randint(0, 10_000, (2, 40), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    for key, given in (("plain", None), ("left padding", mask)):
        reference = stock(ids, attention_mask=given).logits
        real = slice(None) if given is None else slice(7, None)
        yield key, float((ours(ids, attention_mask=given).logits - reference)[:, real].abs().max())
        first = ours(ids[:, :30], attention_mask=None if given is None else given[:, :30], use_cache=True)
        rest = ours(ids[:, 30:], attention_mask=given, past_key_values=first.past_key_values, use_cache=True)
        yield f"{key}, cached", float((rest.logits - reference[:, 30:]).abs().max())


def _fine_differences(ours: Any, stock: Any) -> Iterator[tuple[str, float]]:
    codes = torch.randint(0, 1024, (2, 50, 8), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 50)
    mask[1, 40:] = 0
    for codebook in (2, 7):
        for key, given in (("plain", None), ("padding", mask)):
            difference = (
                ours(codebook, codes, attention_mask=given).logits - stock(codebook, codes, attention_mask=given).logits
            )
            yield f"codebook {codebook} {key}", float(difference.abs().max())


def _as_stock_history(voice: VoicePreset | None) -> dict[str, Tensor] | None:
    return None if voice is None else {key: part.clone() for key, part in voice.as_dict().items()}


@torch.no_grad()
def equals_stock(models: Models, seed: int, lengths: list[int], voice: VoicePreset | None) -> bool:
    """Greedy codes and audio of the whole chain: one row, or rows of equal token count, where stock's batch is right."""
    ids, mask = text_inputs(seed, lengths)
    with mock.patch.object(models.stock, "codec_decode", wraps=models.stock.codec_decode) as decode:
        audio = models.stock.generate(
            ids, attention_mask=mask, history_prompt=_as_stock_history(voice), do_sample=False
        )
    codes = decode.call_args.args[0]
    ours = models.ours.generate(
        ids, attention_mask=mask, history_prompt=voice, do_sample=False, progress=False, return_dict_in_generate=True
    )
    assert len({len(tokens) for tokens in ours.semantic_tokens}) == 1, "stock is wrong where rows differ in length"
    return torch.equal(torch.stack(ours.fine_codes), codes.long()) and torch.allclose(audio, ours.audio, atol=1e-5)


@torch.no_grad()
def stages_equal_stock(
    models: Models, seed: int, lengths: list[int], voice: VoicePreset | None, min_eos_p: float | None
) -> dict[str, bool]:
    """Greedy `generate` of each sub-model, called alike here and in stock, each on stock's output of the stage before.

    Rows may end at different tokens: what stock makes past a row's end is left out.
    """
    ids, mask = text_inputs(seed, lengths)
    ours, stock, size = models.ours, models.stock, models.ours.generation_config.codebook_size
    nested = models.stock.generation_config
    theirs = (
        stock_configs.BarkSemanticGenerationConfig(**nested.semantic_config),
        stock_configs.BarkCoarseGenerationConfig(**nested.coarse_acoustics_config),
        stock_configs.BarkFineGenerationConfig(**nested.fine_acoustics_config),
    )
    config = ours.generation_config
    own = (config.semantic_config, config.coarse_acoustics_config, config.fine_acoustics_config)
    same: dict[str, bool] = {}

    def both(name: str, given: Tensor, n_configs: int, *more: int, **options: Any) -> tuple[Tensor, Tensor]:
        made = getattr(ours, name).generate(given, *own[:n_configs], *more, history_prompt=voice, **options)
        history = _as_stock_history(voice)
        expected = getattr(stock, name).generate(
            given.clone(), *theirs[:n_configs], *more, history_prompt=history, **options
        )
        return made, expected

    made, tokens = both("semantic", ids, 1, attention_mask=mask, min_eos_p=min_eos_p)
    counts = [int((row < vocabulary.SEMANTIC_VOCAB_SIZE).sum()) for row in tokens]
    same["semantic"] = made.shape[1] == max(counts) and torch.equal(made, tokens[:, : made.shape[1]])
    made, coarse = both("coarse_acoustics", tokens, 2, size)
    ratio = vocabulary.semantic_to_coarse_ratio(*own[:2])
    steps = [vocabulary.n_coarse_tokens(count, ratio, vocabulary.N_COARSE_CODEBOOKS) for count in counts]
    same["coarse"] = all(torch.equal(a[:n], b[:n].long()) for a, b, n in zip(made, coarse, steps, strict=True))
    pairs = [both("fine_acoustics", row[None, :n], 3, size) for row, n in zip(coarse, steps, strict=True) if n]
    same["fine"] = all(torch.equal(a, b.long()) for a, b in pairs)
    return same


@dataclass(frozen=True)
class Sampling:
    """Settings of one comparison with the original."""

    seed: int
    voice: str | None
    greedy: bool
    temperature: float
    top_k: int | None
    top_p: float | None
    min_eos_p: float | None
    allow_early_stop: bool
    seconds: float
    max_coarse_history: int
    sliding_window_len: int
    fine_temperature: float | None
    text_length: int

    def options(self) -> dict[str, Any]:
        """The same settings as options of `BarkModel.generate`."""
        filters = {"top_k": self.top_k, "top_p": self.top_p}
        prefixed = {f"{stage}_{key}": value for stage in ("semantic", "coarse") for key, value in filters.items()}
        return {
            **prefixed,
            "do_sample": not self.greedy,
            "temperature": self.temperature,
            "fine_temperature": self.fine_temperature,
            "min_eos_p": self.min_eos_p,
            "allow_early_stop": self.allow_early_stop,
            "max_gen_duration_s": self.seconds,
            "max_new_tokens": vocabulary.MAX_SEMANTIC_TOKENS,
            "max_coarse_history": self.max_coarse_history,
            "sliding_window_len": self.sliding_window_len,
        }


def sampling_case(number: int) -> Sampling:
    """Settings drawn from a fixed stream, so that together the cases cover every option."""
    stream = random.Random(number)
    tokens = stream.choice([MAX_SEMANTIC, 20, 31])
    return Sampling(
        seed=number,
        voice=(None, *VOICES)[number % (len(VOICES) + 1)],
        greedy=number % 4 == 3,
        temperature=stream.choice([0.5, 0.7, 1.0, 1.3]),
        top_k=stream.choice([None, None, 5, 50]),
        top_p=stream.choice([None, None, 0.8, 0.95]),
        min_eos_p=stream.choice([None, 0.2, 0.01]),
        allow_early_stop=stream.random() < 0.8,
        # whole multiples of a token's duration, where rounding decides
        seconds=tokens / vocabulary.SEMANTIC_RATE_HZ,
        max_coarse_history=stream.choice([60, 300, 630]),
        sliding_window_len=stream.choice([60, 60, 30]),
        fine_temperature=stream.choice([None, 0.5, 1.0]),
        text_length=stream.choice([1, 12, 250, 256]),
    )


def long_case() -> Sampling:
    """Ten seconds without an end: every window slides, and the last semantic token is one of rounding."""
    return Sampling(1000, VOICES[-1], False, 0.7, None, None, None, False, 10, 630, 60, 0.5, 30)


@torch.no_grad()
def equals_original(models: Models, original: Original, case: Sampling) -> dict[str, bool]:
    """Semantic, coarse and fine tokens against the original's, each stage on the original's output of the stage before;
    and `chain`: all stages in one call of `BarkModel.generate`.
    """
    voice = None if case.voice is None else load_voice(case.voice)
    theirs = _original_chain(original, case, voice)
    tokens, codes, filled = theirs
    config = models.ours.generation_config
    pairs = {
        "semantic": (tokens, _semantic(models, case, voice, config)),
        "coarse": (codes, _coarse(models, case, voice, config, tokens if len(tokens) else np.arange(20))),
        "fine": (filled, _fine(models, case, voice, config, codes)),
    }
    same = {stage: bool(np.array_equal(left, right)) for stage, (left, right) in pairs.items()}
    ids, mask = text_inputs(case.seed, [case.text_length])
    output = models.ours.generate(ids, mask, voice, True, True, seed=case.seed, progress=False, **case.options())
    same["chain"] = _row_equals(output, 0, theirs)
    return same


@torch.no_grad()
def batch_equals_original(models: Models, original: Original, case: Sampling, voices: Sequence[str | None]) -> bool:
    """A batch whose rows have texts, voices and seeds of their own: each row as the original makes it alone."""
    lengths = [case.text_length + 3 * index for index in range(len(voices))]
    seeds = [case.seed + index for index in range(len(voices))]
    rows = [None if name is None else load_voice(name) for name in voices]
    ids, mask = text_inputs(case.seed, lengths)
    output = models.ours.generate(ids, mask, rows, True, True, seed=seeds, progress=False, **case.options())
    same = []
    for index, (voice, seed, length) in enumerate(zip(rows, seeds, lengths, strict=True)):
        text = ids[index, :length].tolist()
        same.append(_row_equals(output, index, _original_chain(original, case, voice, seed, text)))
    return all(same)


def _row_equals(output: Any, index: int, theirs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> bool:
    """Whether a row of our output holds the original's tokens; a row without semantic tokens must be empty."""
    ours = (output.semantic_tokens[index], output.coarse_codes[index], output.fine_codes[index])
    if not len(theirs[0]):
        return all(not part.numel() for part in ours) and int(output.audio_lengths[index]) == 0
    return all(np.array_equal(left, right.numpy()) for left, right in zip(theirs, ours, strict=True))


def _original_chain(
    original: Original,
    case: Sampling,
    voice: VoicePreset | None,
    seed: int | None = None,
    text: list[int] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The original's tokens of every stage. It fails on no semantic tokens: then coarse and fine are made of some others."""
    history, seed = as_arrays(voice), case.seed if seed is None else seed
    original.text_ids = text or text_inputs(case.seed, [case.text_length])[0][0, : case.text_length].tolist()
    with original.drawing("semantic", seed, case.greedy) as library:
        tokens = library.generate_text_semantic(
            "text", history, case.temperature, case.top_k, case.top_p, True, case.min_eos_p, case.seconds,
            case.allow_early_stop, True,
        )  # fmt: skip
    with original.drawing("coarse", seed, case.greedy) as library:
        codes = library.generate_coarse(
            tokens if len(tokens) else np.arange(20), history, case.temperature, case.top_k, case.top_p, True,
            case.max_coarse_history, case.sliding_window_len, True,
        )  # fmt: skip
    with original.drawing("fine", seed, case.greedy) as library:
        return tokens, codes, library.generate_fine(codes, history, case.fine_temperature, True)


def _semantic(models: Models, case: Sampling, voice: VoicePreset | None, config: Any) -> np.ndarray:
    ids, _ = text_inputs(case.seed, [case.text_length])
    options = SemanticOptions(
        not case.greedy, case.temperature, case.top_k, case.top_p, case.min_eos_p, vocabulary.MAX_SEMANTIC_TOKENS,
        case.allow_early_stop, case.seconds,
    )  # fmt: skip
    past = [None if voice is None else voice.semantic_prompt]
    text = ids[:, : case.text_length]
    draws = Draws.from_seed(case.seed, 1)
    return generate_semantic(
        models.ours.semantic, text, None, past, config.semantic_config, options, draws
    )[0].numpy()  # fmt: skip


def _coarse(models: Models, case: Sampling, voice: VoicePreset | None, config: Any, tokens: np.ndarray) -> np.ndarray:
    options = CoarseOptions(
        not case.greedy, case.temperature, case.top_k, case.top_p, case.max_coarse_history, case.sliding_window_len
    )
    pair = None if voice is None else (voice.semantic_prompt, voice.coarse_prompt)
    return generate_coarse(
        models.ours.coarse_acoustics, [torch.from_numpy(np.ascontiguousarray(tokens))], [pair], config.semantic_config,
        config.coarse_acoustics_config, config.codebook_size, options, Draws.from_seed(case.seed, 1),
    )[0].numpy()  # fmt: skip


def _fine(models: Models, case: Sampling, voice: VoicePreset | None, config: Any, codes: np.ndarray) -> np.ndarray:
    options = FineOptions(not case.greedy and case.fine_temperature is not None, case.fine_temperature)
    past = [None if voice is None else voice.fine_prompt]
    return generate_fine(
        models.ours.fine_acoustics, [torch.from_numpy(np.ascontiguousarray(codes))], past, config.fine_acoustics_config,
        config.codebook_size, options, Draws.from_seed(case.seed, 1),
    )[0].numpy()  # fmt: skip


@torch.no_grad()
def fine_equals_original(
    models: Models, original: Original, n_frames: int, n_coarse: int, voice: str | None, temperature: float | None
) -> bool:
    """The fine stage alone on random codes: lengths that need several windows, other numbers of given codebooks."""
    case = Sampling(n_frames, voice, False, 1.0, None, None, None, True, 1.0, 630, 60, temperature, 1)
    codes = np.random.default_rng(n_frames).integers(0, 1024, (n_coarse, n_frames))
    preset = None if voice is None else load_voice(voice)
    with original.drawing("fine", case.seed) as library:
        theirs = library.generate_fine(codes, as_arrays(preset), temperature, True)
    return bool(np.array_equal(theirs, _fine(models, case, preset, models.ours.generation_config, codes)))
