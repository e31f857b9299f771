"""Marks and names: what they change, what they cost of the text (nothing), and which of them are text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.narration.texts import TEXTS
from transformers_bark.narration import Cast, Limits, Script, ScriptError, read
from transformers_bark.narration.marks import PAUSES
from transformers_bark.narration.pieces import Piece

CAST = {"Anna": "v2/en_speaker_9", "Old Ben": "ben.npz"}
PARTS = st.sampled_from(
    [
        "Hello there. ",
        "One, two. ",
        "\n",
        "\n\n",
        " \n \n\t",
        "\r\n",
        "\r\n\r\n",
        "[pause:1s]",
        "[pause: 300ms ]",
        "Anna: ",
    ]
    + [
        "\nAnna: ",
        "\nOLD  BEN：",
        "\nNote: this. ",
        "\n[voice:x]",
        "\n  [voice:]\n",
        "* * *",
        "…",
        "[laughs]",
        "你好。",
        " ",
    ]
    + ["Anna", ":", "[", "]", "\n\n[pause:0s]\n\n", "word " * 60]
)


def said(script: Script) -> list[tuple[str, str | None]]:
    return [(piece.text, piece.voice) for piece in script]


@settings(max_examples=300)
@given(st.lists(PARTS, max_size=25).map("".join))
def test_pieces_and_gaps_are_the_source(text: str) -> None:
    limits = Limits(seconds=5.0)
    for format, cast in (("text", CAST), ("text", {}), ("script", {})):
        try:
            script = read(text, format, cast=cast, limits=limits)
        except ScriptError as error:
            assert "start of a line" in str(error)  # the one mistake that these parts can make
            continue
        assert script.text == text
        assert all(limits.fits(piece.text) for piece in script)


@settings(max_examples=100)
@given(st.text(max_size=100))
def test_any_text_is_its_pieces_and_gaps(text: str) -> None:
    assert read(text.replace("[", "(")).text == text.replace("[", "(")


def test_all_languages_in_one_text() -> None:
    text = "\n\n".join(TEXTS.values())
    script = read(text)
    assert script.text == text
    assert {"hi", "ja", "ko", "ru", "zh", "en"} == {piece.language for piece in script}


def test_a_pause_is_kept_and_not_spoken() -> None:
    script = read("[pause:2s]One. [pause:1.5s] Two. [pause:250 ms][pause:1] Three.\n\nFour.\n\n[pause:0s] Five.")
    assert [piece.text for piece in script] == ["One.", "Two.", "Three.", "Four.", "Five."]
    assert [piece.pause_after for piece in script] == [1.5, 1.25, PAUSES["paragraph"], 0.0, None]
    assert script.lead_pause == 2.0
    assert script[3].boundary == "paragraph"  # a mark behind a blank line does not weaken it


def test_a_blank_line_is_a_longer_pause_and_a_line_break_is_none() -> None:
    script = read("One line\ngoes on.\n \nA paragraph.\n\n* * *\n\nAnother.")
    assert [piece.text for piece in script] == ["One line\ngoes on.", "A paragraph.", "Another."]
    assert [piece.boundary for piece in script][:2] == ["paragraph"] * 2
    assert [piece.line for piece in script] == [1, 4, 8]


@pytest.mark.parametrize(
    "mark", ["[pause:]", "[pause:long]", "[pause:-1s]", "[pause:1,5s]", "[pause:1e9s]", "[pause:1s", "x [voice:y] z"]
)
def test_marks_without_a_meaning_name_their_line(mark: str) -> None:
    with pytest.raises(ScriptError, match=r"^a\.txt, line 3: "):
        read(f"One.\n\nTwo {mark}", name="a.txt")


def test_names_and_voices_change_the_voice_until_the_next() -> None:
    script = read(
        "Once.\nAnna: Hello!\nStill she.\n\nAnd still.\nold ben：Hi.\n[voice:v2/de_speaker_3]\n"
        "Guten Tag.\n[voice:anna] Me.\n[voice:] End.",
        cast=CAST,
    )
    assert said(script) == [
        ("Once.", None),
        ("Hello!\nStill she.", "v2/en_speaker_9"),
        ("And still.", "v2/en_speaker_9"),
        ("Hi.", "ben.npz"),
        ("Guten Tag.", "v2/de_speaker_3"),
        ("Me.", "v2/en_speaker_9"),
        ("End.", None),
    ]
    assert [piece.speaker for piece in script] == [None, "Anna", "Anna", "Old Ben", None, "Anna", None]
    assert [piece.language for piece in script][4] == "de"


PROSE = ["Note: this is prose.", "https://example.org is a page.", "At 10:30 he came.", "He said: no.", 'Then: "Yes!"']


@pytest.mark.parametrize("line", PROSE)
def test_prose_is_not_a_speaker(line: str) -> None:
    """In a text, only a name that the cast knows is one, and only at a line's start."""
    script = read(f"{line}\nSo said Anna: hello.", cast=CAST)
    assert said(script) == [(f"{line}\nSo said Anna: hello.", None)]


