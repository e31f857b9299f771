"""One thread, many callers: each gets what he gets alone, and who leaves is gone before the next step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import tiny_voice
from transformers_bark import BarkModel, BarkProcessor
from transformers_bark.generation.streaming import Pieces
from transformers_bark.serving.scheduler import Job, Options, Scheduler, StoppedError, Take

TEXTS = ["hello my dog", "the quick cat", "my dog is cooler than you !", "hello"]


@pytest.fixture
def speaker(checkpoint: Path) -> tuple[BarkModel, BarkProcessor]:
    return BarkModel.from_pretrained(checkpoint).eval(), BarkProcessor.from_pretrained(checkpoint)


@pytest.fixture
def scheduler(speaker: tuple[BarkModel, BarkProcessor]) -> Iterator[Scheduler]:
    one = Scheduler(speaker[0], slots=3)
    yield one
    one.stop()


def job(
    speaker: tuple[BarkModel, BarkProcessor],
    number: int,
    caller: int | None = None,
    told: Callable[[np.ndarray], None] | None = None,
    **options: Any,
) -> Job:
    model, processor = speaker
    inputs = processor([TEXTS[number % len(TEXTS)]])
    voice = tiny_voice(seed=number) if number % 2 else None
    whose = number if caller is None else caller
    asked = Options.of(model, options)
    early = {} if told is None else {"early": True, "told": told}
    return Job(whose, inputs["input_ids"], inputs["attention_mask"], voice, asked, 50 + number, **early)


def alone(speaker: tuple[BarkModel, BarkProcessor], number: int, **options: Any) -> torch.Tensor:
    model, processor = speaker
    voice = tiny_voice(seed=number) if number % 2 else None
    inputs = processor([TEXTS[number % len(TEXTS)]], voice_preset=voice)
    return model.generate(**inputs, seed=50 + number, progress=False, **options)[0]


def test_every_caller_gets_what_generate_gives_alone(
    scheduler: Scheduler, speaker: tuple[BarkModel, BarkProcessor]
) -> None:
    options: list[dict[str, Any]] = [{}, {"do_sample": True}, {"do_sample": True, "temperature": 0.6}]
    expected = [alone(speaker, number, **options[number % 3]) for number in range(9)]
    scheduler.start()
    jobs = []
    for number in range(9):
        jobs.append(scheduler.submit(job(speaker, number, **options[number % 3])))
        time.sleep(0.01)  # they come while others are decoded
    for one, audio in zip(jobs, expected, strict=True):
        take = one.result.result(30)
        assert isinstance(take, Take) and torch.equal(torch.from_numpy(take.audio), audio)
    assert scheduler.working == scheduler.waiting == 0


def test_early_pieces_are_what_generate_stream_gives_alone(
    scheduler: Scheduler, speaker: tuple[BarkModel, BarkProcessor]
) -> None:
    """Beside others, who get what they get alone; and the take holds all pieces, and their codes."""
    model, processor = speaker
    options = {"do_sample": True, "fine_temperature": 0.5, "semantic_min_new_tokens": 40}
    streamed = []
    for number in range(4):
        inputs = processor([TEXTS[number]], voice_preset=tiny_voice(seed=number) if number % 2 else None)
        streamed.append(
            list(model.generate_stream(**inputs, seed=50 + number, return_dict_in_generate=True, **options))
        )
    whole = alone(speaker, 2, **options)
    told: list[list[np.ndarray]] = [[] for _ in streamed]
    jobs = [scheduler.submit(job(speaker, 2, **options))]
    jobs += [scheduler.submit(job(speaker, number, told=told[number].append, **options)) for number in range(4)]
    scheduler.start()
    takes = [one.result.result(30) for one in jobs]
    assert torch.equal(torch.from_numpy(takes[0].audio), whole)
    assert max(map(len, streamed)) > 1
    for take, pieces, expected in zip(takes[1:], told, streamed, strict=True):
        for piece, other in zip(pieces, expected[:-1], strict=True):
            assert np.array_equal(piece, other.audio.numpy())
        assert np.array_equal(take.audio, torch.cat([piece.audio for piece in expected]).numpy())
        assert torch.equal(take.made.fine_prompt, torch.cat([piece.fine_codes for piece in expected], dim=1))


def test_an_early_piece_that_fails_ends_its_job_alone(
    scheduler: Scheduler, speaker: tuple[BarkModel, BarkProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Pieces, "more", fail)
    options = {"semantic_min_new_tokens": 40}
    early = scheduler.submit(job(speaker, 0, told=lambda _: None, **options))
    other = scheduler.submit(job(speaker, 1, **options))
    scheduler.start()
    with pytest.raises(RuntimeError, match="no memory"):
        early.result.result(30)
    assert torch.equal(torch.from_numpy(other.result.result(30).audio), alone(speaker, 1, **options))
    assert scheduler.working == 0


def test_who_leaves_is_gone_before_the_next_step(
    scheduler: Scheduler, speaker: tuple[BarkModel, BarkProcessor]
) -> None:
    """In whichever stage: its place is free, and what it drew is forgotten."""
    seen: list[int] = []
    scheduler._observe = lambda rows, waiting: seen.append(rows)
    jobs = [job(speaker, number, do_sample=True, semantic_min_new_tokens=40) for number in range(3)]
    for one in jobs:
        scheduler.submit(one)
    with torch.no_grad():
        for turn in range(60):
            scheduler._turn()
            if turn in (3, 45):
                gone = jobs[0 if turn == 3 else 1]
                scheduler.cancel([gone])
                before = scheduler.working
                scheduler._turn()
                assert scheduler.working == before - 1 and gone.owner not in scheduler._draws.seeds
                assert len(scheduler._semantic) + len(scheduler._coarse) + len(scheduler._filling) == before - 1
        while not jobs[2].result.done():
            scheduler._turn()
    assert torch.equal(
        torch.from_numpy(jobs[2].result.result().audio), alone(speaker, 2, do_sample=True, semantic_min_new_tokens=40)
    )
    with pytest.raises(CancelledError):
        jobs[0].result.result(0)
    assert not scheduler._draws.generators and not scheduler._draws.seeds


def test_places_are_shared_evenly(scheduler: Scheduler, speaker: tuple[BarkModel, BarkProcessor]) -> None:
    """Ten pieces of one caller do not hold up another, who comes later."""
    many = [scheduler.submit(job(speaker, 2, caller=1)) for _ in range(10)]
    one = scheduler.submit(job(speaker, 2, caller=2))
    scheduler.start()
    one.result.result(30)
    assert sum(other.result.done() for other in many) <= 4


def test_an_error_ends_the_jobs_of_its_batch_and_nothing_else(
    scheduler: Scheduler, speaker: tuple[BarkModel, BarkProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(scheduler._semantic, "step", broken)
    failing = scheduler.submit(job(speaker, 0))
    scheduler.start()
    with pytest.raises(RuntimeError, match="out of memory"):
        failing.result.result(30)
    monkeypatch.undo()
    assert len(scheduler.submit(job(speaker, 1)).result.result(30).audio)


def test_what_waits_when_it_stops_is_told(scheduler: Scheduler, speaker: tuple[BarkModel, BarkProcessor]) -> None:
    jobs = [scheduler.submit(job(speaker, number)) for number in range(6)]
    scheduler.start()
    scheduler.stop()
    for one in jobs:
        if one.result.exception(5) is not None:
            assert isinstance(one.result.exception(), StoppedError)
    with pytest.raises(StoppedError):
        scheduler.submit(job(speaker, 0))
    assert "bark-model" not in [thread.name for thread in threading.enumerate()]


def test_calls_run_where_the_model_is(scheduler: Scheduler) -> None:
    scheduler.start()
    assert scheduler.call(lambda: threading.current_thread().name).result(5) == "bark-model"
    with pytest.raises(ZeroDivisionError):
        scheduler.call(lambda: 1 / 0).result(5)
