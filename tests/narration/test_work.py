"""Work goes on after any kill and any full disk: nothing finished is repeated or lost, and the file is the same."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from tests.narration.speech import TEXT, tiny_narrator
from transformers_bark.narration import Narrator
from transformers_bark.narration.work import MANIFEST, WorkFolder

pytestmark = pytest.mark.filterwarnings("ignore:the tokenizer does not know")
VOICE = "v2/en_speaker_0"


@pytest.fixture(scope="module")
def narrator(checkpoint: Path) -> Narrator:
    return tiny_narrator(checkpoint, 2)


def lines(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / MANIFEST).read_text().splitlines()]


def made(work: Path) -> list[int]:
    """Numbers of the pieces in the manifest."""
    return [line["number"] for line in lines(work) if "text" in line]


def in_a_child(action: Any, kill_after: float) -> int | None:
    """Runs `action` in a process that is killed after some seconds; its exit code, None where it was killed."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        # the bars' own lock is shared with the parent, and one that is killed would hold it for ever
        tqdm.set_lock(threading.RLock())
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    ends = time.monotonic() + kill_after
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


@pytest.mark.parametrize(("voice", "continuity"), [(VOICE, "preset"), (None, "preset"), (None, "carry")])
def test_killed_at_random_moments(narrator: Narrator, tmp_path: Path, voice: str | None, continuity: Any) -> None:
    work, out = tmp_path / "work", tmp_path / "out.flac"

    def speak(path: Path, **how: Any) -> Any:
        narration = narrator(TEXT, voice, seed=4, tries=1, continuity=continuity, **how)
        return narration.write(path, subtitles=path.with_suffix(".srt"))

    def check_whole(path: Path) -> None:
        for ending in (".flac", ".srt"):
            assert path.with_suffix(ending).read_bytes() == (tmp_path / "whole").with_suffix(ending).read_bytes()

    started = time.monotonic()
    speak(tmp_path / "whole.flac")
    whole = time.monotonic() - started
    moments = random.Random(5)
    kills = 0
    for _ in range(100):
        code = in_a_child(lambda: speak(out, work=work, resume=True), moments.uniform(0.02, 0.9) * whole)
        assert code in (0, None)
        kills += code is None
        if code == 0:
            check_whole(out)
            if kills >= 10:
                break
            for finished in (out, out.with_suffix(".srt")):
                finished.unlink()
            shutil.rmtree(work)
    report = speak(out, work=work, resume=True)
    assert kills >= 10 and report.made == 0
    check_whole(out)
    assert max(Counter(made(work)).values()) == 1 and len(made(work)) == report.pieces
    assert not list(tmp_path.glob(".*")) and not list((work / "pieces").glob("*.part"))


@pytest.mark.parametrize("room", [300, 2_000, 5_000, 30_000])
def test_a_full_disk(narrator: Narrator, tmp_path: Path, room: int) -> None:
    """`room` is the most bytes of a file: of the manifest, of a piece, or of the whole."""
    work, out = tmp_path / "work", tmp_path / "out.wav"
    narrator(TEXT, VOICE, seed=4).write(tmp_path / "whole.wav")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError):
            narrator(TEXT, VOICE, seed=4, work=work).write(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not out.exists()
    before = made(work) if (work / MANIFEST).exists() else []
    report = narrator(TEXT, VOICE, seed=4, work=work, resume=True).write(out)
    assert report.made == report.pieces - len(before)
    assert out.read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_only_what_has_changed_is_made_anew(narrator: Narrator, tmp_path: Path) -> None:
    work = tmp_path / "work"

    def speak(text: str, voice: str | None = VOICE, seed: int | None = 4, **options: Any) -> int:
        return narrator(text, voice, seed=seed, work=work, resume=True, **options).write(tmp_path / "o.wav").made

    assert speak(TEXT) == 6
    assert speak(TEXT) == 0
    assert speak(TEXT, seed=None) == 0  # the folder knows its seed
    assert speak(TEXT.replace("quick cat", "cooler cat")) == 1
    assert speak(TEXT + " the dog!") == 1
    assert speak("the dog is you.\n\n" + TEXT) == 1  # the others have moved
    assert speak(TEXT, semantic_temperature=0.9) == 6
    assert speak(TEXT, None) == 6
    assert speak(TEXT, seed=5) == 6


def test_single_pieces_are_made_again_and_stay(narrator: Narrator, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for voice in (VOICE, None):
        first = list(narrator(TEXT, voice, seed=4, work=work, resume=True))
        narration = narrator(TEXT, voice, seed=9, work=work, only=[1, 3])
        again = list(narration)
        assert narration.made == 2
        later = list(narrator(TEXT, voice, seed=4, work=work, resume=True))
        for one, other, last in zip(first, again, later, strict=True):
            assert (one.seed == other.seed) == (one.piece.number not in (1, 3))
            assert other.seed == last.seed and (other.audio == last.audio).all()


def test_a_folder_with_pieces_is_not_taken_unasked(narrator: Narrator, tmp_path: Path) -> None:
    list(narrator(TEXT, VOICE, seed=4, work=tmp_path))
    with pytest.raises(ValueError, match="earlier run"):
        list(narrator(TEXT, VOICE, seed=4, work=tmp_path))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path, "model", 24_000, False)
    with pytest.raises(ValueError, match="another process"):
        WorkFolder(tmp_path, "model", 24_000, False)
    folder.close()
    WorkFolder(tmp_path, "model", 24_000, False).close()


def test_a_damaged_folder_is_mended(narrator: Narrator, tmp_path: Path) -> None:
    work = tmp_path / "work"
    narrator(TEXT, VOICE, seed=4, work=work).write(tmp_path / "whole.wav")
    pieces = sorted((work / "pieces").glob("*.flac"))
    pieces[0].unlink()
    pieces[1].write_bytes(b"no audio")
    with (work / MANIFEST).open("a") as file:
        file.write('{"number": 1, "text"')
    report = narrator(TEXT, VOICE, seed=4, work=work, resume=True).write(tmp_path / "again.wav")
    assert report.made == 2
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
