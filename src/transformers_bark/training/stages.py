"""The stages of a recipe, each from the files of those before it. A stage that is finished is not done again.

python -m transformers_bark.training all --recipe recipes/nano --runs runs/nano
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoTokenizer, BertTokenizer, EncodecConfig, EncodecModel, PreTrainedModel

from .. import codec as codec_contract
from .. import hub, output_files
from ..configuration_bark import BarkCoarseConfig, BarkConfig, BarkFineConfig, BarkSemanticConfig
from ..generation_configuration_bark import BarkGenerationConfig, check_compatible
from ..modeling_bark import BarkCoarseModel, BarkFineModel, BarkModel, BarkSemanticModel
from ..processing_bark import BarkProcessor
from ..voices import VoicePreset
from . import data as teacher_data
from .carry_over import carry_coarse, carry_fine, coincidence
from .codec import CodecForTraining, RandomCrops, keep_codebooks, make_louder, scale_to_unit_variance, trust_less
from .decoder import CodedCrops, DecoderForTraining
from .prepare import SEMANTIC_TOKENIZER
from .retuning import CodecRetuning
from .semantic_tokenizer import (
    PhonemeClassifier,
    PhonemeTargets,
    SemanticTokenizer,
    SemanticTokenizerConfig,
    WordLoss,
    phoneme_classes,
)
from .targets import (
    CoarseForTraining,
    CoarseTargets,
    FineTargets,
    SemanticForTraining,
    SemanticTargets,
    initialize_positions,
)
from .text_normalizer import normalizing_tokenizer, text_normalizer
from .train import run_training

_KEPT = ("id", "text", "voice", "word_chars", "word_frames")
"""Columns of an utterance that its encoded row has too."""

SHARED = ("data", "encoded")
"""Stages that write shards: they look themselves for what is missing, and several runs may share them."""

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Recipe:
    """A folder of settings, one JSON file a stage, and the folder where the work lies.

    A recipe that has a `recipe.json` with a `base`, the path of another folder, holds only what differs from there.
    """

    folder: Path
    runs: Path

    def base(self) -> Recipe | None:
        """The recipe that this one differs from."""
        path = self.folder / "recipe.json"
        if not path.exists():
            return None
        return Recipe(self.folder / json.loads(path.read_text(encoding="utf-8"))["base"], self.runs)

    def file(self, name: str) -> Path:
        """A file of the recipe, or of its base; it need not exist."""
        base, path = self.base(), self.folder / name
        return path if path.exists() or base is None else base.file(name)

    def settings(self, name: str) -> dict[str, Any]:
        """The settings of a stage."""
        base, path = self.base(), self.folder / f"{name}.json"
        if base is None or not base.file(path.name).exists():
            return json.loads(path.read_text(encoding="utf-8"))
        own = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return _laid_over(base.settings(name), own)

    def generation_config(self) -> BarkGenerationConfig:
        """Vocabularies, rates and windows that all stages share."""
        return BarkGenerationConfig(**self.settings("generation_config"))

    def voices(self) -> Mapping[str, float]:
        """The teacher's voices and their pitches; the first speaks where no preset asks for another."""
        return self.settings("data").get("voices", teacher_data.ONE_VOICE)

    def default_voice(self) -> str:
        """The voice that speaks without a preset."""
        return next(iter(self.voices()))

    def shards(self) -> list[Dataset]:
        """The finished shards of the teacher's audio."""
        return teacher_data.load_shards(self.runs / "data")

    def retunes(self) -> bool:
        """Whether the codec goes on: whether the recipe has settings for the stage `retuned`."""
        return self.file("retuned.json").exists()

    def codec(self) -> EncodecModel:
        """The codec that codes are made with."""
        return EncodecModel.from_pretrained(self.done("retuned" if self.retunes() else "codec")).eval()

    def done(self, name: str) -> Path:
        """The folder that a stage leaves when it is finished."""
        return self.runs / "out" / name


