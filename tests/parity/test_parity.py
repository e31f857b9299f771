"""Equal logits and tokens against stock Transformers and the original library."""

from __future__ import annotations

import pytest

from tests.parity.cases import (
    batch_equals_original,
    equals_original,
    equals_stock,
    fine_equals_original,
    logit_differences,
    long_case,
    sampling_case,
    stages_equal_stock,
)
from tests.parity.oracles import VOICES, Models, Original, load_voice, make_models

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def models() -> Models:
    return make_models(seed=0)


def test_logits_equal_stock(models: Models) -> None:
    differences = logit_differences(models)
    assert len(differences) == 24
    assert max(differences.values()) <= 1e-5, differences


@pytest.mark.parametrize("lengths", [[20], [20, 9]])
@pytest.mark.parametrize("voice", [None, "v2/en_speaker_6"])
def test_greedy_equals_stock(models: Models, lengths: list[int], voice: str | None) -> None:
    assert equals_stock(models, 3, lengths, None if voice is None else load_voice(voice))


@pytest.mark.parametrize("voice", [None, "v2/en_speaker_6"])
def test_each_stage_called_alone_equals_stock(voice: str | None) -> None:
    """Rows end early and at different tokens: greedy `generate` of each sub-model."""
    ending = make_models(seed=1, ends=True)
    preset = None if voice is None else load_voice(voice)
    assert set(stages_equal_stock(ending, 5, [20, 9, 14], preset, min_eos_p=None).values()) == {True}


@pytest.mark.parametrize("number", range(6))
def test_tokens_equal_the_original(models: Models, number: int) -> None:
    """Stage by stage, and all of them in one call."""
    result = equals_original(models, Original(models.ours), sampling_case(number))
    assert result == dict.fromkeys(("semantic", "coarse", "fine", "chain"), True)


def test_ten_seconds_equal_the_original(models: Models) -> None:
    assert set(equals_original(models, Original(models.ours), long_case()).values()) == {True}


def test_rows_of_a_batch_equal_the_original_alone(models: Models) -> None:
    """Texts, voices and seeds of their own in one batch.

    Case 2 has two codes so nearly alike that the rounding of a batch's products decides, on a processor with AVX2 alone.
    """
    assert batch_equals_original(models, Original(models.ours), sampling_case(5), [None, *VOICES])


@pytest.mark.parametrize(
    ("n_frames", "n_coarse", "voice", "temperature"),
    [(1500, 2, None, 0.5), (2300, 2, VOICES[0], None), (40, 5, VOICES[0], 1.0)],
)
def test_fine_windows_equal_the_original(
    models: Models, n_frames: int, n_coarse: int, voice: str | None, temperature: float | None
) -> None:
    assert fine_equals_original(models, Original(models.ours), n_frames, n_coarse, voice, temperature)
