"""The original's classifier: its pickle is read, never run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from transformers import AutoModelForAudioClassification, HubertConfig, HubertModel

from conversion.convert_classifier import convert
from conversion.sklearn_pickle import read_linear
from transformers_bark import HubertDetector, detect_audio, load_detector

HIDDEN = 12


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny HuBERT with 7 layers."""
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=HIDDEN, num_hidden_layers=7, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(10, 3), conv_stride=(40, 8), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2, hidden_dropout=0.0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("hubert")
    HubertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def examples() -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 2, 60)
    return chance.standard_normal((60, HIDDEN)) * np.arange(1, HIDDEN + 1) + labels[:, None], labels


def written(path: Path, value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize(
    "made",
    [LogisticRegression(), LinearSVC(), SGDClassifier(), make_pipeline(StandardScaler(), LogisticRegression())],
    ids=["logistic", "svm", "sgd", "scaled"],
)
def test_a_pickle_of_scikit_learn_is_read(made: Any, protocol: int, examples: Any, tmp_path: Path) -> None:
    classifier = made.fit(*examples)
    weights, bias, classes = read_linear(written(tmp_path / "c.pkl", classifier, protocol))
    np.testing.assert_allclose(examples[0] @ weights + bias, classifier.decision_function(examples[0]), rtol=1e-6)
    assert classes == ["0", "1"]


class _Evil:
    """Its pickle runs a command."""

    def __init__(self, command: Any, argument: Any) -> None:
        self._run = (command, (argument,))

    def __reduce__(self) -> Any:
        return self._run


@pytest.mark.parametrize(
    "call", [os.system, eval, exec, np.load, getattr, pickle.loads], ids=lambda call: call.__name__
)
def test_a_pickle_that_runs_something_raises_and_runs_nothing(call: Any, examples: Any, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    argument = f"touch {proof}" if call is os.system else f"open({str(proof)!r}, 'w')"
    for value in (_Evil(call, argument), {"clf": [LogisticRegression().fit(*examples), _Evil(call, argument)]}):
        with pytest.raises(ValueError, match="which a linear classifier does not need"):
            read_linear(written(tmp_path / "evil.pkl", value))
    assert not proof.exists()


def test_a_hidden_call_in_an_array_raises(tmp_path: Path) -> None:
    array = np.array([_Evil(os.system, f"touch {tmp_path / 'ran'}")], dtype=object)
    with pytest.raises(ValueError, match="system"):
        read_linear(written(tmp_path / "evil.pkl", array))
    assert not (tmp_path / "ran").exists()


def test_other_pickles_are_refused(examples: Any, tmp_path: Path) -> None:
    forest = RandomForestClassifier(2).fit(*examples)
    three = LogisticRegression().fit(examples[0], np.arange(60) % 3)
    cases = (
        (forest, "does not need"),
        (LogisticRegression(), "not fitted"),
        (three, "two classes"),
        ([1, 2], "got list"),
        (make_pipeline(StandardScaler()).fit(examples[0]), "got StandardScaler"),
    )
    for value, message in cases:
        with pytest.raises(ValueError, match=message):
            read_linear(written(tmp_path / "c.pkl", value))
    (tmp_path / "c.pkl").write_bytes(b"\x80\x04garbage")
    with pytest.raises(ValueError, match=r"c\.pkl"):
        read_linear(tmp_path / "c.pkl")


def test_the_folder_says_what_the_notebook_says(hubert: Path, examples: Any, tmp_path: Path) -> None:
    classifier = LogisticRegression().fit(*examples)
    convert(written(tmp_path / "c.pkl", classifier), str(hubert), tmp_path / "out", ("other", "bark"))
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out").eval()
    assert type(model) is HubertDetector
    audio = 0.1 * torch.randn(2, 16_000)
    with torch.no_grad():
        # the notebook: hidden_states[6], mean over time, the classifier's probability
        hidden = HubertModel.from_pretrained(hubert).eval()(audio, output_hidden_states=True).hidden_states[6].mean(1)
        found = model(audio).logits.softmax(-1)
    np.testing.assert_allclose(found.numpy(), classifier.predict_proba(hidden.double().numpy()), atol=1e-5)


def test_labels_in_the_other_order_swap_the_classes(hubert: Path, examples: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "c.pkl", LogisticRegression().fit(*examples))
    audio = 0.1 * torch.randn(1, 16_000)
    one = convert(path, str(hubert), tmp_path / "a", ("other", "bark"))(audio).logits.softmax(-1)
    two = convert(path, str(hubert), tmp_path / "b", ("bark", "other"))(audio).logits.softmax(-1)
    torch.testing.assert_close(one, two.flip(-1))
    with pytest.raises(ValueError, match="labels"):
        convert(path, str(hubert), tmp_path / "c", ("real", "fake"))


def test_a_classifier_of_other_features_is_refused(hubert: Path, tmp_path: Path) -> None:
    other = LogisticRegression().fit(np.random.default_rng(0).standard_normal((20, 5)), np.arange(20) % 2)
    with pytest.raises(ValueError, match="5 weights"):
        convert(written(tmp_path / "c.pkl", other), str(hubert), tmp_path / "out", ("other", "bark"))


def test_long_audio_is_judged_by_it(hubert: Path, examples: Any, tmp_path: Path) -> None:
    convert(
        written(tmp_path / "c.pkl", LogisticRegression().fit(*examples)),
        str(hubert),
        tmp_path / "out",
        ("other", "bark"),
    )
    model = load_detector(tmp_path / "out")
    audio = np.random.default_rng(0).standard_normal(23 * 16_000).astype(np.float32)
    found = detect_audio(model, audio, 16_000)
    assert len(found.seconds) == 23 and found.duration == 23
    short = detect_audio(model, audio[: 8 * 16_000], 16_000)
    with torch.no_grad():
        wanted = model(torch.from_numpy(audio[: 8 * 16_000])[None]).logits.softmax(-1)[0, 1]
    assert short.probability == pytest.approx(float(wanted), abs=1e-5)
