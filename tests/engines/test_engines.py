"""Every engine decodes what the plain forward does, alone and in batches, and the models run on whichever is chosen."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.tiny import tiny_checkpoint, tiny_model, tiny_voice
from transformers_bark import BarkFineModel, BarkModel, BarkProcessor
from transformers_bark.engines import (
    EngineChoice,
    TorchCausal,
    TorchFine,
    compiled_engine,
    onnx_build,
    onnx_cache,
    onnx_engine,
)
from transformers_bark.engines.compiled_engine import CompiledCausal, CompiledFine
from transformers_bark.engines.onnx_engine import OnnxCausal, OnnxFine

MakeCausal = Callable[[Any], Any]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(params=["torch", "compiled", "recorded", "onnxruntime", "onnxruntime without head"])
def make(request: pytest.FixtureRequest, cache: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCausal:
    if request.param == "torch":
        return TorchCausal
    if request.param == "compiled":
        return lambda model: CompiledCausal(model, backend="eager")
    if request.param == "recorded":
        monkeypatch.setattr(compiled_engine, "record", stand_in_for_a_graph)
        return lambda model: CompiledCausal(model, backend="none")
    return lambda model: OnnxCausal(model, "fp32", "without" not in request.param, cache)


def stand_in_for_a_graph(run: Callable[[], torch.Tensor], stream: Any, pool: Any = None) -> Any:
    """As `record` on CUDA: warms up, and gives its result in the same memory each time."""
    run()
    output = run().clone()
    return lambda: output.copy_(run())


@torch.no_grad()
def test_rows_of_different_length_decode_as_the_plain_forward(make: MakeCausal) -> None:
    model = tiny_model().semantic
    engine = make(model)
    prompts = [torch.randint(0, 120, (length,)) for length in (4, 9, 7)]
    tokens = torch.randint(0, 40, (5, 3))
    logits, state = engine.prefill([model.input_embeds_layer(prompt) for prompt in prompts], 5)
    rows, seen = [0, 1, 2], list(prompts)
    for turn in range(5):
        for place, row in enumerate(rows):
            alone = model(seen[row][None]).logits[0, -1]
            assert torch.allclose(logits[place], alone, atol=1e-4)
        if turn == 2:
            rows = [0, 2]
            state = engine.keep_rows(state, rows)
        logits, state = engine.step(state, tokens[turn, rows])
        seen = [torch.cat([ids, tokens[turn, row, None]]) for row, ids in enumerate(seen)]


@torch.no_grad()
def test_the_longest_row_may_leave_first(make: MakeCausal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer positions are looked at then, and its own is not among them; the bucket stays as large."""
    monkeypatch.setattr(compiled_engine, "ROOM", 8)
    model = tiny_model().semantic
    engine = make(model)
    prompts = [torch.arange(length) for length in (21, 4, 6, 5)]
    _, state = engine.prefill([model.input_embeds_layer(prompt) for prompt in prompts], 9)
    state, seen = engine.keep_rows(state, [1, 3, 2]), [prompts[row] for row in (1, 3, 2)]
    for token in range(8):
        logits, state = engine.step(state, torch.full((3,), token))
        seen = [torch.cat([ids, torch.tensor([token])]) for ids in seen]
        for place, ids in enumerate(seen):
            assert torch.allclose(logits[place], model(ids[None]).logits[0, -1], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("order", ["short joins long", "long joins short"])
def test_rows_that_join_decode_as_the_plain_forward(
    make: MakeCausal, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes between steps, however long the prompts, and whoever has left before."""
    monkeypatch.setattr(compiled_engine, "ROOM", 8)
    model = tiny_model().semantic
    engine = make(model)
    lengths = [(12, 5, 8), (4, 3), (6,)] if order == "short joins long" else [(4, 3, 5), (12, 15), (20,)]
    batches = [[torch.randint(0, 120, (length,)) for length in group] for group in lengths]
    tokens, rooms = torch.randint(0, 40, (20, 3)), (14, 9, 11)

    def read(turn: int) -> tuple[torch.Tensor, Any]:
        return engine.prefill([model.input_embeds_layer(prompt) for prompt in batches[turn]], rooms[turn])

    def step(seen: list[torch.Tensor], state: Any, turn: int) -> tuple[list[torch.Tensor], Any]:
        new = tokens[turn : turn + len(seen), 0]
        logits, state = engine.step(state, new)
        seen = [torch.cat([ids, token[None]]) for ids, token in zip(seen, new, strict=True)]
        for place, ids in enumerate(seen):
            assert torch.allclose(logits[place], model(ids[None]).logits[0, -1], atol=1e-4)
        return seen, state

    seen, state = list(batches[0]), read(0)[1]
    for turn in range(3):
        seen, state = step(seen, state, turn)
    state, seen = engine.keep_rows(state, [2, 1]), [seen[2], seen[1]]
    state, seen = engine.join(state, read(1)[1]), seen + batches[1]
    for turn in range(3, 6):
        seen, state = step(seen, state, turn)
    state, seen = engine.keep_rows(state, [3, 0]), [seen[3], seen[0]]
    state, seen = engine.join(state, read(2)[1]), seen + batches[2]
    for turn in range(6, 12):
        seen, state = step(seen, state, turn)


@torch.no_grad()
def test_a_span_is_a_part_of_the_logits(make: MakeCausal) -> None:
    model = tiny_model().semantic
    engine = make(model)
    prompt = [model.input_embeds_layer(torch.arange(6))]
    (whole, one), (part, two) = engine.prefill(prompt, 2), engine.prefill(prompt, 2, (5, 17))
    assert torch.allclose(part, whole[:, 5:17], atol=1e-6)
    token = torch.tensor([3])
    assert torch.allclose(engine.step(two, token, (0, 4))[0], engine.step(one, token)[0][:, :4], atol=1e-6)


class Doubled(torch.nn.Linear):
    """Stands for what adapters and quantization put in a linear module's place."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(value)


@pytest.mark.parametrize("change", ["a hook", "another module", "eager attention", "bf16"])
@torch.no_grad()
def test_torch_runs_what_was_made_of_the_modules(change: str) -> None:
    model = tiny_model()
    causal, fine = model.semantic, model.fine_acoustics
    seen: list[int] = []
    for part in (causal, fine):
        if change == "a hook":
            part.layers[1].register_forward_hook(lambda module, args, out: seen.append(1))
        elif change == "another module":
            part.layers[0].mlp.in_proj.__class__ = Doubled
        elif change == "eager attention":
            part.set_attn_implementation("eager")
        else:
            part.to(torch.bfloat16)
    prompts = [torch.arange(5), torch.arange(8)]
    logits, state = TorchCausal(causal).prefill([causal.input_embeds_layer(prompt) for prompt in prompts], 1)
    logits, _ = TorchCausal(causal).step(state, torch.tensor([1, 2]))
    for row, prompt in enumerate(prompts):
        ids = torch.cat([prompt, torch.tensor([row + 1])])
        assert torch.allclose(logits[row], causal(ids[None]).logits[0, -1], atol=0.1 if change == "bf16" else 1e-4)
    codes = torch.randint(0, 32, (2, 12, 4))
    tolerance = 0.1 if change == "bf16" else 1e-4
    assert torch.allclose(TorchFine(fine).forward(3, codes, 5), fine(3, codes).logits[:, 5:], atol=tolerance)
    assert len(seen) == (2 + 2 + 2 if change == "a hook" else 0)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@torch.no_grad()
def test_the_fine_stack_leaves_out_frames_that_nobody_asks_for(engine: str, cache: Path) -> None:
    model: BarkFineModel = tiny_model().fine_acoustics
    run = EngineChoice(engine, cache_dir=cache).make(model).forward
    codes = torch.randint(0, 32, (2, 12, 4))
    plain = model(3, codes).logits
    assert torch.allclose(run(3, codes), plain, atol=1e-4)
    assert torch.allclose(run(3, codes, 5), plain[:, 5:], atol=1e-4)
    blocks: list[int] = []
    for block in model.layers:
        block.mlp.register_forward_hook(lambda module, args, out: blocks.append(out.shape[1]))
    model(3, codes, first_frame=5)
    assert blocks == [12] * (len(model.layers) - 1) + [7]
    with pytest.raises(ValueError, match="first_frame"):
        model(3, codes, first_frame=5, attention_mask=torch.ones(2, 12))


@pytest.mark.parametrize(
    "backend",
    ["none", "eager", pytest.param("inductor", marks=pytest.mark.slow)],
    ids=["to be recorded", "as it is", "by inductor"],
)
def test_compiled_says_what_torch_says(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_checkpoint(tmp_path)
    model = BarkModel.from_pretrained(folder).eval()
    plain = speak(model, folder)
    monkeypatch.setattr(compiled_engine, "CompiledCausal", partial(CompiledCausal, backend=backend))
    monkeypatch.setattr(compiled_engine, "CompiledFine", partial(CompiledFine, backend=backend))
    other = speak(model.set_engine("compiled"), folder)
    for name in ("semantic_tokens", "coarse_codes", "fine_codes"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(plain, name), getattr(other, name), strict=True)), name


@torch.no_grad()
def test_every_shape_is_compiled_once_however_many_there_are() -> None:
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(inputs)
        return graph.forward

    expected = 0
    for model in (tiny_model().fine_acoustics, tiny_model().fine_acoustics):
        engine, plain = CompiledFine(model, backend), TorchFine(model)  # type: ignore[arg-type]
        for length, n_rows in [(length, n_rows) for length in range(3, 9) for n_rows in (1, 3, 4, 1)]:
            codes = torch.randint(0, 9, (n_rows, length, 4), generator=torch.Generator().manual_seed(length))
            assert torch.allclose(engine.forward(2, codes, 1), plain.forward(2, codes, 1), atol=1e-5)
        expected += 6 * 2  # six lengths, and rows filled up to one or four
        assert len(compiled) == expected


@torch.no_grad()
def test_a_step_is_compiled_once_however_many_prompts_are_read() -> None:
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(inputs)
        return graph.forward

    model = tiny_model().semantic
    engine = CompiledCausal(model, backend)  # type: ignore[arg-type]
    for length in range(3, 9):
        _, state = engine.prefill([model.input_embeds_layer(torch.arange(length))], 4)
        for token in range(3):
            _, state = engine.step(state, torch.tensor([token]))
    assert len(compiled) == 1


@torch.no_grad()
def test_memory_is_lent_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches decoded in turns have memories of their own; later ones take these over, and nothing of what was there."""
    monkeypatch.setattr(compiled_engine, "record", stand_in_for_a_graph)
    monkeypatch.setattr(compiled_engine, "ROOM", 8)
    model = tiny_model().semantic
    engine, plain = CompiledCausal(model, "none"), TorchCausal(model)
    prompts = [[model.input_embeds_layer(torch.arange(n + 3, 3 * n + 5))] for n in (1, 4)]

    def in_turns(run: Any) -> list[torch.Tensor]:
        states = [run.prefill(prompt, 30)[1] for prompt in prompts]
        said = []
        for token in range(25):  # four rooms
            for place, state in enumerate(states):
                logits, states[place] = run.step(state, torch.tensor([token + place]))
                said.append(logits)
        return said

    expected = in_turns(plain)
    for _ in range(2):
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(in_turns(engine), expected, strict=True))
    assert len(engine._idle) == 2
    looked_at = sorted(sorted(room for room, _ in memory.steps) for memory in engine._idle)
    assert looked_at == [[8, 16, 24, 32], [16, 24, 32, 40]]
    for memory in engine._idle:  # what a batch of broken weights leaves behind
        for part in (*memory.keys, *memory.values):
            part.fill_(torch.nan)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(in_turns(engine), expected, strict=True))
    for power in range(10):
        engine.prefill(prompts[0] * 2**power, 4)
    assert len(engine._idle) == compiled_engine.KEPT


@pytest.mark.parametrize("fails", [False, True])
def test_a_recording_that_fails_never_stops_speech(
    fails: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """CUDA's part stands in: a step is warmed up on the stream that it is recorded on, then replayed, or run as it is."""
    calls: list[str] = []

    @contextmanager
    def graph(graph: Any, pool: Any, stream: Any, mode: str) -> Iterator[None]:
        calls.append(f"record on {stream.name} in {pool}, {mode}")
        yield
        if fails:
            raise RuntimeError(f"capture failed {len(calls)}")

    def run() -> torch.Tensor:
        calls.append("run")
        return torch.tensor(len(calls))

    stream = SimpleNamespace(name="side", device="cuda:7", wait_stream=lambda other: None)
    for name in ("device", "stream"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda of: nullcontext())
    monkeypatch.setattr("torch.cuda.current_stream", lambda: SimpleNamespace(wait_stream=lambda other: None))
    monkeypatch.setattr("torch.cuda.CUDAGraph", lambda: SimpleNamespace(replay=lambda: calls.append("replay")))
    monkeypatch.setattr("torch.cuda.graph", graph)
    step = compiled_engine.record(run, stream, "a pool")
    assert calls == ["run", "run", "record on side in a pool, thread_local", "run"]
    assert [int(step()), calls[-1]] == ([5, "run"] if fails else [4, "replay"])
    assert ("steps run without a CUDA graph: capture failed" in caplog.text) == fails


def test_a_stream_has_one_owner_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(9))
    monkeypatch.setattr("torch.cuda.Stream", lambda device: f"stream {next(numbers)}")
    device = torch.device("cuda", 7)
    owners = [Doubled(1, 1) for _ in range(3)]
    assert len({compiled_engine.lend_stream(owner, device) for owner in owners}) == 3
    del owners[1]
    gc.collect()
    assert compiled_engine.lend_stream(owners[0], device) == "stream 1"
    assert compiled_engine.lend_stream(owners[1], device) == "stream 3"


@torch.no_grad()
def test_steps_are_recorded_anew_where_weights_have_moved() -> None:
    """Offloading takes weights to the CPU and back: a graph would read where they were."""
    model = tiny_model().semantic
    engine = CompiledCausal(model, "none")

    def step() -> Any:
        _, state = engine.prefill([model.input_embeds_layer(torch.arange(4))], 4)
        engine.step(state, torch.tensor([1]))
        return next(iter(state.lease.memory.steps.values()))

    first = step()
    assert step() is first
    model.lm_head.weight.data = model.lm_head.weight.data.clone()
    assert step() is not first


def speak(model: BarkModel, folder: Path, **options: Any) -> Any:
    processor = BarkProcessor.from_pretrained(folder)
    inputs = processor(["hello my dog", "hello"])
    inputs["history_prompt"] = [tiny_voice(n_semantic=8), None]
    return model.generate(**inputs, seed=3, return_dict_in_generate=True, **options)


@pytest.mark.parametrize("do_sample", [True, False])
def test_onnx_says_what_torch_says(tmp_path: Path, cache: Path, do_sample: bool) -> None:
    folder = tiny_checkpoint(tmp_path)
    model = BarkModel.from_pretrained(folder).eval()
    plain = speak(model, folder, do_sample=do_sample)
    other = speak(model.set_engine("onnxruntime", cache_dir=cache), folder, do_sample=do_sample)
    for name in ("semantic_tokens", "coarse_codes", "fine_codes"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(plain, name), getattr(other, name), strict=True)), name


