"""From recordings with texts to a trained stage, as a user does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset

from tests.tiny import tiny_model, tiny_tokenizer
from transformers_bark import BarkModel, codec
from transformers_bark.training import (
    SemanticTokenizer,
    encode_speech,
    evaluate_stage,
    load_recordings,
    load_semantic_tokenizer,
    train_stage,
)
from transformers_bark.training.semantic_tokenizer import Bottleneck, SemanticTokenizerConfig

TEXTS = ["hello my dog", "the quick cat", "is cooler than you", "a b c d"]
SETTINGS = {
    "per_device_train_batch_size": 4,
    "use_cpu": True,
    "learning_rate": 3e-3,
    "warmup_steps": 1,
    "save_steps": 99,
}


def tone(number: int, rate: int, seconds: float = 0.5) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    return (0.3 * np.sin(2 * np.pi * (200 + 150 * number) * time * (1 + time))).astype(np.float32)


@pytest.fixture(scope="module")
def semantic_tokenizer() -> SemanticTokenizer:
    torch.manual_seed(0)
    audios = [torch.from_numpy(tone(number, 24_000, 2.0)) for number in range(6)]
    config = SemanticTokenizerConfig(n_tokens=40, context=2, n_components=4)
    return SemanticTokenizer.fit(config, Bottleneck(config), audios)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 16 kHz in stereo, in the layout of `datasets`' audiofolder."""
    path = tmp_path_factory.mktemp("recordings")
    lines = []
    for number, text in enumerate(TEXTS):
        mono = tone(number, 16_000)
        soundfile.write(path / f"{number}.wav", np.stack([mono, mono], axis=1), 16_000)
        lines.append(json.dumps({"file_name": f"{number}.wav", "text": text}))
    (path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def encoded(folder: Path, semantic_tokenizer: SemanticTokenizer) -> Dataset:
    return encode_speech(load_recordings(folder), tiny_model(), semantic_tokenizer)


def test_a_folder_of_recordings_is_encoded(encoded: Dataset, semantic_tokenizer: SemanticTokenizer) -> None:
    assert encoded["text"] == TEXTS
    for row in encoded:
        assert row["length"] == len(row["semantic"]) == 12  # half a second of 25 tokens a second
        assert np.shape(row["codes"]) == (4, 20)  # whole frames of 40 a second
    same_rate = Dataset.from_list([{"text": "hello", "audio": {"array": tone(1, 24_000), "sampling_rate": 24_000}}])
    row = encode_speech(same_rate, tiny_model(), semantic_tokenizer)[0]
    audio = torch.from_numpy(tone(1, 24_000))
    assert row["semantic"] == semantic_tokenizer.encode(audio).tolist()
    with torch.no_grad():
        assert row["codes"] == codec.encode(tiny_model().codec_model, audio[None], 4)[0].tolist()


def test_paths_columns_and_lengths(folder: Path, semantic_tokenizer: SemanticTokenizer) -> None:
    rows = [{"sentence": "hello", "file": str(folder / "0.wav")}]
    assert len(encode_speech(Dataset.from_list(rows), tiny_model(), semantic_tokenizer, "sentence", "file")) == 1
    column = Dataset.from_list([{"text": "hello", "audio": str(folder / "0.wav")}]).cast_column("audio", Audio())
    assert len(encode_speech(column, tiny_model(), semantic_tokenizer)) == 1
    lengths = [{"text": "a", "audio": {"array": tone(1, 24_000, s), "sampling_rate": 24_000}} for s in (0.05, 0.5, 3.0)]
    with pytest.warns(UserWarning, match="left out 2 recordings of fewer than 2 or more than 40"):
        assert encode_speech(Dataset.from_list(lengths), tiny_model(), semantic_tokenizer)["length"] == [12]


def test_bad_datasets_are_named(folder: Path, semantic_tokenizer: SemanticTokenizer, tmp_path: Path) -> None:
    def encode(**row: Any) -> Dataset:
        return encode_speech(Dataset.from_list([row]), tiny_model(), semantic_tokenizer)

    with pytest.raises(KeyError, match="no column 'audio'.*sound"):
        encode(text="a", sound="x")
    with pytest.raises(ValueError, match="row 0: `text` must be a text, got ' '"):
        encode(text=" ", audio=str(folder / "0.wav"))
    with pytest.raises(ValueError, match="not finite"):
        encode(text="a", audio={"array": [float("nan")] * 24_000, "sampling_rate": 24_000})
    config = SemanticTokenizerConfig(n_tokens=7)
    other = SemanticTokenizer(config, Bottleneck(config), torch.zeros(7, config.n_components))
    with pytest.raises(ValueError, match="40 semantic tokens.*has 7"):
        encode_speech(Dataset.from_list([{"text": "a", "audio": "x"}]), tiny_model(), other)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no recording of 2 to 40"):
        encode(text="a", audio={"array": [0.0] * 100, "sampling_rate": 24_000})
    with pytest.raises(FileNotFoundError, match="never released"):
        load_semantic_tokenizer(tmp_path)
    semantic_tokenizer.save(tmp_path / "semantic_tokenizer")
    assert load_semantic_tokenizer(tmp_path).config == semantic_tokenizer.config


def test_bad_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither metadata.csv nor metadata.jsonl"):
        load_recordings(tmp_path)
    (tmp_path / "metadata.csv").write_text("name,text\n1.wav,hello\n", encoding="utf-8")
    with pytest.raises(KeyError, match="file_name.*name, text"):
        load_recordings(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.wav,hello\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"1\.wav"):
        load_recordings(tmp_path)
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{folder / '0.wav'},hello\n", encoding="utf-8")
    with pytest.raises(ValueError, match="outside"):
        load_recordings(tmp_path)


@pytest.mark.parametrize("stage", ["semantic", "coarse", "fine"])
def test_a_stage_learns_and_the_others_stay(stage: Any, encoded: Dataset, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(tmp_path / "tokenizer")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = evaluate_stage(stage, model, encoded, tokenizer)
    assert start == evaluate_stage(stage, model, encoded, tokenizer)
    train_stage(stage, model, encoded, tmp_path / "run", {**SETTINGS, "max_steps": 30}, tokenizer)
    assert evaluate_stage(stage, model, encoded, tokenizer) < 0.8 * start
    part = {"semantic": "semantic.", "coarse": "coarse_acoustics.", "fine": "fine_acoustics."}[stage]
    for name, value in model.state_dict().items():
        assert name.startswith(part) or torch.equal(value, before[name]), name
    model.save_pretrained(tmp_path / "saved")
    assert evaluate_stage(stage, BarkModel.from_pretrained(tmp_path / "saved"), encoded, tokenizer) == pytest.approx(
        evaluate_stage(stage, model, encoded, tokenizer), abs=1e-5
    )


def test_bad_stages_are_named(encoded: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="semantic, coarse, fine, got 'codec'"):
        evaluate_stage("codec", tiny_model(), encoded)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tokenizer"):
        train_stage("semantic", tiny_model(), encoded, tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="empty"):
        evaluate_stage("fine", tiny_model(), encoded.select([]))
