"""Texts and teacher audio: repeatable, complete after a kill, words where they are heard."""

from __future__ import annotations

import gzip
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tests.training.tones import FRAME, ToneTeacher
from transformers_bark.training import data
from transformers_bark.training.data import (
    Teacher,
    compose_texts,
    fill_template,
    lay_over,
    load_shards,
    merge_words,
    read_sentences,
    repitched,
    split_phrases,
    synthesize_shards,
)

TEXTS = ["the cat sat", "a dog ran", "room 12", "we saw you", "go on"]


def synthesize(folder: Path, seed: int = 3) -> None:
    synthesize_shards(TEXTS, folder, shard_size=2, speeds=(1.0, 1.2), seed=seed)


@pytest.fixture(autouse=True)
def tones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "Teacher", ToneTeacher)


def test_sentences_are_read_plain_and_gzipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\n Two. \n", encoding="utf-8")
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("One.\n\n Two. \n")
    assert read_sentences(tmp_path / "a.txt") == read_sentences(tmp_path / "a.txt.gz") == ["One.", "Two."]


def test_texts_are_repeatable_and_leave_out_what_is_held_out() -> None:
    corpus = ["The quick brown fox jumps over the lazy dog, and then it sleeps.", "Nothing else happened on that day."]
    everyday = {"templates": ["the {thing} is here now"], "slots": {"thing": ["cat", "dog"]}}
    texts = compose_texts(corpus, everyday, 5, 5, 3, ["a brown fox jumps over it"])
    assert texts == compose_texts(corpus, everyday, 5, 5, 3, ["a brown fox jumps over it"])
    assert not any("brown fox jumps over" in text for text in texts)
    assert any("Nothing else happened" in text for text in texts)
    assert {"The cat is here now", "The dog is here now"} & set(texts)


def test_phrases_are_short_and_whole() -> None:
    sentence = " ".join(f"word{i}" for i in range(40)) + ", and a few more of them."
    phrases = split_phrases(sentence, random.Random(0))
    assert all(2 <= len(phrase.split()) <= 12 for phrase in phrases)
    assert " ".join(phrases) == sentence
    assert fill_template("{a} {a}", {"a": ["x"]}, random.Random(0)) == "X x"


def test_shards_hold_what_the_teacher_said(tmp_path: Path) -> None:
    synthesize(tmp_path)
    shards = load_shards(tmp_path)
    assert [shard["text"] for shard in shards] == [["the cat sat", "a dog ran"], ["we saw you"], ["go on"]]
    assert shards[1]["id"] == ["000003"]  # ids count the texts, also those that the teacher refused
    for row in (row for shard in shards for row in shard):
        assert len(row["audio"]) == FRAME * sum(row["phoneme_frames"])
        assert len(row["word_chars"]) == len(row["word_frames"]) == len(row["text"].split())
        assert [row["text"][start:end] for start, end in row["word_chars"]] == row["text"].split()


def test_a_seed_gives_the_same_audio_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthesize(tmp_path / name, seed)
    a, b, c = ([shard.to_list() for shard in load_shards(tmp_path / name)] for name in "abc")
    assert a == b
    assert all(x["audio"] != y["audio"] for old, new in zip(a, c, strict=True) for x, y in zip(old, new, strict=True))


def test_voices_differ_in_pitch_and_keep_their_times(tmp_path: Path) -> None:
    spoken = ToneTeacher().speak("aa", 1.0, 0)
    low = repitched(spoken, 0.5)
    assert len(low.audio) == pytest.approx(2 * len(spoken.audio), abs=2)
    assert low.word_frames == [[2 * frame for frame in span] for span in spoken.word_frames]
    assert sum(low.phoneme_frames) == 2 * sum(spoken.phoneme_frames)
    peaks = [np.abs(np.fft.rfft(u.audio)).argmax() / len(u.audio) * 24_000 for u in (spoken, low)]
    assert peaks[1] == pytest.approx(peaks[0] / 2, abs=5)
    assert repitched(spoken, 1.0) is spoken

    synthesize_shards(TEXTS * 4, tmp_path, 50, (1.0, 1.2), 3, {"high": 1.0, "low": 0.8})
    rows = load_shards(tmp_path)[0]
    assert set(rows["voice"]) == {"high", "low"}
    for row in rows:
        assert len(row["audio"]) == pytest.approx(FRAME * sum(row["phoneme_frames"]), abs=FRAME)


