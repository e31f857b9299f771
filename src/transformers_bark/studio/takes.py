"""What a person at the page has: takes, voices, and a folder for the files of both."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import audio_files
from ..audio_streams import Tags, open_audio
from ..narration import Spoken
from ..narration.speaking import longer, usable
from ..narration.subtitles import SubtitleFile
from ..serving.voices import Voices
from ..voices import VoicePreset

MOST_TAKES = 20
"""Takes that a session keeps; the oldest go first."""

MOST_SECONDS = 600.0
"""Seconds of speech that a session keeps: 58 MB."""

MOST_VOICES = 20
"""Voices that a session keeps."""

AUDIO_ENDINGS = (".wav", ".mp3", ".flac", ".ogg", ".opus", *audio_files.MP4_FILES)
SUBTITLE_ENDINGS = (".srt", ".vtt")

_VOICE_SECONDS = 10.0  # of a long take, that are gone on from: what `Narrator` carries


def shortened(text: str, most: int) -> str:
    """At most so many characters of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


@dataclass(frozen=True, eq=False)
class Take:
    """Finished speech.

    Args:
        number: from 1, in its session.
        voice: its name, as it is shown.
        options: of sampling, where they are not those of the checkpoint.
        streamed: whether its codebooks were filled piece by piece.
        audio: the whole, float32 [samples].
        spoken: the pieces in their places; their audio are parts of `audio`.
        tokens: of each piece.
        seconds_taken: until all was there; `first_audio`: until there was something to hear.
    """

    number: int
    text: str
    voice: str
    seed: int
    options: Mapping[str, float]
    streamed: bool
    audio: np.ndarray
    rate: int
    spoken: tuple[Spoken, ...]
    tokens: tuple[VoicePreset, ...]
    seconds_taken: float
    first_audio: float

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / self.rate

    @property
    def title(self) -> str:
        """The take in a few words, for lists."""
        return f"{self.number} · {shortened(self.text, 40)}"

    def voice_preset(self, config: Any) -> VoicePreset | None:
        """The voice to go on in: that of the last speaker, whose pieces are taken until they are long enough.

        Args:
            config: the model's generation config.

        Returns:
            None where too little was said to be gone on from.
        """
        who = (self.spoken[-1].piece.voice, self.spoken[-1].piece.speaker)
        said: VoicePreset | None = None
        for spoken, tokens in zip(self.spoken, self.tokens, strict=True):
            if (spoken.piece.voice, spoken.piece.speaker) == who:
                said = longer(said, tokens, _VOICE_SECONDS, config)
        return None if said is None else usable(said, config)

    def write(self, path: Path, model: str) -> Path:
        """Writes the audio, in the format of the path's ending; tags say that it is synthetic."""
        with open_audio(path, self.rate, Tags.synthetic(model)) as file:
            file.write(self.audio)
        return path

    def write_subtitles(self, path: Path, by: str) -> Path:
        """Writes an .srt or .vtt file, by "sentence" or "word"."""
        titles = SubtitleFile(path, by)  # type: ignore[arg-type]
        for spoken in self.spoken:
            titles.add(spoken)
        titles.save()
        return path


class Session:
    """One person's takes and voices.

    Args:
        processor: a `BarkProcessor`, whose voices come first.
        config: the model's generation config.
    """

    def __init__(self, processor: Any, config: Any) -> None:
        self._processor, self._config = processor, config
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._count = 0
        self.takes: list[Take] = []
        self.current: int | None = None
        """Number of the take that is shown."""
        self.voices = Voices(processor, config, None)
        self.stop = threading.Event()
        """Ends what is being made."""

    def __deepcopy__(self, memo: Any) -> Session:
        """A new one: Gradio gives each visitor a copy of the first."""
        return Session(self._processor, self._config)

    @property
    def folder(self) -> Path:
        """Where files lie until they are fetched; made when first asked for."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="bark-studio-"))
        return self._folder

    def next_number(self) -> int:
        """The number of the next take."""
        self._count += 1
        return self._count

    def add(self, take: Take) -> None:
        """Keeps a take, and lets the oldest go where there are too many."""
        self.takes.append(take)
        while len(self.takes) > MOST_TAKES or (
            len(self.takes) > 1 and sum(one.seconds for one in self.takes) > MOST_SECONDS
        ):
            self.takes.pop(0)

    def take(self, number: Any) -> Take:
        """The take of a number.

        Raises:
            ValueError: there is none, or no more.
        """
        for one in self.takes:
            if one.number == number:
                return one
        raise ValueError(f"there is no take {number}: the last {MOST_TAKES} are kept")

    def store_voice(self, name: str, data: bytes) -> str:
        """Adds a voice from the bytes of an .npz or .safetensors file.

        Returns:
            Its name.

        Raises:
            ServiceError: a bad name, one that is taken, too many, or data that is no voice of this checkpoint.
        """
        folder = self.folder / "voices"
        with self._lock:
            if self.voices.most != MOST_VOICES:  # from the first voice on there is a folder for them
                self.voices = Voices(self._processor, self._config, folder, MOST_VOICES)
        return self.voices.add(name.strip(), data).name

    def close(self) -> None:
        """Ends what is being made and deletes the files."""
        self.stop.set()
        with self._lock:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
        self.takes.clear()


@dataclass(frozen=True)
class StudioLimits:
    """What one visitor may ask for.

    Args:
        characters: of a text.
        seconds: that a take may take.
        recording_seconds: that a recording to judge may last.
        upload: bytes of an uploaded file.
    """

    characters: int = 4096
    seconds: float = 900.0
    recording_seconds: float = 3600.0
    upload: int = 25_000_000
    waiting: int = field(default=32)
