"""Manifests of every kind, and what is said of bad ones."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import datasets
import pytest

from transformers_bark.batch.manifest import read_manifest
from transformers_bark.batch.run import read_rows
from transformers_bark.cli import main

ROWS = [
    {"id": "a", "text": 'hello "dog", yes', "voice": "v", "seed": 3, "language": "en"},
    {"id": "b", "text": "two\nlines", "voice": None, "seed": None, "language": None},
]


def write(path: Path) -> str:
    data = datasets.Dataset.from_list([{**row, "more": [1, 2]} for row in ROWS])
    if path.suffix == ".csv":
        data.remove_columns("more").to_csv(path)
    elif path.suffix == ".jsonl":
        data.to_json(path)
    elif path.suffix == ".parquet":
        data.to_parquet(path)
    else:
        data.save_to_disk(path)
    return str(path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet", "folder"])
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_every_kind_gives_the_same_rows(name: str, prefix: str, tmp_path: Path) -> None:
    rows, refused = read_rows(prefix + write(tmp_path / name), None, 1000)
    assert not refused
    assert [(row.id, row.text, row.voice, row.language) for row in rows] == [
        ("a", 'hello "dog", yes', "v", "en"),
        ("b", "two\nlines", None, None),
    ]
    assert rows[0].seed == 3


def test_an_address_is_read_by_fsspec(tmp_path: Path) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/part-0.jsonl", json.dumps(ROWS[0]).encode())
    files.pipe_file("/bucket/part-1.jsonl", json.dumps(ROWS[1]).encode())
    assert [row.id for row in read_rows("memory://bucket", None, 100)[0]] == ["a", "b"]


def test_splits_are_named(tmp_path: Path) -> None:
    parts = {name: datasets.Dataset.from_list([ROWS[n]]) for n, name in enumerate(("train", "test"))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    assert [row["id"] for row in read_manifest(str(tmp_path / "d"), "test")] == ["b"]
    for split, said in ((None, "has the splits train, test"), ("dev", "no split 'dev'")):
        with pytest.raises(ValueError, match=said):
            list(read_manifest(str(tmp_path / "d"), split))


def test_a_bad_row_is_its_own_failure(tmp_path: Path) -> None:
    lines = [
        b'{"id": "a", "text": "hello"}',
        b"{nonsense",
        b"[1]",
        b'{"id": "a", "text": "again"}',
        b'{"id": "A", "text": "hello"}',
        b'\xff\xfe{"id": "u", "text": "x"}',
        b"[" * 100_000,
        b'{"id": "c", "text": "hello", "seed": {"a": 1}}',
        b"",
        b'{"id": "d", "text": "hello"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    rows, refused = read_rows(str(tmp_path / "rows.jsonl"), None, 100)
    assert [row.id for row in rows] == ["a", "d"]
    said = {entry["row"]: entry["error"] for entry in refused}
    assert "line 2 is not JSON" in said[2] and "must hold an object, got list" in said[3]
    assert said[4] == "the id 'a' is that of row 1" and "in case alone" in said[5]
    assert "line 6 is not JSON" in said[6] and "line 7 is not JSON" in said[7] and "the seed is {'a': 1}" in said[8]


def test_bad_lines_of_csv(tmp_path: Path) -> None:
    content = b"id,text\na,hello\nb,\xff\xfe\nc,one,two\nd\ne,yes\n"
    (tmp_path / "rows.csv").write_bytes(content)
    rows, refused = read_rows(str(tmp_path / "rows.csv"), None, 100)
    assert [row.id for row in rows] == ["a", "e"]
    assert [(entry["id"], entry["error"]) for entry in refused] == [
        ("b", "the text is not UTF-8"),
        ("c", "line 4 has more fields than the first line"),
        ("d", "the text is empty"),
    ]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A pickle is no manifest, and one in a field is text."""

    class Trap:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path, "caught").touch, ())

    (tmp_path / "rows.pkl").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "rows.parquet").write_bytes(pickle.dumps(Trap()))
    for name in ("rows.pkl", "rows.parquet"):
        with pytest.raises(ValueError, match=r"ending of a manifest|not Parquet"):
            list(read_manifest(str(tmp_path / name)))
    assert not (tmp_path / "caught").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "name,text\nx,y\n", "has no column 'id'; its columns: 'name', 'text'"),
        ("rows.csv", "", "has no column 'id' and no column 'text'; its columns: none"),
        ("rows.csv", "id,text\n", "has no rows"),
        ("rows.xml", "<a/>", "the ending of a manifest is one of"),
    ],
)
def test_a_bad_manifest_is_said_in_one_line(
    name: str, content: str, said: str, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    command = ["batch", str(tmp_path / name), "--out", str(tmp_path / "out"), "--model", str(checkpoint)]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_missing_manifest(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", str(tmp_path / "no.csv"), "--out", str(tmp_path), "--model", str(checkpoint)]) == 1
    assert "there is no such manifest" in capsys.readouterr().err
