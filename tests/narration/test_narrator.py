"""A text is spoken: the same alone and in batches, in the voices asked for, in order, with the times of subtitles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.narration.speech import FEW, TEXT, finished, tiny_narrator
from tests.tiny import tiny_voice
from transformers_bark.narration import Narrator, Piece, Report, Script, read
from transformers_bark.narration.speaking import Request, Speaker, piece_seed, usable

pytestmark = pytest.mark.filterwarnings("ignore:the tokenizer does not know")


@pytest.fixture(scope="module")
def narrator(checkpoint: Path) -> Narrator:
    return tiny_narrator(checkpoint)


def test_batches_equal_single_pieces(checkpoint: Path) -> None:
    alone = list(tiny_narrator(checkpoint, 1)(TEXT, "v2/en_speaker_0", seed=3))
    together = list(tiny_narrator(checkpoint, 4)(TEXT, "v2/en_speaker_0", seed=3))
    assert len(alone) == len(together) == 6
    for one, other in zip(alone, together, strict=True):
        assert one.start == other.start and one.seed == other.seed
        np.testing.assert_array_equal(one.audio, other.audio)


def test_a_piece_made_alone_is_the_same(narrator: Narrator) -> None:
    script = read(TEXT, limits=FEW)
    wanted = {spoken.piece.number: spoken for spoken in narrator(script, "v2/en_speaker_0", seed=5, tries=0)}
    speaker = Speaker(narrator.model, narrator.processor, FEW, None, 0, None)
    voice = narrator.processor.load_voice("v2/en_speaker_0")
    ((_, one),) = speaker.say([Request(script[3], voice, 5, {})])
    inside = slice(200, -200)  # without the fades
    np.testing.assert_array_equal(one.audio[inside], wanted[4].audio[inside])


def test_seeds_differ_by_number_and_attempt_and_follow_the_seed() -> None:
    first, second = Piece(1, "hello"), Piece(2, "hello")
    seeds = [piece_seed(seed, piece, attempt) for seed in (0, 1) for piece in (first, second) for attempt in (0, 1)]
    assert len(set(seeds)) == 8
    assert piece_seed(7, first) == piece_seed(7, replace(first, text="other"))
    own = Piece(3, "hello", seed=11)
    assert piece_seed(0, own) == piece_seed(1, own) == 11
    assert piece_seed(0, own, 1) not in (11, piece_seed(0, own, 2))


def test_without_a_voice_the_first_long_piece_is_the_voice(narrator: Narrator) -> None:
    script = read("hello my dog. the cat.", limits=FEW)
    first, second = narrator(script, seed=2, tries=0)
    speaker = Speaker(narrator.model, narrator.processor, FEW, None, 0, None)
    ((_, source),) = speaker.say([Request(script[0], None, 2, {})])
    np.testing.assert_array_equal(source.audio[200:-200], first.audio[200:-200])
    assert source.voice is not None
    voice = usable(source.voice, narrator.model.generation_config)
    ((_, follower),) = speaker.say([Request(script[1], voice, 2, {})])
    np.testing.assert_array_equal(follower.audio[200:-200], second.audio[200:-200])
    ((_, voiceless),) = speaker.say([Request(script[1], None, 2, {})])
    assert not np.array_equal(voiceless.audio, follower.audio)


def test_a_dialogue_speaks_each_piece_in_its_voice(checkpoint: Path, tmp_path: Path) -> None:
    narrator = tiny_narrator(checkpoint)
    tiny_voice(seed=5).save(tmp_path / "b.npz")
    tiny_voice(seed=6).save(tmp_path / "c.npz")
    cast = {"Anna": "v2/en_speaker_0", "Ben": str(tmp_path / "b.npz"), "Cleo": str(tmp_path / "c.npz")}
    script = read("Anna: hello my dog\nBen: the cat\nCleo: quick dog\nAnna: you", "script", cast=cast, limits=FEW)
    spoken = list(narrator(script, seed=1, tries=0))
    assert [one.piece.speaker for one in spoken] == ["Anna", "Ben", "Cleo", "Anna"]
    speaker = Speaker(narrator.model, narrator.processor, FEW, None, 0, None)
    for one in spoken:
        voice = narrator.processor.load_voice(one.piece.voice)
        ((_, alone),) = speaker.say([Request(one.piece, voice, 1, {})])
        np.testing.assert_array_equal(alone.audio[200:-200], one.audio[200:-200])


def test_a_cast_without_voices_has_a_voice_each(narrator: Narrator) -> None:
    script = read("Anna: hello my quick, quick dog\nBen: the cat is\nAnna: you\nBen: you", "script", limits=FEW)
    anna, ben = list(narrator(script, seed=1, tries=0))[2:]
    assert anna.seed != ben.seed
    same = [replace(piece, speaker="Anna") for piece in script]
    other = list(narrator(Script(tuple(same)), seed=1, tries=0))[3]
    assert not np.array_equal(other.audio, ben.audio)


def test_carried_pieces_go_on_from_the_last(narrator: Narrator) -> None:
    script = read(TEXT, limits=FEW)
    carried = list(narrator(script, "v2/en_speaker_0", seed=1, tries=0, continuity="carry"))
    preset = list(narrator(script, "v2/en_speaker_0", seed=1, tries=0))
    np.testing.assert_array_equal(carried[0].audio, preset[0].audio)
    assert not np.array_equal(carried[1].audio, preset[1].audio)
    again = list(narrator(script, "v2/en_speaker_0", seed=1, tries=0, continuity="carry"))
    assert all(np.array_equal(one.audio, other.audio) for one, other in zip(carried, again, strict=True))


def test_the_file_is_what_is_iterated(narrator: Narrator, tmp_path: Path) -> None:
    narration = narrator(TEXT + " [pause:0.5s]", "v2/en_speaker_0", seed=3)
    parts = []
    for spoken in narration:
        parts += [np.zeros(round(spoken.silence_before * spoken.sampling_rate), np.float32), spoken.audio]
        assert round(spoken.start * spoken.sampling_rate) == sum(map(len, parts[:-1]))
    report = narration.write(tmp_path / "speech.wav")
    audio, rate = soundfile.read(report.files[0], dtype="float32")
    np.testing.assert_allclose(audio, np.concatenate([*parts, np.zeros(rate // 2, np.float32)]), atol=2e-4)
    assert report.seconds == pytest.approx(len(audio) / rate)


def test_files_by_piece_and_chapter(narrator: Narrator, tmp_path: Path) -> None:
    script = read("# my dog\n\nhello my dog. the cat.\n\n# my cat\n\nyou", "markdown", limits=FEW)
    whole = list(narrator(script, "v2/en_speaker_0", seed=3))
    pieces = narrator(script, "v2/en_speaker_0", seed=3).write(tmp_path / "p.wav", split="piece")
    assert [path.name for path in pieces.files] == [f"p-{n:05d}.wav" for n in range(1, len(script) + 1)]
    for path, spoken in zip(pieces.files, whole, strict=True):
        assert soundfile.info(path).frames == len(spoken.audio)
    chapters = narrator(script, "v2/en_speaker_0", seed=3).write(tmp_path / "c.flac", split="chapter")
    assert [soundfile.SoundFile(path).title for path in chapters.files] == ["my dog", "my cat"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"continuity": "both"}, "both"),
        ({"tries": -1}, "-1"),
        ({"only": [3]}, "work"),
        ({"loudness": 5}, "5"),
        ({"max_speed": 9}, "9"),
        ({"voice": "nobody"}, "nobody"),
        ({"text": " "}, "nothing to say"),
        ({"text": "ЖЖЖ"}, "knows nothing"),
    ],
)
def test_bad_values_are_named(narrator: Narrator, values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(narrator(**{"text": "hello", **values}))


def test_unknown_options_are_refused(narrator: Narrator) -> None:
    with pytest.raises(TypeError, match="temprature"):
        list(narrator("hello", temprature=1.0))


def test_thirty_cues_begin_on_time(narrator: Narrator) -> None:
    stamp = "00:{:02d}:{:02d},{:03d}".format
    cues = [(2300 * n, 2300 * n + 1500) for n in range(1, 31)]
    times = [[stamp(t // 60_000, t // 1000 % 60, t % 1000) for t in cue] for cue in cues]
    text = "\n\n".join(f"{n}\n{a} --> {b}\nhello the cat {n}" for n, (a, b) in enumerate(times, 1))
    spoken = list(narrator(read(text, "srt", limits=FEW), "v2/en_speaker_0", seed=1))
    firsts = [one for one in spoken if one.piece.start is not None]
    assert len(firsts) == 30
    for (start, _), one in zip(cues, firsts, strict=True):
        assert abs(one.start - start / 1000) <= 0.05
        loud = np.abs(one.audio) > 0.05 * np.abs(one.audio).max()
        assert np.argmax(loud) / one.sampling_rate <= 0.05


def test_estimates_are_of_the_whole(narrator: Narrator) -> None:
    one, two = narrator("hello my dog."), narrator("hello my dog. hello my dog.")
    assert 0 < one.estimate < two.estimate
    assert finished(1.0).audio.shape == (24_000,)


def test_a_piece_that_the_tokenizer_does_not_know_is_silent_and_told(narrator: Narrator, tmp_path: Path) -> None:
    def speak(**how: Any) -> Report:
        return narrator("hello my dog.\n\nЖЖЖ\n\nthe cat.", seed=1, work=tmp_path / "w", **how).write(
            tmp_path / "a.wav"
        )

    report = speak()
    assert [(one.piece.number, one.doubts[0].kind) for one in report.doubtful if one.piece.number == 2] == [
        (2, "unknown")
    ]
    before = (tmp_path / "a.wav").read_bytes()
    assert speak(resume=True).made == 0 and (tmp_path / "a.wav").read_bytes() == before
