"""Text and voices -> model inputs."""

from __future__ import annotations

import difflib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor
from transformers import AutoTokenizer, BatchEncoding, BatchFeature, ProcessorMixin
from transformers.utils import cached_file

from . import audio_files, vocabulary
from .voices import KEYS, VoicePreset

_VOICES_FILE = "speaker_embeddings_path.json"
_VOICES_FOLDER = "speaker_embeddings"
_REPOSITORY = "repo_or_path"
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class VoiceRows(list):
    """A voice or None per row, that moves between devices with the rest of the inputs."""

    def to(self, device: Any, **kwargs: Any) -> VoiceRows:
        return VoiceRows(None if voice is None else voice.to(device) for voice in self)


class BarkProcessor(ProcessorMixin):
    """Tokenizer and voices of a Bark checkpoint.

    Args:
        tokenizer: a WordPiece tokenizer; `model_max_length` below 256 shortens the prompt.
        speaker_embeddings: voice names to files: a mapping of the three parts to `.npy` files, or one `.npz` or
            `.safetensors` file. The key `repo_or_path` names the folder or repository that the files lie in.
    """

    def __init__(self, tokenizer: Any, speaker_embeddings: Mapping[str, Any] | None = None) -> None:
        super().__init__(tokenizer)
        self.speaker_embeddings = None if speaker_embeddings is None else dict(speaker_embeddings)
        self._hub_options: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_processor_name_or_path: str | os.PathLike[str],
        speaker_embeddings_dict_path: str | None = _VOICES_FILE,
        **kwargs: Any,
    ) -> BarkProcessor:
        """Loads tokenizer and voice list from a folder or the Hub; a voice's files are fetched when it is first used.

        Args:
            speaker_embeddings_dict_path: the voice list; None loads no voices.
            kwargs: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, `force_download` and `proxies` hold
                for the tokenizer, the voice list and the voices.
        """
        source = str(pretrained_processor_name_or_path)
        options = {name: kwargs[name] for name in _HUB_OPTIONS if kwargs.get(name) is not None}
        voices = None
        if speaker_embeddings_dict_path is not None:
            path = _fetch(source, speaker_embeddings_dict_path, options)
            if path is not None:
                # the list may name the repository that it was copied from; what is being loaded counts
                voices = {**json.loads(Path(path).read_text(encoding="utf-8")), _REPOSITORY: source}
        processor = cls(AutoTokenizer.from_pretrained(source, **kwargs), voices)
        processor._hub_options = options
        return processor

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        speaker_embeddings_dict_path: str = _VOICES_FILE,
        speaker_embeddings_directory: str = _VOICES_FOLDER,
        push_to_hub: bool = False,
        voice_format: str = "npy",
        **kwargs: Any,
    ) -> None:
        """Saves tokenizer and voices, so that `from_pretrained` needs nothing else.

        Args:
            voice_format: "npy" for the Hub's three files a voice, "npz" or "safetensors" for one.

        Raises:
            ValueError: another format, or a voice that cannot be loaded; nothing is written then.
        """
        if voice_format not in ("npy", "npz", "safetensors"):
            raise ValueError(f"`voice_format` must be npy, npz or safetensors, got {voice_format!r}")
        folder = Path(save_directory)
        voices = {name: self._load_named(name) for name in self.available_voice_presets}
        if self.speaker_embeddings is not None:
            folder.mkdir(parents=True, exist_ok=True)
            listed: dict[str, Any] = {_REPOSITORY: str(save_directory)}
            for name, voice in voices.items():
                listed[name] = _save_voice(
                    voice, folder, f"{speaker_embeddings_directory}/{_inside(name)}", voice_format
                )
            (folder / speaker_embeddings_dict_path).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
        super().save_pretrained(folder, push_to_hub=push_to_hub, **kwargs)

    def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Without the voices, which have files of their own."""
        output = super().to_dict(*args, **kwargs)
        for name in ("speaker_embeddings", "_hub_options"):
            output.pop(name, None)
        return output

    @property
    def available_voice_presets(self) -> list[str]:
        """Names of the voices."""
        return [name for name in self.speaker_embeddings or {} if name != _REPOSITORY]

    @property
    def max_length(self) -> int:
        """Text tokens in the prompt, unless the call says otherwise."""
        return min(self.tokenizer.model_max_length, vocabulary.MAX_TEXT_LENGTH)

    def load_voice(self, voice: Any) -> VoicePreset | None:
        """A voice given as a name, the path of an `.npz` or `.safetensors` file, a mapping, a `VoicePreset` or None.

        Raises:
            ValueError: an unknown name (the nearest are suggested), a path outside the folder, a damaged or bad voice.
            TypeError: something else.
        """
        if voice is None or isinstance(voice, VoicePreset):
            return voice
        if isinstance(voice, Mapping | np.lib.npyio.NpzFile):
            return VoicePreset.from_arrays(voice)
        if not isinstance(voice, str | os.PathLike):
            raise TypeError(
                f"`voice_preset` must be a name, a path, a mapping or a VoicePreset, got {type(voice).__name__}"
            )
        name = os.fspath(voice)
        if name in self.available_voice_presets:
            return self._load_named(name)
        for path in (Path(name), Path(f"{name}.npz")):
            if path.suffix in (".npz", ".safetensors") and path.is_file():
                return VoicePreset.load(path)
        near = difflib.get_close_matches(name, self.available_voice_presets, 3, 0.4)
        hint = (
            f"; did you mean {' or '.join(near)}?"
            if near
            else f"; {len(self.available_voice_presets)} voices are listed"
        )
        raise ValueError(f"voice preset {name!r} is neither a listed voice nor an .npz or .safetensors file{hint}")

    def _load_named(self, name: str) -> VoicePreset:
        assert self.speaker_embeddings is not None
        entry = self.speaker_embeddings[name]
        try:
            if isinstance(entry, str):
                return VoicePreset.load(self._fetch_voice_file(entry))
            missing = [key for key in KEYS if key not in entry]
            if missing:
                raise ValueError(f"its entry lacks {', '.join(missing)}")
            return VoicePreset.from_arrays(
                {key: np.load(self._fetch_voice_file(entry[key]), allow_pickle=False) for key in KEYS}
            )
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"voice preset {name!r}: {error}") from error

    def _fetch_voice_file(self, file: str) -> str:
        assert self.speaker_embeddings is not None
        source = self.speaker_embeddings.get(_REPOSITORY, ".")
        path = _fetch(source, _inside(file), self._hub_options)
        if path is None:
            raise ValueError(f"{file} is not in {source}")
        return path

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        voice_preset: Any = None,
        return_tensors: str = "pt",
        max_length: int | None = None,
        add_special_tokens: bool = False,
        return_attention_mask: bool = True,
        return_token_type_ids: bool = False,
        device: Any = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Tokenizes and loads voices.

        Args:
            text: one text or several.
            voice_preset: one voice for all texts, or a list with a voice or None per text; see `load_voice`.
            max_length: text tokens in the prompt; longer text is cut, with a warning that says how much.
            device: where the tensors go.
            kwargs: passed on to the tokenizer.

        Returns:
            `input_ids` and `attention_mask` [batch, max_length]; with a voice also `history_prompt`. `to(device)` moves all.

        Raises:
            ValueError: empty text, or a bad voice.
            TypeError: text that is not a string.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        _check_texts(texts)
        length = self.max_length if max_length is None else max_length
        texts = [" ".join(one.split()) for one in texts]
        self._warn_of_cut(texts, length, add_special_tokens)
        encoded = self.tokenizer(
            texts,
            return_tensors=return_tensors,
            max_length=length,
            add_special_tokens=add_special_tokens,
            return_attention_mask=return_attention_mask,
            return_token_type_ids=return_token_type_ids,
            **{"padding": "max_length", **kwargs, "truncation": True},
        )
        history = self._history(voice_preset, len(texts))
        if history is not None:
            encoded["history_prompt"] = history
        return encoded if device is None else encoded.to(device)

    def _history(self, voice_preset: Any, count: int) -> VoiceRows | BatchFeature | None:
        if isinstance(voice_preset, list | tuple):
            if len(voice_preset) != count:
                raise ValueError(f"`voice_preset` has {len(voice_preset)} voices for {count} texts")
            return VoiceRows(self.load_voice(voice) for voice in voice_preset)
        voice = self.load_voice(voice_preset)
        return None if voice is None else BatchFeature(voice.as_dict())

    def _warn_of_cut(self, texts: Sequence[str], length: int, add_special_tokens: bool) -> None:
        ids = self.tokenizer(texts, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        for text, row in zip(texts, ids, strict=True):
            if len(row) > length:
                share = round((len(row) - length) / len(row) * 100, 1)
                warnings.warn(
                    f"text of {len(row)} tokens is longer than {length}: the last {share}% is cut off: {text[:40]!r}…",
                    stacklevel=3,
                )

    def save_audio(
        self, audio: Tensor | np.ndarray, path: str | os.PathLike[str], sampling_rate: int = vocabulary.SAMPLE_RATE
    ) -> None:
        """Writes audio [samples] or [1, samples] as a 16-bit mono WAV file, whole or not at all."""
        audio_files.write_wav(path, audio, sampling_rate)


def _check_texts(texts: Sequence[Any]) -> None:
    if not texts:
        raise ValueError("`text` is empty: give at least one text")
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"`text` must be a string or a list of strings, got {type(text).__name__}")
        if not text.strip():
            raise ValueError(f"`text` must not be empty, got {text!r}")


def _inside(file: str) -> str:
    """A path inside its folder, as given.

    Raises:
        ValueError: it is absolute or climbs out.
    """
    parts = PurePosixPath(file.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in file:
        raise ValueError(f"path {file!r} leaves its folder")
    return file


def _fetch(source: str, file: str, options: Mapping[str, Any]) -> str | None:
    """The local path of a file in a folder or repository; None where there is none."""
    return cached_file(source, file, **options, _raise_exceptions_for_missing_entries=False)


def _save_voice(voice: VoicePreset, folder: Path, stem: str, voice_format: str) -> Any:
    """Writes one voice below `folder`, and gives its entry in the list."""
    (folder / stem).parent.mkdir(parents=True, exist_ok=True)
    if voice_format != "npy":
        voice.save(folder / f"{stem}.{voice_format}")
        return f"{stem}.{voice_format}"
    entry = {key: f"{stem}_{key}.npy" for key in KEYS}
    for key, part in voice.as_dict().items():
        np.save(folder / entry[key], part.cpu().numpy(), allow_pickle=False)
    return entry


__all__ = ["BarkProcessor"]
