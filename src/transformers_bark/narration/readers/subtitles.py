"""SubRip (SRT) and WebVTT: a cue is a block with its times."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pysubs2
import regex

from ..marks import Block, Blocks, MarkReader
from ..pieces import says_something

if TYPE_CHECKING:
    from . import Source

_BACKSLASH = "\ufdd0"
"""Stands for a file's own backslashes while pysubs2 has it, whose line ends are written with one; no text has this character."""
_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}[.,]\d{1,3}"
_TIMES = regex.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_VOICE = regex.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = regex.compile(
    r"</?(?:b|i|u|s|c|v|font|lang|ruby|rt|span)(?:[.\s][^<>]*)?>|<\d[\d:.]*>|\{\\[^{}]*\}", regex.IGNORECASE
)


def read_srt(source: Source, blocks: Blocks) -> Mapping[str, Any]:
    """SubRip; tags in cues, such as `<i>` and `{\\an8}`, are taken out."""
    return _read(source, blocks, "srt")


def read_vtt(source: Source, blocks: Blocks) -> Mapping[str, Any]:
    """WebVTT; `<v Anna>` names the speaker, other tags are taken out."""
    if not source.text.lstrip("\ufeff").startswith("WEBVTT"):
        raise source.error("a VTT file begins with WEBVTT", 1)
    return _read(source, blocks, "vtt")


def _read(source: Source, blocks: Blocks, kind: str) -> Mapping[str, Any]:
    text = source.text.replace("\r\n", "\n").replace("\r", "\n")
    lines = list(_cue_lines(source, text, kind))
    _check_lead(source, text, kind, lines)
    try:
        cues = list(pysubs2.SSAFile.from_string(text.replace("\\", _BACKSLASH), format_=kind, keep_html_tags=True))
    except (pysubs2.Pysubs2Error, ValueError) as error:
        raise source.error(f"no {kind.upper()}: {error}", 1) from None
    if len(cues) != len(lines):  # then a cue's line is not known
        raise source.error(f"{len(lines)} lines have the times of a cue, but {len(cues)} cues could be read")
    for cue, line in sorted(zip(cues, lines, strict=True), key=lambda pair: pair[0].start):
        if cue.end < cue.start:
            raise source.error(f"a cue ends at {cue.end / 1000} s, before it begins at {cue.start / 1000} s", line)
        like = Block("", gap="\n\n", line=line + 1, boundary="line", start=cue.start / 1000, end=cue.end / 1000)
        _add_cue(source, blocks, cue.text.replace("\\N", "\n").replace(_BACKSLASH, "\\"), like, kind)
    return {}


def _cue_lines(source: Source, text: str, kind: str) -> Iterator[int]:
    """The lines that hold a cue's times. pysubs2 takes a line with a mistake in its times for text of the cue before."""
    comment = False
    for number, line in enumerate(text.split("\n"), 1):
        if kind == "vtt":
            comment = bool(line.strip()) and (comment or regex.match(r"(NOTE|STYLE|REGION)\b", line) is not None)
        if "-->" in line and not comment:
            if _TIMES.fullmatch(line) is None:
                raise source.error(
                    f"{line.strip()!r} is not a cue's times, as in 00:00:01,000 --> 00:00:02,500", number
                )
            yield number


def _check_lead(source: Source, text: str, kind: str, lines: list[int]) -> None:
    """Refuses a file without cues, and text before the first cue of SubRip, which pysubs2 passes over."""
    first = lines[0] if lines else None
    for number, line in enumerate(text.split("\n")[:first], 1):
        if kind == "srt" and number != first and line.strip() and not line.strip().isdecimal():
            raise source.error(f"{line.strip()[:60]!r} stands before the first cue", number)
    if first is None and text.strip() and kind == "srt":
        raise source.error("there is no cue", 1)


def _add_cue(source: Source, blocks: Blocks, text: str, like: Block, kind: str) -> None:
    """Adds a cue, divided where its speaker changes."""
    parts = _VOICE.split(text) if kind == "vtt" else [text]
    texts = [_plain(part) for part in parts[::2]]
    for index, (name, part) in enumerate(zip([None, *parts[1::2]], texts, strict=True)):
        speaker = html.unescape(name).strip() if name else None
        known = source.cast.find(speaker) if speaker else None
        if part or index == len(texts) - 1:
            block = Block(
                "",
                gap=like.gap if index == len(texts) - 1 else "\n",
                line=like.line,
                boundary="line",
                start=None if any(says_something(text) for text in texts[:index]) else like.start,
                end=like.end,
                speaker=known or speaker,
                voice=source.cast[known] if known is not None else None,
            )
            MarkReader(blocks, source.cast, "cast", source.name).read(part, block)


def _plain(text: str) -> str:
    """A cue's text without tags, its lines without blank ones between."""
    lines = (line.strip() for line in html.unescape(_TAG.sub("", text)).split("\n"))
    return "\n".join(line for line in lines if line)
