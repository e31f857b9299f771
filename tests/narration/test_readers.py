"""Every format becomes the same kind of pieces; what cannot be read is an error that names the line."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.narration.texts import TEXTS
from transformers_bark.narration import FORMATS, Cast, Limits, Script, ScriptError, read
from transformers_bark.narration.readers import epub

CAST = {"Anna": "v2/en_speaker_9", "Ben": "v2/de_speaker_3"}

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> {\\an8}there {laughs}.
Second <font color="#fff">line</font> &amp; 3 < 4

2
00:00:03.000 --> 00:00:04,000 X1:10 X2:20
Anna: Hi. Note: this.

3
00:00:05,000 --> 00:00:06,000
- One.

4
00:01:07,000 --> 00:01:08,000
…
"""

VTT = """WEBVTT - title
Kind: captions

NOTE a comment
with --> no cue

STYLE
::cue { color: red }

first
00:01.000 --> 00:02.500 align:start position:0%
<v.loud Anna>Hello <c.yellow>there</c> &amp; <00:01.500>you</v>
<v Eve>And I</v>

01:00:03.000 --> 01:00:04.000
Bye.
"""

MARKDOWN = """---
title: "A book"
author: Someone
lang: de-AT
---
# First *part*

A paragraph with `code`, [a link](https://example.org) and ![a picture](a.png)
on two lines &amp; more.

```python
x = 1
```

1. item one
2. item **two**

## Second

Anna: Hello.

> quoted [pause:2s] end

| a | b |
|---|---|
| 1 | 2 |

<div>some <b>HTML</b><!-- not this --></div>

***

# First *part*

Ende.
"""

