"""Properties of `BarkModel.generate` on a model whose sizes all differ from the released ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny import tiny_model, tiny_voice
from transformers_bark import BarkGenerateOutput, BarkModel, StageProgress, VoicePreset
from transformers_bark.generation import semantic

LENGTHS = (3, 9, 14)


def batch(lengths: tuple[int, ...] = LENGTHS) -> dict[str, torch.Tensor]:
    """Random text of these lengths."""
    ids = torch.randint(1, 60, (len(lengths), 16), generator=torch.Generator().manual_seed(5))
    mask = (torch.arange(16) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def speak(model: BarkModel, inputs: dict[str, Any], **options: Any) -> BarkGenerateOutput:
    return model.generate(**inputs, return_dict_in_generate=True, progress=False, **options)


def row(inputs: dict[str, torch.Tensor], index: int) -> dict[str, torch.Tensor]:
    return {name: value[index : index + 1] for name, value in inputs.items()}


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_row_is_the_same_alone_and_in_a_batch(model: BarkModel, do_sample: bool) -> None:
    inputs, seeds = batch(), [7, 8, 9]
    voices = [None, tiny_voice(12, seed=1), tiny_voice(31, seed=2)]
    options = {"do_sample": do_sample, "min_eos_p": 0.02}
    together = speak(model, inputs, history_prompt=voices, seed=seeds, **options)
    lengths = [len(tokens) for tokens in together.semantic_tokens]
    assert len(set(lengths)) == 3, f"rows should end at different times, got {lengths}"
    for index in range(3):
        alone = speak(model, row(inputs, index), history_prompt=voices[index], seed=seeds[index], **options)
        assert torch.equal(alone.semantic_tokens[0], together.semantic_tokens[index])
        assert torch.equal(alone.coarse_codes[0], together.coarse_codes[index])
        assert torch.equal(alone.fine_codes[0], together.fine_codes[index])
        end = int(together.audio_lengths[index])
        assert torch.allclose(alone.audio[0], together.audio[index, :end], atol=1e-6)


def test_audio_holds_no_padding_tail(model: BarkModel) -> None:
    output = speak(model, batch(), seed=3, do_sample=True, min_eos_p=0.02)
    samples_per_frame = 600
    for audio, length, codes in zip(output.audio, output.audio_lengths, output.fine_codes, strict=True):
        assert int(length) == codes.shape[1] * samples_per_frame
        assert not audio[int(length) :].any()
    audio, lengths = model.generate(**batch(), seed=3, do_sample=True, min_eos_p=0.02, return_output_lengths=True)
    assert lengths == output.audio_lengths.tolist()
    assert torch.equal(audio, output.audio)


def test_ends_that_are_seen_late_change_nothing(model: BarkModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the ends of rows are looked for now and then only."""
    options = {"seed": 3, "do_sample": True, "min_eos_p": 0.02}
    at_once = speak(model, batch(), **options).semantic_tokens
    assert len({len(row) for row in at_once}) > 1
    for steps in (3, 1000):
        monkeypatch.setitem(semantic.UNSEEN_STEPS, "cpu", steps)
        late = speak(model, batch(), **options).semantic_tokens
        assert all(torch.equal(a, b) for a, b in zip(at_once, late, strict=True))


def test_one_seed_serves_every_row(model: BarkModel) -> None:
    inputs = batch((6, 6))
    inputs["input_ids"][1] = inputs["input_ids"][0]
    output = speak(model, inputs, seed=11, do_sample=True)
    assert torch.equal(output.semantic_tokens[0], output.semantic_tokens[1])
    other = speak(model, inputs, seed=12, do_sample=True)
    assert not torch.equal(output.semantic_tokens[0], other.semantic_tokens[0])
    assert torch.equal(speak(model, inputs, seed=11, do_sample=True).audio, output.audio)


def test_without_a_seed_the_global_generator_counts(model: BarkModel) -> None:
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(speak(model, row(batch(), 0), do_sample=True).semantic_tokens[0].tolist())
    assert runs[0] == runs[1] != runs[2]


