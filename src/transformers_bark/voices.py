"""Voices: the tokens of earlier speech that a generation goes on from."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from . import input_files, output_files, vocabulary
from .generation_configuration_bark import BarkGenerationConfig

KEYS = ("semantic_prompt", "coarse_prompt", "fine_prompt")
"""Names of the three parts, in files and in mappings."""

_RANKS = {"semantic_prompt": 1, "coarse_prompt": 2, "fine_prompt": 2}


@dataclass(frozen=True, eq=False)
class VoicePreset:
    """One voice, as int64 tensors.

    Args:
        semantic_prompt: semantic tokens [n].
        coarse_prompt: coarse codes [coarse codebook, frame].
        fine_prompt: codes [codebook, frame], as many frames as `coarse_prompt`.
    """

    semantic_prompt: Tensor
    coarse_prompt: Tensor
    fine_prompt: Tensor

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> VoicePreset:
        """A voice from a mapping with the three keys, in capitals or not; arrays or tensors of any integer type and memory order.

        Raises:
            ValueError: a missing key, a wrong rank, an empty or negative part, something else than whole numbers.
        """
        names = {name.lower(): name for name in arrays if isinstance(name, str)}
        arrays = {key: arrays[key if key in arrays else names[key]] for key in KEYS if key in names}
        missing = [key for key in KEYS if key not in arrays]
        if missing:
            raise ValueError(f"voice preset lacks {', '.join(missing)}; it must hold {', '.join(KEYS)}")
        return cls(*(_as_tensor(key, arrays[key]) for key in KEYS))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VoicePreset:
        """Reads a voice from an `.npz` file (the original library's) or a `.safetensors` file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: another kind of file, a damaged one, one with pickled objects, or a bad part (see `from_arrays`).
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"voice preset {path} does not exist")
        try:
            if path.suffix == ".npz":
                arrays: Mapping[str, Any] = _load_npz(path)
            elif path.suffix == ".safetensors":
                input_files.check_file(path)
                arrays = safetensors.torch.load_file(path)
            else:
                raise ValueError(f"expected an .npz or .safetensors file, got {path.suffix or 'no ending'!r}")
            return cls.from_arrays(arrays)
        except (ValueError, OSError, EOFError, KeyError, safetensors.SafetensorError) as error:
            reason = str(error).removeprefix(f"{path} ")
            raise ValueError(f"voice preset {path}: {reason}") from error
        except Exception as error:  # zipfile and numpy raise errors of their own kinds on damaged files
            raise ValueError(f"voice preset {path} cannot be read: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the voice to an `.npz` or `.safetensors` file, as `output_files.open_output` does; its folder is made.

        Raises:
            ValueError: another ending.
            OSError: the file cannot be written; the error names it.
        """
        path = Path(path)
        parts = self.as_dict()
        if path.suffix not in (".npz", ".safetensors"):
            raise ValueError(f"a voice preset is saved as .npz or .safetensors, got {str(path)!r}")
        with output_files.open_output(path, make_folder=True) as file:
            if path.suffix == ".npz":
                arrays: dict[str, Any] = {key: part.cpu().numpy() for key, part in parts.items()}
                np.savez_compressed(file, **arrays)
            else:
                file.write(safetensors.torch.save({key: part.cpu().contiguous() for key, part in parts.items()}))

    def as_dict(self) -> dict[str, Tensor]:
        """The three parts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> VoicePreset:
        """The same voice on another device."""
        return VoicePreset(*(part.to(device) for part in self.as_dict().values()))

    def trim(self, seconds: float, config: BarkGenerationConfig | None = None) -> VoicePreset:
        """The last `seconds` of the voice.

        Raises:
            ValueError: `seconds` is not positive.
        """
        if not seconds > 0:
            raise ValueError(f"`seconds` must be positive, got {seconds}")
        config = config or BarkGenerationConfig()
        n_tokens = max(1, round(seconds * config.semantic_config.semantic_rate_hz))
        n_frames = max(1, round(seconds * config.coarse_acoustics_config.coarse_rate_hz))
        return VoicePreset(
            self.semantic_prompt[-n_tokens:], self.coarse_prompt[:, -n_frames:], self.fine_prompt[:, -n_frames:]
        )

    def check(self, config: BarkGenerationConfig | None = None) -> VoicePreset:
        """This voice, if it fits the generation config (by default that of the released models).

        Raises:
            ValueError: wrong number of codebooks, a value outside its vocabulary, or frames that do not match the number of
                semantic tokens (the original library's rule: equal ratios to one decimal).
        """
        config = config or BarkGenerationConfig()
        semantic, coarse, fine = self.as_dict().values()
        stage = config.coarse_acoustics_config
        for name, part, rows in (
            ("coarse_prompt", coarse, stage.n_coarse_codebooks),
            ("fine_prompt", fine, config.fine_acoustics_config.n_fine_codebooks),
        ):
            if len(part) != rows:
                raise ValueError(f"`{name}` must have {rows} rows, one a codebook, got {len(part)}")
            _check_range(name, part, config.codebook_size)
        _check_range("semantic_prompt", semantic, config.semantic_config.semantic_vocab_size)
        if coarse.shape[1] != fine.shape[1]:
            raise ValueError(
                f"`coarse_prompt` has {coarse.shape[1]} frames and `fine_prompt` {fine.shape[1]}; they must be equal"
            )
        ratio = vocabulary.semantic_to_coarse_ratio(config.semantic_config, stage) / stage.n_coarse_codebooks
        # a short voice is off by what its last frame is cut by
        is_near = abs(coarse.shape[1] - ratio * len(semantic)) <= 1
        if not is_near and round(coarse.shape[1] / len(semantic), 1) != round(ratio, 1):
            raise ValueError(
                f"`coarse_prompt` has {coarse.shape[1]} frames for {len(semantic)} semantic tokens, expected about "
                f"{len(semantic) * ratio:.0f}"
            )
        return self


def load_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an `.npy` file.

    Raises:
        ValueError: another kind of file, a damaged one, or one of Python objects, which are never loaded.
    """
    input_files.check_file(path)
    with Path(path).open("rb") as file:
        return _read_array(file, str(path))


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    """The parts of a voice in an `.npz` file."""
    input_files.check_file(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file, or is cut short")
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy").lower(): name for name in archive.namelist()}
        arrays = {}
        for key in KEYS:
            if key in names:
                with archive.open(names[key]) as file:
                    arrays[key] = _read_array(file, key)
        return arrays


def _read_array(file: IO[bytes], name: str) -> np.ndarray:
    try:
        return np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error):  # numpy's advice is to load them all the same
            raise ValueError(f"{name} holds Python objects, which are never loaded") from error
        raise ValueError(f"{name} is no array of numpy's format, or is damaged: {error}") from error
    except Exception as error:  # damaged headers and streams raise whatever reads them raises
        raise ValueError(f"{name} is damaged: {error}") from error


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        tensor = value
    else:
        array = np.asarray(value)
        whole = array.dtype.kind in "iu"
        # torch has no arithmetic on unsigned types, so widen first
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)) if whole else torch.empty(0)
    if not whole:
        raise ValueError(f"`{name}` must hold whole numbers, got {getattr(value, 'dtype', type(value).__name__)}")
    if tensor.ndim != _RANKS[name]:
        raise ValueError(f"`{name}` must have {_RANKS[name]} dimension(s), got shape {tuple(tensor.shape)}")
    if not tensor.numel():
        raise ValueError(f"`{name}` is empty")
    tensor = tensor.long()
    if int(tensor.min()) < 0:
        raise ValueError(f"`{name}` must not be negative, got {int(tensor.min())}")
    return tensor


def _check_range(name: str, part: Tensor, size: int) -> None:
    if int(part.max()) >= size or int(part.min()) < 0:
        raise ValueError(f"`{name}` must lie in [0, {size}), got {int(part.min())} to {int(part.max())}")


def as_history_rows(
    history_prompt: Any, batch_size: int, device: torch.device | str, config: BarkGenerationConfig | None = None
) -> list[VoicePreset | None]:
    """What `generate` takes as `history_prompt` -> a voice or None for each row, on `device`.

    Args:
        history_prompt: None, a `VoicePreset`, a mapping with the three keys, or a sequence of those, one per row.
        config: checks every voice against it.

    Raises:
        ValueError: a sequence of another length than the batch, or a voice that does not fit.
        TypeError: something else.
    """
    if isinstance(history_prompt, Sequence) and not isinstance(history_prompt, str):
        if len(history_prompt) != batch_size:
            raise ValueError(f"`history_prompt` has {len(history_prompt)} voices for {batch_size} rows")
        voices = [_as_voice(voice) for voice in history_prompt]
    else:
        voices = [_as_voice(history_prompt)] * batch_size
    if config is not None:
        for voice in dict.fromkeys(voice for voice in voices if voice is not None):
            voice.check(config)
    return [None if voice is None else voice.to(device) for voice in voices]


def _as_voice(value: Any) -> VoicePreset | None:
    if value is None or isinstance(value, VoicePreset):
        return value
    if isinstance(value, Mapping):
        return VoicePreset.from_arrays(value)
    raise TypeError(
        f"a voice is a VoicePreset or a mapping with {', '.join(KEYS)}, got {type(value).__name__}; "
        "names and files are read by the processor"
    )
