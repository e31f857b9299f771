"""`BarkDetector`: how probable it is that Bark's codec made a recording, for the whole and for each second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from . import features
from .configuration_detector import BarkDetectorConfig


@dataclass
class BarkDetectorOutput(SequenceClassifierOutput):
    """What a detector says.

    Args:
        loss: cross entropy, where labels were given.
        logits: [batch, 2] for each recording as a whole.
        window_logits: [batch, window, 2] for each window; see `BarkDetector.window_seconds`. Behind a row's end its last is repeated.
    """

    window_logits: Tensor | None = None


class CombJudge(nn.Module):
    """How much the teeth of one comb look like a codec's, at each speed."""

    teeth: Tensor
    gaps: Tensor

    def __init__(self, config: BarkDetectorConfig, frame_rate: float) -> None:
        super().__init__()
        self.frame_rate, self.max_speed, self.n_speeds = frame_rate, config.max_speed, config.n_speeds
        factors = features.speeds(config.max_speed, config.n_speeds)
        width = config.sampling_rate / config.window_length
        teeth, gaps = features.comb_bins(frame_rate, factors, config.max_frequency, width)
        self.register_buffer("teeth", teeth, persistent=False)
        self.register_buffer("gaps", gaps, persistent=False)
        self.hidden = nn.Linear(teeth.shape[1], config.hidden_size)
        self.out = nn.Linear(config.hidden_size, 1)
        self.dropout = nn.Dropout(config.dropout)

    def judge(self, combs: Tensor) -> Tensor:
        """Teeth above gaps [..., tooth] -> score [...]."""
        hidden = nn.functional.gelu(self.hidden(self.dropout(combs)))
        return self.out(hidden)[..., 0]

    def forward(self, peaks: Tensor) -> Tensor:
        """Prominence [row, bin] -> scores [row, speed]."""
        return self.judge(features.comb(peaks, self.teeth, self.gaps))


class BarkDetectorPreTrainedModel(PreTrainedModel):
    """What Transformers needs to load and save a detector."""

    config_class = BarkDetectorConfig
    base_model_prefix = "bark_detector"
    main_input_name = "input_values"
    input_modalities = ("audio",)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05)
            nn.init.zeros_(module.bias)
        elif isinstance(module, CombJudge):
            # buffers that are not in the file are empty when Transformers makes a model without memory first
            fresh = CombJudge(self.config, module.frame_rate)
            module.teeth, module.gaps = fresh.teeth, fresh.gaps


class BarkDetector(BarkDetectorPreTrainedModel):
    """Tells whether Bark's codec made a recording: audio -> logits of "other" and "bark".

    Each codec that it knows has a judge of the lines at the multiples of its frame rate. The judge looks at each speed that the
    audio may have been played at; what stands out against the other speeds is evidence, and a small layer weighs it with the number of
    windows that were averaged.
    """

    def __init__(self, config: BarkDetectorConfig) -> None:
        super().__init__(config)
        self.judges = nn.ModuleList(CombJudge(config, rate) for rate in config.frame_rates)
        self.weigh = nn.Linear(4 * len(config.frame_rates) + 5, 8)
        self.classifier = nn.Linear(8, 2)
        self.post_init()

    @property
    def window_seconds(self) -> tuple[float, float]:
        """Length of a window of `window_logits` and the distance to the next, in seconds."""
        rate = self.config.sampling_rate
        return self.config.window_length / rate, self.config.window_hop / rate

    def window_power(self, audio: Tensor) -> Tensor:
        """Audio [samples] -> power spectra of its windows [window, bin]."""
        return features.analyse(audio[None], self.config)[0]

    def evidence(self, prominence: Tensor, n_windows: Tensor) -> Tensor:
        """What each judge finds: [row, bin] of spectra that are means of `n_windows` [row] -> [row, feature]."""
        peaks = features.highest_of_three(prominence)
        found = []
        for judge in self.judges:
            scores = judge(peaks)
            middle = scores.shape[1] // 2
            mean, spread = scores.mean(1), scores.std(1) if scores.shape[1] > 1 else torch.ones_like(scores[:, 0])
            as_is = scores[:, max(0, middle - 1) : middle + 2].amax(1) - mean
            best = scores.amax(1) - mean
            found += [as_is, best, as_is / (spread + 0.1), best / (spread + 0.1)]
        return torch.stack([*found, *self.others(peaks), n_windows.to(peaks.dtype).log()], dim=-1)

    def others(self, peaks: Tensor) -> list[Tensor]:
        """How far lines of the mains and of other vocoders stand out where no codec that is known has any.

        The highest of all and that of the mains, over all teeth and over the 20 lowest, as hum has no others: four times [row].
        """
        config = self.config
        width = config.sampling_rate / config.window_length
        all_teeth, low_teeth = [], []
        for rate in config.other_rates:
            teeth, beside = features.own_teeth(rate, config.frame_rates, config.max_frequency, width)
            if not len(teeth):  # a multiple of a codec's rate
                continue
            above = peaks[:, teeth] - peaks[:, beside]
            all_teeth.append(above.mean(1) * len(teeth) ** 0.5)
            low_teeth.append(above[:, :20].mean(1) * min(len(teeth), 20) ** 0.5)
        whole, low = torch.stack(all_teeth, 1), torch.stack(low_teeth, 1)
        return [whole.amax(1), low.amax(1), whole[:, :2].amax(1), low[:, :2].amax(1)]

    def logits_of(self, power: Tensor, n_windows: Tensor) -> Tensor:
        """Power spectra [row, bin] that are means of `n_windows` [row] -> logits [row, 2]."""
        return self.verdict(self.evidence(features.prominence(power), n_windows))

    def verdict(self, evidence: Tensor) -> Tensor:
        """What the judges find [row, feature] -> logits [row, 2]."""
        return self.classifier(torch.tanh(self.weigh(0.1 * evidence)))

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BarkDetectorOutput | tuple[Tensor, ...]:
        """Judges each row by itself: a row's result does not depend on its batch.

        Args:
            input_values: [batch, samples] at `config.sampling_rate`.
            attention_mask: [batch, samples], 1 where a row has audio; padding is on the right.
            labels: [batch], 0 for other and 1 for bark.

        Raises:
            ValueError: audio of another shape, or a row without samples.
        """
        if input_values.ndim != 2:
            raise ValueError(f"input_values must have the shape [batch, samples], got {tuple(input_values.shape)}")
        lengths = [input_values.shape[1]] * len(input_values)
        if attention_mask is not None:
            lengths = attention_mask.long().sum(-1).tolist()
        if min(lengths, default=0) < 1:
            raise ValueError(f"every row must have samples, got rows of {lengths}")
        wholes, windows = [], []
        for audio, length in zip(input_values, lengths, strict=True):
            power = self.window_power(audio[:length])
            ones = torch.ones(len(power), device=power.device)
            wholes.append(self.logits_of(power.mean(0, keepdim=True), ones.sum()[None])[0])
            windows.append(self.logits_of(power, ones))
        logits = torch.stack(wholes)
        longest = max(map(len, windows))
        padded = torch.stack([torch.cat([one, one[-1:].expand(longest - len(one), -1)]) for one in windows])
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        output = BarkDetectorOutput(loss=loss, logits=logits, window_logits=padded)
        return output if return_dict is not False else output.to_tuple()