def _laid_over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `own`; mappings inside are laid over each other."""
    both = {
        name: _laid_over(base[name], value) if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in own.items()
    }
    return base | both


def _waveform(row: dict[str, Any]) -> torch.Tensor:
    return torch.from_numpy(teacher_data.as_float(row["audio"]))


def _train(recipe: Recipe, name: str, module: nn.Module, rows: Dataset, targets: Any, seconds: float) -> None:
    """Says what a stage will cost, at so many seconds a step, and trains it with its settings."""
    training = recipe.settings(name)["training"]
    steps, batch = training["max_steps"], training["per_device_train_batch_size"]
    print(f"{name}: {steps} steps of {batch}, about {steps * seconds / 60:.0f} min on one core of a 2024 server")
    run_training(module, rows, targets, recipe.runs / "training" / name, training)


def make_data(recipe: Recipe) -> None:
    """Texts, spoken by the teacher."""
    settings = recipe.settings("data")
    texts = teacher_data.compose_texts(
        teacher_data.read_sentences(recipe.file(settings["corpus"])),
        recipe.settings("everyday"),
        settings["n_everyday"],
        settings["n_words"],
        settings["seed"],
        teacher_data.read_sentences(recipe.file(settings["held_out"])),
    )[: settings["n_texts"]]
    print(
        f"data: {len(texts)} texts, about {len(texts) * 2.4 / 3600:.1f} h of audio, {len(texts) / 28 / 60:.0f} min on a core"
    )
    teacher_data.synthesize_shards(
        texts,
        recipe.runs / "data",
        settings["shard_size"],
        settings["speeds"],
        settings["seed"],
        recipe.voices(),
        settings.get("shares"),
    )


def train_codec(recipe: Recipe) -> None:
    """An EnCodec of the recipe's size on random crops."""
    settings = recipe.settings("codec")
    torch.manual_seed(settings["training"]["seed"])
    shards = recipe.shards()[1 : settings["n_shards"] + 1]
    rows = concatenate_datasets(shards).select_columns(["audio"]).with_format("numpy")
    model = CodecForTraining(EncodecConfig(**settings["model"]), **settings.get("quantizer", {}))
    crops = RandomCrops(settings["crop_samples"], settings["training"]["seed"])
    scale_to_unit_variance(model.codec, crops([rows[i] for i in range(min(16, len(rows)))])["audio"])
    _train(recipe, "codec", model, rows, crops, seconds=0.4)
    model.export().save_pretrained(recipe.done("codec"))


def train_semantic_tokenizer(recipe: Recipe) -> None:
    """The network that narrows sounds down to phonemes, and the clusters of the semantic tokens."""
    settings = recipe.settings("semantic_tokenizer")
    torch.manual_seed(settings["training"]["seed"])
    config = SemanticTokenizerConfig(**settings["tokenizer"])
    rows = concatenate_datasets(recipe.shards()[1 : settings["n_shards"] + 1]).with_format("numpy")
    index: dict[str, int] = {}
    classes = [
        phoneme_classes(
            row["phonemes"],
            row["phoneme_frames"],
            len(row["audio"]) // config.hop,
            1 / config.rate_hz,
            teacher_data.FRAME_SECONDS,
            index,
        )
        for row in rows
    ]
    rows = rows.select_columns(["audio"]).add_column("classes", classes)
    model, targets = PhonemeClassifier(config, len(index)), PhonemeTargets(config)
    model.bottleneck.standardize(targets([rows[i] for i in range(min(100, len(rows)))])["features"])
    _train(recipe, "semantic_tokenizer", model, rows, targets, seconds=0.1)
    audios = (_waveform(row) for row in rows)
    SemanticTokenizer.fit(config, model.bottleneck, audios).save(recipe.done("semantic_tokenizer"))


def train_text_tokenizer(recipe: Recipe) -> None:
    """A WordPiece vocabulary hardly larger than the alphabet: spelling is learned letter by letter."""
    settings = recipe.settings("text_tokenizer")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = text_normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings["vocab_size"], min_frequency=5, special_tokens=SPECIAL_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator((text for shard in recipe.shards() for text in shard["text"]), trainer)
    vocabulary = tokenizer.get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    words += [digit for digit in (f"##{number}" for number in range(10)) if digit not in words]
    folder = recipe.done("text_tokenizer")
    output_files.write_text(folder / "vocab.txt", "\n".join(words) + "\n", make_folder=True)
    length = recipe.generation_config().semantic_config.max_input_semantic_length
    plain = BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True, model_max_length=length)
    normalizing_tokenizer(plain, settings).save_pretrained(folder)


