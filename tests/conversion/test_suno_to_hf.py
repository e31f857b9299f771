"""The original's files -> the Hub's layout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

from conversion import convert_suno_to_hf, names
from conversion.checkpoints import ConversionError, FolderWeights
from conversion.convert_suno_to_hf import Sources, convert, released_generation_config
from conversion.encodec_codec import read_encodec
from transformers_bark import BarkGenerationConfig, BarkModel

from .originals import SIZES, VOCABULARY, build, build_codec, checkpoint, write_voice

MakeSources = Callable[..., Sources]


@pytest.fixture(scope="module")
def converted(hub_folder: Path) -> BarkModel:
    return BarkModel.from_pretrained(hub_folder).eval()


@torch.no_grad()
def all_logits(original: Any, ids: torch.Tensor, merge_context: bool = False) -> torch.Tensor:
    """The original's logits at every position; it returns only the last."""
    hidden: list[torch.Tensor] = []
    hook = original.transformer.ln_f.register_forward_hook(lambda _m, _i, output: hidden.append(output))
    last = original(ids, merge_context=merge_context)[0]
    hook.remove()
    logits = original.lm_head(hidden[0])
    torch.testing.assert_close(logits[:, -1:], last)
    return logits


@pytest.mark.parametrize(("stage", "ours"), [("text", "semantic"), ("coarse", "coarse_acoustics")])
@torch.no_grad()
def test_causal_logits_equal_the_original(models: dict[str, Any], converted: BarkModel, stage: str, ours: str) -> None:
    ids = torch.randint(10_000, (2, 40), generator=torch.Generator().manual_seed(0))
    wanted = all_logits(models[stage][0], ids)
    assert wanted.std() > 0.1
    torch.testing.assert_close(getattr(converted, ours)(ids).logits, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_merged_prompt_logits_equal_the_original(models: dict[str, Any], converted: BarkModel) -> None:
    ids = torch.randint(129_600, (1, 520), generator=torch.Generator().manual_seed(0))
    embeds = converted.semantic.input_embeds_layer(ids)
    embeds = torch.cat([embeds[:, :256] + embeds[:, 256:512], embeds[:, 512:]], dim=1)
    logits = converted.semantic(inputs_embeds=embeds).logits
    torch.testing.assert_close(logits, all_logits(models["text"][0], ids, merge_context=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("codebook", range(1, 8))
@torch.no_grad()
def test_fine_logits_equal_the_original(models: dict[str, Any], converted: BarkModel, codebook: int) -> None:
    ids = torch.randint(1056, (2, 30, 8), generator=torch.Generator().manual_seed(codebook))
    wanted = models["fine"][0](codebook, ids)
    torch.testing.assert_close(converted.fine_acoustics(codebook, ids).logits, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_codec_equals_encodec_both_ways(models: dict[str, Any], converted: BarkModel) -> None:
    codes = torch.randint(1024, (1, 8, 20), generator=torch.Generator().manual_seed(0))
    audio = models["codec"].decode([(codes, None)])
    assert audio.std() > 0
    torch.testing.assert_close(converted.codec_decode(codes), audio[:, 0], atol=1e-5, rtol=0)
    models["codec"].set_target_bandwidth(6.0)
    wanted = models["codec"].encode(audio)[0][0]
    assert torch.equal(converted.codec_model.encode(audio, bandwidth=6.0).audio_codes[0], wanted)


@torch.no_grad()
def test_released_codec_architecture(original: SimpleNamespace, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = original.encodec.EncodecModel.encodec_model_24khz(pretrained=False)
    for layer in source.quantizer.vq.layers:
        torch.nn.init.normal_(layer._codebook.embed)
    torch.save(source.state_dict(), tmp_path / "encodec.th")
    config, tensors = read_encodec(tmp_path / "encodec.th")
    from transformers import EncodecConfig, EncodecModel

    assert {**config.to_dict(), "target_bandwidths": list(config.target_bandwidths)} == {
        **EncodecConfig().to_dict(),
        "target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0],
    }
    model = EncodecModel(config).eval()
    model.load_state_dict(tensors)
    codes = torch.randint(1024, (1, 8, 10))
    wanted = source.decode([(codes, None)])
    torch.testing.assert_close(model.decode(codes[None], [None]).audio_values, wanted, atol=1e-5, rtol=0)


def test_tables_list_every_parameter_of_both_sides(original: SimpleNamespace) -> None:
    for stage, kind in zip(SIZES, names.STAGES, strict=True):
        for bias in (False, True):
            source, args = build(original, stage, bias=bias, n_layer=3)
            config = names.stage_config(kind, args, "")
            table = names.stage_names(config)
            assert set(table) == {name for name in source.state_dict() if not names.is_mask(name)}
            assert set(table.values()) == set(convert_suno_to_hf.MODELS[kind](config).state_dict())


def test_every_weight_arrives_unchanged(suno_folder: Path, hub_folder: Path) -> None:
    weights = FolderWeights(hub_folder)
    for stage, stem in names.SUNO_FILES.items():
        content = torch.load(suno_folder / f"{stem}.pt", weights_only=False)
        config = names.stage_config(stage, content["model_args"], "")
        found, tied = weights.tensors(f"{stage}."), names.tied_names(config)
        for old, new in names.stage_names(config).items():
            assert torch.equal(found[tied.get(new, new)], content["model"][f"_orig_mod.{old}"]), new


def test_tied_heads_stay_tied(converted: BarkModel) -> None:
    fine = converted.fine_acoustics
    assert all(fine.lm_heads[i].weight is fine.input_embeds_layers[i + 1].weight for i in range(7))
    assert converted.semantic.lm_head.weight is not converted.semantic.input_embeds_layer.weight


def test_sampling_of_the_original(hub_folder: Path) -> None:
    config = BarkGenerationConfig.from_pretrained(hub_folder)
    semantic, coarse, fine = config.semantic_config, config.coarse_acoustics_config, config.fine_acoustics_config
    assert (semantic.temperature, semantic.min_eos_p, semantic.top_k, semantic.do_sample) == (0.7, 0.2, 0, True)
    assert (coarse.temperature, coarse.top_k, coarse.do_sample) == (0.7, 0, True)
    assert fine.temperature == 0.5


def test_processor_and_voices(hub_folder: Path, suno_folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(hub_folder)
    inputs = processor(["hello worlds"], voice_preset="v2/en_speaker_0")
    assert inputs["input_ids"][0, :3].tolist() == [VOCABULARY.index(token) for token in ("hello", "world", "##s")]
    voice = inputs["history_prompt"]
    with np.load(suno_folder / "prompts/v2/en_speaker_0.npz") as wanted:
        for key in wanted.files:
            part = voice[key] if isinstance(voice, dict) else getattr(voice, key)
            assert np.array_equal(np.asarray(part).squeeze(), wanted[key])
    assert set(processor.available_voice_presets) == {"announcer", "v2/en_speaker_0"}


def test_generates(converted: BarkModel, hub_folder: Path) -> None:
    inputs = AutoProcessor.from_pretrained(hub_folder)("hello", voice_preset="announcer")
    audio = converted.generate(**inputs, semantic_max_new_tokens=3, semantic_min_eos_p=None, seed=0)
    assert audio.ndim == 2 and audio.isfinite().all()


STOCK = """
import sys, torch
from transformers import AutoProcessor, BarkModel
model, info = BarkModel.from_pretrained(sys.argv[1], output_loading_info=True)
assert type(model).__module__ == "transformers.models.bark.modeling_bark"
missing = [name for name in info["missing_keys"] if not name.endswith(".attn.bias")]  # stock fills its masks itself
assert not missing and not info["unexpected_keys"] and not info["mismatched_keys"], info
config = model.generation_config.semantic_config
assert (config["temperature"], config["top_k"]) == (0.7, 0), config
processor = AutoProcessor.from_pretrained(sys.argv[1])
assert processor("hello", voice_preset="v2/en_speaker_0")["history_prompt"]["fine_prompt"].shape[0] == 8
ids = torch.arange(40)[None]
torch.save([model.semantic(ids).logits, model.fine_acoustics(3, torch.arange(80).view(1, 10, 8)).logits], sys.argv[2])
"""


@torch.no_grad()
def test_stock_transformers_loads_it(hub_folder: Path, converted: BarkModel, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", STOCK, str(hub_folder), str(tmp_path / "logits.pt")], check=True)
    semantic, fine = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(converted.semantic(torch.arange(40)[None]).logits, semantic, atol=1e-5, rtol=0)
    ids = torch.arange(80).view(1, 10, 8)
    torch.testing.assert_close(converted.fine_acoustics(3, ids).logits, fine, atol=1e-5, rtol=0)


def save_stage(original: SimpleNamespace, folder: Path, stage: str, **options: Any) -> tuple[Path, dict[str, Any]]:
    """A new file of a stage, and what it holds, for a test to change."""
    content = checkpoint(*build(original, stage), **options)
    path = folder / f"{stage}.pt"
    torch.save(content, path)
    return path, content


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_spellings_of_names_and_sizes(original: SimpleNamespace, tmp_path: Path, stage: str, prefix: str) -> None:
    path, content = save_stage(original, tmp_path, stage, prefix=prefix)
    args = content["model_args"]
    size = args.pop("input_vocab_size")
    assert args.pop("output_vocab_size") == size
    content["model_args"] = {**args, "vocab_size": size}
    content["model"][f"{prefix}transformer.h.0.attn.bias"] = torch.ones(1, 1, 4, 4)  # a mask of old versions
    content["best_val_loss"] = torch.tensor(2.5)
    torch.save(content, path)
    config, tensors, loss = convert_suno_to_hf.read_stage(f"{stage}_acoustics", path)
    assert (config.input_vocab_size, config.output_vocab_size, loss) == (size, size, 2.5)
    assert "layers.0.attn.bias" not in tensors


@pytest.mark.parametrize(("size", "layers", "heads", "width"), [("small", 12, 12, 24), ("large", 24, 16, 32)])
def test_depth_and_heads_of_the_released_sizes(
    original: SimpleNamespace, tmp_path: Path, size: str, layers: int, heads: int, width: int
) -> None:
    model, args = build(original, "coarse", width=width, heads=heads, n_layer=layers)
    torch.save(checkpoint(model, args), tmp_path / "coarse.pt")
    config, tensors, _ = convert_suno_to_hf.read_stage("coarse_acoustics", tmp_path / "coarse.pt")
    assert (config.num_layers, config.num_heads, config.hidden_size) == (layers, heads, width)
    ours = convert_suno_to_hf.MODELS["coarse_acoustics"](config).eval()
    ours.load_state_dict(tensors)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, all_logits(model, ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_of_the_output(sources: MakeSources, hub_folder: Path, tmp_path: Path, dtype: str) -> None:
    kind = convert_suno_to_hf.DTYPES[dtype]
    convert(sources(), tmp_path / "bark", dtype=kind)
    exact, smaller = (
        load_file(folder / "model-00001-of-00004.safetensors") for folder in (hub_folder, tmp_path / "bark")
    )
    assert all(torch.equal(tensor.to(kind), smaller[name]) for name, tensor in exact.items())
    model = BarkModel.from_pretrained(tmp_path / "bark")
    assert {parameter.dtype for parameter in model.parameters()} == {kind}
    codec = load_file(tmp_path / "bark/model-00004-of-00004.safetensors")
    statistics = {tensor.dtype for name, tensor in codec.items() if name.endswith("cluster_size")}
    assert statistics == {torch.float32}  # 16 bits would make them infinite


def test_values_that_a_dtype_cannot_hold(original: SimpleNamespace, sources: MakeSources, tmp_path: Path) -> None:
    path, content = save_stage(original, tmp_path, "coarse")
    content["model"]["_orig_mod.transformer.wpe.weight"][0, 0] = 1e6
    torch.save(content, path)
    with pytest.raises(ConversionError, match=r"position_embeds_layer.weight has values that torch.float16"):
        convert(sources(coarse=path), tmp_path / "bark", dtype=torch.float16)
    assert not (tmp_path / "bark").exists()


def test_unmapped_and_unfilled_names_are_listed(
    original: SimpleNamespace, sources: MakeSources, tmp_path: Path
) -> None:
    path, content = save_stage(original, tmp_path, "coarse")
    state = content["model"]
    state["_orig_mod.adapter.one"] = state["_orig_mod.adapter.two"] = torch.ones(1)
    del state["_orig_mod.transformer.h.0.mlp.c_fc.weight"], state["_orig_mod.lm_head.weight"]
    torch.save(content, path)
    with pytest.raises(ConversionError) as caught:
        convert(sources(coarse=path), tmp_path / "bark")
    for part in (str(path), "adapter.one, adapter.two", "layers.0.mlp.in_proj.weight", "lm_head.weight"):
        assert part in str(caught.value)


def test_codec_names_are_total(models: dict[str, Any], sources: MakeSources, tmp_path: Path) -> None:
    state = models["codec"].state_dict()
    state["decoder.extra"] = state.pop("decoder.model.0.conv.conv.bias")
    torch.save(state, tmp_path / "encodec.th")
    with pytest.raises(ConversionError, match=r"decoder\.extra.*decoder\.layers\.0\.conv\.bias"):
        convert(sources(codec=tmp_path / "encodec.th"), tmp_path / "bark")


def test_codec_of_another_kind(original: SimpleNamespace, sources: MakeSources, tmp_path: Path) -> None:
    torch.save(build_codec(original, n_q=4).state_dict(), tmp_path / "few.th")
    with pytest.raises(ConversionError, match=r"the codec has 4 codebooks, the models need 8"):
        convert(sources(codec=tmp_path / "few.th"), tmp_path / "bark")
    with pytest.raises(ConversionError, match="not the state of a weight-normalised EnCodec"):
        torch.save({"encoder.weight": torch.ones(1)}, tmp_path / "other.th")
        convert(sources(codec=tmp_path / "other.th"), tmp_path / "bark")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["model_args"].update(rotary=True), r"unknown \['rotary'\]"),
        (lambda content: content["model_args"].pop("n_head"), r"lacks \['n_head'\]"),
        (lambda content: content["model_args"].update(n_head=3), "must divide"),
        (lambda content: content["model_args"].update(n_embd=32), r"wrong shapes: .*expected \("),
        (lambda content: content["model_args"].update(n_layer=2), "parameters that nothing fills: .*layers.1"),
        (lambda content: content.pop("model_args"), "must be a mapping with `model` and `model_args`"),
        (lambda content: content["model"].update(note="hello"), "not tensors: note"),
    ],
)
def test_impossible_contents(
    original: SimpleNamespace, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    path, content = save_stage(original, tmp_path, "coarse")
    change(content)
    torch.save(content, path)
    with pytest.raises(ConversionError, match=message) as caught:
        convert_suno_to_hf.read_stage("coarse_acoustics", path)
    assert str(path) in str(caught.value)


def test_heads_that_are_not_tied(original: SimpleNamespace, tmp_path: Path) -> None:
    path, content = save_stage(original, tmp_path, "fine")
    content["model"]["_orig_mod.lm_heads.2.weight"] = torch.zeros(1056, 16)
    torch.save(content, path)
    with pytest.raises(ConversionError, match="lm_heads.2.weight and input_embeds_layers.3.weight are one parameter"):
        convert_suno_to_hf.read_stage("fine_acoustics", path)


def test_stages_in_the_wrong_places(sources: MakeSources, suno_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"semantic_config.input_vocab_size` is 12096"):
        convert(sources(text=suno_folder / "coarse.pt"), tmp_path / "bark")
    with pytest.raises(ConversionError, match="lm_head"):
        convert(sources(fine=suno_folder / "coarse.pt"), tmp_path / "bark")


def test_missing_inputs_are_all_named(sources: MakeSources, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"not found: text \(nowhere.pt\), voices \(no\)"):
        convert(sources(text=Path("nowhere.pt"), voices=Path("no")), tmp_path / "bark")


def test_optional_inputs_left_out_are_reported(sources: MakeSources, tmp_path: Path) -> None:
    report = convert(sources(tokenizer=None, voices=None), tmp_path / "bark")
    assert any(line.startswith("tokenizer: none given") for line in report)
    assert any(line.startswith("voices: none given") for line in report)
    BarkModel.from_pretrained(tmp_path / "bark")


def test_bad_voices_and_vocabularies(sources: MakeSources, tmp_path: Path) -> None:
    write_voice(tmp_path / "voices/long.npz")
    with np.load(tmp_path / "voices/long.npz") as file:
        np.savez(tmp_path / "voices/long.npz", **{**file, "semantic_prompt": np.arange(7)})
    with pytest.raises(ConversionError, match=r"long.npz: .*7 semantic tokens"):
        convert(sources(voices=tmp_path / "voices"), tmp_path / "bark")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConversionError, match=r"no .npz files"):
        convert(sources(voices=tmp_path / "empty"), tmp_path / "bark")
    (tmp_path / "vocab.txt").write_text("hello\nhello\n")
    with pytest.raises(ConversionError, match="not a tokenizer"):
        convert(sources(tokenizer=tmp_path / "vocab.txt"), tmp_path / "bark")
    assert not (tmp_path / "bark").exists()


def test_generation_config_of_other_models(sources: MakeSources, tmp_path: Path) -> None:
    settings = released_generation_config().to_dict()
    settings["semantic_config"]["temperature"] = 0.9
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    convert(sources(generation_config=tmp_path / "settings.json"), tmp_path / "bark")
    assert BarkGenerationConfig.from_pretrained(tmp_path / "bark").semantic_config.temperature == 0.9


def test_verify_passes_and_fails(
    sources: MakeSources, original: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = convert(sources(), tmp_path / "bark", verify=True)
    compared = [line for line in report if line.startswith("compared")]
    assert [line.split(": ")[1].split(" differ")[0] for line in compared] == [
        "semantic logits",
        "coarse_acoustics logits",
        "fine_acoustics logits",
        "codec audio",
    ]
    swapped = {**names._NORMS, "ln_1": "layernorm_2", "ln_2": "layernorm_1"}
    monkeypatch.setattr(names, "_NORMS", swapped)
    with pytest.raises(ConversionError, match="semantic logits differ from the original's by"):
        convert(sources(), tmp_path / "wrong", verify=True)
    assert not (tmp_path / "wrong").exists()


def test_command_line(suno_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    calls: list[tuple[str, Any]] = []

    class Api:
        def create_repo(self, repo_id: str, **options: Any) -> None:
            calls.append((repo_id, options))

        def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> str:
            calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))
            return "address of the commit"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    arguments = [f"--{stage}={suno_folder / stage}.pt" for stage in SIZES]
    arguments += [f"--codec={suno_folder / 'encodec.th'}", f"--output={tmp_path / 'bark'}"]
    assert convert_suno_to_hf.main([*arguments, "--push-to-hub", "me/bark", "--private", "--base-model="]) == 0
    assert "address of the commit" in capsys.readouterr().out
    assert calls[0] == ("me/bark", {"private": True, "exist_ok": True})
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors.index.json"} <= set(calls[1][1])
    assert convert_suno_to_hf.main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert convert_suno_to_hf.main([*arguments, "--overwrite"]) == 0
