"""The three transformers: losses, caches, checkpointing, embeddings, offload, and errors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, GenerationMixin, StaticCache, Trainer, TrainingArguments
from transformers.models.bark import modeling_bark as stock

from tests.tiny import CODEC, odd_sizes, tiny_model
from transformers_bark import (
    BarkCausalModel,
    BarkCoarseModel,
    BarkConfig,
    BarkFineModel,
    BarkGenerationConfig,
    BarkModel,
    BarkSemanticModel,
)


def ids(length: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 100, (2, length), generator=torch.Generator().manual_seed(seed))


def codes(length: int = 12) -> torch.Tensor:
    return torch.randint(0, 32, (2, length, 4), generator=torch.Generator().manual_seed(0))


def stock_twin(model: BarkModel) -> stock.BarkModel:
    """Stock's model with the same weights."""
    twin = stock.BarkModel(stock.BarkConfig(**model.config.to_dict())).eval()
    masks = {name: mask for name, mask in twin.state_dict().items() if name.endswith(".attn.bias")}
    twin.load_state_dict({**model.state_dict(), **masks})
    return twin


def padding(kind: str, length: int = 20) -> torch.Tensor | None:
    """A mask over two rows: none, all ones, or with padding at one side of the second."""
    mask = torch.ones(2, length, dtype=torch.long)
    if kind != "ones":
        mask[1, slice(0, 6) if kind == "left" else slice(length - 6, length)] = 0
    return None if kind == "none" else mask


@pytest.mark.compat
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["none", "ones", "left", "right"])
@pytest.mark.parametrize("part", ["semantic", "coarse_acoustics"])
def test_causal_logits_equal_stock(part: str, kind: str, attention: str) -> None:
    model, mask = tiny_model(), padding(kind)
    wanted = getattr(stock_twin(model), part)(ids(), attention_mask=mask, output_hidden_states=True)
    model.set_attn_implementation(attention)
    ours = getattr(model, part)(ids(), attention_mask=mask, output_hidden_states=True)
    real = torch.ones(2, 20, dtype=torch.bool) if mask is None else mask.bool()
    assert torch.allclose(ours.logits[real], wanted.logits[real], atol=1e-5)
    for first, second in zip(ours.hidden_states, wanted.hidden_states, strict=True):
        assert torch.allclose(first[real], second[real], atol=1e-5)


@pytest.mark.compat
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["none", "ones", "left", "right"])
def test_fine_logits_equal_stock(kind: str, attention: str) -> None:
    model, mask = tiny_model(), padding(kind, 12)
    twin = stock_twin(model).fine_acoustics
    model.set_attn_implementation(attention)
    real = torch.ones(2, 12, dtype=torch.bool) if mask is None else mask.bool()
    for codebook in (1, 2, 3):
        wanted = twin(codebook, codes(), attention_mask=mask).logits
        ours = model.fine_acoustics(codebook, codes(), attention_mask=mask).logits
        assert torch.allclose(ours[real], wanted[real], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_stay_near_stock(dtype: torch.dtype) -> None:
    model = tiny_model()
    wanted = stock_twin(model).semantic(ids()).logits
    ours = model.to(dtype).semantic(ids()).logits
    assert ours.dtype == dtype
    error = (ours.float() - wanted).abs().max() / wanted.abs().max()
    assert error < (1e-5 if dtype == torch.float64 else 0.05)


@pytest.mark.compat
def test_stocks_state_dict_loads_with_its_masks() -> None:
    model = tiny_model()
    state = stock_twin(model).state_dict()
    assert any(name.endswith("attn.bias") for name in state)
    fresh = BarkModel(model.config).eval()
    before = set(state)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.semantic(ids()).logits, model.semantic(ids()).logits)
    assert set(state) == before, "the caller's state dict stays as it was"


