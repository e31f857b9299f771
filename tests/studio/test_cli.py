"""`bark-tts studio`: what it says at once; and the Space."""

from __future__ import annotations

from pathlib import Path

import pytest

from transformers_bark.cli import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "70000"),
        (["--model", "./missing"], "./missing"),
    ],
)
def test_bad_values_are_told_before_anything_is_loaded(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studio", *arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["--max-characters", "--queue"])
def test_limits_are_counts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["studio", name, "0"])
    assert f"{name}: expected a whole number of at least 1, got '0'" in capsys.readouterr().err


def test_the_space_builds_its_page(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`examples/space/app.py`, as a Space runs it, up to the server; and its header names what is there."""
    from transformers_bark.studio import server

    launched = []
    monkeypatch.setenv("BARK_MODEL", str(checkpoint))
    monkeypatch.setattr(server, "launch", lambda page, **settings: launched.append((page, settings)))
    folder = ROOT / "examples" / "space"
    code = (folder / "app.py").read_text(encoding="utf-8")
    exec(compile(code, "app.py", "exec"), {"__name__": "__main__"})
    ((page, settings),) = launched
    assert settings["host"] == "0.0.0.0" and page.analytics_enabled is False
    assert any(one.get("props", {}).get("elem_id") == "speak" for one in page.config["components"])
    head = (folder / "README.md").read_text(encoding="utf-8").split("---")[1]
    fields = dict(line.split(": ", 1) for line in head.strip().splitlines())
    assert fields["sdk"] == "gradio" and (folder / fields["app_file"]).is_file()
    wanted = (folder / "requirements.txt").read_text(encoding="utf-8")
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"gradio=={fields['sdk_version']}" in pinned.splitlines() and "transformers-bark[studio" in wanted
