"""A take: what is heard is what is kept, it is what the library gives, it can be stopped, and bad values are named."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import tiny_voice
from transformers_bark import Narrator, VoicePreset
from transformers_bark.narration import Limits
from transformers_bark.serving.speech import TARGET, TRIES
from transformers_bark.studio import takes
from transformers_bark.studio.making import FieldError, Heard, Making, Progress, StoppedError, Studio, Wish
from transformers_bark.studio.takes import Session, Take

VOICE = "v2/en_speaker_0"
LONG = "hello [pause:0.1s] cat [pause:0.2s]"


def made(studio: Studio, session: Session, wish: Wish) -> tuple[list[Any], Take]:
    events = list(Making(studio, session, wish).events())
    assert isinstance(events[-1], Take)
    return events, events[-1]


def heard(events: list[Any]) -> np.ndarray:
    return np.concatenate([event.audio for event in events if isinstance(event, Heard)])


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("text", ["hello", LONG])
def test_what_is_heard_is_the_take(studio: Studio, session: Session, text: str, streamed: bool) -> None:
    events, take = made(studio, session, studio.wish(session, text, voice=VOICE, seed=3, streamed=streamed))
    assert np.array_equal(heard(events), take.audio) and take.seconds > 0.1
    seen = [event for event in events if isinstance(event, Progress)]
    assert seen[0].stage == "semantic" and all(0 <= one.share <= 1 for one in seen)
    assert any(one.stage == "fine" or one.filled for one in seen)
    for one in take.spoken:
        start = round(one.start * take.rate)
        assert np.array_equal(take.audio[start : start + len(one.audio)], one.audio)
        assert one.audio.base is not None  # kept once


def test_a_seed_gives_what_generate_gives(studio: Studio, session: Session) -> None:
    _, take = made(studio, session, studio.wish(session, "hello", voice=VOICE, seed=7, streamed=False))
    inputs = studio.shared._processor("hello", voice_preset=VOICE)
    output = studio.model.generate(**inputs, seed=7, return_dict_in_generate=True)
    assert np.array_equal(take.audio, output.audio[0].numpy())
    for ours, theirs in zip(take.tokens[0].as_dict().values(), output.voice_preset(0).as_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    _, streamed = made(studio, session, studio.wish(session, "hello", voice=VOICE, seed=7))
    assert torch.equal(streamed.tokens[0].semantic_prompt, output.semantic_tokens[0])
    assert torch.equal(streamed.tokens[0].coarse_prompt, output.coarse_codes[0])
    stream = studio.model.generate_stream(**inputs, seed=7)
    assert np.array_equal(streamed.audio, np.concatenate([piece.numpy() for piece in stream]))


def test_a_long_text_is_what_the_narrator_gives(studio: Studio, session: Session) -> None:
    events, take = made(studio, session, studio.wish(session, LONG, voice=VOICE, seed=5))
    processor = studio.shared._processor
    limits = Limits.of(processor, studio.config, target=TARGET)
    narration = Narrator(studio.model, processor, limits=limits)(LONG, VOICE, seed=5, tries=TRIES, progress=False)
    assert len(narration) > 1 and np.array_equal(take.audio, narration.audio())
    assert len([event for event in events if isinstance(event, Heard)]) >= len(narration)
    assert len(take.tokens) == len(take.spoken) == len(narration)


def test_temperatures_reach_their_stages(studio: Studio, session: Session) -> None:
    own = dict(studio.temperatures)
    assert studio.wish(session, "hello", temperatures=own).options == {}
    studio.temperatures["semantic"] = 0.5  # as if the checkpoint sampled
    changed = studio.wish(session, "hello", temperatures={**own, "semantic": 0, "coarse": 0.9, "fine": 0.8}).options
    studio.temperatures.update(own)
    assert changed == {
        "semantic_do_sample": False,
        "coarse_temperature": 0.9,
        "coarse_do_sample": True,
        "fine_temperature": 0.8,
    }
    _, take = made(
        studio, session, studio.wish(session, "hello", voice=VOICE, seed=1, temperatures={**own, "semantic": 1.3})
    )
    (made_by_hand,) = studio.model.generate(
        **studio.shared._processor("hello", voice_preset=VOICE),
        seed=1,
        semantic_do_sample=True,
        semantic_temperature=1.3,
        return_dict_in_generate=True,
    ).semantic_tokens
    assert torch.equal(take.tokens[0].semantic_prompt, made_by_hand)


@pytest.mark.parametrize("text", ["hello", LONG])
def test_stopping_ends_it_before_the_next_step(studio: Studio, session: Session, text: str) -> None:
    seen = []
    with pytest.raises(StoppedError):
        for event in Making(studio, session, studio.wish(session, text, seed=1)).events():
            seen.append(event)
            session.stop.set()
    assert not any(isinstance(event, Take) for event in seen)
    assert not studio.working.locked() and "bark-studio-take" not in [one.name for one in threading.enumerate()]
    made(studio, session, studio.wish(session, "hello", seed=1))  # and nothing is left of it


def test_who_leaves_ends_it(studio: Studio, session: Session) -> None:
    events = Making(studio, session, studio.wish(session, LONG, seed=1)).events()
    next(events)
    events.close()
    assert not studio.working.locked() and "bark-studio-take" not in [one.name for one in threading.enumerate()]


def test_a_take_may_take_so_long(studio: Studio, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "limits", takes.StudioLimits(seconds=1e-9))
    with pytest.raises(StoppedError, match="may take 1e-09 s"):
        made(studio, session, studio.wish(session, "hello", seed=1))


BAD = [
    ("text", "type a text", {"text": " \n"}),
    ("text", "201 characters; up to 200", {"text": "a" * 201}),
    ("text", "'日本語'", {"text": "日本語"}),
    ("text", "no letter and no digit", {"text": "* * *"}),
    ("text", "no voice '/etc/voice.npz'", {"text": "[voice:/etc/voice.npz] hello"}),
    ("kind", "'Song'", {"kind": "Song"}),
    ("cast", "'Anna'", {"cast": "Anna"}),
    ("cast", "'../voice.npz'", {"text": "Anna: hello", "kind": "Script", "cast": "Anna = ../voice.npz"}),
    ("cast", "'Ben'", {"text": "Ben: hello", "kind": "Script", "cast": f"Anna = {VOICE}"}),
    ("voice", "'nobody'", {"voice": "nobody"}),
    ("voice", "'/etc/passwd'", {"voice": "/etc/passwd"}),
    ("seed", "'-1'", {"seed": -1}),
    ("seed", "'1.5'", {"seed": "1.5"}),
    ("seed", "'seven'", {"seed": "seven"}),
    ("seed", "largest seed", {"seed": 2**60}),
    ("semantic_temperature", "2.5", {"temperatures": {"semantic": 2.5}}),
    ("fine_temperature", "'hot'", {"temperatures": {"fine": "hot"}}),
]


@pytest.mark.parametrize(("field", "said", "asked"), BAD, ids=[said for _, said, _ in BAD])
def test_a_bad_value_is_named_with_its_field(
    studio: Studio, session: Session, field: str, said: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(FieldError) as error:
        studio.wish(session, **{"text": "hello", **asked})
    assert error.value.field == field and said in str(error.value)


def test_characters_that_will_be_missing_are_told(studio: Studio, session: Session) -> None:
    assert studio.wish(session, "hello 日").unknown == ("日",)


def take_of(number: int, seconds: float) -> Take:
    return Take(number, "hello", VOICE, 1, {}, True, np.zeros(round(100 * seconds)), 100, (), (), 0.0, 0.0)


def test_the_history_is_bounded(session: Session) -> None:
    for number in range(1, takes.MOST_TAKES + 4):
        session.add(take_of(number, 1.0))
    assert [take.number for take in session.takes] == list(range(4, takes.MOST_TAKES + 4))
    session.add(take_of(90, takes.MOST_SECONDS - 5))
    assert sum(take.seconds for take in session.takes) <= takes.MOST_SECONDS and session.takes[-1].number == 90
    session.add(take_of(91, takes.MOST_SECONDS * 2))  # the last is kept, however long
    assert [take.number for take in session.takes] == [91]
    with pytest.raises(ValueError, match="no take 4"):
        session.take(4)


def test_voices_are_checked_and_those_of_one_session(studio: Studio, session: Session, tmp_path: Path) -> None:
    tiny_voice(seed=3).save(tmp_path / "v.npz")
    data = (tmp_path / "v.npz").read_bytes()
    assert session.store_voice("mine", data) == "mine"
    stored = session.voices.get("mine")
    assert stored is not None and torch.equal(stored.fine_prompt, tiny_voice(seed=3).fine_prompt)
    with pytest.raises(Exception, match="'mine' already"):
        session.store_voice("mine", data)
    with pytest.raises(Exception, match="no voice of this model"):
        session.store_voice("other", data[:300])
    wide = VoicePreset(*(part + 1000 for part in tiny_voice().as_dict().values()))
    wide.save(tmp_path / "wide.npz")
    with pytest.raises(Exception, match="must lie in"):
        session.store_voice("wide", (tmp_path / "wide.npz").read_bytes())
    with pytest.raises(Exception, match="begins with a letter"):
        session.store_voice("../up", data)
    other = studio.first_session.__deepcopy__({})
    assert "mine" not in other.voices.names()
    folder = session.folder
    assert list(folder.rglob("voice_*"))
    session.close()
    assert not folder.exists()


def test_go_on_is_the_last_speakers_voice(studio: Studio, session: Session) -> None:
    session.store_voice("mine", _bytes(tiny_voice(seed=3)))
    text = "Anna: hello\nBen: cat\nAnna: my"
    cast = f"Anna = {VOICE}\nBen = mine"
    _, take = made(studio, session, studio.wish(session, text, "Script", cast, VOICE, 4))
    assert take.voice == f"{VOICE} + mine"
    preset = take.voice_preset(studio.config)
    assert preset is not None
    preset.check(studio.config)
    annas = [
        tokens.semantic_prompt
        for one, tokens in zip(take.spoken, take.tokens, strict=True)
        if one.piece.speaker == "Anna"
    ]
    said = torch.cat(annas)
    n = len(preset.semantic_prompt)
    assert any(torch.equal(said[i : i + n], preset.semantic_prompt) for i in range(len(said) - n + 1))


def _bytes(voice: VoicePreset) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "v.npz")
        voice.save(path)
        return path.read_bytes()
