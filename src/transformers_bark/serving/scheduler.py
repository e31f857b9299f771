"""Who computes when: one thread owns the model, and rows of all callers share its batches.

A job is one generation. It waits, then goes through the semantic batch, the coarse batch, the fine stage and the codec. Between two
steps of a batch new rows join and those of callers who have left go, so nobody waits for a batch to end. What a job gives is what
`BarkModel.generate` gives for it alone.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import codec
from ..generation import coarse, fine, semantic
from ..generation.continuous import MOST_PROMPTS, CoarseBatch, SemanticBatch
from ..generation.fine import generate_fine
from ..generation.options import (
    CoarseOptions,
    FineOptions,
    SemanticOptions,
    coarse_options,
    config_options,
    fine_options,
    semantic_options,
    split_options,
)
from ..generation.processors import check_audio
from ..generation.sampling import Draws
from ..generation.streaming import CHUNK_SECONDS, Pieces
from ..voices import VoicePreset

logger = logging.getLogger(__name__)

SLOTS = {"cpu": 16, "cuda": 64}
"""Rows that are decoded together."""

_FINE_ROWS = {"cpu": 1, "cuda": 16}
"""Rows whose codebooks are filled together: on a CPU one window keeps every core busy, and others would wait for more."""


@dataclass(frozen=True, eq=False)
class Options:
    """How a job is sampled."""

    semantic: SemanticOptions
    coarse: CoarseOptions
    fine: FineOptions

    @classmethod
    def of(cls, model: Any, given: Mapping[str, Any]) -> Options:
        """Options as a caller of `BarkModel.generate` gives them.

        Raises:
            TypeError: an unknown option.
            ValueError: a value that a stage or the model cannot meet.
        """
        config = model.generation_config
        routed = split_options({**config_options(config), **given})
        options = cls(
            semantic_options(config.semantic_config, routed["semantic"]),
            coarse_options(config.coarse_acoustics_config, routed["coarse"]),
            fine_options(config.fine_acoustics_config, routed["fine"]),
        )
        semantic.check_options(model.semantic, config.semantic_config, options.semantic)
        coarse.check_options(model.coarse_acoustics, config.coarse_acoustics_config, options.coarse)
        fine.check_options(config.codebook_size, options.fine, model.device)
        return options


@dataclass(frozen=True, eq=False)
class Take:
    """What a job gives: audio, float32 [samples], and all tokens of the generation."""

    audio: np.ndarray
    made: VoicePreset


@dataclass(eq=False)
class Job:
    """One generation.

    Args:
        caller: whose it is; places are shared evenly among callers.
        input_ids, attention_mask: of the text, [1, length].
        early: make the audio in pieces, as `BarkModel.generate_stream` does, and not at once, as `BarkModel.generate`; without
            effect where the codec looks ahead.
        told: gets each piece but the last as soon as it is made, float32 [samples]; called on the scheduler's thread.
        result: a `Take`, or the error. To cancel it is to take the job out of its batch before the next step.
    """

    caller: int
    input_ids: Tensor
    attention_mask: Tensor | None
    voice: VoicePreset | None
    options: Options
    seed: int
    early: bool = False
    told: Callable[[np.ndarray], None] = lambda audio: None
    result: Future[Take] = field(default_factory=Future)
    owner: int = -1
    tokens: Tensor | None = None
    codes: Tensor | None = None
    pieces: Pieces | None = None
    audio: list[np.ndarray] = field(default_factory=list)


Observe = Callable[[int, int], None]
"""Told at every step how many rows are decoded, and how many jobs wait."""


class StoppedError(RuntimeError):
    """The scheduler has been stopped: nothing is generated any more."""


class Scheduler:
    """Runs jobs on a thread of its own.

    Args:
        model: a `BarkModel`, used by nobody else.
        slots: rows that are decoded together; by default 16 on a CPU, 64 on a GPU.
        observe: see `Observe`; called on the scheduler's thread.
    """

    def __init__(self, model: Any, slots: int | None = None, observe: Observe = lambda rows, waiting: None) -> None:
        self.model = model
        self.slots = slots or SLOTS.get(model.device.type, 16)
        config, self._observe = model.generation_config, observe
        self._fine_rows = _FINE_ROWS.get(model.device.type, 1)
        self._draws = Draws(seeds={})
        self._semantic = SemanticBatch(model.semantic, config.semantic_config, self._draws)
        stages = (config.semantic_config, config.coarse_acoustics_config, config.codebook_size)
        self._coarse = CoarseBatch(model.coarse_acoustics, *stages, self._draws)
        self._filling: deque[Job] = deque()
        self._working: dict[int, Job] = {}
        self._owners = itertools.count()
        # what other threads touch, under the condition
        self._changed = threading.Condition()
        self._waiting: dict[int, deque[Job]] = {}
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._cancelled = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="bark-model", daemon=True)

    def start(self) -> Scheduler:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends the thread; jobs that are not finished fail with `StoppedError`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Jobs that have no place yet."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    @property
    def working(self) -> int:
        """Jobs that have a place."""
        return len(self._working)

    def submit(self, job: Job) -> Job:
        """Lines a job up.

        Raises:
            StoppedError: after `stop`.
        """
        with self._changed:
            if self._stopping:
                raise StoppedError("the service is shutting down")
            self._waiting.setdefault(job.caller, deque()).append(job)
            self._changed.notify_all()
        return job

    def cancel(self, jobs: Iterable[Job]) -> None:
        """Takes jobs out before the next step."""
        with self._changed:
            for job in jobs:
                job.result.cancel()
            self._cancelled = True
            self._changed.notify_all()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Runs something short that needs the model, between two steps.

        Raises:
            StoppedError: after `stop`.
        """
        result: Future[Any] = Future()
        with self._changed:
            if self._stopping:
                raise StoppedError("the service is shutting down")
            self._calls.append((function, result))
            self._changed.notify_all()
        return result

    def warm_codec(self) -> None:
        """Decodes every length that a first piece of audio has: kernels are prepared anew for each; to be run by `call`."""
        config = self.model.generation_config
        for n_frames in range(codec.STRIDE, codec.PIECE + 1, codec.STRIDE):
            shape = (config.fine_acoustics_config.n_fine_codebooks, n_frames)
            codec.decode(self.model.codec_model, [torch.zeros(shape, dtype=torch.long, device=self.model.device)])

    def _run(self) -> None:
        with torch.no_grad():
            while self._wait():
                self._turn()
        self._fail(list(self._working.values()), StoppedError("the service is shutting down"))
        with self._changed:
            left = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
            calls, self._calls = list(self._calls), deque()
        self._fail(left, StoppedError("the service is shutting down"))
        for _, result in calls:
            result.cancel()

    def _wait(self) -> bool:
        """Until there is something to do; False when there never will be again."""
        with self._changed:
            while not (self._stopping or self._waiting or self._calls or self._working):
                self._changed.wait()
            return not self._stopping

    def _turn(self) -> None:
        """One step of every stage."""
        self._drop_cancelled()
        self._make_calls()
        self._admit()
        if len(self._semantic):
            self._guarded("semantic", self._step_semantic)
        if len(self._coarse):
            self._guarded("coarse", self._step_coarse)
        if self._filling:
            self._fill()
        self._observe(len(self._working), self.waiting)

    def _drop_cancelled(self) -> None:
        with self._changed:
            if not self._cancelled:
                return
            self._cancelled = False
            for caller, jobs in list(self._waiting.items()):
                kept = deque(job for job in jobs if not job.result.cancelled())
                if kept:
                    self._waiting[caller] = kept
                else:
                    del self._waiting[caller]
        gone = {owner for owner, job in self._working.items() if job.result.cancelled()}
        if gone:
            self._semantic.leave(gone)
            self._coarse.leave(gone)
            self._filling = deque(job for job in self._filling if job.owner not in gone)
            self._forget(gone)

    def _make_calls(self) -> None:
        while self._calls:
            function, result = self._calls.popleft()
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(function())
                except Exception as error:
                    result.set_exception(error)

    def _next(self) -> Job | None:
        """The job whose caller has the fewest places; of several, the one that has waited longest."""
        with self._changed:
            if not self._waiting:
                return None
            places = [job.caller for job in self._working.values()]
            caller = min(self._waiting, key=places.count)  # a dict keeps the order in which callers came
            jobs = self._waiting[caller]
            job = jobs.popleft()
            if not jobs:
                del self._waiting[caller]
            return job

    def _admit(self) -> None:
        """Gives free places to those who wait."""
        new: list[tuple[int, Tensor, SemanticOptions]] = []
        while len(self._working) < self.slots and len(new) < MOST_PROMPTS:
            job = self._next()
            if job is None:
                break
            if job.result.cancelled():
                continue
            job.owner = next(self._owners)
            try:
                past = None if job.voice is None else job.voice.semantic_prompt
                prompt = self._semantic.prompt(job.input_ids, job.attention_mask, past, job.options.semantic)
            except Exception as error:
                self._fail([job], error)
                continue
            self._working[job.owner] = job
            self._draws.admit(job.owner, job.seed)
            new.append((job.owner, prompt, job.options.semantic))
        if new:
            self._guarded("semantic", lambda: self._semantic.join(new))

    def _guarded(self, stage: str, work: Callable[[], None]) -> None:
        """Runs a step. An error of a whole batch ends the jobs in it, and nothing else."""
        try:
            work()
        except Exception as error:
            logger.exception("the %s stage failed", stage)
            batch = self._semantic if stage == "semantic" else self._coarse
            batch.clear()
            in_batch = [job for job in self._working.values() if (job.tokens is None) == (stage == "semantic")]
            self._fail([job for job in in_batch if job.codes is None], error)

    def _step_semantic(self) -> None:
        for owner, tokens in self._semantic.step().items():
            job = self._working[owner]
            if isinstance(tokens, ValueError):
                self._fail([job], tokens)
                continue
            job.tokens = tokens
            pair = None if job.voice is None else (job.voice.semantic_prompt, job.voice.coarse_prompt)
            self._coarse.join(owner, tokens, pair, job.options.coarse)
            if job.early and self.model.codec_model.config.use_causal_conv:
                draws = Draws.from_seed(job.seed, 1)  # the fine stage has generators of its own
                parts = (self.model, job.voice, self.model.generation_config, job.options.fine, draws)
                job.pieces = Pieces(*parts, CHUNK_SECONDS)

    def _step_coarse(self) -> None:
        for owner, codes in self._coarse.frame().items():
            job = self._working[owner]
            if isinstance(codes, ValueError):
                self._fail([job], codes)
                continue
            job.codes = codes
            self._filling.append(job)
        early = {owner: job.pieces for owner, job in self._working.items() if job.pieces and job.codes is None}
        for owner, codes in self._coarse.whole_windows(early).items():
            self._tell(self._working[owner], early[owner], codes)

    def _tell(self, job: Job, pieces: Pieces, codes: Tensor) -> None:
        """A piece of audio, if there are enough coarse codes for one."""
        try:
            piece = pieces.more(codes)
        except Exception as error:
            logger.exception("the fine stage failed")
            self._coarse.leave([job.owner])
            self._fail([job], error)
            return
        if piece is not None:
            job.audio.append(_as_array(piece[0]))
            job.told(job.audio[-1])

    def _fill(self) -> None:
        """The fine stage and the codec for those who have waited longest."""
        jobs = [self._filling.popleft() for _ in range(min(self._fine_rows, len(self._filling)))]
        first = _way(jobs[0])
        later = [job for job in jobs if _way(job) != first]
        self._filling.extendleft(reversed(later))
        jobs = [job for job in jobs if job not in later]
        try:
            takes = self._speak(jobs) if jobs[0].pieces is None else [self._end_pieces(jobs[0], jobs[0].pieces)]
        except Exception as error:
            logger.exception("the fine stage failed")
            self._fail(jobs, error)
            return
        for job, take in zip(jobs, takes, strict=True):
            self._forget([job.owner])
            with suppress(InvalidStateError):  # its caller has left
                job.result.set_result(take)

    def _speak(self, jobs: list[Job]) -> list[Take]:
        model, config = self.model, self.model.generation_config
        coarse_codes = [job.codes for job in jobs if job.codes is not None]
        past = [None if job.voice is None else job.voice.fine_prompt for job in jobs]
        draws = Draws.from_seed([job.seed for job in jobs], len(jobs))  # the stage has generators of its own
        codes = generate_fine(
            model.fine_acoustics,
            coarse_codes,
            past,
            config.fine_acoustics_config,
            config.codebook_size,
            jobs[0].options.fine,
            draws,
        )
        audio = codec.decode(model.codec_model, codes)
        check_audio(audio)
        takes = []
        for job, filled, samples in zip(jobs, codes, audio, strict=True):
            assert job.tokens is not None and job.codes is not None
            made = VoicePreset(job.tokens.cpu(), job.codes.cpu(), filled.cpu())
            takes.append(Take(_as_array(samples), made))
        return takes

    @staticmethod
    def _end_pieces(job: Job, pieces: Pieces) -> Take:
        """The last piece, and with it the take."""
        assert job.tokens is not None and job.codes is not None
        if (piece := pieces.rest(job.codes)) is not None:
            job.audio.append(_as_array(piece[0]))
        audio = np.concatenate(job.audio) if job.audio else np.zeros(0, np.float32)
        return Take(audio, VoicePreset(job.tokens.cpu(), job.codes.cpu(), pieces.codes.cpu()))

    def _fail(self, jobs: Iterable[Job], error: Exception) -> None:
        jobs = list(jobs)
        self._forget([job.owner for job in jobs])
        for job in jobs:
            with suppress(InvalidStateError):
                job.result.set_exception(error)

    def _forget(self, owners: Iterable[int]) -> None:
        for owner in owners:
            self._working.pop(owner, None)
            self._draws.forget(owner)


def _way(job: Job) -> tuple[object, ...]:
    """Jobs of one way may be filled together; pieces are filled alone."""
    return (repr(job.options.fine), None if job.pieces is None else job.owner)


def _as_array(audio: Tensor) -> np.ndarray:
    return audio.float().cpu().numpy()