@pytest.mark.parametrize("part", ["semantic", "coarse_acoustics"])
def test_causal_loss_is_the_shifted_cross_entropy(part: str) -> None:
    model = getattr(tiny_model(), part)
    labels = torch.where(ids() < model.config.output_vocab_size, ids(), -100)
    labels[:, :5] = -100
    output = model(ids(), labels=labels)
    wanted = cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    assert torch.allclose(output.loss, wanted)
    counted = model(ids(), labels=labels, num_items_in_batch=7).loss
    assert torch.allclose(counted, wanted * (labels[:, 1:] != -100).sum() / 7)


def test_fine_loss_is_the_cross_entropy() -> None:
    model = tiny_model().fine_acoustics
    labels = codes()[..., 2].clone()
    labels[:, 8:] = -100
    output = model(2, codes(), labels=labels)
    assert torch.allclose(output.loss, cross_entropy(output.logits[:, :8].flatten(0, 1), labels[:, :8].flatten()))


def test_fine_reads_no_codebook_beyond_the_one_it_predicts() -> None:
    model = tiny_model().fine_acoustics
    changed = codes()
    changed[..., 3] = 0
    assert torch.equal(model(2, codes()).logits, model(2, changed).logits)
    assert torch.equal(model(2, codes()).logits, model(2, codes()[..., :3]).logits)
    embeds = sum(layer(codes()[..., i]) for i, layer in enumerate(model.input_embeds_layers[:3]))
    assert torch.allclose(model(2, inputs_embeds=embeds).logits, model(2, codes()).logits, atol=1e-5)


