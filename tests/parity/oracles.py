"""The two oracles on shared random weights: stock Transformers, and the original library with its draws replaced by ours."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.models.bark import configuration_bark as stock_configuration
from transformers.models.bark import modeling_bark as stock_modeling

from conversion.names import model_args, stage_names
from conversion.verify import torchaudio_stand_in
from tests.tiny import randomize, released_vocabularies
from transformers_bark import BarkConfig, BarkGenerationConfig, BarkModel, VoicePreset, vocabulary
from transformers_bark.generation.sampling import Draws, choose

PRESETS = Path(__file__).parents[1] / "data" / "presets"
VOICES = ("announcer", "en_speaker_1", "v2/en_speaker_6", "v2/tr_speaker_0", "v2/zh_speaker_4")
MAX_SEMANTIC = 48
"""Semantic tokens of a case: enough for two coarse windows, few enough for many cases."""


def load_voice(name: str) -> VoicePreset:
    """One of the real voices kept with the tests."""
    return VoicePreset.load(PRESETS / f"{name}.npz")


@dataclass
class Models:
    """The same random weights in our model and in stock's."""

    ours: BarkModel
    stock: Any


def make_models(seed: int, std: float = 0.3, ends: bool = False) -> Models:
    """Tiny models with the released vocabularies.

    `std` spreads the logits, so that tokens differ from step to step; `ends` makes the end token probable enough that rows
    end after a dozen tokens or so, greedy ones too.
    """
    torch.manual_seed(seed)
    ours = BarkModel(BarkConfig(**released_vocabularies())).eval()
    randomize(ours, seed, std)
    if ends:
        with torch.no_grad():
            ours.semantic.lm_head.weight[vocabulary.SEMANTIC_VOCAB_SIZE] *= 2.5
    stock = stock_modeling.BarkModel(stock_configuration.BarkConfig(**released_vocabularies())).eval()
    missing, unexpected = stock.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and all(name.endswith(".attn.bias") for name in missing)
    set_generation(ours, stock, BarkGenerationConfig(semantic_config={"max_new_tokens": MAX_SEMANTIC}))
    return Models(ours, stock)


def set_generation(ours: BarkModel, stock: Any, config: BarkGenerationConfig) -> None:
    """Gives both the same generation config; greedy in the fine stage is None here and 1.0 in stock."""
    config.fine_acoustics_config.temperature = None
    ours.generation_config = config
    nested = config.to_dict()
    nested["fine_acoustics_config"]["temperature"] = 1.0
    stock.generation_config = GenerationConfig(**nested)


def text_inputs(seed: int, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random text of these lengths: ids and mask, [batch, 256]."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 20_000, (len(lengths), 256), generator=generator)
    mask = (torch.arange(256) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


class Original:
    """The original library on our weights: its own functions, its own models."""

    def __init__(self, ours: BarkModel) -> None:
        with torchaudio_stand_in():
            self.generation = importlib.import_module("bark.generation")
            model, fine = importlib.import_module("bark.model"), importlib.import_module("bark.model_fine")
        self.text_ids = [101, 102, 103]
        self.models = {
            "text": {"model": self._stage(model.GPT, model.GPTConfig, ours.semantic), "tokenizer": None},
            "coarse": self._stage(model.GPT, model.GPTConfig, ours.coarse_acoustics),
            "fine": self._stage(fine.FineGPT, fine.FineGPTConfig, ours.fine_acoustics),
        }

    @staticmethod
    def _stage(kind: Any, config_kind: Any, ours: Any) -> Any:
        """The original's class with our weights under the original's names."""
        model = kind(config_kind(**model_args(ours.config))).eval()
        table = {new: old for old, new in stage_names(ours.config).items()}
        state = {table[name]: value for name, value in ours.state_dict().items() if name in table}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected
        assert all(name.endswith(".attn.bias") or name.startswith("lm_heads.") for name in missing), missing
        return model

    @contextmanager
    def drawing(self, stage: str, seed: int, greedy: bool = False) -> Iterator[Any]:
        """The original's module with its models set and `torch.multinomial` drawing as our row 0 of this seed does.

        The original always samples: `greedy` lets it draw the most probable token.
        """
        draws = Draws.from_seed(seed, 1)

        def multinomial(probs: torch.Tensor, num_samples: int) -> torch.Tensor:
            assert num_samples == 1
            if greedy:
                return probs.reshape(1, -1).argmax(-1)
            probs = probs.reshape(1, -1)
            if stage == "fine":
                return choose(probs, draws.uniforms(stage, 0, 1))
            return draws.choose(stage, [0], probs)

        def tokenize(tokenizer: Any, text: str) -> list[int]:
            return self.text_ids

        with (
            mock.patch.object(self.generation, "models", self.models),
            mock.patch.object(self.generation, "_tokenize", tokenize),
            mock.patch.object(torch, "multinomial", multinomial),
        ):
            yield self.generation


def as_arrays(voice: VoicePreset | None) -> dict[str, np.ndarray] | None:
    """A voice as the original takes it."""
    return None if voice is None else {key: part.numpy() for key, part in voice.as_dict().items()}
