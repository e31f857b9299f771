"""Recordings with their texts -> the rows that the stages train on."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from datasets import Audio, Dataset, Features, Value
from datasets import Sequence as ListOf
from torch import Tensor

from .. import codec
from ..modeling_bark import BarkModel
from .semantic_tokenizer import SemanticTokenizer

ENCODED = Features(
    {
        "text": Value("string"),
        "semantic": ListOf(Value("int32")),
        "codes": ListOf(ListOf(Value("int16"))),
        "length": Value("int32"),
    }
)
"""Columns of an encoded dataset: `codes` is [codebook][frame], `length` the number of semantic tokens."""

SEMANTIC_TOKENIZER = "semantic_tokenizer"
"""Folder of a checkpoint that holds its semantic tokenizer."""


def load_semantic_tokenizer(folder: str | Path) -> SemanticTokenizer:
    """The tokenizer that a checkpoint trained here carries.

    Raises:
        FileNotFoundError: the checkpoint has none, as those of Suno: their encoder was never released.
    """
    path = Path(folder) / SEMANTIC_TOKENIZER
    if not path.is_dir():
        raise FileNotFoundError(
            f"{folder} has no folder {SEMANTIC_TOKENIZER!r}: its semantic tokens cannot be made from audio. "
            "Suno never released the encoder of its models; checkpoints trained here carry theirs."
        )
    return SemanticTokenizer.load(path)


def load_recordings(folder: str | Path) -> Dataset:
    """A folder in the layout of `datasets`' audiofolder: `metadata.csv` or `metadata.jsonl` with `file_name` and `text`.

    `datasets` reads such folders with torchcodec; here soundfile, which is there anyway, reads the recordings later.

    Returns:
        The columns of the metadata, with the path `audio` in place of `file_name`.

    Raises:
        FileNotFoundError: no metadata, or a recording that is not there.
        KeyError: no column `file_name`.
        ValueError: a file name that leaves the folder.
    """
    folder = Path(folder).resolve()
    loaders = {"metadata.csv": Dataset.from_csv, "metadata.jsonl": Dataset.from_json}
    found = [name for name in loaders if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} has neither {' nor '.join(loaders)}")
    table = loaders[found[0]](str(folder / found[0]), keep_in_memory=True, cache_dir=None)
    if "file_name" not in table.column_names:
        raise KeyError(f"{found[0]} has no column 'file_name': it has {', '.join(table.column_names)}")
    paths = [(folder / name).resolve() for name in table["file_name"]]
    for path in paths:
        if not path.is_relative_to(folder):
            raise ValueError(f"{found[0]} names {path}, which is outside {folder}")
        if not path.is_file():
            raise FileNotFoundError(f"{found[0]} names {path}, which is not there")
    return table.remove_columns("file_name").add_column("audio", [str(path) for path in paths])


def encode_speech(
    dataset: Dataset,
    model: BarkModel,
    semantic_tokenizer: SemanticTokenizer,
    text_column: str = "text",
    audio_column: str = "audio",
) -> Dataset:
    """Turns (text, audio) into (text, semantic tokens, codes).

    Args:
        dataset: rows with a text and a recording: an `Audio` column, a path, or a mapping with `array` ([samples] or
            [channel, samples]) and `sampling_rate`. Recordings are mixed to mono and resampled to the codec's rate.
        model: its codec and its rates.
        semantic_tokenizer: of the same rate and vocabulary as the model.

    Returns:
        A dataset with the features `ENCODED`, without the rows that are too long for the semantic stage or shorter than two
        of its tokens; a warning tells how many those are.

    Raises:
        KeyError: a column that is not there.
        ValueError: a tokenizer of another model, an empty text, audio that is not finite, no recording that fits.
    """
    _check_tokenizer(model, semantic_tokenizer)
    for column in (text_column, audio_column):
        if column not in dataset.column_names:
            raise KeyError(f"no column {column!r}: the dataset has {', '.join(dataset.column_names)}")
    if isinstance(dataset.features[audio_column], Audio):
        dataset = dataset.cast_column(audio_column, Audio(decode=False))  # decoded here: no torchcodec needed
    most = _most_tokens(model)
    n_codebooks = model.generation_config.fine_acoustics_config.n_fine_codebooks
    rows, n_left_out = [], 0
    for text, audio in _recordings(dataset, text_column, audio_column, _codec_config(model).sampling_rate):
        semantic = semantic_tokenizer.encode(audio)
        if not 2 <= len(semantic) <= most:
            n_left_out += 1
            continue
        codes = codec.encode_recording(model.codec_model, audio.to(model.device), n_codebooks)
        rows.append({"text": text, "semantic": semantic.tolist(), "codes": codes.tolist(), "length": len(semantic)})
    if n_left_out:
        warnings.warn(f"left out {n_left_out} recordings of fewer than 2 or more than {most} tokens", stacklevel=2)
    if not rows:
        raise ValueError(f"no recording of 2 to {most} semantic tokens in a dataset of {len(dataset)} rows")
    return Dataset.from_list(rows, features=ENCODED)


def _codec_config(model: BarkModel) -> Any:
    return model.config.codec_config


def _most_tokens(model: BarkModel) -> int:
    """Semantic tokens that the semantic stage may make and has positions for, after the prompt and its last token."""
    stage, sizes = model.generation_config.semantic_config, model.semantic.config
    return min(stage.max_new_tokens, sizes.block_size - stage.max_input_semantic_length - 1)


def _check_tokenizer(model: BarkModel, tokenizer: SemanticTokenizer) -> None:
    stage = model.generation_config.semantic_config
    wanted = (stage.semantic_vocab_size, stage.semantic_rate_hz, _codec_config(model).sampling_rate)
    given = (tokenizer.config.n_tokens, tokenizer.config.rate_hz, tokenizer.config.sampling_rate)
    if wanted != given:
        raise ValueError(
            f"the model has {wanted[0]} semantic tokens, {wanted[1]} a second, at {wanted[2]} Hz; "
            f"`semantic_tokenizer` has {given[0]}, {given[1]} a second, at {given[2]} Hz"
        )


def _recordings(dataset: Dataset, text_column: str, audio_column: str, rate: int) -> Iterator[tuple[str, Tensor]]:
    for number, row in enumerate(dataset):
        text = row[text_column]
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"row {number}: `{text_column}` must be a text, got {text!r}")
        samples, sampling_rate = _samples(row[audio_column])
        mono = samples.mean(axis=0) if samples.ndim == 2 else samples
        if not np.isfinite(mono).all():
            raise ValueError(f"row {number}: `{audio_column}` holds values that are not finite")
        yield text, torch.from_numpy(soxr.resample(mono, sampling_rate, rate).astype(np.float32))


def _samples(audio: Any) -> tuple[np.ndarray, int]:
    """A recording -> float32 [samples] or [channel, samples], and its samples per second."""
    if isinstance(audio, Mapping) and audio.get("array") is not None:
        return np.asarray(audio["array"], np.float32), int(audio["sampling_rate"])
    source = audio
    if isinstance(audio, Mapping):
        source = io.BytesIO(audio["bytes"]) if audio.get("bytes") else audio["path"]
    samples, sampling_rate = soundfile.read(source, dtype="float32", always_2d=True)
    return samples.T, sampling_rate
