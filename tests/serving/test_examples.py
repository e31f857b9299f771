"""The commands in `examples/serve/`: what starts the service, and what asks whether it is ready."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.serving.conftest import Running
from transformers_bark.cli import COMMANDS
from transformers_bark.cli.serve import build_parser

FOLDER = Path(__file__).parents[2] / "examples" / "serve"


def command(line: str) -> list[str]:
    """A line's words, without the program's folder."""
    words = json.loads(line) if line.startswith("[") else shlex.split(line)
    return [Path(words[0]).name, *words[1:]]


def instruction(name: str) -> str:
    (line,) = re.findall(rf"^{name} (.+)", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    return line


def test_the_service_is_started_with_options_that_there_are() -> None:
    unit = (FOLDER / "bark-tts.service").read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=(.+)", unit, re.MULTILINE)
    for words in (command(start), command(instruction("ENTRYPOINT"))):
        assert words[:2] == ["bark-tts", "serve"] and words[1] in COMMANDS
        options = build_parser().parse_args(words[2:])
        assert options.port == 8000
    commented = unit + (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    for option in re.findall(r"(--(?:host|api-key-file|model)) [^`\s]+", commented):
        assert build_parser().parse_args([option, "x"])


def test_a_container_is_whole_when_it_is_ready(tiny: Running) -> None:
    check = command(re.sub(r"^.*?CMD ", "", instruction("HEALTHCHECK")))
    code = check[2].replace("http://127.0.0.1:8000", tiny.url)
    assert check[:2] == ["python", "-c"] and tiny.url in code
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    tiny.service.is_ready = False
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1
    tiny.service.is_ready = True


def test_what_the_container_copies_is_there() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (FOLDER.parents[1] / name).exists(), name
