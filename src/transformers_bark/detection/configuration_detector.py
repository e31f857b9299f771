"""What the detector looks for, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import HubertConfig, PretrainedConfig


class BarkDetectorConfig(PretrainedConfig):
    """Sizes of a `BarkDetector`.

    Args:
        sampling_rate: samples a second of what the model hears.
        whitening_length: samples of the short spectra that whiten the audio.
        whitening_hop: samples from one of them to the next.
        window_length: samples of the long spectra in which lines are sought; also the shortest piece that is judged.
        window_hop: samples from one of them to the next.
        frame_rates: frames a second of the codecs that are known; each leaves lines at the multiples of its rate.
        other_rates: Hz of the mains and of other vocoders, whose lines partly coincide with those of the codecs.
        max_frequency: Hz up to which lines are sought.
        max_speed: how much faster or slower the audio may have been made, as a share.
        n_speeds: speeds tried on each side of none.
        hidden_size: units of the network that judges a comb of lines.
        dropout: share of the lines that are left out in training.
    """

    model_type = "bark_detector"

    def __init__(
        self,
        sampling_rate: int = 24_000,
        whitening_length: int = 1_200,
        whitening_hop: int = 300,
        window_length: int = 24_000,
        window_hop: int = 12_000,
        frame_rates: Sequence[float] = (75.0, 40.0),
        other_rates: Sequence[float] = (50.0, 60.0, 62.5, 80.0, 86.1328125, 93.75, 100.0, 125.0, 172.265625, 187.5),
        max_frequency: float = 11_250.0,
        max_speed: float = 0.06,
        n_speeds: int = 200,
        hidden_size: int = 16,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.sampling_rate = sampling_rate
        self.whitening_length = whitening_length
        self.whitening_hop = whitening_hop
        self.window_length = window_length
        self.window_hop = window_hop
        self.frame_rates = list(frame_rates)
        self.other_rates = list(other_rates)
        self.max_frequency = max_frequency
        self.max_speed = max_speed
        self.n_speeds = n_speeds
        self.hidden_size = hidden_size
        self.dropout = dropout
        kwargs.setdefault("id2label", {0: "other", 1: "bark"})
        kwargs.setdefault("label2id", {"other": 0, "bark": 1})
        super().__init__(**kwargs)
        self._check()

    def _check(self) -> None:
        if self.whitening_length % self.whitening_hop or self.whitening_length < 2 * self.whitening_hop:
            raise ValueError(
                f"whitening_length must be a multiple of whitening_hop, at least twice it, got {self.whitening_length} and "
                f"{self.whitening_hop}"
            )
        if self.window_length % self.window_hop or self.window_hop % self.whitening_hop:
            raise ValueError(
                f"window_length must be a multiple of window_hop, and that one of whitening_hop, got {self.window_length}, "
                f"{self.window_hop} and {self.whitening_hop}"
            )
        if not self.frame_rates or min(self.frame_rates) <= 8 * self.sampling_rate / self.window_length:
            raise ValueError(f"frame_rates must be more than 8 bins of a window apart, got {self.frame_rates}")
        if not 0 <= self.max_speed < 0.5:
            raise ValueError(f"max_speed must be in [0, 0.5), got {self.max_speed}")
        if not 0 < self.max_frequency * (1 + self.max_speed) < self.sampling_rate / 2:
            raise ValueError(
                f"max_frequency must stay below half the sampling rate at the highest speed, got {self.max_frequency}"
            )


class HubertDetectorConfig(PretrainedConfig):
    """Sizes of a `HubertDetector`, the original library's detector.

    Args:
        hubert_config: of the HuBERT whose hidden states are judged; HuBERT-base by default.
        layer: the hidden state that is judged: 0 before the first block, 6 behind the sixth.
        sampling_rate: samples a second of what it hears.
    """

    model_type = "bark_hubert_detector"
    sub_configs = {"hubert_config": HubertConfig}

    def __init__(
        self,
        hubert_config: HubertConfig | dict[str, Any] | None = None,
        layer: int = 6,
        sampling_rate: int = 16_000,
        **kwargs: Any,
    ) -> None:
        given = {} if hubert_config is None else hubert_config
        self.hubert_config: Any = HubertConfig(**given) if isinstance(given, dict) else given
        self.layer = layer
        self.sampling_rate = sampling_rate
        kwargs.setdefault("id2label", {0: "other", 1: "bark"})
        kwargs.setdefault("label2id", {"other": 0, "bark": 1})
        super().__init__(**kwargs)
        if not 0 <= layer <= self.hubert_config.num_hidden_layers:
            raise ValueError(f"layer must be in 0..{self.hubert_config.num_hidden_layers}, got {layer}")
