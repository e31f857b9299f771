"""What the page does: a function an event, from values of fields to new values of the page's parts, by their names.

Nothing here knows the layout, so a test calls these as the page does.
"""

from __future__ import annotations

import html
import re
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch

from .. import codec
from ..audio_files import as_int16
from ..detection.detect import Detection
from ..serving.errors import ServiceError
from ..serving.recordings import Recordings
from ..serving.voices import RANDOM
from . import plots
from .making import STAGES, FieldError, Heard, Making, Progress, StoppedError, Studio, Wish
from .streamed import as_bytes
from .takes import AUDIO_ENDINGS, SUBTITLE_ENDINGS, Session, Take, shortened

Parts = dict[str, Any]
"""New values by the names of the page's parts; what is not named stays."""

_TELL_EVERY = 0.15  # seconds between two pictures of the progress
_MOST_SAMPLES = 32

_VERDICTS = {
    "other": "Bark did not make this",
    "probably other": "Bark probably did not make this",
    "unclear": "It cannot be told",
    "probably Bark": "Bark probably made this",
    "Bark": "Bark made this",
}


def _error(message: str, title: str = "This does not work yet") -> gr.Error:
    return gr.Error(html.escape(message), title=title, print_exception=False)


class Handlers:
    """The functions of one studio's page."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._recordings = Recordings(studio.limits.recording_seconds)
        self._samples: OrderedDict[str, np.ndarray] = OrderedDict()
        self._sessions: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()

    # a text becomes speech

    def wish(
        self,
        text: str,
        kind: str,
        cast: str,
        voice: str,
        seed: Any,
        streamed: bool,
        semantic: float,
        coarse: float,
        fine: float,
        session: Session,
    ) -> Wish:
        """What the fields ask for.

        Raises:
            FieldError: a value that cannot be used.
        """
        temperatures = {"semantic": semantic, "coarse": coarse, "fine": fine}
        return self.studio.wish(session, text, kind, cast, voice, seed, streamed, temperatures)

    def check(self, *fields: Any) -> list[Any]:
        """Whether each field of `wish` can be used, so that the page says it beside the field."""
        names = ("text", "kind", "cast", "voice", "seed", "streamed", *(f"{stage}_temperature" for stage in STAGES))
        wrong, message = None, ""
        try:
            self.wish(*fields)
        except FieldError as error:
            wrong, message = error.field, str(error)
        return [*(gr.validate(name != wrong, message) for name in names), gr.validate(True, "")]

    def speak(
        self,
        text: str,
        kind: str,
        cast: str,
        voice: str,
        seed: str | None,
        streamed: bool,
        semantic: float,
        coarse: float,
        fine: float,
        session: Session,
        request: gr.Request,
    ) -> Iterator[Parts]:
        """Makes a take: progress and audio as they come, then all there is to see of it."""
        try:
            wish = self.wish(text, kind, cast, voice, seed, streamed, semantic, coarse, fine, session)
        except FieldError as error:
            raise _error(str(error)) from error
        if request is not None and request.session_hash:
            self._sessions[request.session_hash] = session
        yield {
            **_busy(True),
            "progress": stages(None, len(wish.script)),
            "note": _unknown(wish),
            "live": gr.update(visible=False),
        }
        try:
            yield from self._told(wish, session)
        except StoppedError as error:
            yield {**_busy(False), "progress": _line(str(error)), "live": gr.update(visible=False)}
        except Exception as error:
            yield {**_busy(False), "progress": "", "live": gr.update(visible=False)}
            raise _error(f"It could not be made: {error}", "Nothing was said") from error

    def _told(self, wish: Wish, session: Session) -> Iterator[Parts]:
        last, is_first = 0.0, True
        with closing(Making(self.studio, session, wish).events()) as events:
            for event in events:
                if isinstance(event, Heard) and wish.streamed:
                    if is_first:  # until then there is nothing to see of the player
                        yield {"live": gr.update(visible=True)}
                        is_first = False
                    yield {"live": as_bytes(event.audio, self.studio.rate)}
                elif isinstance(event, Progress) and time.monotonic() - last > _TELL_EVERY:
                    last = time.monotonic()
                    yield {"progress": stages(event, len(wish.script))}
                elif isinstance(event, Take):
                    session.add(event)
                    yield {
                        **_busy(False),
                        **self.shown(event, session, autoplay=not wish.streamed),
                        **self.listed(session),
                        "progress": "",
                    }

    def stop(self, session: Session) -> Parts:
        """Ends what is being made, before its next step."""
        session.stop.set()
        return {**_busy(False), "progress": _line("Stopped."), "live": gr.update(visible=False)}

    def leave(self, request: gr.Request) -> None:
        """A visitor has closed the page: nothing more is made for him."""
        session = self._sessions.pop(request.session_hash or "", None)
        if session is not None:
            session.stop.set()

    # a take, and what is done with it

    def shown(self, take: Take, session: Session, autoplay: bool = False) -> Parts:
        """Everything that the page shows of a take."""
        session.current = take.number
        path = self._wav(take, session)
        return {
            "result": gr.update(visible=True),
            "player": gr.update(value=path, autoplay=autoplay, label=f"Take {take.number}"),
            "facts": _facts(take),
            "words": plots.words(take.spoken),
            "pictures": plots.waveform(take.audio, take.rate) + plots.mel_spectrogram(take.audio, take.rate),
            "tokens": plots.tokens(take.tokens, self.studio.config),
            "files": gr.update(value=None, visible=False),
            "saved": gr.update(value=None, visible=False),
            "voice_name": f"voice {take.number}",
        }

    def listed(self, session: Session) -> Parts:
        """The list of takes, and the two to compare: the last two, unless others are chosen."""
        choices = [(take.title, take.number) for take in reversed(session.takes)]
        numbers = [number for _, number in choices]
        b = numbers[0] if numbers else None
        a = numbers[1] if len(numbers) > 1 else b
        return {
            "history": history(session.takes),
            "open_take": gr.update(choices=choices, value=b),
            "take_a": gr.update(choices=choices, value=a),
            "take_b": gr.update(choices=choices, value=b),
        }

    def open(self, number: int | None, session: Session) -> Parts:
        """Shows a take of the list again."""
        if number is None:
            return {}
        return {**self.shown(_take(session, number), session), "live": gr.update(visible=False)}

    def compared(self, number: int | None, session: Session) -> str | None:
        """The audio of one of the two to compare."""
        if number is None:
            return None
        return self._wav(_take(session, number), session)

    def _wav(self, take: Take, session: Session) -> str:
        """The file that the page plays, written once."""
        path = session.folder / f"{_slug(take.text)}-{take.number}.wav"
        return str(path if path.exists() else take.write(path, self.studio.name))

    def go_on(self, session: Session) -> Parts:
        """The next text will be said in the voice of the take that is shown, going on from it."""
        take = _take(session, session.current)
        name = f"Take {take.number}"
        if name not in session.voices.names():
            self._keep(take, name, session)
        return {
            "voice": self.voice_choices(session, name),
            "note": _line(f"The next text goes on in the voice of take {take.number}."),
        }

    def save_voice(self, name: str, session: Session) -> Parts:
        """Keeps the voice of the take that is shown: in the list, and as a file."""
        take = _take(session, session.current)
        path = self._keep(take, str(name), session)
        return {"voice": self.voice_choices(session, str(name).strip()), "saved": gr.update(value=path, visible=True)}

    def _keep(self, take: Take, name: str, session: Session) -> str:
        preset = take.voice_preset(self.studio.config)
        if preset is None:
            raise _error(f"Take {take.number} is too short to be a voice.", "No voice")
        path = session.folder / f"{_slug(name)}.npz"
        preset.save(path)
        _store(session, name, path.read_bytes())
        return str(path)

    def download(self, format: str, subtitles: str, by: str, session: Session) -> Parts:
        """Files of the take that is shown."""
        take = _take(session, session.current)
        if format not in AUDIO_ENDINGS:
            raise _error(f"Audio files end in {', '.join(AUDIO_ENDINGS)}, not in {format!r}.")
        if subtitles not in (*SUBTITLE_ENDINGS, "none") or by not in ("sentence", "word"):
            raise _error(f"Subtitles are .srt or .vtt, by sentence or word, not {subtitles!r} by {by!r}.")
        stem = session.folder / f"{_slug(take.text)}-{take.number}"
        try:
            files = [take.write(stem.with_suffix(format), self.studio.name)]
        except ImportError as error:
            raise _error(str(error)) from error
        if subtitles != "none":
            files.append(take.write_subtitles(stem.with_suffix(subtitles), by))
        return {"files": gr.update(value=[str(file) for file in files], visible=True)}

    def keep_seed(self, session: Session) -> str:
        """The seed of the take that is shown."""
        return str(_take(session, session.current).seed)

    # voices

    def voice_choices(self, session: Session, value: str | None = None) -> Any:
        """The voices to choose from, those of the session last."""
        return gr.update(choices=voice_choices(session), **({} if value is None else {"value": value}))

    def sample(self, voice: str, session: Session) -> tuple[int, np.ndarray] | None:
        """How a voice sounds: the speech whose tokens it is, as the codec makes it."""
        if voice == RANDOM:
            return None
        try:
            preset = session.voices.get(voice)
        except ServiceError as error:
            raise _error(f"There is no voice {voice[:80]!r}.") from error
        if preset is None:
            return None
        stored = voice not in self.studio.first_session.voices.names()
        audio = None if stored else self._samples.get(voice)
        if audio is None:
            model = self.studio.model
            with torch.no_grad():
                (made,) = codec.decode(model.codec_model, [preset.fine_prompt.to(model.device)])
            audio = made.float().cpu().numpy()
            if not stored:
                self._samples[voice] = audio
                while len(self._samples) > _MOST_SAMPLES:
                    self._samples.popitem(last=False)
        return self.studio.rate, as_int16(audio)

    def upload_voice(self, path: str | None, session: Session) -> Parts:
        """A voice file of the visitor's."""
        if path is None:
            return {}
        name = re.sub(r"[^A-Za-z0-9 _.-]", "_", Path(path).stem)[:64].strip(" _.-") or "voice"
        taken = session.voices.names()
        free = next(one for one in (name, *(f"{name[:58]} {n}" for n in range(2, 99))) if one not in taken)
        _store(session, free, Path(path).read_bytes())
        return {"voice": self.voice_choices(session, free), "note": _line(f"The voice {free!r} is in the list.")}

    # recordings

    def detect(self, path: str | None) -> tuple[str, str]:
        """Whether Bark made a recording: in words, and over time."""
        if not path:
            raise _error("There is no recording yet: choose a file, or record one.", "Nothing to listen to")
        try:
            found = self._recordings.judge(Path(path).read_bytes())
        except ServiceError as error:
            raise _error(f"{Path(path).name}: {error.message}", "This cannot be judged") from error
        return verdict(found), plots.probability(found)


