"""Small random checkpoints: as the Hub lays them out, with real vocabularies or with odd ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertTokenizer

from transformers_bark import BarkConfig, BarkGenerationConfig, BarkModel, BarkProcessor, VoicePreset

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "hello",
    "my",
    "dog",
    "is",
    "cooler",
    "than",
    "you",
    "he",
    "##llo",
    "a",
    "b",
    "c",
    "d",
    "!",
    ",",
    ".",
    "?",
    "the",
    "quick",
    "cat",
]

CODEC = {
    "model_type": "encodec",
    "num_filters": 2,
    "hidden_size": 16,
    "codebook_dim": 16,
    "num_lstm_layers": 1,
}
SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "bias": False}


def released_vocabularies() -> dict:
    """Model config with the released vocabularies and positions, but tiny layers."""
    return {
        "semantic_config": {**SIZES, "input_vocab_size": 129_600, "output_vocab_size": 10_048},
        "coarse_acoustics_config": {**SIZES, "input_vocab_size": 12_096, "output_vocab_size": 12_096},
        "fine_acoustics_config": {**SIZES, "input_vocab_size": 1_056, "output_vocab_size": 1_056},
        "codec_config": CODEC,
    }


def odd_sizes() -> tuple[dict, dict]:
    """Model and generation config in which every vocabulary, rate and window differs from the released ones."""
    model = {
        "semantic_config": {**SIZES, "input_vocab_size": 120, "output_vocab_size": 41, "block_size": 96},
        "coarse_acoustics_config": {**SIZES, "input_vocab_size": 140, "output_vocab_size": 104, "block_size": 96},
        "fine_acoustics_config": {
            **SIZES,
            "input_vocab_size": 40,
            "output_vocab_size": 40,
            "block_size": 64,
            "n_codes_total": 4,
        },
        "codec_config": {**CODEC, "codebook_size": 32, "upsampling_ratios": [8, 5, 5, 3], "target_bandwidths": [1.6]},
    }
    generation = {
        "codebook_size": 32,
        "semantic_config": {
            "eos_token_id": 40,
            "semantic_vocab_size": 40,
            "text_encoding_offset": 48,
            "text_pad_token": 118,
            "semantic_infer_token": 119,
            "max_input_semantic_length": 16,
            "semantic_rate_hz": 25.0,
            "max_new_tokens": 40,
        },
        "coarse_acoustics_config": {
            "coarse_semantic_pad_token": 136,
            "coarse_infer_token": 137,
            "coarse_rate_hz": 40,
            "n_coarse_codebooks": 2,
            "max_coarse_input_length": 24,
            "max_coarse_history": 40,
            "sliding_window_len": 12,
        },
        "fine_acoustics_config": {
            "temperature": 0.5,
            "max_fine_history_length": 16,
            "max_fine_input_length": 32,
            "n_fine_codebooks": 4,
        },
    }
    return model, generation


def randomize(model: torch.nn.Module, seed: int, std: float = 0.3) -> None:
    """Weights wide enough that tokens differ from step to step."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "codec" not in name:
            with torch.no_grad():
                parameter.normal_(std=std, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("codebook.embed"):  # all zero in a new codec: every code would sound the same
            buffer.normal_(generator=generator)
    coarse = getattr(model, "coarse_acoustics", None)
    if coarse is not None and coarse.config.output_vocab_size == 12_096:
        # stock lets the unused ids above both codebooks win; training teaches a real model never to choose them
        with torch.no_grad():
            coarse.lm_head.weight[12_048:] = 0


def tiny_model(seed: int = 0, odd: bool = True) -> BarkModel:
    """A random model, with odd sizes or with the released vocabularies."""
    torch.manual_seed(seed)
    config, generation = odd_sizes() if odd else (released_vocabularies(), {})
    model = BarkModel(BarkConfig(**config)).eval()
    randomize(model, seed)
    model.generation_config = BarkGenerationConfig(**generation)
    return model


def tiny_tokenizer(folder: Path, max_length: int = 16) -> BertTokenizer:
    """A WordPiece tokenizer of a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=max_length)


def tiny_voice(n_semantic: int = 20, seed: int = 0) -> VoicePreset:
    """A random voice of the odd sizes: 1.6 frames a semantic token."""
    generator = torch.Generator().manual_seed(seed)
    n_frames = round(n_semantic * 1.6)
    fine = torch.randint(0, 32, (4, n_frames), generator=generator)
    return VoicePreset(torch.randint(0, 40, (n_semantic,), generator=generator), fine[:2].clone(), fine)


def tiny_semantic_tokenizer() -> Any:
    """Random clusters, with the rate and vocabulary of the odd sizes."""
    # what trains asks for more packages than the tests that only speak
    from transformers_bark.training.semantic_tokenizer import Bottleneck, SemanticTokenizer, SemanticTokenizerConfig

    torch.manual_seed(0)
    config = SemanticTokenizerConfig(n_tokens=40, context=0, n_components=4, hidden_size=16)
    return SemanticTokenizer(config, Bottleneck(config), torch.randn(40, 4))


def tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A folder that everything loads: the odd-sized model, tokenizers and one voice, `en_speaker_0`."""
    tiny_model(seed).save_pretrained(folder)
    voices = folder / "made"
    voices.mkdir()
    tiny_voice().save(voices / "voice.npz")
    processor = BarkProcessor(
        tiny_tokenizer(folder / "made"), {"repo_or_path": str(voices), "v2/en_speaker_0": "voice.npz"}
    )
    processor.save_pretrained(folder)
    tiny_semantic_tokenizer().save(folder / "semantic_tokenizer")
    for file in voices.iterdir():
        file.unlink()
    voices.rmdir()
    return folder
