"""Pauses, seams, levels, slots and subtitles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pysubs2
import pytest

from tests.narration.speech import finished
from transformers_bark.narration import Piece
from transformers_bark.narration.alignment import Word
from transformers_bark.narration.joining import Joiner, Spoken, faded, pause_after
from transformers_bark.narration.subtitles import SubtitleFile, cues_of

RATE = 24_000


def cue(number: int, start: float, end: float, text: str = "hello there") -> Piece:
    return Piece(number, text, start=start, end=end)


def test_pauses_follow_what_ends_a_piece() -> None:
    def pause(text: str, boundary: str, given: float | None = None) -> float:
        return pause_after(Piece(1, text, boundary=boundary, pause_after=given))  # type: ignore[arg-type]

    order = [
        pause("a word", "grapheme"),
        pause("a word", "word"),
        pause("a clause,", "clause"),
        pause("a clause;", "clause"),
        pause('A "sentence."', "sentence"),
        pause("A line", "line"),
        pause("A paragraph.", "paragraph"),
        pause("A chapter.", "chapter"),
    ]
    assert order == sorted(set(order))
    assert pause("a word", "word", 3.0) == 3.0


def test_pieces_follow_each_other_with_their_pauses() -> None:
    pieces = [Piece(1, "One.", pause_after=0.5), Piece(2, "Two.", pause_after=9.0)]
    one, two = Joiner(RATE).join([(piece, finished(1.0)) for piece in pieces], lead=0.25)
    assert (one.start, one.silence_before, two.start, two.silence_before) == (0.25, 0.25, 1.75, 0.5)


def test_seams_are_faded() -> None:
    audio = faded(np.ones(RATE, np.float32), RATE)
    assert audio[0] < 0.01 and audio[-1] < 0.01 and (audio[240:-240] == 1).all()
    assert np.abs(np.diff(audio)).max() < 0.02
    assert len(faded(np.ones(1, np.float32), RATE)) == 1 and len(faded(np.ones(0, np.float32), RATE)) == 0


def test_levels_are_evened() -> None:
    import pyloudnorm

    pieces = [
        (Piece(n, "One."), finished(seconds, level=level))
        for n, seconds, level in [(1, 2.0, 0.01), (2, 2.0, 0.1), (3, 0.2, 0.02)]
    ]
    meter = pyloudnorm.Meter(RATE)
    for spoken in Joiner(RATE, loudness=-23.0).join(pieces):
        audio = np.tile(spoken.audio, -(-RATE // len(spoken.audio)))
        assert meter.integrated_loudness(audio) == pytest.approx(-23.0, abs=1.0)
    (loud,) = Joiner(RATE, loudness=-1.0).join(pieces[:1])
    assert np.abs(loud.audio).max() <= 0.98


def test_cues_keep_their_times() -> None:
    pieces = [(cue(1, 1.0, 2.0), finished(0.5)), (cue(2, 3.0, 4.0), finished(1.0))]
    assert [spoken.start for spoken in Joiner(RATE).join(pieces)] == [1.0, 3.0]


def test_what_is_too_long_is_told_and_the_next_comes_late() -> None:
    pieces = [(cue(1, 1.0, 2.0), finished(3.0)), (cue(2, 3.0, 4.0), finished(0.5)), (cue(3, 6.0, 7.0), finished(0.5))]
    long, late, third = Joiner(RATE).join(pieces)
    assert [doubt.kind for doubt in long.doubts] == ["slot"] and "1.00 s" in long.doubts[0].reason
    assert (late.start, third.start) == (4.0, 6.0)
    assert not late.doubts and not third.doubts


def test_what_is_too_long_is_sped_up_within_a_bound() -> None:
    words = (Word("hello", 0.0, 1.2), Word("there", 1.2, 2.4))
    pieces = [(cue(1, 1.0, 2.0), finished(2.4, words=words)), (cue(2, 3.0, 4.0), finished(0.5))]
    fitted, following = Joiner(RATE, most_speed=1.5).join(pieces)
    assert fitted.speed == pytest.approx(1.2, abs=0.01) and fitted.seconds == pytest.approx(2.0, abs=0.03)
    assert following.start == pytest.approx(3.0, abs=0.05) and not fitted.doubts
    assert fitted.words is not None and fitted.words[1].end == pytest.approx(2.0, abs=0.01)
    bounded, _ = Joiner(RATE, most_speed=1.1).join(pieces)
    assert bounded.speed == 1.1 and [doubt.kind for doubt in bounded.doubts] == ["slot"]


def test_a_cue_of_several_pieces_is_one() -> None:
    pieces = [
        (cue(1, 1.0, 4.0), finished(0.5)),
        (Piece(2, "and more", end=4.0), finished(0.5)),
        (cue(3, 5.0, 6.0), finished(0.5)),
    ]
    spoken = list(Joiner(RATE, most_speed=1.5).join(pieces))
    assert spoken[0].start == 1.0 and spoken[2].start == 5.0 and all(one.speed == 1 for one in spoken)


def spoken(text: str, seconds: float, words: tuple[Word, ...] | None = None, start: float = 10.0) -> Spoken:
    return Spoken(Piece(1, text), np.zeros(round(seconds * RATE), np.float32), RATE, start, 0.0, words, (), 1, 1)


def test_subtitles_by_sentence_cover_the_speech() -> None:
    cues = list(cues_of(spoken("Good morning. How are you today?", 4.0)))
    assert [one.text for one in cues] == ["Good morning.", "How are you today?"]
    assert cues[0].start == 10.0 and cues[-1].end == pytest.approx(14.0, abs=0.2)
    assert 11.0 < cues[0].end < 12.5


def test_subtitles_by_word_have_the_words_times() -> None:
    words = (Word("Good", 0.1, 0.4), Word("morning.", 0.5, 1.0))
    cues = list(cues_of(spoken("Good morning.", 1.0, words), "word"))
    assert [(one.start, one.end, one.text) for one in cues] == [(10.1, 10.4, "Good"), (10.5, 11.0, "morning.")]


@pytest.mark.parametrize("ending", ["srt", "vtt"])
def test_subtitle_files_hold_the_text_as_it_is(tmp_path: Path, ending: str) -> None:
    text = "One {b} <i>two</i> & three."
    file = SubtitleFile(tmp_path / f"a.{ending}")
    file.add(spoken(text, 2.0, start=3661.25))
    file.save()
    content = (tmp_path / f"a.{ending}").read_text()
    assert "01:01:01" in content and len(pysubs2.SSAFile.from_string(content)) == 1
    assert (text if ending == "srt" else "One {b} &lt;i&gt;two&lt;/i&gt; &amp; three.") in content


def test_subtitles_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="srt"):
        SubtitleFile(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="letter"):
        SubtitleFile(tmp_path / "a.srt", "letter")  # type: ignore[arg-type]
