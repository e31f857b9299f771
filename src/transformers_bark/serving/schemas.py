"""What is sent and answered, as the OpenAPI page shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..narration.languages import LANGUAGES
from .audio import Format

VoiceName = Annotated[str, Field(min_length=1, max_length=200)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 1.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63), BeforeValidator(_whole)]


class VoiceReference(BaseModel):
    """A voice by its id."""

    id: VoiceName = Field(description="id or name of a voice")


class Spoken(BaseModel):
    """What is to be said, and how: OpenAI's fields, and ours (`seed`, `temperature`, `language`; `early` of a stream)."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "bark", "input": "Good morning.", "voice": "default", "seed": 1}]}
    )

    input: Annotated[str, Field(strict=True, min_length=1)] = Field(
        description="the text, of any length up to the service's limit"
    )
    voice: VoiceName | VoiceReference = Field(
        default="default",
        description='name or id of a voice, or {"id": …}; "default" is the first of the model, "random" none: the seed decides',
    )
    response_format: Format = Field(default="mp3", description="coding of the audio; pcm is 16 bits at 24 kHz, mono")
    speed: Annotated[Number, Field(ge=0.25, le=4.0)] = Field(
        default=1.0, description="how many times as fast, at the same pitch"
    )
    instructions: str | None = Field(default=None, max_length=4096, description="accepted, and not used")
    seed: Seed | None = Field(
        default=None, description="makes the speech repeatable; drawn, and told in `X-Seed`, where it is not given"
    )
    temperature: Annotated[Number, Field(gt=0, le=2.0)] | None = Field(
        default=None, description="of the semantic and the coarse stage; by default as the model says"
    )
    language: Literal[LANGUAGES] | None = Field(  # type: ignore[valid-type]
        default=None, description="of the text, for its division into sentences; by default as voice and script say"
    )

    @property
    def voice_name(self) -> str:
        return self.voice if isinstance(self.voice, str) else self.voice.id


class Streamed(Spoken):
    """What is heard while it is made."""

    early: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="whether the first audio of a text that fits into one generation comes before all of it is made, as "
        "`generate_stream` makes it",
    )


class SpeechRequest(Streamed):
    """`POST /v1/audio/speech`."""

    model: str | None = Field(default=None, max_length=200, description="of `GET /v1/models`")
    stream_format: Literal["audio", "sse"] = Field(
        default="audio", description="the audio itself as it is made, or events with it"
    )


class BatchRequest(BaseModel):
    """`POST /v1/audio/speech/batch`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"items": [{"input": "Good morning."}, {"input": "Good night.", "response_format": "wav"}]}]
        }
    )

    model: str | None = Field(default=None, max_length=200)
    items: list[Any] = Field(
        min_length=1, description="each with the fields of a speech request, but `model` and `stream_format`"
    )


class TimestampsRequest(Spoken):
    """`POST /v1/audio/speech/timestamps`."""

    model: str | None = Field(default=None, max_length=200)
    timestamps: Literal["word", "sentence"] = Field(default="word", description="what the times are of")


class UsageOut(BaseModel):
    """Text tokens, and semantic tokens of speech."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = Field(default=None, description="the field that is to blame")
    code: str | None = None


class ErrorOut(BaseModel):
    """An error, in OpenAI's shape."""

    error: ErrorDetail


class BatchItem(BaseModel):
    """One text's audio, or what was wrong with it."""

    index: int
    audio: str | None = Field(default=None, description="base64")
    format: str | None = None
    seconds: float | None = None
    seed: int | None = None
    error: ErrorDetail | None = None


class BatchOut(BaseModel):
    """Audio, or an error, of every item in its order."""

    object: Literal["list"] = "list"
    data: list[BatchItem]
    usage: UsageOut


class TimedText(BaseModel):
    """A word or sentence, in seconds of the audio."""

    text: str
    start: float
    end: float


class TimestampsOut(BaseModel):
    """Audio, and when what is said."""

    audio: str = Field(description="base64")
    format: str
    seconds: float
    seed: int
    timestamps: Literal["word", "sentence"]
    segments: list[TimedText]
    usage: UsageOut


class ModelOut(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "transformers-bark"


class ModelsOut(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelOut]


class VoiceOut(BaseModel):
    id: str
    object: Literal["audio.voice"] = "audio.voice"
    name: str
    created_at: int
    type: Literal["prompt"] = Field(default="prompt", description="voices are prompts of tokens, not recordings")
    stored: bool = Field(description="whether a caller has stored it, and it can be deleted")


class VoicesOut(BaseModel):
    object: Literal["list"] = "list"
    data: list[VoiceOut]


class VoiceDeletedOut(BaseModel):
    id: str
    object: Literal["audio.voice.deleted"] = "audio.voice.deleted"
    deleted: bool


class StateOut(BaseModel):
    status: str


class DetectionOut(BaseModel):
    """How probable it is that Bark's codec made a recording."""

    object: Literal["audio.detection"] = "audio.detection"
    probability: float = Field(description="for the whole")
    words: str = Field(description="the same in words")
    duration: float = Field(description="in seconds")
    seconds: list[float] = Field(description="the probability of each second by itself")
