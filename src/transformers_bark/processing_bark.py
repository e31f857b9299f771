"""Text and voices -> model inputs."""

from __future__ import annotations

import difflib
import glob
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
import numpy as np
from torch import Tensor
from transformers import AutoTokenizer, BatchEncoding, BatchFeature, ProcessorMixin
from transformers.utils import cached_file

from . import hub, input_files, output_files, vocabulary
from .generation_configuration_bark import BarkGenerationConfig
from .unknown_text import known_text, says_something
from .voices import KEYS, VoicePreset, load_array

_VOICES_FILE = "speaker_embeddings_path.json"
_VOICES_FOLDER = "speaker_embeddings"
_GENERATION_FILE = "generation_config.json"
_REPOSITORY = "repo_or_path"
_MOST_NAMED = 20
"""Unknown characters that a warning lists."""

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class VoiceRows(list):
    """A voice or None per row, that moves between devices with the rest of the inputs."""

    def to(self, device: Any, **kwargs: Any) -> VoiceRows:
        return VoiceRows(None if voice is None else voice.to(device) for voice in self)


class BarkProcessor(ProcessorMixin):
    """Tokenizer and voices of a Bark checkpoint.

    Prompt length, sampling rate and the sizes that voices are checked against are those of the `generation_config.json`
    beside the tokenizer. A processor made without one has the released length and rate, and leaves the check of a
    voice's values to `generate`, which knows the model.

    Args:
        tokenizer: a WordPiece tokenizer; `model_max_length` below 256 shortens the prompt.
        speaker_embeddings: voice names to files: a mapping of the three parts to `.npy` files, or one `.npz` or
            `.safetensors` file. The key `repo_or_path` names the folder or repository that the files lie in.
    """

    def __init__(self, tokenizer: Any, speaker_embeddings: Mapping[str, Any] | None = None) -> None:
        super().__init__(tokenizer)
        self.speaker_embeddings = None if speaker_embeddings is None else dict(speaker_embeddings)
        self._hub_options: dict[str, Any] = {}
        self._generation_config: BarkGenerationConfig | None = None

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

        Raises:
            ValueError: no tokenizer, or a damaged tokenizer, voice list or generation config.
        """
        source = str(pretrained_processor_name_or_path)
        options = {name: kwargs[name] for name in _HUB_OPTIONS if kwargs.get(name) is not None}
        voices = None
        if speaker_embeddings_dict_path is not None:
            voices = _read_json(source, speaker_embeddings_dict_path, options)
            if voices is not None:
                # the list may name the repository that it was copied from; what is being loaded counts
                voices = {**voices, _REPOSITORY: source}
        with input_files.errors_name_files(source, "tokenizer*.json", "special_tokens_map.json", "config.json"):
            tokenizer = AutoTokenizer.from_pretrained(source, **kwargs)
        check_tokenizer(tokenizer, source)
        processor = cls(tokenizer, voices)
        processor._hub_options = options
        generation = _read_json(source, _GENERATION_FILE, options)
        if generation is not None and "semantic_config" in generation:
            processor._generation_config = BarkGenerationConfig.from_dict(generation)
        return processor

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        speaker_embeddings_dict_path: str = _VOICES_FILE,
        speaker_embeddings_directory: str = _VOICES_FOLDER,
        push_to_hub: bool = False,
        voice_format: str = "npy",
        auto_map: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Saves tokenizer and voices, so that `from_pretrained` needs nothing else.

        Args:
            push_to_hub: also upload what was written, to `repo_id` (by default the folder's name).
            voice_format: "npy" for the Hub's three files a voice, "npz" or "safetensors" for one.
            auto_map: also write the files that let `trust_remote_code=True` find this package.
            kwargs: `repo_id`, `commit_message`, `private`, `token` and `create_pr` of the upload.

        Returns:
            The path of the processor's config.

        Raises:
            ValueError: another format, or a voice that cannot be loaded; nothing is written then.
        """
        if voice_format not in ("npy", "npz", "safetensors"):
            raise ValueError(f"`voice_format` must be npy, npz or safetensors, got {voice_format!r}")
        folder = Path(save_directory)
        voices = {_inside(name): self._load_named(name) for name in self.available_voice_presets}
        before = self._get_files_timestamps(folder) if push_to_hub and folder.is_dir() else {}
        folder.mkdir(parents=True, exist_ok=True)
        if self.speaker_embeddings is not None:
            # readers put the folder or repository that they load in its place, but stock's need the key
            listed: dict[str, Any] = {_REPOSITORY: "."}
            for name, voice in voices.items():
                listed[name] = _save_voice(voice, folder, f"{speaker_embeddings_directory}/{name}", voice_format)
            output_files.write_json(folder / speaker_embeddings_dict_path, listed)
        files = super().save_pretrained(str(folder))
        if auto_map:
            hub.write_auto_map(folder)
        if push_to_hub:
            self._publish(folder, before, **kwargs)
        return files

    def _publish(
        self,
        folder: Path,
        before: dict[str, float],
        repo_id: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        **commit: Any,
    ) -> Any:
        """Uploads what is newer than `before` (paths and their times) in a saved folder."""
        repo_id = huggingface_hub.create_repo(
            repo_id or folder.name, private=private, token=token, exist_ok=True
        ).repo_id
        return self._upload_modified_files(folder, repo_id, before, token=token, **commit)

    def _get_files_timestamps(self, working_dir: str | os.PathLike[str]) -> dict[str, float]:
        """Every file below the folder, at any depth, where Transformers looks one level deep: voices lie deeper."""
        root = Path(working_dir)
        files = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.stat().st_mtime for path in files}

    def _upload_modified_files(  # type: ignore[override]
        self,
        working_dir: str | os.PathLike[str],
        repo_id: str,
        files_timestamps: dict[str, float],
        commit_message: str | None = None,
        **options: Any,
    ) -> Any:
        """Uploads the files that `files_timestamps` lacks or has as older."""
        now = self._get_files_timestamps(working_dir)
        modified = [file for file, time in now.items() if time > files_timestamps.get(file, float("-inf"))]
        return huggingface_hub.upload_folder(
            repo_id=repo_id,
            folder_path=Path(working_dir),
            allow_patterns=[glob.escape(file) for file in modified],
            commit_message=commit_message or "Upload processor",
            **options,
        )

    def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Without the voices, which have files of their own."""
        output = super().to_dict(*args, **kwargs)
        output.pop("speaker_embeddings", None)
        return output

    @property
    def available_voice_presets(self) -> list[str]:
        """Names of the voices."""
        return [name for name in self.speaker_embeddings or {} if name != _REPOSITORY]

    @property
    def max_length(self) -> int:
        """Text tokens in the prompt, unless the call says otherwise."""
        if self._generation_config is not None:
            return self._generation_config.semantic_config.max_input_semantic_length
        return min(self.tokenizer.model_max_length, vocabulary.MAX_TEXT_LENGTH)

    @property
    def sampling_rate(self) -> int:
        """Samples per second of the model's audio."""
        return vocabulary.SAMPLE_RATE if self._generation_config is None else self._generation_config.sample_rate

    def load_voice(self, voice: Any) -> VoicePreset | None:
        """A voice given as a name, the path of an `.npz` or `.safetensors` file, a mapping, a `VoicePreset` or None.

        Raises:
            ValueError: an unknown name (the nearest are suggested), a path outside the folder, a damaged voice, or one that
                does not fit the checkpoint.
            TypeError: something else.
        """
        preset = self._read_voice(voice)
        if preset is None or self._generation_config is None:
            return preset
        try:
            return preset.check(self._generation_config)
        except ValueError as error:
            which = f" {os.fspath(voice)!r}" if isinstance(voice, str | os.PathLike) else ""
            raise ValueError(f"voice preset{which} does not fit this checkpoint: {error}") from error

    def _read_voice(self, voice: Any) -> VoicePreset | None:
        if voice is None or isinstance(voice, VoicePreset):
            return voice
        if isinstance(voice, Mapping | np.lib.npyio.NpzFile):
            return VoicePreset.from_arrays(voice)
        if not isinstance(voice, str | os.PathLike):
            raise TypeError(
                f"`voice_preset` must be a name, a path, a mapping or a VoicePreset, got {type(voice).__name__}"
            )
        name = os.fspath(voice)
        if not isinstance(name, str):
            raise TypeError(f"`voice_preset` must be a name or a path of characters, got {name!r}")
        listed = self.available_voice_presets
        same = [name] if name in listed else [one for one in listed if one.casefold() == name.casefold()]
        if len(same) == 1:
            return self._load_named(same[0])
        for path in (Path(name), Path(f"{name}.npz")):
            if path.suffix in (".npz", ".safetensors") and path.is_file():
                return VoicePreset.load(path)
        if Path(name).suffix in (".npz", ".safetensors"):
            raise ValueError(f"voice preset {name!r}: there is no such file")
        near = difflib.get_close_matches(name, listed, 3, 0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; {len(listed)} voices are listed"
        raise ValueError(f"voice preset {name!r} is neither a listed voice nor an .npz or .safetensors file{hint}")

    def _load_named(self, name: str) -> VoicePreset:
        assert self.speaker_embeddings is not None
        entry = self.speaker_embeddings[name]
        try:
            if isinstance(entry, str):
                return VoicePreset.load(self._fetch_voice_file(entry))
            if not isinstance(entry, Mapping):
                raise ValueError(f"its entry must be a file or a mapping of parts to files, got {entry!r}")
            missing = [key for key in KEYS if not isinstance(entry.get(key), str)]
            if missing:
                raise ValueError(f"its entry lacks {', '.join(missing)}")
            return VoicePreset.from_arrays({key: load_array(self._fetch_voice_file(entry[key])) for key in KEYS})
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
            text: one text or several. Characters that the tokenizer does not know are replaced where they have an equivalent
                (curly quotes, dashes, ligatures, full-width forms), else left out with one warning that lists them.
            voice_preset: one voice for all texts, or a list with a voice or None per text; see `load_voice`.
            max_length: text tokens in the prompt; longer text is cut, with a warning that says how much.
            device: where the tensors go.
            kwargs: passed on to the tokenizer.

        Returns:
            `input_ids` and `attention_mask` [batch, max_length]; with a voice also `history_prompt`. `to(device)` moves all.

        Raises:
            ValueError: empty text, text of which the tokenizer knows nothing, an empty prompt, or a bad voice.
            TypeError: text that is not a string.
        """
        texts = self._known_texts([" ".join(one.split()) for one in _as_texts(text)])
        length = self.max_length if max_length is None else max_length
        self._check_lengths(texts, length, add_special_tokens)
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

    def _known_texts(self, texts: Sequence[str]) -> list[str]:
        """The texts in characters that the tokenizer knows, with a warning that names what is lost.

        Raises:
            ValueError: nothing of a text is known.
        """
        read, lost = [], dict[str, None]()
        for text in texts:
            known, unknown = known_text(self.tokenizer, text)
            if unknown and not says_something(self.tokenizer, known):
                raise ValueError(f"`text` has nothing that the tokenizer knows, got {text!r}")
            read.append(known)
            lost |= dict.fromkeys(unknown)
        if lost:
            named = ", ".join(map(repr, list(lost)[:_MOST_NAMED])) + (", …" if len(lost) > _MOST_NAMED else "")
            warnings.warn(f"the tokenizer does not know {named}: the speech will lack them", stacklevel=3)
        return read

    def _check_lengths(self, texts: Sequence[str], length: int, add_special_tokens: bool) -> None:
        """Refuses text without a token, and warns of text that is longer than the prompt."""
        if length < 1:
            raise ValueError(f"`max_length` must be at least 1, got {length}")
        ids = self.tokenizer(texts, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        for text, row in zip(texts, ids, strict=True):
            if not row:
                raise ValueError(f"`text` has nothing that the tokenizer knows, got {text!r}")
            if len(row) > length:
                share = round((len(row) - length) / len(row) * 100, 1)
                warnings.warn(
                    f"text of {len(row)} tokens is longer than {length}: the last {share}% is cut off: {text[:40]!r}…",
                    stacklevel=3,
                )

    def save_audio(
        self,
        audio: Tensor | np.ndarray,
        path: str | os.PathLike[str],
        sampling_rate: int | None = None,
        tags: bool = True,
    ) -> None:
        """Writes audio [samples] or [1, samples] as a mono file, whole or not at all.

        Args:
            path: its ending says what is written: .wav, .flac, .mp3, .ogg, .opus and more (`audio_files.FORMATS`); without one, WAV.
            sampling_rate: samples per second; None for the model's.
            tags: whether WAV, FLAC, MP3, Ogg and Opus files say what made them, and that they are synthetic.

        Raises:
            ValueError: audio of another shape, samples that are not numbers, or another ending.
            OSError: the file cannot be written; the error names it.
        """
        from .audio_streams import Tags, write_audio

        rate = self.sampling_rate if sampling_rate is None else sampling_rate
        write_audio(path, audio, rate, Tags.synthetic(None) if tags else Tags())


def check_tokenizer(tokenizer: Any, source: str) -> None:
    """Refuses the tokenizer that Transformers makes up, of special tokens alone, where there are no files of one.

    Raises:
        ValueError: it names `source`.
    """
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise ValueError(f"no tokenizer in {source}")


def _as_texts(text: Any) -> list[str]:
    """One text or several -> a list; refuses what is no text.

    Raises:
        ValueError: no text, or one without a letter.
        TypeError: something else than strings.
    """
    if isinstance(text, str):
        texts = [text]
    elif text is None or isinstance(text, Iterable) and not isinstance(text, bytes | Mapping):
        texts = [] if text is None else list(text)
    else:
        raise TypeError(f"`text` must be a string or a list of strings, got {type(text).__name__}")
    if not texts:
        raise ValueError("`text` is empty: give at least one text")
    for one in texts:
        if not isinstance(one, str):
            raise TypeError(f"`text` must be a string or a list of strings, got {type(one).__name__}")
        if not one.strip():
            raise ValueError(f"`text` must not be empty, got {one!r}")
        try:
            one.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"`text` is not Unicode: it holds {one[error.start]!a} (half a character, from bytes that are not UTF-8) "
                f"at {error.start}"
            ) from None
    return texts


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


def _read_json(source: str, file: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """A JSON object from a folder or repository; None where there is no such file.

    Raises:
        ValueError: the file holds something else.
    """
    path = _fetch(source, file, options)
    return None if path is None else input_files.read_json(path)


def _save_voice(voice: VoicePreset, folder: Path, stem: str, voice_format: str) -> Any:
    """Writes one voice below `folder`, and gives its entry in the list."""
    if voice_format != "npy":
        voice.save(folder / f"{stem}.{voice_format}")
        return f"{stem}.{voice_format}"
    entry = {key: f"{stem}_{key}.npy" for key in KEYS}
    for key, part in voice.as_dict().items():
        with output_files.open_output(folder / entry[key], make_folder=True) as file:
            np.save(file, part.cpu().numpy().astype(np.int32), allow_pickle=False)  # half of int64, and as exact
    return entry


__all__ = ["BarkProcessor"]