@pytest.mark.parametrize("proposed", ["by the draft", "wrong"])
@pytest.mark.parametrize("do_sample", [True, False])
def test_what_a_draft_proposes_is_read_at_once_and_changes_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, do_sample: bool, proposed: str
) -> None:
    monkeypatch.setattr(onnx_engine, "DRAFTED_WEIGHTS", 0)
    folder = tiny_checkpoint(tmp_path)
    model, processor = BarkModel.from_pretrained(folder).eval(), BarkProcessor.from_pretrained(folder)
    inputs = processor("hello my dog", voice_preset=None)
    options = {"seed": 3, "do_sample": do_sample, "allow_early_stop": False, "return_dict_in_generate": True}
    plain = model.generate(**inputs, **options)
    read: list[tuple[int, int]] = []
    read_ahead = OnnxCausal._read_ahead

    def spy(self: OnnxCausal, state: Any, token: int, foresight: Any) -> torch.Tensor:
        if proposed == "wrong":
            wrong = lambda ahead, logits: int(logits.argmin()) + (foresight.span(ahead) or (0,))[0]  # noqa: E731
            foresight = dataclasses.replace(foresight, choose=wrong)
        logits = read_ahead(self, state, token, foresight)
        read.append((len(state.read), state.reach))
        return logits

    monkeypatch.setattr(OnnxCausal, "_read_ahead", spy)
    other = model.set_engine("onnxruntime", cache_dir=cache).generate(**inputs, **options)
    for name in ("semantic_tokens", "coarse_codes", "fine_codes"):
        assert torch.equal(getattr(plain, name)[0], getattr(other, name)[0]), name
    n_steps = len(plain.semantic_tokens[0]) + plain.coarse_codes[0].numel() - 2
    if proposed == "wrong":
        assert len(read) > 0.8 * n_steps and read[-1][1] == 1
    else:
        assert len(read) < 0.5 * n_steps and max(read)[0] == onnx_engine.MOST_PROPOSED