def test_words_read_otherwise_lie_over_those_written() -> None:
    text, read = "Dr. Low came at 5:30 today.", "Doctor Low came at five thirty today."
    spans = [list(match.span()) for match in re.finditer(r"\w+", read)]
    over = lay_over(spans, read, text)
    assert [text[a:b] for a, b in over] == ["Dr.", "Low", "came", "at", "5:30", "5:30", "today"]
    chars, frames = merge_words(over, [[index, index + 1] for index in range(7)])
    assert [text[a:b] for a, b in chars] == ["Dr.", "Low", "came", "at", "5:30", "today"]
    assert frames[4:] == [[4, 6], [6, 7]]


KILLED = """
import sys, time
from tests.training.tones import ToneTeacher
from transformers_bark.training import data

class Slow(ToneTeacher):
    def speak(self, text, speed, seed):
        if text == "we saw you":
            print("in the second shard", flush=True)
            time.sleep(60)
        return super().speak(text, speed, seed)

data.Teacher = Slow
data.synthesize_shards(sys.argv[2:], sys.argv[1], 2, (1.0, 1.2), 3)
"""


@pytest.mark.slow
def test_a_killed_run_is_taken_up_and_ends_like_a_whole_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), *TEXTS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert process.stdout is not None
    assert any("second shard" in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.wait()
    half = tmp_path / "killed" / "00001.part"
    half.mkdir()
    (half / "state.json").write_text("half a shard")
    finished = (tmp_path / "killed" / "00000" / "state.json").stat().st_mtime_ns
    synthesize(tmp_path / "killed")
    synthesize(tmp_path / "whole")
    assert (tmp_path / "killed" / "00000" / "state.json").stat().st_mtime_ns == finished
    killed, whole = ([shard.to_list() for shard in load_shards(tmp_path / name)] for name in ("killed", "whole"))
    assert killed == whole


def test_a_shard_that_another_run_makes_is_left_to_it(tmp_path: Path) -> None:
    with FileLock(tmp_path / "00001.lock"):
        synthesize(tmp_path)
        assert [path.name for path in sorted(tmp_path.iterdir()) if path.is_dir()] == ["00000", "00002"]
    synthesize(tmp_path)
    assert len(load_shards(tmp_path)) == 3


@pytest.mark.slow
def test_the_teacher_tells_where_its_words_are() -> None:
    pytest.importorskip("hibari")
    pytest.importorskip("onnx")
    teacher = Teacher()
    assert teacher.speak(" ", 1.0, 0) is None  # no word
    read = "Dr. Lee left at 5:30."
    otherwise = teacher.speak(read, 1.0, 0)
    assert otherwise is not None
    assert [read[a:b] for a, b in otherwise.word_chars] == ["Dr.", "Lee", "left", "at", "5:30."]
    text = "The train was late, again."
    utterance = teacher.speak(text, 1.1, 7)
    again = teacher.speak(text, 1.1, 7)
    assert utterance is not None and again is not None
    assert np.array_equal(utterance.audio, again.audio)
    assert len(utterance.phoneme_frames) == len(utterance.phonemes) + 2
    assert abs(len(utterance.audio) - FRAME * sum(utterance.phoneme_frames)) <= 2 * FRAME
    assert [text[a:b] for a, b in utterance.word_chars] == ["The", "train", "was", "late", ",", "again", "."]
    bounds = [bound for word in utterance.word_frames for bound in word]
    assert bounds == sorted(bounds) and bounds[-1] * FRAME <= len(utterance.audio)
    power = np.square(utterance.audio.astype(np.float64))
    spoken = np.concatenate([power[a * FRAME : b * FRAME] for a, b in utterance.word_frames])
    # the sound may be a frame ahead of the durations
    ends = np.concatenate([power[: (bounds[0] - 1) * FRAME], power[bounds[-1] * FRAME :]])
    assert spoken.mean() > 20 * ends.mean()


def test_voices_get_their_shares_and_the_hash_follows_the_data(tmp_path: Path) -> None:
    texts = [f"the {word} sat" for word in ("cat", "dog", "fox", "cow", "hen", "pig", "owl", "bee")] * 4
    for folder, seed in (("a", 3), ("again", 3), ("other", 4)):
        synthesize_shards(texts, tmp_path / folder, 16, (1.0, 1.2), seed, {"one": 1.0, "two": 1.25}, [0.9, 0.1])
    voices = [voice for shard in load_shards(tmp_path / "a") for voice in shard["voice"]]
    assert 1 <= voices.count("two") <= 8 and len(voices) == 32
    first, again, other = (data.data_hash(load_shards(tmp_path / name)) for name in ("a", "again", "other"))
    assert first == again != other and len(first) == 64