CONTAINER = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
CONTAINER += '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
PACKAGE = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>A book</dc:title><dc:creator>Someone</dc:creator><dc:language>en-GB</dc:language></metadata><manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="one" href="text/one%20a.xhtml" media-type="application/xhtml+xml"/>
<item id="two" href="two.xhtml" media-type="application/xhtml+xml"/><item id="css" href="a.css" media-type="text/css"/>
</manifest><spine><itemref idref="nav"/><itemref idref="two"/><itemref idref="one"/></spine></package>"""
PAGES = {
    "OPS/nav.xhtml": "<html><body><nav><ol><li>Contents</li></ol></nav></body></html>",
    "OPS/text/one a.xhtml": "<html><head><title>no</title><style>p {}</style></head><body><p>Still the first.</p><h2>Two</h2>"
    "<p>漢<ruby>字<rt>じ</rt></ruby>. A note<a epub:type='noteref'>12</a> here.<br/>A\n line &mdash; [pause:1s].</p></body></html>",
    "OPS/two.xhtml": "<?xml version='1.0'?><!DOCTYPE html><html><body><h1>One</h1><div>Bare text<p>A <i>para</i>graph.</p></div>"
    "<script>x()</script></body></html>",
}


def book(path: Path, package: str = PACKAGE, pages: dict[str, str] = PAGES, **more: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in {"META-INF/container.xml": CONTAINER, "OPS/book.opf": package, **pages, **more}.items():
            file.writestr(name, text)
    return path


def texts(script: Script) -> list[str]:
    return [piece.text for piece in script]


def test_subtitles_keep_their_times() -> None:
    script = read(SRT, "srt", cast=CAST)
    assert [(p.text, p.start, p.end, p.voice, p.line) for p in script] == [
        ("Hello there {laughs}.\nSecond line & 3 < 4", 1.0, 2.5, None, 3),
        ("Hi. Note: this.", 3.0, 4.0, "v2/en_speaker_9", 8),
        ("- One.", 5.0, 6.0, None, 12),
    ]


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_no_line_of_a_cue_is_lost(kind: str) -> None:
    cues = [*TEXTS.values(), "42", "At\n7", "- a\n- b", "{curly} <3 5 < 6 > 4", "NOTE: this", "00:00", "C:\\New"]
    blocks = [f"{n}\n00:{n:02}:00.000 --> 00:{n:02}:59.000\n{cue}\n" for n, cue in enumerate(cues, 1)]
    script = read("WEBVTT\n\n" * (kind == "vtt") + "\n".join(blocks), kind, limits=Limits(seconds=100))
    told: dict[float, str] = {}
    for piece in script:
        told[piece.end] = told.get(piece.end, "") + piece.text + piece.gap
    assert ["".join(text.split()) for text in told.values()] == ["".join(cue.split()) for cue in cues]


def test_vtt_names_speakers() -> None:
    script = read(VTT, "vtt", cast=CAST)
    assert [(p.text, p.start, p.end, p.speaker, p.voice) for p in script] == [
        ("Hello there & you", 1.0, 2.5, "Anna", "v2/en_speaker_9"),
        ("And I", None, 2.5, "Eve", None),
        ("Bye.", 3603.0, 3604.0, None, None),
    ]


def test_a_cue_that_is_too_long_begins_once() -> None:
    cue = f"1\n00:00:01,000 --> 00:00:09,000\n{TEXTS['en']}\n\n2\n00:00:10,000 --> 00:00:11,000\nBye.\n"
    script = read(cue, "srt", limits=Limits(seconds=5))
    assert len(script) > 3
    assert [piece.start for piece in script] == [1.0, *[None] * (len(script) - 2), 10.0]
    assert {piece.end for piece in script[:-1]} == {9.0}


def test_a_cue_of_two_voices_or_with_a_pause_begins_once() -> None:
    cue = "1\n00:00:01,000 --> 00:00:09,000\nOne. [pause:1s] Two.\nAnna: Three.\n"
    script = read(cue, "srt", cast=CAST)
    assert [(p.text, p.start, p.end) for p in script] == [("One.", 1, 9), ("Two.", None, 9), ("Three.", None, 9)]


def test_cues_out_of_order_are_put_in_order_with_their_lines() -> None:
    swapped = "1\n00:00:05,000 --> 00:00:06,000\nB.\n\n2\n00:00:01,000 --> 00:00:02,000\nA.\n"
    assert [(piece.text, piece.line) for piece in read(swapped, "srt")] == [("A.", 7), ("B.", 3)]


def test_markdown() -> None:
    script = read(MARKDOWN, "markdown", cast=CAST)
    assert (script.title, script.author, script.language) == ("A book", "Someone", "de")
    assert [(p.text, p.line, p.chapter) for p in script] == [
        ("First part", 6, "First part"),
        ("A paragraph with code, a link and a picture\non two lines & more.", 8, "First part"),
        ("item one", 15, "First part"),
        ("item two", 16, "First part"),
        ("Second", 18, "Second"),
        ("Hello.", 20, "Second"),
        ("quoted", 22, "Second"),
        ("end", 22, "Second"),
        ("a, b", 24, "Second"),
        ("1, 2", 26, "Second"),
        ("some HTML", 28, "Second"),
        ("First part", 32, "First part (2)"),
        ("Ende.", 34, "First part (2)"),
    ]
    assert script.notes == ("line 11: a block of code (1 lines) is not spoken",)
    assert [chapter.title for chapter in script.chapters] == ["First part", "Second", "First part (2)"]
    assert script[3].boundary == "chapter" and script[5].voice == "v2/en_speaker_9" and script[6].pause_after == 2.0


def test_a_title_of_its_own_is_the_one_first_heading() -> None:
    assert read("# Alone\n\ntext\n\n## a", "markdown").title == "Alone"
    assert read("# One\n\n# Two", "markdown").title is None


def test_epub(tmp_path: Path) -> None:
    script = read(book(tmp_path / "a.epub"))
    assert (script.title, script.author, script.language) == ("A book", "Someone", "en")
    assert [(piece.text, piece.chapter) for piece in script] == [
        ("One", "One"),
        ("Bare text", "One"),
        ("A paragraph.", "One"),
        ("Still the first.", "One"),
        ("Two", "Two"),
        ("漢字. A note here.\nA line — [pause:1s].", "Two"),
    ]


def test_json_lines() -> None:
    lines = [
        {"text": "Hello. [pause:1s] You.", "speaker": "anna", "seed": 3, "options": {"temperature": 0.5}},
        {"text": "Eigen.", "speaker": "Eve", "voice": "v2/de_speaker_1", "pause_after": 2, "chapter": "I"},
        {"text": "At.", "start": 1, "end": 2.5, "language": "fr", "voice": None},
    ]
    script = read("\n\n".join(json.dumps(line) for line in lines), "jsonl", cast=CAST)
    assert [(p.text, p.speaker, p.voice, p.seed, p.pause_after) for p in script] == [
        ("Hello.", "Anna", "v2/en_speaker_9", 3, 1.0),
        ("You.", "Anna", "v2/en_speaker_9", 3, None),
        ("Eigen.", "Eve", "v2/de_speaker_1", None, 2),
        ("At.", None, None, None, None),
    ]
    assert [piece.options for piece in script] == [{"temperature": 0.5}] * 2 + [{}] * 2
    assert (script[2].chapter, script[2].language, script[3].language) == ("I", "de", "fr")
    assert (script[3].start, script[3].end, script[3].line) == (1, 2.5, 5)


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("jsonl", '{"text": "a"}\n{"txt": 1}', 'line 2: expected an object with "text"'),
        ("jsonl", '{"text": "a"}\n\n["a"]', "line 3: expected an object"),
        ("jsonl", '{"text": "a"}\n{"text"', "line 2: no JSON"),
        ("jsonl", '{"text": "a", "sped": 1}', "line 1: 'sped' is not known; did you mean 'seed'"),
        ("jsonl", '{"text": "a", "top_p": 1}', "line 1: 'top_p' is not known; options of `generate` go into"),
        ("jsonl", '{"text": 1}', "line 1: 'text' is 1; expected str"),
        ("jsonl", '{"text": "a", "seed": true}', "line 1: 'seed' is True"),
        ("jsonl", '{"text": "a", "seed": -1}', "line 1: 'seed' is -1"),
        ("jsonl", '{"text": "a", "start": 2, "end": 1}', "line 1: 'start' wants an 'end'"),
        ("jsonl", '{"text": "a", "pause_after": NaN}', "line 1: 'pause_after' is nan"),
        ("jsonl", '{"text": "a", "speaker": "Ana"}', "line 1: 'Ana' is not in the cast; did you mean Anna"),
        ("jsonl", '{"text": "a [pause:x]"}', r"line 1: \[pause:x\] is no pause"),
        ("srt", SRT.replace("00:00:03.000 -->", "00:00:3000 -->"), "line 7: '00:00:3000 --> .*' is not a cue's times"),
        ("srt", SRT.replace("00:00:04,000", "00:00:02,000"), "line 7: a cue ends at 2.0 s, before it begins"),
        ("srt", "1\n00:00:01,000 --> 00:00:02,000\n[pause:x]", "line 3: "),
        ("srt", "Hello.\n", "line 1: 'Hello.' stands before the first cue"),
        ("srt", "1\n\n", "line 1: there is no cue"),
        ("vtt", VTT.removeprefix("WEB"), "line 1: a VTT file begins with WEBVTT"),
        ("vtt", VTT.replace("01:00:03.000", "01:00:03"), "line 15: '01:00:03 --> .*' is not a cue's times"),
        ("markdown", "# A\n\ntext\n\n> so [pause:x]", "line 5: "),
        ("text", "a\nb\ud800", "line 2: .*surrogate"),
    ],
)
def test_errors_name_the_line(format: str, text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=f"^a file, {message}"):
        read(text, format, cast=CAST, name="a file")


def test_files_are_known_by_their_ending(tmp_path: Path) -> None:
    contents = {
        "srt": SRT,
        "vtt": VTT,
        "markdown": MARKDOWN,
        "jsonl": '{"text": "a"}',
        "text": "Eve: a",
        "script": "Eve: a",
    }
    for format, endings in FORMATS.items():
        for ending in endings:
            path = tmp_path / f"file{ending.upper()}"
            path = book(path) if format == "epub" else path
            if format != "epub":
                path.write_bytes("\ufeff".encode() + contents[format].encode())
                assert texts(read(path)) == texts(read(contents[format], format)), ending
            assert read(path).source == str(path) and read(path).pieces
    with pytest.raises(ValueError, match=r"b\.pdf is not known by its ending .*give `format`"):
        read(tmp_path / "b.pdf")
    with pytest.raises(ValueError, match="`format` is 'pdf'; expected one of text, script"):
        read("text", "pdf")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.txt")


def test_a_string_is_text_even_if_it_looks_like_a_path(tmp_path: Path) -> None:
    assert texts(read("book.txt")) == ["book.txt"]


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo\ncafé".encode("cp1252"))
    with pytest.raises(ScriptError, match=r"a\.txt, line 3: not utf-8: byte 0xe9; give its `encoding`"):
        read(path)
    assert read(path, encoding="cp1252").text == "one\ntwo\ncafé"
    with pytest.raises(ValueError, match="'utf-9' is not known"):
        read(path, encoding="utf-9")


def test_line_ends_do_not_change_what_is_read() -> None:
    for format, text in (("srt", SRT), ("vtt", VTT), ("markdown", MARKDOWN)):
        assert texts(read(text.replace("\n", "\r\n"), format)) == texts(read(text, format))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"package": PACKAGE.replace("two.xhtml", "../../two.xhtml")}, "outside the book"),
        ({"package": PACKAGE.replace("two.xhtml", "/etc/passwd")}, "outside the book"),
        ({"package": PACKAGE.replace("two.xhtml", "%2e%2e/%2e%2e/two.xhtml")}, "outside the book"),
        ({"package": PACKAGE.replace("two.xhtml", "..\\..\\two.xhtml")}, "outside the book"),
        ({"package": PACKAGE.replace("two.xhtml", "file:///etc/passwd")}, "outside the book"),
        ({"package": PACKAGE.replace("two.xhtml", "https://example.org/a.xhtml")}, "outside the book"),
        ({"package": PACKAGE.replace("two.xhtml", "three.xhtml")}, "OPS/three.xhtml is not in the book"),
        (
            {"package": '<!DOCTYPE a [<!ENTITY b "c">]>' + PACKAGE.partition("?>")[2].replace("A book", "&b;")},
            "defines entities",
        ),
        ({"package": PACKAGE[:-20]}, "OPS/book.opf is no XML|line [0-9]+: OPS/book.opf is no XML"),
        ({"package": PACKAGE.replace('idref="', 'idref="x')}, "the book has no pages"),
        (
            {"pages": {**PAGES, "OPS/two.xhtml": "<p>" + "a" * 3_000_000}},
            "unpacks to 3000003 bytes from .*: it is refused",
        ),
        ({"pages": {**PAGES, "META-INF/container.xml": "<container/>"}}, "names no package"),
        (
            {"pages": {**PAGES, "META-INF/encryption.xml": '<e><CipherReference URI="OPS/two.xhtml"/></e>'}},
            r"OPS/two.xhtml is encrypted \(DRM\)",
        ),
    ],
)
def test_books_that_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = book(tmp_path / "a.epub", **change)
    with pytest.raises(ScriptError, match=rf"a\.epub.*: .*({message})|a\.epub, ({message})"):
        read(path)


def test_what_a_book_unpacks_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "a.epub")
    read_bytes = sum(len(text.encode()) for name, text in PAGES.items() if "nav" not in name) + len(CONTAINER + PACKAGE)
    monkeypatch.setattr(epub, "MAX_BOOK_BYTES", read_bytes)
    assert read(path).pieces
    monkeypatch.setattr(epub, "MAX_BOOK_BYTES", read_bytes - 1)
    with pytest.raises(ScriptError, match="unpacks to more than .* bytes"):
        read(path)
    monkeypatch.undo()
    monkeypatch.setattr(epub, "MAX_FILES", 3)
    with pytest.raises(ScriptError, match="the book has 5 files, more than 3"):
        read(path)


def test_what_is_no_book(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    path.write_bytes(b"no zip")
    with pytest.raises(ScriptError, match=r"a\.epub: no EPUB"):
        read(path)
    whole = book(path).read_bytes()
    for cut in range(0, len(whole), 97):  # damaged anywhere, it is read as it is or refused, but never crashes
        path.write_bytes(whole[:cut] + bytes([whole[cut] ^ 0xFF]) + whole[cut + 1 :])
        try:
            read(path)
        except ScriptError:
            continue


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    """Texts can be read and shown before any model is: nothing of the text side imports torch or Transformers."""
    source = Path(__file__).parents[2] / "src" / "transformers_bark"
    program = f"""
import sys, types
from pathlib import Path
package = types.ModuleType("transformers_bark")
package.__path__ = [{str(source)!r}]
sys.modules["transformers_bark"] = package
for name in ("torch", "transformers", "numpy"):
    sys.modules[name] = None
from transformers_bark.narration.readers import read
for file in Path({str(tmp_path)!r}).iterdir():
    assert read(file).pieces
"""
    for name, text in (
        ("a.srt", SRT),
        ("a.vtt", VTT),
        ("a.md", MARKDOWN),
        ("a.jsonl", '{"text": "a"}'),
        ("a.txt", "a"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    book(tmp_path / "a.epub")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


EXAMPLES = Path(__file__).parents[2] / "examples" / "texts"


@pytest.mark.parametrize(
    "path", sorted(file for file in EXAMPLES.iterdir() if file.stem != "cast"), ids=lambda path: path.name
)
def test_the_examples_can_be_read(path: Path) -> None:
    script = read(path, cast=Cast.read(EXAMPLES / "cast.txt"))
    assert len(script) > 1
    if path.suffix != ".md":
        assert {"en_bright", "en_heart"} & set(script.voices)