def test_the_callers_tensors_are_left_alone(model: BarkModel) -> None:
    inputs, voice = batch(), tiny_voice()
    before = [part.clone() for part in (*inputs.values(), *voice.as_dict().values())]
    speak(model, inputs, history_prompt=voice)
    after = [*inputs.values(), *voice.as_dict().values()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_padding_is_not_taken_for_text(model: BarkModel) -> None:
    inputs = row(batch(), 0)
    masked = speak(model, inputs).semantic_tokens[0]
    assert torch.equal(speak(model, {"input_ids": inputs["input_ids"]}).semantic_tokens[0], masked)
    assert torch.equal(speak(model, {"input_ids": inputs["input_ids"][:, :3]}).semantic_tokens[0], masked)


def test_text_beyond_the_prompt_is_cut(model: BarkModel) -> None:
    ids = torch.randint(1, 60, (1, 30))
    cut, whole = (speak(model, {"input_ids": text}, seed=1) for text in (ids[:, :16], ids))
    assert torch.equal(cut.audio, whole.audio)


def test_min_eos_p_ends_rows_earlier(model: BarkModel) -> None:
    def length(threshold: float | None) -> int:
        output = speak(model, row(batch(), 1), seed=2, do_sample=True, min_eos_p=threshold, semantic_max_new_tokens=40)
        return len(output.semantic_tokens[0])

    lengths = [length(threshold) for threshold in (1e-6, 0.02, None)]
    assert lengths == sorted(lengths) and lengths[0] < lengths[2]


def test_nothing_to_say_gives_no_audio(model: BarkModel) -> None:
    output = speak(model, batch(), min_eos_p=0.0)
    assert output.audio.shape == (3, 0) and output.audio_lengths.tolist() == [0, 0, 0]
    assert output.fine_codes[0].shape == (4, 0)
    mixed = speak(
        model, batch(), seed=[1, 2, 3], do_sample=True, min_eos_p=0.05, history_prompt=[None, tiny_voice(), None]
    )
    assert len(mixed.fine_codes) == 3


def test_options_act_per_stage(model: BarkModel) -> None:
    inputs = row(batch(), 1)
    base = speak(model, inputs, do_sample=False)
    fine = speak(model, inputs, do_sample=False, fine_do_sample=True, fine_temperature=2.0, seed=1)
    assert torch.equal(base.coarse_codes[0], fine.coarse_codes[0]) and not torch.equal(
        base.fine_codes[0], fine.fine_codes[0]
    )
    coarse = speak(model, inputs, do_sample=False, coarse_do_sample=True, seed=1)
    assert torch.equal(base.semantic_tokens[0], coarse.semantic_tokens[0])
    assert not torch.equal(base.coarse_codes[0], coarse.coarse_codes[0])
    short = speak(model, inputs, do_sample=False, max_new_tokens=7)
    assert torch.equal(short.semantic_tokens[0], base.semantic_tokens[0][:7])
    for option in ({"max_coarse_history": 12}, {"sliding_window_len": 6}):
        changed = speak(model, inputs, do_sample=False, **option)
        assert torch.equal(base.semantic_tokens[0], changed.semantic_tokens[0])
        assert not torch.equal(base.coarse_codes[0], changed.coarse_codes[0])


def test_top_k_and_low_temperature_are_nearly_greedy(model: BarkModel) -> None:
    greedy = speak(model, batch(), do_sample=False)
    narrow = {"semantic_top_k": 1, "coarse_top_p": 1e-6, "fine_temperature": 1e-6}
    sampled = speak(model, batch(), do_sample=True, seed=1, **narrow)
    assert all(torch.equal(x, y) for x, y in zip(greedy.fine_codes, sampled.fine_codes, strict=True))


def test_a_generation_is_a_voice(model: BarkModel) -> None:
    output = speak(model, batch(), seed=4, do_sample=True)
    voice = output.voice_preset(2)
    assert isinstance(voice, VoicePreset) and torch.equal(voice.fine_prompt, output.fine_codes[2])
    again = speak(model, row(batch(), 0), history_prompt=voice.check(model.generation_config))
    assert not torch.equal(again.semantic_tokens[0], speak(model, row(batch(), 0)).semantic_tokens[0])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_short_generation_is_a_voice_too(model: BarkModel, count: int) -> None:
    output = speak(model, row(batch(), 0), seed=1, allow_early_stop=False, max_new_tokens=count)
    output.voice_preset().check(model.generation_config)


def test_progress_is_reported_in_order(model: BarkModel, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[StageProgress] = []
    model.generate(**batch(), stage_callback=seen.append)
    assert list(dict.fromkeys(event.stage for event in seen)) == ["semantic", "coarse", "fine"]
    for stage in ("semantic", "coarse", "fine"):
        done = [event.done for event in seen if event.stage == stage]
        assert done == list(range(1, len(done) + 1))
    assert all(event.rows == 3 and event.done <= event.total for event in seen)
    assert "semantic" not in capsys.readouterr().err, "no bars where there is no terminal"
    model.generate(**batch(), progress=True)
    assert "semantic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"temprature": 1.0}, TypeError, "temprature.*did you mean temperature"),
        ({"fine_max_new_tokens": 1}, TypeError, "fine_max_new_tokens"),
        ({"num_beams": 2}, TypeError, "num_beams"),
        ({"temperature": 0.0}, ValueError, "temperature.*0.0"),
        ({"top_p": 1.5}, ValueError, "top_p.*1.5"),
        ({"top_k": -1}, ValueError, "top_k.*-1"),
        ({"min_eos_p": 2.0}, ValueError, "min_eos_p.*2.0"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens.*0"),
        ({"max_new_tokens": 1000}, ValueError, "max_new_tokens.*1000.*80"),
        ({"max_gen_duration_s": 0}, ValueError, "max_gen_duration_s"),
        ({"sliding_window_len": 7}, ValueError, "sliding_window_len.*7"),
        ({"max_coarse_history": 90}, ValueError, "max_coarse_history.*90"),
        ({"seed": [1, 2]}, ValueError, "2 for 3 rows"),
        ({"seed": -1}, ValueError, "-1"),
        ({"seed": 1.5}, TypeError, "seed|float"),
        ({"history_prompt": [None]}, ValueError, "1 voices for 3 rows"),
        ({"history_prompt": "v2/en_speaker_6"}, TypeError, "processor"),
        ({"attention_mask": torch.ones(3, 4)}, ValueError, "attention_mask"),
    ],
)
def test_bad_options_are_named(model: BarkModel, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        speak(model, {**batch(), **options})


def test_bad_text_is_named(model: BarkModel) -> None:
    with pytest.raises(ValueError, match="input_ids"):
        model.generate(torch.ones(3, dtype=torch.long))
    with pytest.raises(ValueError, match="0 to 71"):
        model.generate(torch.full((1, 4), 90))


def test_unprefixed_temperature_leaves_the_fine_stage(model: BarkModel) -> None:
    from transformers_bark.generation.options import fine_options, split_options

    routed = split_options({"temperature": 1.1, "top_k": 3, "coarse_temperature": 0.2})
    assert routed["semantic"] == {"temperature": 1.1, "top_k": 3}
    assert routed["coarse"] == {"temperature": 0.2, "top_k": 3}
    assert routed["fine"] == {"top_k": 3}
    config = model.generation_config.fine_acoustics_config
    assert fine_options(config, {}).do_sample and fine_options(config, {}).temperature == 0.5
    assert not fine_options(config, {"do_sample": False}).do_sample
    assert not fine_options(config, {"temperature": None}).do_sample
    assert fine_options(config, {"temperature": 1.0}).do_sample, "1.0 is a temperature like any other"


def test_sub_models_keep_their_signatures(model: BarkModel) -> None:
    config = model.generation_config
    stages = (config.semantic_config, config.coarse_acoustics_config, config.fine_acoustics_config)
    inputs = batch((5, 12))
    whole = speak(model, inputs, do_sample=False, min_eos_p=0.02)
    semantic = model.semantic.generate(**inputs, semantic_generation_config=stages[0], do_sample=False, min_eos_p=0.02)
    lengths = [len(tokens) for tokens in whole.semantic_tokens]
    assert semantic.shape == (2, max(lengths))
    assert torch.equal(semantic[0, : lengths[0]], whole.semantic_tokens[0])
    assert (semantic[0, lengths[0] :] == stages[0].semantic_pad_token).all()
    coarse, counts = model.coarse_acoustics.generate(
        semantic, stages[0], stages[1], codebook_size=32, return_output_lengths=True
    )
    assert counts.tolist() == [2 * codes.shape[1] for codes in whole.coarse_codes]
    codes = model.fine_acoustics.generate(coarse, *stages, codebook_size=32, do_sample=False)
    n_frames = whole.fine_codes[1].shape[1]
    assert torch.equal(codes[1, :, :n_frames], whole.fine_codes[1])
    audio = model.codec_decode(codes, [codes.shape[1] for codes in whole.fine_codes])
    assert torch.allclose(audio[1], whole.audio[1, : len(audio[1])], atol=1e-6)
    with pytest.raises(ValueError, match="semantic_generation_config"):
        model.semantic.generate(inputs["input_ids"])
    with pytest.raises(TypeError, match="max_coarse_history"):
        model.semantic.generate(**inputs, semantic_generation_config=stages[0], max_coarse_history=3)


def test_one_coarse_codebook_is_enough() -> None:
    one = tiny_model(seed=2)
    one.generation_config.coarse_acoustics_config.n_coarse_codebooks = 1
    output = speak(one, batch(), seed=1, do_sample=True)
    assert output.coarse_codes[0].shape[0] == 1 and output.fine_codes[0].shape[0] == 4


def test_a_config_that_does_not_fit_is_refused(model: BarkModel) -> None:
    from transformers_bark import BarkGenerationConfig

    with pytest.raises(ValueError, match="semantic_config.input_vocab_size.* is 120.*129600"):
        model.generate(**batch(), generation_config=BarkGenerationConfig())