@pytest.mark.parametrize("n_rows", [1, onnx_engine.STEP_ROWS + 1], ids=["one row", "many rows"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
@torch.no_grad()
def test_quantized_weights_stay_near(cache: Path, precision: str, n_rows: int) -> None:
    model = tiny_model()
    prompts = [model.semantic.input_embeds_layer(torch.arange(20 - row)) for row in range(n_rows)]
    said: dict[str, list[torch.Tensor]] = {}
    for kind in ("fp32", precision):
        engine = OnnxCausal(model.semantic, kind, True, cache)
        logits, state = engine.prefill(prompts, 1)
        said[kind] = [logits, engine.step(state, torch.arange(n_rows))[0]]
    for exact, near in zip(*said.values(), strict=True):
        assert 1e-5 < (exact - near).norm() / exact.norm() < onnx_build.BOUNDS[precision]


@torch.no_grad()
def test_a_quantized_cache_stays_near(cache: Path) -> None:
    model = tiny_model().coarse_acoustics
    prompts = [model.input_embeds_layer(torch.arange(length)) for length in (9, 20)]
    said = []
    for cache_precision in ("fp32", "int8"):
        engine = OnnxCausal(model, "fp32", False, cache, cache_precision)
        logits, state = engine.prefill(prompts, 3)
        stepped, state = engine.step(state, torch.tensor([3, 4]))
        said.append([logits, stepped, engine.step(engine.keep_rows(state, [1]), torch.tensor([5]))[0]])
        assert {value.data_type() for value in state.memory} == {
            f"tensor({'float' if cache_precision == 'fp32' else 'int8'})"
        }
    differences = [float((exact - near).norm() / exact.norm()) for exact, near in zip(*said, strict=True)]
    assert differences[0] < 1e-5, "prompts are read in fp32"
    assert all(1e-5 < difference < 0.05 for difference in differences[1:])


def test_a_graph_is_built_once_and_again_for_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model().semantic
    OnnxCausal(model, "fp32", True, tmp_path)
    (report,) = tmp_path.glob("*/report.json")
    assert json.loads(report.read_text())["largest_logit_difference"] < 1e-3
    assert {file.name for file in report.parent.iterdir()} == {"all.onnx", "all.bin", "report.json"}
    monkeypatch.setattr(onnx_engine, "compare_causal", lambda *args: pytest.fail("built again"))
    OnnxCausal(copy.deepcopy(model), "fp32", True, tmp_path)
    monkeypatch.undo()
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    OnnxCausal(model, "fp32", True, tmp_path)
    assert len(list(tmp_path.glob("*/report.json"))) == 2


def test_a_graph_that_differs_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(onnx_build.BOUNDS, "int8", 1e-6)
    with pytest.raises(RuntimeError, match="int8 differs from PyTorch by"):
        OnnxFine(tiny_model().fine_acoustics, "int8", tmp_path)
    assert not list(tmp_path.iterdir())


def test_changed_weights_are_heard(tmp_path: Path, cache: Path) -> None:
    model = tiny_model().set_engine("onnxruntime", cache_dir=cache)
    first = model.semantic.engine
    assert model.semantic.engine is first
    with torch.no_grad():
        model.semantic.lm_head.weight.mul_(2)
    assert model.semantic.engine is not first
    assert copy.deepcopy(model).semantic.engine_choice == model.engine_choice  # a session could not be copied


def test_choices(tmp_path: Path) -> None:
    model = BarkModel.from_pretrained(tiny_checkpoint(tmp_path), engine="onnxruntime", precision="int8")
    assert {part.engine_choice for part in (model, model.semantic, model.fine_acoustics)} == {
        EngineChoice("onnxruntime", "int8")
    }
    for arguments, message in (
        (("tensorrt",), "`engine` must be one of auto, torch, compiled, onnxruntime, got 'tensorrt'"),
        (("onnxruntime", "int2"), "`precision` of .* 'onnxruntime' must be one of fp32, int8, int4, got 'int2'"),
        (("onnxruntime", "bf16"), "must be one of fp32, int8, int4, got 'bf16'"),
        (("torch", "int8"), "`precision` of the engine 'torch' must be one of fp32, bf16, got 'int8'"),
        (("compiled", None, None, "int8"), "`cache_precision` of .* 'compiled' is that of the weights, got 'int8'"),
        (("onnxruntime", None, None, "int4"), "`cache_precision` of .* must be one of fp32, int8, got 'int4'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_engine(*arguments)
    with pytest.raises(ValueError, match="runs on the CPU, the model is on meta"):
        EngineChoice("onnxruntime").make(tiny_model().semantic.to("meta"))


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def decided(device: str, precision: str | None = None) -> tuple[str, str | None]:
        choice = EngineChoice("auto", precision).for_device(torch.device(device))
        return choice.name, choice.precision

    def find(*present: str) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in present else None)

    assert decided("cpu") == ("onnxruntime", None) and decided("cpu", "int4") == ("onnxruntime", "int4")
    assert decided("cpu", "bf16") == ("torch", "bf16")  # which ONNX Runtime has not
    find("onnx")
    assert decided("cpu") == ("torch", None)
    with pytest.raises(ValueError, match="'torch' must be one of fp32, bf16, got 'int8'"):
        decided("cpu", "int8")
    for supported, expected in ((True, "bf16"), (False, None)):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, answer=supported, **__: answer)
        assert decided("cuda") == ("compiled", expected)
    assert decided("cuda", "fp32") == ("compiled", "fp32")


@pytest.mark.parametrize("name", ["torch", "compiled"])
def test_bf16_is_a_copy_that_stays_near(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_engine, "CompiledCausal", partial(CompiledCausal, backend="eager"))
    monkeypatch.setattr(compiled_engine, "CompiledFine", partial(CompiledFine, backend="eager"))
    folder = tiny_checkpoint(tmp_path)
    model = BarkModel.from_pretrained(folder).eval().set_engine(name, "bf16")
    embeds, tokens = list(model.semantic.input_embeds_layer(torch.arange(18).view(2, 9))), torch.tensor([1, 2])
    codes = torch.randint(0, 9, (2, 12, 4), generator=torch.Generator().manual_seed(0))
    pairs = []
    with torch.no_grad():
        for choice in ("bf16", "fp32"):
            causal, fine = model.set_engine(name, choice).semantic.engine, model.fine_acoustics.engine
            logits, state = causal.prefill(embeds, 1)
            pairs.append([logits, causal.step(state, tokens)[0], fine.forward(2, codes)])
    for near, exact in zip(*pairs, strict=True):
        assert near.dtype == torch.bfloat16 and exact.dtype == model.dtype == torch.float32
        assert 0 < (near - exact).norm() / exact.norm() < 0.03
    assert speak(model.set_engine(name, "bf16"), folder).audio.isfinite().all()
    assert model.semantic.to(torch.bfloat16).engine.model is model.semantic  # nothing to copy


def test_a_model_that_spoke_is_freed(tmp_path: Path, cache: Path) -> None:
    folder = tiny_checkpoint(tmp_path)
    for choice in (("torch",), ("torch", "bf16"), ("onnxruntime", None, cache)):
        model = BarkModel.from_pretrained(folder).eval().set_engine(*choice)
        speak(model, folder)
        parts = [weakref.ref(part) for part in (model, model.semantic, model.coarse_acoustics, model.fine_acoustics)]
        del model
        gc.collect()
        assert [part() for part in parts] == [None] * 4


def test_a_missing_package_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"needs onnxruntime: pip install 'transformers-bark\[onnx\]'"):
        OnnxCausal(tiny_model().semantic, "fp32", True, cache)


def test_a_model_without_blocks_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = tmp_path / "graphs"  # its own: records and graphs are counted and removed below
    monkeypatch.setattr(onnx_cache, "CACHE", graphs)
    folder = tiny_checkpoint(tmp_path)
    whole = BarkModel.from_pretrained(folder, engine="onnxruntime").eval()
    for _ in ("builds the graphs", "finds them"):
        lean = BarkModel.from_pretrained(folder, engine="onnxruntime", keep_weights=False)
        blocks = [part for name, part in lean.named_parameters() if ".layers." in name and "codec" not in name]
        assert blocks and all(part.is_meta for part in blocks)
        a, b = speak(whole, folder), speak(lean, folder)
        assert all(torch.equal(x, y) for x, y in zip(a.fine_codes, b.fine_codes, strict=True))
        assert torch.allclose(a.audio, b.audio, atol=1e-5)
    with pytest.raises(ValueError, match="was loaded with `keep_weights=False` for .* load it anew"):
        lean.set_engine("onnxruntime", "int8")
    (record,) = (graphs / "sources").iterdir()
    keys = json.loads(record.read_text()).values()
    lean = BarkModel.from_pretrained(folder, engine="onnxruntime", keep_weights=False)
    for key in keys:
        shutil.rmtree(graphs / key)
    with pytest.raises(FileNotFoundError, match="is gone, and the model was loaded without the weights"):
        speak(lean, folder)
    again = BarkModel.from_pretrained(folder, engine="onnxruntime", keep_weights=False)  # builds them anew
    assert torch.allclose(speak(again, folder).audio, a.audio, atol=1e-5)


def test_what_cannot_be_loaded_without_blocks(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="`keep_weights=False` needs the engine 'onnxruntime', got 'torch'"):
        BarkModel.from_pretrained(folder, keep_weights=False)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model.safetensors"):
        BarkModel.from_pretrained(folder, engine="onnxruntime", keep_weights=False)