def test_a_script_declares_its_speakers() -> None:
    script = read("Eve: Hello.\nMr. Fox (softly): Hi.\nhttps://example.org\nAt 10:30: no.", "script")
    assert [(piece.speaker, piece.text) for piece in script] == [
        ("Eve", "Hello."),
        ("Mr. Fox (softly)", "Hi.\nhttps://example.org\nAt 10:30: no."),
    ]
    assert {piece.voice for piece in script} == {None}
    with pytest.raises(ScriptError, match=r"play, line 2: 'Ana' is not in the cast; did you mean Anna\?"):
        read("Anna: Hello.\nAna: Hi.", "script", cast=CAST, name="play")


def test_pieces_never_reach_over_two_voices_or_paragraphs() -> None:
    script = read("Anna: Yes.\nOld Ben: No.\n\nWell.\n\nOh.", cast=CAST)
    assert [piece.text for piece in script] == ["Yes.", "No.", "Well.", "Oh."]


@pytest.mark.parametrize("text", ["", " \n\n ", "* * *", "…", "[pause:1s]"])
def test_a_text_that_says_nothing_has_no_pieces(text: str) -> None:
    script = read(text)
    assert len(script) == 0 and script.text == text


def test_a_cast_is_read_from_a_file(tmp_path) -> None:
    (tmp_path / "ben.npz").touch()
    (tmp_path / "cast.txt").write_text("# who speaks\nAnna = v2/en_speaker_9\n\nOld Ben = ben.npz\n", encoding="utf-8")
    (tmp_path / "cast.json").write_text('{"Anna": "v2/en_speaker_9", "Old Ben": "ben.npz"}', encoding="utf-8")
    for name in ("cast.txt", "cast.json"):
        cast = Cast.read(tmp_path / name)
        assert dict(cast) == {"Anna": "v2/en_speaker_9", "Old Ben": str(tmp_path / "ben.npz")}
        assert cast["ANNA"] == "v2/en_speaker_9" and cast.find("old  ben") == "Old Ben" and cast.find("Eve") is None


@pytest.mark.parametrize(
    ("file", "text", "where"),
    [
        ("c.txt", "Anna = a\nBen", "line 2: expected a name and a voice"),
        ("c.txt", "Anna = a\nANNA = b", "'ANNA' twice"),
        ("c.json", '{"Anna": 1}', "expected an object"),
        ("c.json", '["Anna"]', "expected an object"),
        ("c.json", '{"Anna": "a",\n}', "line 2: no JSON"),
        ("c.json", '{"Anna": "a", "anna": "b"}', "'anna' twice"),
    ],
)
def test_a_cast_file_that_is_none(tmp_path, file: str, text: str, where: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(ScriptError, match=where):
        Cast.read(tmp_path / file)


def test_casts_of_options() -> None:
    cast = Cast.from_options(["Anna=a=b.npz", " Ben = c "])
    assert dict(cast) == {"Anna": "a=b.npz", "Ben": "c"}
    assert dict(cast | {"anna": "d"}) == {"Ben": "c", "anna": "d"}
    with pytest.raises(ValueError, match="Anna=v2/en_speaker_9, got 'Anna'"):
        Cast.from_options(["Anna"])


@pytest.mark.parametrize(
    "values",
    [{"text": " a"}, {"text": "…"}, {"text": ""}, {"number": 0}, {"pause_after": -1.0}, {"pause_after": float("nan")}]
    + [{"start": 1.0}, {"start": 2.0, "end": 1.0}, {"start": -1.0, "end": 1.0}, {"boundary": "comma"}],
)
def test_pieces_that_cannot_be_spoken(values: dict) -> None:
    with pytest.raises(ValueError):
        Piece(**{"number": 1, "text": "a", **values})
    with pytest.raises(ValueError, match="counted from 1|numbered"):
        Script((Piece(2, "a"),))
