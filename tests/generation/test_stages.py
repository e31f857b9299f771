"""Pieces of generation: cache, sampling, windows, interleaving."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from tests.tiny import tiny_model, tiny_voice
from transformers_bark import codec, vocabulary
from transformers_bark.engines import TorchCausal
from transformers_bark.generation import coarse, sampling
from transformers_bark.generation.cache import InPlaceCache
from transformers_bark.generation.fine import plan_windows
from transformers_bark.generation.options import SamplingOptions, coarse_options
from transformers_bark.generation.sampling import Draws, choose, probabilities, race


def test_cache_in_place_equals_no_cache_and_dynamic_cache() -> None:
    model = tiny_model().semantic
    ids = torch.randint(0, 120, (2, 20))
    whole = model(ids, use_cache=False).logits
    for cache in (InPlaceCache(2, 20), DynamicCache(config=model.config)):
        parts = [model(piece, past_key_values=cache, use_cache=True).logits for piece in ids.split((11, 1, 8), dim=1)]
        assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)


def test_probabilities_follow_the_original_order() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    assert torch.allclose(probabilities(logits, SamplingOptions(True, 2.0)), torch.softmax(logits / 2, -1))
    assert (probabilities(logits, SamplingOptions(True, 1.0, top_k=2)) > 0).tolist() == [[True, True, False, False]]
    # top-p is taken of the plain logits: at a temperature of 100 they would be nearly equal
    assert (probabilities(logits, SamplingOptions(True, 100.0, top_p=0.7)) > 0).tolist() == [[True, True, False, False]]
    assert (probabilities(logits, SamplingOptions(True, 1.0, top_p=1e-9)) > 0).tolist() == [[True, False, False, False]]


def test_choose_inverts_the_cumulative_distribution() -> None:
    probs = torch.tensor([0.0, 0.25, 0.0, 0.75]).expand(5, 4)
    assert choose(probs, torch.tensor([0.0, 0.2, 0.25, 0.9, 1 - 1e-12])).tolist() == [1, 1, 3, 3, 3]


def test_draws_belong_to_row_and_stage() -> None:
    draws = Draws.from_seed([5, 6], 2)
    first = draws.uniforms("semantic", 0, 4)
    assert torch.equal(first, Draws.from_seed(5, 1).uniforms("semantic", 0, 4))
    assert not torch.equal(first, draws.uniforms("coarse", 0, 4))
    assert not torch.equal(first, draws.uniforms("semantic", 1, 4))


def test_a_race_is_won_as_often_as_is_probable() -> None:
    probs = np.array([0.0, 0.1, 0.2, 0.7], np.float32)
    waits = np.random.default_rng(0).standard_exponential((40_000, 4))
    shares = np.bincount(race(np.broadcast_to(probs, (40_000, 4)), waits), minlength=4) / 40_000
    assert shares[0] == 0 and np.allclose(shares, probs, atol=0.01)


def test_what_will_be_chosen_can_be_foreseen() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(6, 1, 50, generator=generator).softmax(-1)
    plain = Draws.from_seed(1, 1)
    expected = [int(plain.choose("semantic", [0], part)) for part in probs]
    draws = Draws.from_seed(1, 1)
    for turn in range(6):
        for ahead in (2, 0, 5 - turn):
            if turn + ahead < 6:
                assert int(draws.choose("semantic", [0], probs[turn + ahead], ahead)) == expected[turn + ahead]
        assert int(draws.choose("semantic", [0], probs[turn])) == expected[turn]
    # of probabilities that differ a little the same is chosen: one in ten thousand moves the inverse of the distribution by many
    near = [Draws.from_seed(n, 1).choose("semantic", [0], probs[0] * (1 + 0.01 * probs[1])) for n in range(200)]
    same = [a == Draws.from_seed(n, 1).choose("semantic", [0], probs[0]) for n, a in enumerate(near)]
    assert sum(map(int, same)) >= 195


def test_without_seeds_torch_s_own_generator_decides() -> None:
    def drawn() -> torch.Tensor:
        torch.manual_seed(4)
        return Draws.from_seed(None, 2).uniforms("fine", 1, 3)

    assert torch.equal(drawn(), drawn())
    assert not torch.equal(Draws.from_seed(None, 2).uniforms("fine", 1, 3), drawn())


@pytest.mark.parametrize("n_frames", [1, 100, 512, 600, 1024, 1500, 2100])
@pytest.mark.parametrize("n_history", [0, 300, 512])
def test_windows_cover_every_frame(n_frames: int, n_history: int) -> None:
    filled = torch.zeros(max(1024, n_history + n_frames), dtype=torch.bool)
    for start, first in plan_windows(n_frames, n_history, 1024, 512):
        assert 0 <= start <= first and start + 1024 <= len(filled)
        filled[first : start + 1024] = True
    assert filled[n_history : n_history + n_frames].all() and not filled[:n_history].any()


@pytest.mark.parametrize("lengths", [(30,), (30, 9, 17)])
@pytest.mark.parametrize("voiced", [False, True])
def test_windows_of_a_standing_prompt_share_a_cache(
    lengths: tuple[int, ...], voiced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    config, voice = model.generation_config, tiny_voice(n_semantic=8)
    histories = [(voice.semantic_prompt, voice.coarse_prompt) if voiced else None for _ in lengths]
    rows = [torch.arange(length) % 40 for length in lengths]
    prompts: list[int] = []
    prefill = TorchCausal.prefill
    monkeypatch.setattr(TorchCausal, "prefill", lambda *args: prompts.append(1) or prefill(*args))

    def generate() -> tuple[list[torch.Tensor], int]:
        prompts.clear()
        stage = config.coarse_acoustics_config
        options = coarse_options(stage, {"do_sample": True})
        draws = Draws.from_seed(3, len(rows))
        codes = coarse.generate_coarse(
            model.coarse_acoustics, rows, histories, config.semantic_config, stage, config.codebook_size, options, draws
        )
        return codes, len(prompts)

    shared, n_shared = generate()
    monkeypatch.setattr(coarse, "tokens_before_prompt_moves", lambda row, ratio, options: options.sliding_window_len)
    single, n_single = generate()
    assert all(torch.equal(a, b) for a, b in zip(shared, single, strict=True))
    assert n_shared < n_single == 8  # 96 tokens in windows of 12


def test_coarse_ids_round_trip() -> None:
    codes = torch.randint(0, 32, (2, 9))
    ids = vocabulary.coarse_ids(codes, 40, 32)
    assert ids[:2].tolist() == [40 + codes[0, 0], 40 + 32 + codes[1, 0]]
    assert torch.equal(vocabulary.coarse_codes(ids, 2, 40, 32), codes)


def test_codec_decodes_each_row_alone_and_encodes_back() -> None:
    model = tiny_model().codec_model
    rows = [torch.randint(0, 32, (4, n)) for n in (3, 0, 8)]
    audio = codec.decode(model, rows)
    assert [len(a) for a in audio] == [1800, 0, 4800]
    assert torch.equal(codec.decode(model, rows[2:])[0], audio[2])
    assert codec.frame_rate(model.config) == 40.0
    codes = codec.encode(model, audio[2][None], n_codebooks=2)
    assert codes.shape == (1, 2, 8)


@torch.no_grad()
def test_long_codes_are_decoded_in_pieces_to_the_same_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model().codec_model
    codes = torch.randint(0, 32, (4, 45))
    whole = codec.decode(model, [codes])[0]
    lengths: list[int] = []
    model.decoder.layers[-1].register_forward_hook(lambda module, args, out: lengths.append(out.shape[-1]))
    monkeypatch.setattr(codec, "PIECE", 16)
    assert torch.allclose(codec.decode(model, [codes])[0], whole, atol=1e-5)
    assert len(lengths) == 4 and max(lengths) < len(whole)  # filled up to 50 frames
    monkeypatch.setattr(model.config, "use_causal_conv", False)  # looks ahead: neither to be cut nor to be filled up
    assert torch.allclose(codec.decode(model, [codes])[0], whole, atol=1e-5)
    assert lengths[4:] == [len(whole)]


def test_uniforms_that_lie_on_a_device_are_those_of_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows leave, come back and change places; blocks end in between."""
    monkeypatch.setattr(sampling, "AHEAD", 3)
    there, here = (Draws.from_seed([1, 2, 3], 3) for _ in range(2))
    for rows in ([0, 1, 2], [0, 1, 2], [0, 2], [2], [2], [2], [2], [1, 0], [0, 1, 2], [0, 1, 2], [1]):
        for stage in ("semantic", "coarse"):
            drawn = there.next_uniforms(stage, rows, torch.device("cpu"))
            assert torch.equal(drawn, torch.cat([here.uniforms(stage, row, 1) for row in rows]))


def test_rows_decoded_together_sound_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does: rows of unlike length, one without frames, in groups."""
    monkeypatch.setattr(codec, "ROWS", 3)
    model = tiny_model().codec_model
    rows = [torch.randint(0, 32, (4, n)) for n in (140, 3, 0, 30, 26)]
    with torch.no_grad():
        alone, together = codec.decode(model, rows), codec.decode_together(model, rows)
    assert [len(row) for row in together] == [600 * n for n in (140, 3, 0, 30, 26)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone, together, strict=True))
