"""Rows of a manifest: what is taken, what is refused and why, and what their files are called."""

from __future__ import annotations

import random
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transformers_bark.batch.plan import Bucket, plan
from transformers_bark.batch.rows import Row, RowError, file_stem, row_of, seed_of

GOOD = {"id": "a", "text": "hello"}


def row(**values: object) -> Row:
    return row_of(1, {**GOOD, **values}, 100)


@given(st.text(min_size=1))
@example("../../etc/passwd")
@example("/etc/passwd")
@example("..")
@example("a\\..\\b")
@example("C:x")
@example("CON")
@example("x" * 500)
@example("a\x00b")
@example("\ud800"[:0] or ".hidden")
def test_no_id_becomes_a_path(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    stem = PurePosixPath(file_stem(name))
    folder, file = stem.parts
    assert len(folder) == 2 and int(folder, 16) >= 0
    assert file not in (".", "..") and not file.startswith(".") and len(file) <= 120
    assert not set(file) & set('/\\:*?"<>|\0') and file.isascii()


@given(st.lists(st.text(alphabet="ab/.-_A0é", min_size=1, max_size=6), unique_by=str.casefold, min_size=2))
def test_two_ids_have_two_files(names: list[str]) -> None:
    files = {file_stem(name).casefold() for name in names}
    assert len(files) == len(names)


def test_the_name_of_one_id_cannot_be_taken_by_another() -> None:
    """An id that looks like the made-up name of another gets one of its own."""
    taken = file_stem("a/b").partition("/")[2]
    assert file_stem(taken).partition("/")[2] != taken


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"id": None}, "the id is None"),
        ({"id": "  "}, "the id is '  '"),
        ({"id": 1.5}, "the id is 1.5"),
        ({"id": True}, "the id is True"),
        ({"id": "a\0"}, "the id holds a NUL"),
        ({"id": "x" * 513}, "513 characters; at most 512"),
        ({"id": "\udcff"}, "the id is not UTF-8"),
        ({"text": ""}, "the text is empty"),
        ({"text": float("nan")}, "the text is empty"),
        ({"text": 3}, "the text is 3"),
        ({"text": "x" * 101}, "101 characters; at most 100"),
        ({"text": "a\udc80"}, "the text is not UTF-8"),
        ({"seed": "x"}, "the seed is 'x'"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": 2**62}, "the seed is 4611686018427387904"),
        ({"seed": 1.5}, "the seed is 1.5"),
        ({"voice": 3}, "the voice is 3"),
        ({"language": "en; rm"}, "the language is 'en; rm'"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(values: dict[str, object], said: str) -> None:
    with pytest.raises(RowError, match="the") as caught:
        row(**values)
    assert said in str(caught.value)


def test_values_of_csv_and_pandas_are_read() -> None:
    assert row(seed="12").seed == row(seed=12.0).seed == row(seed=12).seed == 12
    assert row(seed="").seed == row(seed=float("nan")).seed == row().seed == seed_of("a")
    assert row(id=7).id == "7" and row(voice="").voice is None


def test_the_plan_is_of_the_manifest_alone() -> None:
    """Neither order nor what is finished moves a row into another bucket."""
    draw = random.Random(1)
    rows = [Row(n, f"r{n}", "word " * draw.randint(1, 40), None, n, None) for n in range(1, 60)]
    keys = {one.number: one.key("run") for one in rows}
    whole = plan(rows, keys, set(), 8)
    shuffled = rows[:]
    draw.shuffle(shuffled)
    assert plan(shuffled, keys, set(), 8) == whole
    assert sorted(one.number for bucket in whole for one in bucket.rows) == list(range(1, 60))
    assert all(len(bucket.rows) <= 8 for bucket in whole) and any(len(bucket.rows) == 8 for bucket in whole)
    lengths = [len(one.text) for bucket in whole for one in bucket.rows]
    assert lengths == sorted(lengths, reverse=True)
    finished = {key for bucket in whole[::2] for key in bucket.keys}
    assert plan(rows, keys, finished, 8) == whole[1::2]
    assert Bucket.from_json(whole[0].as_json()) == whole[0]
