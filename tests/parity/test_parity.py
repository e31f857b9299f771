"""Equal logits and tokens against stock Transformers and the original library."""

from __future__ import annotations

import pytest

from tests.parity.cases import equals_original, equals_stock, logit_differences, sampling_case
from tests.parity.oracles import Models, Original, load_voice, make_models

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


@pytest.mark.parametrize("number", range(6))
def test_tokens_equal_the_original(models: Models, number: int) -> None:
    assert equals_original(models, Original(models.ours), sampling_case(number)) == {
        "semantic": True,
        "coarse": True,
        "fine": True,
    }
