"""What must hold on a GPU. Each check takes a device; on "cpu" it runs too, so that it is known to work before there is a GPU.

`test_gpu.py` gives them to pytest; `python -m tests.gpu.run` runs them without it.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tests.tiny import tiny_model, tiny_voice
from transformers_bark import BARK_NANO, BarkModel, BarkProcessor, codec
from transformers_bark.engines import EngineChoice, TorchCausal, compiled_engine
from transformers_bark.engines.compiled_engine import CompiledCausal
from transformers_bark.generation import semantic
from transformers_bark.generation.sampling import Draws

ENGINES = ("torch", "compiled", "auto")
ERRORS = {"fp32": 1e-4, "bf16": 0.06}
"""Largest difference of logits from those of a CPU in fp32, as a part of their norm."""
AUDIO_ERROR = 0.01
"""The same for audio: convolutions on CUDA may round to TF32."""
STAGES = ("semantic_tokens", "coarse_codes", "fine_codes")


@cache
def _tiny() -> BarkModel:
    return tiny_model(seed=1)


@cache
def _nano() -> tuple[BarkModel, BarkProcessor]:
    return BarkModel.from_pretrained(BARK_NANO).eval(), BarkProcessor.from_pretrained(BARK_NANO)


def _on(model: BarkModel, device: str, engine: str = "auto", precision: str | None = "fp32") -> BarkModel:
    """A copy on the device. On a CPU nothing is compiled: that takes minutes, and is tested with the engines."""
    if device == "cpu":
        engine = "torch" if engine == "auto" else engine
    return copy.deepcopy(model).to(device).set_engine(engine, precision)


@contextmanager
def _uncompiled(device: str) -> Iterator[None]:
    """On a CPU the engine "compiled" runs what it would record on CUDA."""
    backend = "none" if device == "cpu" else compiled_engine.default_backend(torch.device(device))
    with mock.patch.object(compiled_engine, "default_backend", lambda device: backend):
        yield


def _texts(n_rows: int) -> dict[str, Any]:
    """Inputs of the tiny model, with voices in every third row."""
    lengths = [5 + row % 7 for row in range(n_rows)]
    ids = torch.randint(1, 60, (n_rows, 12), generator=torch.Generator().manual_seed(7))
    mask = (torch.arange(12) < torch.tensor(lengths)[:, None]).long()
    voices = [tiny_voice(n_semantic=8 + row) if row % 3 == 0 else None for row in range(n_rows)]
    return {"input_ids": ids * mask, "attention_mask": mask, "history_prompt": voices}


def _speak(model: BarkModel, n_rows: int = 3, **options: Any) -> Any:
    inputs = {
        name: part.to(model.device) if isinstance(part, Tensor) else part for name, part in _texts(n_rows).items()
    }
    settings = {"do_sample": True, "seed": 3, "min_eos_p": 0.02, "progress": False, **options}
    return model.generate(**inputs, return_dict_in_generate=True, **settings)


def _require_equal(left: Any, right: Any, names: tuple[str, ...] = STAGES) -> None:
    """Tokens of every row, by stage."""
    for name in names:
        for row, (a, b) in enumerate(zip(getattr(left, name), getattr(right, name), strict=True)):
            a, b = a.cpu(), b.cpu()
            if a.shape != b.shape or not torch.equal(a, b):
                n_same = int((a.flatten()[: b.numel()] == b.flatten()[: a.numel()]).sum())
                raise AssertionError(f"{name} of row {row}: {n_same} of {a.numel()} and {b.numel()} tokens are equal")


def _error(near: Tensor, exact: Tensor) -> float:
    near, exact = near.detach().float().cpu(), exact.detach().float().cpu()
    return float((near - exact).norm() / exact.norm())


@torch.no_grad()
def logits_are_those_of_the_cpu(device: str, engine: str, precision: str) -> None:
    """Rows of unlike length over several rooms of the cache; some leave on the way, and the bucket shrinks."""
    exact = _tiny().semantic
    with mock.patch.object(compiled_engine, "ROOM", 16), _uncompiled(device):
        run = _on(_tiny(), device, engine, precision).semantic.engine
        generator = torch.Generator().manual_seed(0)
        prompts = [torch.randint(0, 120, (n,), generator=generator) for n in (4, 21, 9, 13, 6)]
        tokens = torch.randint(0, 40, (30, 5), generator=generator)
        logits, state = run.prefill([exact.input_embeds_layer(prompt).to(device) for prompt in prompts], 31)
        rows, seen = list(range(5)), list(prompts)
        for turn in range(30):
            for place, row in enumerate(rows):
                error = _error(logits[place], exact(seen[row][None]).logits[0, -1])
                assert error < ERRORS[precision], f"step {turn}, row {row}: {error:.1e}"
            if turn in (5, 11):
                kept = [0, 2, 3, 4] if turn == 5 else [1, 3]
                rows = [rows[place] for place in kept]
                state = run.keep_rows(state, kept)
            logits, state = run.step(state, tokens[turn, rows].to(device))
            seen = [torch.cat([ids, tokens[turn, row, None]]) for row, ids in enumerate(seen)]


@torch.no_grad()
def fine_logits_are_those_of_the_cpu(device: str, engine: str, precision: str) -> None:
    exact = _tiny().fine_acoustics
    with _uncompiled(device):
        run = _on(_tiny(), device, engine, precision).fine_acoustics.engine
        for n_rows, first in ((1, 0), (3, 5), (4, 0)):
            codes = torch.randint(0, 32, (n_rows, 32, 4), generator=torch.Generator().manual_seed(n_rows))
            error = _error(run.forward(3, codes.to(device), first), exact(3, codes).logits[:, first:])
            assert error < ERRORS[precision], f"{n_rows} rows: {error:.1e}"


def greedy_tokens_are_those_of_the_cpu(device: str, engine: str) -> None:
    with _uncompiled(device):
        options = {"do_sample": False, "min_eos_p": None}
        _require_equal(_speak(_on(_tiny(), device, engine), **options), _speak(_tiny(), **options))


def nano_says_what_it_says_on_the_cpu(device: str, engine: str) -> None:
    """Greedy, half a second: real weights and real positions."""
    model, processor = _nano()
    inputs = processor("Good morning, my friends.")
    options = {"do_sample": False, "max_new_tokens": 20, "return_dict_in_generate": True, "progress": False}
    with _uncompiled(device):
        there = _on(model, device, engine).generate(**inputs.to(device), **options)
        here = model.generate(**inputs.to("cpu"), **options)
    _require_equal(there, here)
    error = _error(there.audio, here.audio)
    assert error < AUDIO_ERROR, f"audio differs by {error:.1e}"


def bf16_speaks(device: str, engine: str) -> None:
    model, processor = _nano()
    with _uncompiled(device):
        output = _on(model, device, engine, "bf16").generate(
            **processor("Good morning.").to(device), seed=1, progress=False
        )
    assert output.isfinite().all() and output.abs().max() > 0.01


def a_row_is_the_same_in_any_batch(device: str, engine: str) -> None:
    with _uncompiled(device):
        model = _on(_tiny(), device, engine)
        together = _speak(model, 9, seed=list(range(9)))
        inputs = _texts(9)
        for row in (0, 4, 8):
            own = {"history_prompt": [inputs["history_prompt"][row]], "seed": [row]}
            own |= {name: inputs[name][row : row + 1].to(device) for name in ("input_ids", "attention_mask")}
            alone = model.generate(**own, do_sample=True, min_eos_p=0.02, progress=False, return_dict_in_generate=True)
            for name in STAGES:
                assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row]), f"{name} of row {row}"


def a_stream_says_the_whole(device: str, engine: str) -> None:
    with _uncompiled(device):
        model = _on(_tiny(), device, engine)
        ids = torch.tensor([[5, 6, 7, 8]], device=device)
        options = {"do_sample": True, "semantic_allow_early_stop": False, "seed": 4, "return_dict_in_generate": True}
        whole = model.generate(ids, progress=False, **options)
        stream = model.generate_stream(ids, chunk_seconds=0.2, **options)
        pieces = [next(stream)]
        model.generate(ids, progress=False, **{**options, "seed": 9})  # another sentence while the stream waits
        pieces += stream
        codes = torch.cat([piece.fine_codes for piece in pieces], dim=1)
        assert len(pieces) > 2 and torch.equal(codes[:2], whole.coarse_codes[0])
        with torch.no_grad():
            decoded = codec.decode(model.codec_model, [codes])[0]
        assert _error(torch.cat([piece.audio for piece in pieces]), decoded) < AUDIO_ERROR


def ends_seen_late_change_nothing(device: str, engine: str) -> None:
    with _uncompiled(device):
        model = _on(_tiny(), device, engine)
        said = []
        for steps in (1, 8, 1000):
            with mock.patch.dict(semantic.UNSEEN_STEPS, {torch.device(device).type: steps}):
                said.append(_speak(model, 6))
        assert len({len(row) for row in said[0].semantic_tokens}) > 1
        _require_equal(said[1], said[0])
        _require_equal(said[2], said[0])


def seeds_decide(device: str, engine: str) -> None:
    with _uncompiled(device):
        model = _on(_tiny(), device, engine)
        first, again, other = (_speak(model, seed=seed, allow_early_stop=False) for seed in (1, 1, 2))
        _require_equal(first, again)
        assert not torch.equal(first.coarse_codes[0][:, :4], other.coarse_codes[0][:, :4])


def draws_are_the_rows_own(device: str) -> None:
    there, here = Draws.from_seed([1, 2], 2), Draws.from_seed([1, 2], 2)
    for rows in [[0, 1]] * 70 + [[1], [0]] + [[1, 0]] * 5:
        drawn = there.next_uniforms("coarse", rows, torch.device(device)).cpu()
        assert torch.equal(drawn, torch.cat([here.uniforms("coarse", row, 1) for row in rows]))


@torch.no_grad()
def steps_replay_after_many_shapes(device: str) -> None:
    """Batches of many sizes take turns with one that goes on, whose graphs must still read and write its own memory."""
    exact = _on(_tiny(), device, "torch").semantic
    run, plain = CompiledCausal(exact, "none"), TorchCausal(exact)
    prompt = [exact.input_embeds_layer(torch.arange(5, device=device))]
    (_, state), (_, expected) = run.prefill(prompt, 40), plain.prefill(prompt, 40)
    with mock.patch.object(compiled_engine, "ROOM", 16):
        for turn in range(30):
            token = torch.tensor([turn], device=device)
            logits, state = run.step(state, token)
            wanted, expected = plain.step(expected, token)
            assert _error(logits, wanted) < 1e-4, f"step {turn}"
            _, other = run.prefill(prompt * (1 + turn % 9), 4)
            run.step(other, token.expand(1 + turn % 9), (0, 8 + turn % 3))
    memory = state.lease.memory
    assert len(memory.steps) > 1
    if device != "cpu":
        names = {step.__name__ for step in memory.steps.values()}
        assert names == {"replay"}, f"steps are {names}, and not recorded"


def the_codec_decodes_rows_together(device: str) -> None:
    model = _nano()[0].codec_model
    books, generator = len(model.quantizer.layers), torch.Generator().manual_seed(0)
    rows = [torch.randint(0, model.config.codebook_size, (books, n), generator=generator) for n in (140, 1, 0, 30)]
    with torch.no_grad():
        exact = codec.decode(model, rows)
        there = codec.decode_together(copy.deepcopy(model).to(device), [row.to(device) for row in rows])
    assert [len(row) for row in there] == [len(row) for row in exact]
    assert max(_error(a, b) for a, b in zip(there, exact, strict=True) if len(b)) < AUDIO_ERROR


def offloaded_models_say_the_same(device: str, engine: str) -> None:
    with _uncompiled(device):
        plain = _speak(_on(_tiny(), device, engine))
        model = copy.deepcopy(_tiny()).set_engine("torch" if device == "cpu" and engine == "auto" else engine, "fp32")
        model.enable_cpu_offload(device=torch.device(device))
        for _ in range(2):
            _require_equal(_speak(model), plain)
        assert device == "cpu" or all(part.device.type == "cpu" for part in model.semantic.layers.parameters())


def memory_is_freed(device: str, engine: str) -> None:
    """What a model and its graphs took is there again when it is gone."""
    if device == "cpu":
        return
    _speak(_on(_tiny(), device, engine))  # the libraries' own
    gc.collect()
    before = torch.cuda.memory_allocated()
    model, processor = _nano()
    model = _on(model, device, engine)
    inputs = processor(["Good morning."] * 16).to(device)
    model.generate(**inputs, seed=1, max_new_tokens=60, allow_early_stop=False, progress=False)
    taken = torch.cuda.memory_allocated() - before
    del model, inputs
    gc.collect()
    left = torch.cuda.memory_allocated() - before
    assert taken > 100 * 2**20 and left < 40 * 2**20, f"{taken / 2**20:.0f} MB were taken, {left / 2**20:.0f} are left"


def auto_is_recorded_bf16(device: str) -> None:
    if device == "cpu":
        return
    choice = EngineChoice("auto").for_device(torch.device(device))
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    assert (choice.name, choice.precision) == ("compiled", "bf16" if bf16 else None)


def _all() -> dict[str, Callable[[str], None]]:
    """Every check with each engine (and precision) that it is for, by name."""
    by_precision = (logits_are_those_of_the_cpu, fine_logits_are_those_of_the_cpu)
    by_engine = (
        greedy_tokens_are_those_of_the_cpu,
        a_row_is_the_same_in_any_batch,
        a_stream_says_the_whole,
        ends_seen_late_change_nothing,
        seeds_decide,
        offloaded_models_say_the_same,
        nano_says_what_it_says_on_the_cpu,
        bf16_speaks,
        memory_is_freed,
    )
    checks: dict[str, Callable[[str], None]] = {}
    for check in (auto_is_recorded_bf16, draws_are_the_rows_own, steps_replay_after_many_shapes):
        checks[check.__name__] = check
    for engine in ENGINES:
        for check in by_precision:
            for precision in ERRORS:
                checks[f"{check.__name__}[{engine}-{precision}]"] = partial(check, engine=engine, precision=precision)
    for check in by_engine:
        for engine in ENGINES:
            checks[f"{check.__name__}[{engine}]"] = partial(check, engine=engine)
    checks["the_codec_decodes_rows_together"] = the_codec_decodes_rows_together
    return checks


CHECKS = _all()