def voice_choices(session: Session) -> list[tuple[str, str]]:
    """Names as they are shown, and as they are."""
    own = [(voice.name + (" (yours)" if voice.stored else ""), voice.name) for voice in session.voices]
    return [*own, ("No voice: the seed decides", RANDOM)]


def _take(session: Session, number: Any) -> Take:
    try:
        return session.take(number)
    except ValueError as error:
        raise _error("Speak a text first: there is no take yet." if number is None else str(error)) from error


def _store(session: Session, name: str, data: bytes) -> None:
    try:
        session.store_voice(name, data)
    except ServiceError as error:
        raise _error(error.message, "The voice was not kept") from error


def _busy(is_busy: bool) -> Parts:
    return {"speak": gr.update(visible=not is_busy), "stop": gr.update(visible=is_busy)}


def _slug(text: str) -> str:
    """A file name that says a little of the text."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())[:5])[:40] or "take"


def _line(message: str) -> str:
    return f'<p class="line" role="status">{html.escape(message)}</p>'


def _unknown(wish: Wish) -> str:
    if not wish.unknown:
        return ""
    named = " ".join(wish.unknown[:20]) + (" …" if len(wish.unknown) > 20 else "")
    return _line(f"This model cannot say: {named}. The speech will lack it.")


def stages(at: Progress | None, pieces: int) -> str:
    """How far the stages of a piece are."""
    place = -1 if at is None else STAGES.index(at.stage)
    rows = []
    for index, stage in enumerate(STAGES):
        share, state = (1.0, "done") if index < place else (0.0, "")
        if at is not None and index == place:
            share, state = at.share, "now"
        elif at is not None and stage == "fine" and at.filled:
            share, state = at.filled, "now"
        rows.append(
            f'<div class="stage {state}"><span>{stage}</span>'
            f'<div role="progressbar" aria-label="{stage}" aria-valuenow="{share:.0%}"><b style="width:{share:.1%}"></b></div></div>'
        )
    done = "" if pieces < 2 else f'<p class="line">piece {min(pieces, (at.done if at else 0) + 1)} of {pieces}</p>'
    return f'<div class="stages">{"".join(rows)}</div>{done}'


def _facts(take: Take) -> str:
    changed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in take.options.items())
    facts = [
        f"<b>{take.seconds:.1f} s</b> of speech",
        f"made in {take.seconds_taken:.1f} s",
        f"first heard after {take.first_audio:.1f} s" if take.streamed else "",
        f"voice <b>{html.escape('none' if take.voice == RANDOM else take.voice)}</b>",
        f"seed <b>{take.seed}</b>",
        html.escape(changed),
    ]
    return f'<p class="facts">{" · ".join(fact for fact in facts if fact)}</p>'


def history(takes: list[Take]) -> str:
    """The takes of a session, the newest first."""
    if not takes:
        return '<p class="line">What you make is listed here until you close the page.</p>'
    rows = "".join(
        f'<tr><td class="number">{take.number}</td><td class="text" dir="auto">{html.escape(shortened(take.text, 140))}</td>'
        f'<td data-label="voice">{html.escape("none" if take.voice == RANDOM else take.voice)}</td>'
        f'<td data-label="seed">{take.seed}</td><td data-label="length">{take.seconds:.1f} s</td></tr>'
        for take in reversed(takes)
    )
    head = "<tr><th>#</th><th>text</th><th>voice</th><th>seed</th><th>length</th></tr>"
    return f'<table class="takes"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def verdict(found: Detection) -> str:
    """What was found, in words."""
    kind = found.words.split()[-1].lower()
    seconds = f"{found.duration:.1f} s" if found.duration < 60 else plots.clock(found.duration)
    short = " A recording of under a second says little." if found.duration < 1 else ""
    return (
        f'<div class="verdict {kind}"><b>{_VERDICTS[found.words]}</b>'
        f"<span>{found.probability:.1%} probable, over {seconds}.{short}</span></div>"
    )