@pytest.mark.compat
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["dynamic", "static", "default"])
def test_any_cache_equals_none(attention: str, kind: str) -> None:
    model = tiny_model().semantic
    model.set_attn_implementation(attention)
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :4] = 0
    whole = model(ids(), attention_mask=mask, use_cache=False)
    assert whole.past_key_values is None
    cache: Any = {
        "dynamic": DynamicCache(config=model.config),
        "static": StaticCache(config=model.config, max_cache_len=32),
        "default": None,
    }[kind]
    logits = []
    for start, end in ((0, 9), (9, 10), (10, 20)):
        output = model(ids()[:, start:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits)
    assert torch.allclose(torch.cat(logits, dim=1)[:, 4:], whole.logits[:, 4:], atol=1e-5)


def test_cached_steps_with_padding_equal_stock() -> None:
    model, mask = tiny_model(), padding("left")
    wanted = stock_twin(model).semantic(ids(), attention_mask=mask).logits
    cache, logits = None, []
    for start, end in ((0, 10), (10, 11), (11, 12), (12, 20)):
        output = model.semantic(ids()[:, start:end], attention_mask=mask[:, :end], past_key_values=cache)
        cache = output.past_key_values
        logits.append(output.logits)
    assert torch.allclose(torch.cat(logits, dim=1)[mask.bool()], wanted[mask.bool()], atol=1e-5)


@pytest.mark.slow
def test_a_step_compiles_as_one_graph() -> None:
    model = tiny_model().semantic
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    whole = model(ids()).logits
    cache = StaticCache(config=model.config, max_cache_len=32)
    with torch.no_grad():
        first = model(ids()[:, :10], past_key_values=cache, use_cache=True).logits
        steps = [compiled(ids()[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(10, 20)]
    assert torch.allclose(torch.cat([first, *steps], dim=1), whole, atol=1e-5)


@pytest.mark.compat
@pytest.mark.parametrize("part", ["semantic", "coarse_acoustics"])
def test_transformers_own_generate_runs_the_causal_models(part: str) -> None:
    model = getattr(tiny_model(), part)
    generate = partial(GenerationMixin.generate, model, ids(5), do_sample=False, pad_token_id=0)
    wanted = ids(5)
    for _ in range(6):
        wanted = torch.cat([wanted, model(wanted).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generate(max_new_tokens=6), wanted)
    assert torch.equal(generate(max_new_tokens=6, cache_implementation="static"), wanted)
    assert torch.equal(generate(max_new_tokens=6, use_cache=False), wanted)
    if part == "semantic":  # some releases search beams only where the ids that go in and come out are as many
        assert generate(max_new_tokens=4, num_beams=2).shape == (2, 9)


def test_causal_models_do_not_look_ahead_and_the_fine_model_does() -> None:
    model = tiny_model()
    later = ids()
    later[:, 12:] = 3
    first, second = (model.semantic(x).logits[:, :12] for x in (ids(), later))
    assert torch.allclose(first, second, atol=1e-6)
    changed = codes()
    changed[:, 8:] = 1
    assert not torch.allclose(
        model.fine_acoustics(1, codes()).logits[:, :8], model.fine_acoustics(1, changed).logits[:, :8]
    )


@pytest.mark.compat
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attentions_and_hidden_states(attention: str) -> None:
    model = tiny_model()
    model.set_attn_implementation(attention)
    output = model.semantic(ids(), output_attentions=True, output_hidden_states=True)
    assert len(output.attentions) == 2 and output.attentions[0].shape == (2, 2, 20, 20)
    assert torch.allclose(output.attentions[0].sum(-1), torch.ones(2, 2, 20), atol=1e-5)
    assert not output.attentions[0].triu(1).any()
    assert len(output.hidden_states) == 3 and output.hidden_states[0].shape == (2, 20, 32)
    assert torch.allclose(output.logits, model.semantic(ids()).logits, atol=1e-5)
    assert torch.allclose(model.semantic.lm_head(output.hidden_states[-1]), output.logits)
    fine = model.fine_acoustics(1, codes(), output_attentions=True, output_hidden_states=True)
    assert fine.attentions[1].triu(1).any() and len(fine.hidden_states) == 3
    as_tuple = model.semantic(ids(), return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.allclose(as_tuple[0], output.logits, atol=1e-5)


def test_logits_where_they_are_wanted() -> None:
    model = tiny_model().semantic
    whole = model(ids()).logits
    assert torch.allclose(model(ids(), logits_to_keep=1).logits, whole[:, -1:], atol=1e-6)
    assert torch.allclose(model(ids(), logits_to_keep=torch.tensor([3, 7])).logits, whole[:, [3, 7]], atol=1e-6)
    assert torch.allclose(model(inputs_embeds=model.input_embeds_layer(ids())).logits, whole, atol=1e-6)
    shifted = model(ids(), position_ids=torch.arange(5, 25)[None]).logits
    assert not torch.allclose(shifted, whole)


@pytest.mark.compat
@pytest.mark.parametrize("part", ["semantic", "fine_acoustics"])
def test_gradient_checkpointing_gives_the_same_gradients(part: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = getattr(tiny_model(), part).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        inputs = (1, codes()) if part == "fine_acoustics" else (ids(),)
        labels = codes()[..., 1] if part == "fine_acoustics" else ids() % 41
        model(*inputs, labels=labels).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert gradients[0].abs().sum() > 0 and torch.allclose(*gradients, atol=1e-6)


@pytest.mark.compat
def test_fine_heads_are_tied_and_causal_heads_are_not(tmp_path: Path) -> None:
    model = tiny_model()
    heads, embeds = model.fine_acoustics.lm_heads, model.fine_acoustics.input_embeds_layers
    assert all(head.weight is embeds[i + 1].weight for i, head in enumerate(heads))
    assert model.semantic.get_output_embeddings() is None
    model.save_pretrained(tmp_path)
    again = BarkModel.from_pretrained(tmp_path)
    assert again.fine_acoustics.lm_heads[2].weight is again.fine_acoustics.input_embeds_layers[3].weight
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    alone = tmp_path / "alone"
    model.fine_acoustics.save_pretrained(alone)
    assert torch.equal(BarkFineModel.from_pretrained(alone)(1, codes()).logits, model.fine_acoustics(1, codes()).logits)


def test_training_leaves_a_cache_alone_under_checkpointing() -> None:
    model = tiny_model().semantic.train()
    model.gradient_checkpointing_enable()
    cache = DynamicCache(config=model.config)
    output = model(ids(), past_key_values=cache, use_cache=True)
    assert output.past_key_values is None and cache.get_seq_length() == 0


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    labels = ids(seed=1) % 41
    labels[0, :15] = -100  # rows of different weight: only a count over both gives the whole batch's mean
    rows = [{"input_ids": row, "labels": label} for row, label in zip(ids(), labels, strict=True)]
    after = []
    for size in (1, 2):
        model = tiny_model().semantic
        arguments = TrainingArguments(
            output_dir=str(tmp_path / str(size)),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=2 // size,
            max_steps=1,
            learning_rate=1.0,
            optim="sgd",
            max_grad_norm=0.0,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        Trainer(model=model, args=arguments, train_dataset=rows).train()
        after.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*after, atol=1e-5)


@pytest.mark.compat
@pytest.mark.parametrize("part", ["semantic", "coarse_acoustics", "fine_acoustics"])
def test_a_sub_model_loads_from_the_whole_ones_folder(checkpoint: Path, part: str) -> None:
    whole = getattr(BarkModel.from_pretrained(checkpoint), part)
    alone, report = type(whole).from_pretrained(checkpoint, output_loading_info=True)
    assert not report["missing_keys"]
    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.compat
def test_attention_is_chosen_when_a_model_is_loaded(checkpoint: Path) -> None:
    assert BarkModel.from_pretrained(checkpoint).semantic.config._attn_implementation == "sdpa"
    eager = BarkModel.from_pretrained(checkpoint, attn_implementation="eager")
    assert {part.config._attn_implementation for part in (eager.semantic, eager.fine_acoustics)} == {"eager"}
    assert BarkModel._supports_flash_attn and not any("attn.bias" in name for name in eager.state_dict())


@pytest.mark.compat
def test_resizing_embeddings() -> None:
    model = tiny_model()
    before = model.semantic(ids()).logits
    model.semantic.resize_token_embeddings(150)
    assert model.semantic.config.input_vocab_size == 150
    assert torch.equal(model.semantic(ids()).logits, before)
    fine = model.fine_acoustics
    before = fine(1, codes()).logits
    fine.resize_token_embeddings(48)
    assert fine(1, codes()).logits.shape[-1] == 48 and torch.allclose(
        fine(1, codes()).logits[..., :40], before, atol=1e-5
    )
    assert fine.lm_heads[0].weight is fine.input_embeds_layers[1].weight
    assert fine.config.input_vocab_size == fine.config.output_vocab_size == 48
    assert fine.resize_token_embeddings() is fine.input_embeds_layers


def test_state_dict_names_are_those_of_stock() -> None:
    config, _ = odd_sizes()
    theirs = {
        name for name in stock.BarkModel(stock.BarkConfig(**config)).state_dict() if not name.endswith(".attn.bias")
    }
    assert set(BarkModel(BarkConfig(**config)).state_dict()) == theirs


@pytest.mark.compat
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loading_in_half_precision_and_on_a_device(checkpoint: Path, dtype: torch.dtype) -> None:
    model = BarkModel.from_pretrained(checkpoint, dtype=dtype, device_map="cpu")
    assert {p.dtype for p in model.parameters()} == {dtype} and model.device == torch.device("cpu")
    audio = model.generate(torch.randint(1, 60, (1, 8)), seed=1)
    assert audio.dtype == dtype and torch.isfinite(audio).all()


def test_offload_runs_and_frees(checkpoint: Path) -> None:
    model, plain = BarkModel.from_pretrained(checkpoint), BarkModel.from_pretrained(checkpoint)
    if not torch.accelerator.is_available():
        with pytest.raises(RuntimeError, match="accelerator"):
            model.enable_cpu_offload()
    model.enable_cpu_offload(device="cpu")
    assert model.device == torch.device("cpu") and hasattr(model.semantic, "_hf_hook")
    text = torch.randint(1, 60, (1, 8))
    assert torch.equal(model.generate(text, seed=1), plain.generate(text, seed=1))


@pytest.mark.compat
def test_the_generation_config_is_always_typed(checkpoint: Path, tmp_path: Path) -> None:
    model = BarkModel.from_pretrained(checkpoint)
    assert isinstance(model.generation_config, BarkGenerationConfig)
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    bare = BarkModel.from_pretrained(tmp_path)
    assert isinstance(bare.generation_config, BarkGenerationConfig)
    assert bare.generation_config.to_dict() == BarkGenerationConfig().to_dict()
    assert isinstance(BarkModel(model.config).generation_config, BarkGenerationConfig)
    given = BarkModel.from_pretrained(checkpoint, generation_config=model.generation_config)
    assert given.generation_config.to_dict() == model.generation_config.to_dict()
    stock_twin(model).save_pretrained(tmp_path / "stock")
    assert isinstance(BarkModel.from_pretrained(tmp_path / "stock").generation_config, BarkGenerationConfig)


def test_a_model_that_was_saved_loads_and_says_when_it_speaks_that_it_cannot(tmp_path: Path) -> None:
    """Configs made of part of the sizes, as users and Transformers' own tests make them: the rest does not fit."""
    sizes = {"num_layers": 1, "hidden_size": 32, "num_heads": 2}
    parts = ("semantic_config", "coarse_acoustics_config", "fine_acoustics_config")
    model = BarkModel(BarkConfig(**dict.fromkeys(parts, sizes), codec_config=CODEC))
    model.save_pretrained(tmp_path)
    loaded = BarkModel.from_pretrained(tmp_path)
    assert loaded.generation_config == model.generation_config
    assert loaded.semantic(torch.arange(3)[None]).logits.shape == (1, 3, 10_048)
    for one in (model, loaded):
        with pytest.raises(ValueError, match="semantic_config.input_vocab_size.*10048.*129600"):
            one.generate(torch.ones(1, 3, dtype=torch.long))


def test_the_models_of_the_text_and_of_a_stage_have_embeddings(model: BarkModel) -> None:
    assert model.get_input_embeddings() is model.semantic.input_embeds_layer
    assert model.get_output_embeddings() is None
    larger = tiny_model()
    assert larger.resize_token_embeddings(130).weight.shape[0] == 130 == larger.config.semantic_config.input_vocab_size
    assert larger.coarse_acoustics.config.input_vocab_size == 140, "the other stages keep theirs"


def test_transformers_may_compile_the_models() -> None:
    """What GPT-2 declares too: its own tests of static caches and of exporting run where it is True."""
    assert all(kind._can_compile_fullgraph for kind in (BarkSemanticModel, BarkCoarseModel, BarkFineModel, BarkModel))
    assert issubclass(BarkSemanticModel, BarkCausalModel)


@pytest.mark.compat
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.semantic(ids(), atention_mask=None), TypeError, "atention_mask"),
        (lambda m: m.fine_acoustics(1, codes(), lables=None), TypeError, "lables"),
        (lambda m: m.semantic(), ValueError, "exactly one of"),
        (lambda m: m.semantic(ids(), inputs_embeds=torch.zeros(2, 20, 32)), ValueError, "exactly one of"),
        (lambda m: m.semantic(ids(97)), ValueError, "position 96.*block_size.*96"),
        (lambda m: m.semantic(ids(), labels=ids(), logits_to_keep=1), ValueError, "logits_to_keep"),
        (lambda m: m.semantic(ids(), cache=DynamicCache(), past_key_values=DynamicCache()), ValueError, "give one of"),
        (lambda m: m.fine_acoustics(0, codes()), ValueError, r"codebook_idx.*\[1, 4\).*0"),
        (lambda m: m.fine_acoustics(4, codes()), ValueError, r"codebook_idx.*4"),
        (lambda m: m.fine_acoustics(3, codes()[..., :3]), ValueError, "more than 3 codebooks"),
    ],
)
def test_bad_calls_are_named(model: BarkModel, call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(model)


def test_initial_weights_are_small_and_dropout_acts_in_training() -> None:
    config = BarkConfig(**odd_sizes()[0]).semantic_config
    config.dropout = 0.5
    model = BarkSemanticModel(config)
    assert 0.01 < model.layers[0].attn.att_proj.weight.std() < 0.03
    assert not torch.equal(model.train()(ids()).logits, model(ids()).logits)
    assert torch.equal(model.eval()(ids()).logits, model(ids()).logits)
