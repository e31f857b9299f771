"""The code blocks of README and docs run as they stand, on a tiny checkpoint in place of the Hub's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import transformers_bark
from transformers_bark import suno

ROOT = Path(__file__).parents[1]
FILES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
HUB_NAMES = ("suno/bark-small", "suno/bark")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", [f for f in FILES if blocks(f, "python")], ids=lambda path: path.name)
def test_python_blocks_run(
    path: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers_bark, "BARK_NANO", str(checkpoint))
    monkeypatch.setattr(suno.generation, "LARGE", str(checkpoint))
    monkeypatch.setattr(suno.generation, "SMALL", str(checkpoint))
    scope: dict[str, object] = {"__name__": "docs"}
    for block in blocks(path, "python"):
        for name in HUB_NAMES:
            block = block.replace(f'"{name}"', repr(str(checkpoint)))
        exec(compile(block, str(path), "exec"), scope)
    suno.clean_models()


def test_commands_run(checkpoint: Path, tmp_path: Path) -> None:
    block = next(block for block in blocks(ROOT / "README.md", "bash") if "bark-tts" in block)
    block = re.sub(r'"[^"]*\."', '"hello my dog."', block)  # words that the tiny tokenizer knows
    command = f"{shlex.quote(sys.executable)} -m transformers_bark --model {shlex.quote(str(checkpoint))}"
    (tmp_path / "story.md").write_text("# hello\n\nhello my dog.\n\n# dog\n\nhello cat.\n")
    script = "set -e\n" + block.replace("bark-tts", command)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = ["again.wav", "hello.wav", "out.wav", "story.md", "story.mp3", "story.srt", "voice.npz"]
    assert sorted(file.name for file in tmp_path.iterdir()) == made


def test_links_lead_somewhere() -> None:
    for path in [
        *FILES,
        ROOT / "conversion" / "README.md",
        ROOT / "recipes" / "nano" / "README.md",
        ROOT / "recipes" / "detector" / "README.md",
    ]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(path: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers_bark, "BARK_NANO", str(checkpoint))
    monkeypatch.setattr(sys, "argv", [str(path)])
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "__main__"})
    assert list(tmp_path.rglob("*.wav"))
