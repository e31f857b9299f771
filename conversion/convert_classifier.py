"""The original's classifier (a scikit-learn pickle) and HuBERT -> a folder for `HubertDetector`, in safetensors.

python -m conversion.convert_classifier classifier.pkl --hubert facebook/hubert-base-ls960 --output hubert-detector
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import HubertModel

from transformers_bark.detection.configuration_detector import HubertDetectorConfig
from transformers_bark.detection.feature_extraction_detector import BarkDetectorFeatureExtractor
from transformers_bark.detection.hubert_detector import HubertDetector

from .sklearn_pickle import read_linear


def convert(
    pickle_path: str | Path, hubert: str, output: str | Path, labels: Sequence[str], layer: int = 6
) -> HubertDetector:
    """Writes the folder and returns the model.

    Args:
        pickle_path: the pickle, read without executing it.
        hubert: folder or name on the Hub of the HuBERT that the classifier was fitted on.
        output: the folder that is made.
        labels: what the pickle's first and second class mean: "other" and "bark" in either order.
        layer: the hidden state that is judged.

    Raises:
        ValueError: a pickle that is no linear classifier of two classes, or one of other features than the HuBERT has.
    """
    if sorted(labels) != ["bark", "other"]:
        raise ValueError(f"labels must be 'bark' and 'other' in some order, got {list(labels)}")
    weights, bias, classes = read_linear(pickle_path)
    base = HubertModel.from_pretrained(hubert)
    if len(weights) != base.config.hidden_size:
        raise ValueError(
            f"the classifier has {len(weights)} weights, but {hubert} has {base.config.hidden_size} features"
        )
    model = HubertDetector(HubertDetectorConfig(base.config, layer)).eval()
    model.hubert.load_state_dict(base.state_dict())
    sign = 1.0 if labels[1] == "bark" else -1.0
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.zero_()
        model.classifier.weight[1] = torch.from_numpy(sign * weights)
        model.classifier.bias[1] = sign * bias
    _check(model, weights, bias, sign)
    model.save_pretrained(output)
    BarkDetectorFeatureExtractor(sampling_rate=model.config.sampling_rate).save_pretrained(output)
    print(
        f"{output}: classes {classes[0]} = {labels[0]}, {classes[1]} = {labels[1]}; {len(weights)} weights, layer {layer}"
    )
    return model


def _check(model: HubertDetector, weights: np.ndarray, bias: float, sign: float) -> None:
    """The layer says what the pickle's numbers say."""
    features = np.random.default_rng(0).standard_normal((8, len(weights)))
    with torch.no_grad():
        logits = model.classifier(torch.from_numpy(features).float()).double().numpy()
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], sign * (features @ weights + bias), rtol=1e-3, atol=1e-3)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pickle", help="the original's classifier.pkl")
    parser.add_argument("--hubert", default="facebook/hubert-base-ls960", help="folder or name on the Hub")
    parser.add_argument("--output", required=True, help="the folder that is made")
    parser.add_argument(
        "--labels", default="other,bark", help="what the pickle's two classes mean (default: other,bark)"
    )
    parser.add_argument("--layer", type=int, default=6, help="hidden state that is judged (default: 6)")
    options = parser.parse_args(arguments)
    convert(options.pickle, options.hubert, options.output, options.labels.split(","), options.layer)


if __name__ == "__main__":
    main()
