"""What is compared: each case gives True when every token is equal."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.parity.oracles import MAX_SEMANTIC, VOICES, Models, Original, as_arrays, load_voice, text_inputs
from transformers_bark import VoicePreset
from transformers_bark.generation.coarse import generate_coarse
from transformers_bark.generation.fine import generate_fine
from transformers_bark.generation.options import CoarseOptions, FineOptions, SemanticOptions
from transformers_bark.generation.sampling import Draws
from transformers_bark.generation.semantic import generate_semantic


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


@torch.no_grad()
def equals_stock(models: Models, seed: int, lengths: list[int], voice: VoicePreset | None) -> bool:
    """Greedy codes and audio of the whole chain; rows of equal token count, where stock's batch is right."""
    ids, mask = text_inputs(seed, lengths)
    history = None if voice is None else {key: part.clone() for key, part in voice.as_dict().items()}
    with mock.patch.object(models.stock, "codec_decode", wraps=models.stock.codec_decode) as decode:
        audio = models.stock.generate(ids, attention_mask=mask, history_prompt=history, do_sample=False)
    codes = decode.call_args.args[0]
    ours = models.ours.generate(
        ids, attention_mask=mask, history_prompt=voice, do_sample=False, progress=False, return_dict_in_generate=True
    )
    return torch.equal(torch.stack(ours.fine_codes), codes.long()) and torch.allclose(audio, ours.audio, atol=1e-5)


@dataclass(frozen=True)
class Sampling:
    """Settings of one comparison with the original."""

    seed: int
    voice: str | None
    temperature: float
    top_k: int | None
    top_p: float | None
    min_eos_p: float | None
    max_coarse_history: int
    sliding_window_len: int
    fine_temperature: float | None


def sampling_case(number: int) -> Sampling:
    """Settings drawn from a fixed stream, so that together the cases cover every option."""
    stream = random.Random(number)
    return Sampling(
        seed=number,
        voice=(None, *VOICES)[number % (len(VOICES) + 1)],
        temperature=stream.choice([0.5, 0.7, 1.0, 1.3]),
        top_k=stream.choice([None, None, 5, 50]),
        top_p=stream.choice([None, None, 0.8, 0.95]),
        min_eos_p=stream.choice([None, 0.2, 0.01]),
        max_coarse_history=stream.choice([60, 300, 630]),
        sliding_window_len=stream.choice([60, 60, 30]),
        fine_temperature=stream.choice([None, 0.5, 1.0]),
    )


@torch.no_grad()
def equals_original(models: Models, original: Original, case: Sampling) -> dict[str, bool]:
    """Semantic, coarse and fine tokens against the original's, each stage on the original's output of the stage before."""
    voice = None if case.voice is None else load_voice(case.voice)
    history, config = as_arrays(voice), models.ours.generation_config
    semantic = _semantic(models, original, case, voice, history, config)
    tokens = semantic[0] if len(semantic[0]) else np.arange(20)
    coarse = _coarse(models, original, case, voice, history, config, tokens)
    fine = _fine(models, original, case, voice, history, config, coarse[0])
    pairs = {"semantic": semantic, "coarse": coarse, "fine": fine}
    return {stage: bool(np.array_equal(theirs, ours)) for stage, (theirs, ours) in pairs.items()}


def _semantic(models: Models, original: Original, case: Sampling, voice: Any, history: Any, config: Any) -> tuple:
    ids, _ = text_inputs(case.seed, [12])
    original.text_ids = ids[0, :12].tolist()
    seconds = (MAX_SEMANTIC - 0.5) / config.semantic_config.semantic_rate_hz
    with original.drawing("semantic", case.seed) as library:
        theirs = library.generate_text_semantic(
            "text", history, case.temperature, case.top_k, case.top_p, True, case.min_eos_p, seconds, True, True
        )
    options = SemanticOptions(
        True, case.temperature, case.top_k, case.top_p, case.min_eos_p, 768, max_gen_duration_s=seconds
    )
    past = [None if voice is None else voice.semantic_prompt]
    stage = config.semantic_config
    ours = generate_semantic(
        models.ours.semantic, ids[:, :12], None, past, stage, options, Draws.from_seed(case.seed, 1)
    )
    return theirs, ours[0].numpy()


def _coarse(
    models: Models, original: Original, case: Sampling, voice: Any, history: Any, config: Any, tokens: Any
) -> tuple:
    with original.drawing("coarse", case.seed) as library:
        theirs = library.generate_coarse(
            tokens, history, case.temperature, case.top_k, case.top_p, True, case.max_coarse_history,
            case.sliding_window_len, True,
        )  # fmt: skip
    options = CoarseOptions(
        True, case.temperature, case.top_k, case.top_p, case.max_coarse_history, case.sliding_window_len
    )
    pair = None if voice is None else (voice.semantic_prompt, voice.coarse_prompt)
    ours = generate_coarse(
        models.ours.coarse_acoustics, [torch.from_numpy(np.ascontiguousarray(tokens))], [pair], config.semantic_config,
        config.coarse_acoustics_config, config.codebook_size, options, Draws.from_seed(case.seed, 1),
    )  # fmt: skip
    return theirs, ours[0].numpy()


def _fine(
    models: Models, original: Original, case: Sampling, voice: Any, history: Any, config: Any, codes: Any
) -> tuple:
    with original.drawing("fine", case.seed) as library:
        theirs = library.generate_fine(codes, history, case.fine_temperature, True)
    options = FineOptions(case.fine_temperature is not None, case.fine_temperature)
    past = [None if voice is None else voice.fine_prompt]
    ours = generate_fine(
        models.ours.fine_acoustics, [torch.from_numpy(np.ascontiguousarray(codes))], past, config.fine_acoustics_config,
        config.codebook_size, options, Draws.from_seed(case.seed, 1),
    )  # fmt: skip
    return theirs, ours[0].numpy()