def retune_codec(recipe: Recipe) -> None:
    """The codec goes on with fewer codebooks, and learns to be understood."""
    settings = recipe.settings("retuned")
    torch.manual_seed(settings["training"]["seed"])
    codec_model = EncodecModel.from_pretrained(recipe.done("codec"))
    tokenizer = SemanticTokenizer.load(recipe.done("semantic_tokenizer"))
    config = recipe.generation_config()
    keep_codebooks(codec_model, config.fine_acoustics_config.n_fine_codebooks)
    samples = codec_contract.samples_per_frame(codec_model.config)
    rows = concatenate_datasets(recipe.shards()[1 : settings["n_shards"] + 1]).select_columns(["audio"])
    model = CodecRetuning(
        codec_model,
        WordLoss(tokenizer.config, tokenizer.bottleneck),
        config.coarse_acoustics_config.n_coarse_codebooks,
        **settings.get("losses", {}),
    )
    crops = RandomCrops(settings["crop_frames"] * samples, settings["training"]["seed"])
    _train(recipe, "retuned", model, rows.with_format("numpy"), crops, seconds=0.5)
    model.export().save_pretrained(recipe.done("retuned"))


def encode_corpus(recipe: Recipe) -> None:
    """Semantic tokens and codes of every utterance that is not too long."""
    longest = recipe.settings("encode")["max_length"]
    tokenizer = SemanticTokenizer.load(recipe.done("semantic_tokenizer"))
    codec_model = recipe.codec()
    shards = recipe.shards()
    print(f"encoded: {sum(map(len, shards))} utterances, about {sum(map(len, shards)) / 19 / 60:.0f} min on a core")

    def make(number: int) -> Iterator[dict[str, Any]]:
        for row in shards[number].with_format("numpy"):
            audio = _waveform(row)
            semantic = tokenizer.encode(audio).tolist()
            if 5 < len(semantic) < longest:
                kept = {name: np.asarray(row[name]).tolist() for name in _KEPT}
                codes = codec_contract.encode_recording(codec_model, audio).tolist()
                yield {**kept, "semantic": semantic, "codes": codes, "length": len(semantic)}

    for path, rows in teacher_data.write_shards(recipe.runs / "encoded", len(shards), make):
        print(f"{path}: {len(rows)} utterances", flush=True)


