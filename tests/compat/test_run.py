"""Which releases `make compat` takes, what it notes, and when it goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from tests.compat import run

INDEX = [Version(text) for text in ("5.0.0", "5.1.0", "5.1.1", "5.1.2", "5.9.0", "5.10.1", "5.10.4")]


def result(release: str, failed: int = 0, sources: str = "a") -> dict[str, Any]:
    packages = {"transformers": "5.0.0", "huggingface_hub": "1.3.0", "tokenizers": "0.22.0", "numpy": "1.26.4"}
    failures = ["tests.test_x::test_y"] * failed
    return {
        "release": release,
        "sources": sources,
        "packages": packages,
        "passed": 9,
        "failed": failed,
        "skipped": 0,
        "failures": failures,
        "seconds": 1,
    }


def test_all_is_the_first_and_last_patch_of_each_minor_and_the_floors() -> None:
    assert run.select([], lambda: INDEX) == ["lowest", "5.0.0", "5.1.0", "5.1.2", "5.9.0", "5.10.1", "5.10.4"]


def test_names_stand_for_releases_and_none_comes_twice() -> None:
    assert run.select(["ci", "5.10.4", "newest"], lambda: INDEX) == ["5.0.0", run.pinned(), "5.10.4"]
    with pytest.raises(ValueError, match="'4.57.0'"):
        run.select(["4.57.0"], lambda: INDEX)


def test_the_index_is_read_without_other_majors_and_pre_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "transformers (6.0.0)\nAvailable versions: 6.0.0, 5.2.0, 5.2.0rc1, 5.0.0, 4.57.0\n"
    monkeypatch.setattr(run, "pip", lambda *a: listed)
    assert [str(one) for one in run.released()] == ["5.0.0", "5.2.0"]
    monkeypatch.setattr(run, "pip", lambda *a: "")
    with pytest.raises(run.NotAvailableError, match="lists no releases"):
        run.released()


def test_pip_is_asked_twice_and_its_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def fail(command: object, **options: object) -> object:
        asked.append(command)
        return type("Done", (), {"returncode": 1, "stdout": "", "stderr": "WARNING: a\nERROR: no network"})

    monkeypatch.setattr(run.subprocess, "run", fail)
    with pytest.raises(run.NotAvailableError, match="^ERROR: no network$"):
        run.pip("download")
    assert len(asked) == 2


def test_an_environment_holds_only_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    installed = {"numpy": run.metadata.version("numpy"), "transformers": "5.1.0"}
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in installed.items()]}

    def pip(*arguments: str) -> str:
        asked.append(arguments)
        return run.json.dumps(report)

    monkeypatch.setattr(run, "pip", pip)
    assert run.make_environment("5.1.0", tmp_path / "new") == installed
    assert asked[0][-1] == asked[1][-1] == "transformers==5.1.0" and not any("numpy" in one for one in asked[1])
    report["install"].append({"metadata": {"name": "torch", "version": "9.9"}})
    with pytest.raises(run.NotAvailableError, match="brings its own torch"):
        run.make_environment("5.1.0", tmp_path / "new")


def test_the_lowest_has_every_floor_but_torch() -> None:
    floors = dict(text.split("==") for text in run.floors())
    assert floors["transformers"] == "5.0" and "torch" not in floors
    assert {"huggingface_hub", "tokenizers", "numpy", "safetensors", "accelerate"} <= floors.keys()


def test_what_failed_or_was_of_other_sources_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    tried: list[str] = []

    def attempt(release: str, sources: str, keep: bool) -> dict[str, Any]:
        tried.append(release)
        return result(release, sources=sources)

    monkeypatch.setattr(run, "try_release", attempt)
    monkeypatch.setattr(run, "digest_of_sources", lambda: "a")
    for release, failed, sources in (("5.0.0", 0, "a"), ("5.1.0", 1, "a"), ("5.2.0", 0, "b")):
        text = run.json.dumps(result(release, failed, sources))
        (tmp_path / "results" / f"{release}.json").write_text(text)
    assert run.main(["5.0.0", "5.1.0", "5.2.0", "5.3.0"]) == 0
    assert tried == ["5.1.0", "5.2.0", "5.3.0"]
    assert run.main(["5.0.0", "--fresh"]) == 0 and tried[-1] == "5.0.0"


def test_the_exit_status_tells_a_failure_from_an_environment_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "earlier", lambda *a: None)
    monkeypatch.setattr(run, "try_release", lambda release, *a: result(release, failed=1))
    assert run.main(["5.0.0"]) == 1
    assert "tests.test_x::test_y" in capsys.readouterr().out

    def unavailable(*arguments: object) -> None:
        raise run.NotAvailableError("no such release")

    monkeypatch.setattr(run, "try_release", unavailable)
    assert run.main(["5.99.0"]) == 2
    assert "no such release" in capsys.readouterr().err


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n")
    run.write_page(run.table([result("lowest"), result("5.0.0", failed=2)]), page)
    text = page.read_text()
    assert "| 5.0.0 (lowest) | 1.3.0 | 0.22.0 | 1.26.4 | 9 | 0 |" in text and "| 9 | 2 |" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n")


def test_the_page_names_every_entry_and_has_the_pinned_release() -> None:
    from transformers_bark import compat

    text = run.PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in compat.__all__)
    rows = re.findall(r"^\| (5\.\S+)", text, re.MULTILINE)
    assert {run.OLDEST, run.pinned()} <= set(rows) and run.BEGIN in text and run.END in text


def test_the_marked_modules_are_found() -> None:
    names = {Path(file).name for file in run.marked_files()}
    assert {"test_core.py", "test_compat.py", "test_hub_folder.py", "test_pipeline.py", "test_processing.py"} <= names
    assert "test_cli.py" not in names
