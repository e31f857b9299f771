"""The original library's detector: the mean over time of HuBERT's sixth hidden state, and a linear classifier of it.

Its notebook (`notebooks/fake_classifier.ipynb`) takes `facebook/hubert-base-ls960` and a scikit-learn classifier;
`conversion/convert_classifier.py` makes a folder for this class of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import HubertModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_detector import HubertDetectorConfig


class HubertDetector(PreTrainedModel):
    """Audio at 16 kHz -> logits of "other" and "bark". The audio goes in as it is, without normalisation, as in the original."""

    config_class = HubertDetectorConfig
    base_model_prefix = "hubert"
    main_input_name = "input_values"
    input_modalities = ("audio",)

    def __init__(self, config: HubertDetectorConfig) -> None:
        super().__init__(config)
        self.hubert = HubertModel(config.hubert_config)
        self.classifier = nn.Linear(config.hubert_config.hidden_size, 2)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.classifier:
            nn.init.normal_(module.weight, std=self.config.hubert_config.initializer_range)
            nn.init.zeros_(module.bias)

    def hidden(self, audio: Tensor) -> Tensor:
        """Audio [samples] -> hidden states of the layer that is judged, [frame, feature]."""
        shortest = 400  # samples that the convolutions see at once
        if len(audio) < shortest:
            audio = nn.functional.pad(audio, (0, shortest - len(audio)))
        output = self.hubert(audio[None], output_hidden_states=True)
        return output.hidden_states[self.config.layer][0]

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Judges each row by itself, as the original did.

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
        means = [self.hidden(audio[:length]).mean(0) for audio, length in zip(input_values, lengths, strict=True)]
        logits = self.classifier(torch.stack(means))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output if return_dict is not False else output.to_tuple()