def _encoded(recipe: Recipe) -> Dataset:
    """The encoded corpus without the rows held out for listening."""
    rows = _all_encoded(recipe)
    return rows.select(range(min(200, len(rows) // 2), len(rows)))


def _all_encoded(recipe: Recipe) -> Dataset:
    return concatenate_datasets(teacher_data.load_shards(recipe.runs / "encoded"))


def _repeated(rows: Dataset, repeats: dict[str, int]) -> Dataset:
    """The rows, those of the named voices as many times as they have there: a voice that is harder to say is seen more."""
    voices = np.asarray(rows["voice"])
    return rows.select(np.repeat(np.arange(len(rows)), [repeats.get(voice, 1) for voice in voices]))


def _coincidences(recipe: Recipe, n_codebooks: int, n_rows: int = 400) -> list[torch.Tensor]:
    """For each codebook how the codes of `codec`, on which the weights before were trained, coincide with the new ones."""
    codec_model = EncodecModel.from_pretrained(recipe.done("codec")).eval()
    rows = _encoded(recipe)
    rows = rows.select(range(min(n_rows, len(rows))))
    new = {row["id"]: np.asarray(row["codes"]) for row in rows}
    spoken = concatenate_datasets(recipe.shards()[: 2 + n_rows // max(1, len(recipe.shards()[0]))]).with_format("numpy")
    places = [place for place, name in enumerate(spoken["id"]) if name in new]
    pairs = [
        (codec_contract.encode_recording(codec_model, _waveform(row)).numpy(), new[str(row["id"])])
        for row in spoken.select(places)
    ]
    size = recipe.generation_config().codebook_size
    return [coincidence(((old[book], codes[book]) for old, codes in pairs), size) for book in range(n_codebooks)]


def train_semantic(recipe: Recipe) -> None:
    """Text -> semantic tokens."""
    settings, config = recipe.settings("semantic"), recipe.generation_config()
    torch.manual_seed(settings["training"]["seed"])
    tokenizer = AutoTokenizer.from_pretrained(recipe.done("text_tokenizer"))
    model = BarkSemanticModel(BarkSemanticConfig(**recipe.settings("model")["semantic_config"]))
    rows = _encoded(recipe)
    sample = rows.select(range(min(500, len(rows))))
    pace = [len(tokenizer.tokenize(row["text"])) / row["length"] for row in sample]
    initialize_positions(model, config.semantic_config.max_input_semantic_length, float(np.mean(pace)))
    wrapped = SemanticForTraining(model, config, settings["guided"], settings["guidance"])
    targets = SemanticTargets(
        tokenizer,
        config,
        teacher_data.FRAME_SECONDS,
        settings["training"]["seed"],
        default_voice=recipe.default_voice(),
    )
    _train(recipe, "semantic", wrapped, rows, targets, seconds=1.5)
    model.config.alignment_heads = settings["guided"] or None
    model.save_pretrained(recipe.done("semantic"))


def train_coarse(recipe: Recipe) -> None:
    """Semantic tokens -> the first codebooks."""
    settings, config = recipe.settings("coarse"), recipe.generation_config()
    torch.manual_seed(settings["training"]["seed"])
    targets = CoarseTargets(config, settings["training"]["seed"], default_voice=recipe.default_voice())
    stage = config.coarse_acoustics_config
    model = BarkCoarseModel(BarkCoarseConfig(**recipe.settings("model")["coarse_acoustics_config"]))
    if "before" in settings:
        before = BarkCoarseModel.from_pretrained(recipe.done(settings["before"]))
        old = (recipe.base() or recipe).generation_config()
        shares = _coincidences(recipe, old.coarse_acoustics_config.n_coarse_codebooks)
        carry_coarse(model, before, shares, old, config)
    else:
        initialize_positions(model, stage.max_coarse_input_length, 1 / targets.ratio)
    wrapped = CoarseForTraining(model, settings["guided"], settings["guidance"], settings.get("guided_steps"))
    _train(recipe, "coarse", wrapped, _repeated(_encoded(recipe), settings.get("repeats", {})), targets, seconds=1.65)
    model.save_pretrained(recipe.done("coarse"))


def train_fine(recipe: Recipe) -> None:
    """The first codebooks -> the others."""
    settings, config = recipe.settings("fine"), recipe.generation_config()
    torch.manual_seed(settings["training"]["seed"])
    if "before" in settings:
        model = BarkFineModel.from_pretrained(recipe.done(settings["before"]))
        carry_fine(model, _coincidences(recipe, config.fine_acoustics_config.n_fine_codebooks))
    else:
        model = BarkFineModel(BarkFineConfig(**recipe.settings("model")["fine_acoustics_config"]))
    targets = FineTargets(config, settings["training"]["seed"], default_voice=recipe.default_voice())
    _train(recipe, "fine", model, _encoded(recipe), targets, seconds=0.5)
    model.save_pretrained(recipe.done("fine"))


def train_decoder(recipe: Recipe) -> None:
    """The codec's decoder once more, from the codes of the whole corpus."""
    settings = recipe.settings("decoder")
    torch.manual_seed(settings["training"]["seed"])
    codec_model = recipe.codec()
    samples = codec_contract.samples_per_frame(codec_model.config)
    crops = CodedCrops(settings["crop_frames"], samples, settings["training"]["seed"], settings["n_codebooks"])
    coded = _encoded(recipe).select_columns(["id", "codes"])
    coded = coded.filter(lambda codes: len(codes[0]) >= crops.n_frames, input_columns="codes")
    spoken = concatenate_datasets(recipe.shards()).select_columns(["id", "audio"])
    places = {name: place for place, name in enumerate(spoken["id"])}
    heard = spoken.select([places[name] for name in coded["id"]]).select_columns("audio")
    rows = concatenate_datasets([coded.select_columns("codes"), heard], axis=1).with_format("numpy")
    words = None
    if weight := settings.get("word_weight", 0.0):
        tokenizer = SemanticTokenizer.load(recipe.done("semantic_tokenizer"))
        words = WordLoss(tokenizer.config, tokenizer.bottleneck)
    model = DecoderForTraining(codec_model, decay=settings["decay"], words=words, word_weight=weight)
    _train(recipe, "decoder", model, rows, crops, seconds=0.32)
    model.export().save_pretrained(recipe.done("decoder"))


def export(recipe: Recipe) -> None:
    """One folder in the Hub's layout, with 16-bit weights, tokenizers and voices of held-out utterances.

    It speaks, and hears, at `gain` times the teacher's level; the fine model's codebooks count for `trust_in_fine` of what they say.
    """
    config = recipe.generation_config()
    parts = {
        "semantic": BarkSemanticModel.from_pretrained(recipe.done("semantic")),
        "coarse_acoustics": BarkCoarseModel.from_pretrained(recipe.done("coarse")),
        "fine_acoustics": BarkFineModel.from_pretrained(recipe.done("fine")),
        "codec_model": EncodecModel.from_pretrained(recipe.done("decoder")),
    }
    settings, n_coarse = recipe.settings("export"), config.coarse_acoustics_config.n_coarse_codebooks
    gain, trust = settings.get("gain", 1.0), settings.get("trust_in_fine", 1.0)
    make_louder(parts["codec_model"], gain)
    trust_less(parts["codec_model"], n_coarse, trust)
    names = ("semantic_config", "coarse_acoustics_config", "fine_acoustics_config", "codec_config")
    sizes: dict[str, Any] = {name: _sizes(part) for name, part in zip(names, parts.values(), strict=True)}
    whole = BarkConfig(**sizes)
    check_compatible(whole, config)
    model = BarkModel(whole)
    for name, part in parts.items():
        getattr(model, name).load_state_dict(part.state_dict())
    model.generation_config = config
    folder, draft = recipe.done("checkpoint"), recipe.done("checkpoint.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if recipe.file("card.md").exists():
        hub.write_model_card(draft, config.sample_rate, ["en"], "mit", None, _card(recipe))
    running_means = ("embed_avg", "cluster_size")
    weights = {name: value for name, value in model.half().state_dict().items() if not name.endswith(running_means)}
    model.save_pretrained(draft, state_dict=weights)
    # half as large on disk, but CPUs, where this is used, work in 32 bits: `from_pretrained` follows the config
    path = draft / "config.json"
    output_files.write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "dtype": "float32"})
    tokenizer = AutoTokenizer.from_pretrained(recipe.done("text_tokenizer"))
    with TemporaryDirectory() as voices:
        BarkProcessor(tokenizer, _save_voices(recipe, Path(voices))).save_pretrained(draft)
    for file in ("tokenizer.json", "generation_config.json"):  # most of both are spaces
        content = json.loads((draft / file).read_text(encoding="utf-8"))
        output_files.write_text(draft / file, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
    SemanticTokenizer.load(recipe.done("semantic_tokenizer")).louder(gain).save(draft / SEMANTIC_TOKENIZER)
    shutil.copy(recipe.file("NOTICE"), draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    print(f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB")


def _card(recipe: Recipe) -> str:
    """The recipe's card, with the seed and the hash of the data filled in."""
    text = recipe.file("card.md").read_text(encoding="utf-8")
    return text.replace("{seed}", str(recipe.settings("data")["seed"])).replace(
        "{data_sha256}", teacher_data.data_hash(recipe.shards())
    )


def _save_voices(recipe: Recipe, folder: Path) -> dict[str, str]:
    """Voices made of held-out utterances, for a processor: which, by name, stands in the settings of the export."""
    rows = _all_encoded(recipe)
    listed = {"repo_or_path": str(folder)}
    for name, choice in recipe.settings("export")["voices"].items():
        spoken = rows.filter(lambda voice, wanted=choice["voice"]: voice == wanted, input_columns="voice")
        row = spoken[choice["row"]]
        listed[name] = f"speaker_embeddings/{name}.npz"
        utterance_voice(row["semantic"], row["codes"], recipe.generation_config()).save(folder / listed[name])
    return listed


def _sizes(part: PreTrainedModel) -> dict[str, Any]:
    """The config of a part without the place that it was loaded from."""
    return {name: value for name, value in part.config.to_dict().items() if name != "_name_or_path"}


def utterance_voice(semantic: list[int], codes: list[list[int]], config: BarkGenerationConfig) -> VoicePreset:
    """An encoded utterance as a voice, cut to whole ratios of frames and semantic tokens."""
    stage = config.coarse_acoustics_config
    n_frames = min(len(codes[0]), int(len(semantic) * stage.coarse_rate_hz / config.semantic_config.semantic_rate_hz))
    fine = torch.tensor(codes)[:, :n_frames]
    return VoicePreset(torch.tensor(semantic), fine[: stage.n_coarse_codebooks], fine).check(config)


STAGES: dict[str, Callable[[Recipe], None]] = {
    "data": make_data,
    "codec": train_codec,
    "semantic_tokenizer": train_semantic_tokenizer,
    "text_tokenizer": train_text_tokenizer,
    "retuned": retune_codec,
    "encoded": encode_corpus,
    "semantic": train_semantic,
    "coarse": train_coarse,
    "fine": train_fine,
    "decoder": train_decoder,
    "checkpoint": export,
}
"""The stages in order, by the name of what each leaves."""


def run(recipe: Recipe, stage: str) -> None:
    """Runs one stage, or with `all` every stage that is not finished."""
    for name, action in STAGES.items():
        wanted = name in SHARED or not recipe.done(name).exists()
        if name == "retuned" and not recipe.retunes():
            wanted = False
        if name == stage or (stage == "all" and wanted):
            action(recipe)
