"""Reads a linear classifier out of a scikit-learn pickle without running it.

A pickle is a program: loading one calls what it names. Here it may name numpy's ways to make an array, and classes of the
classifiers below, which become empty shells that keep their state. Anything else raises before it is called.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

CLASSIFIERS = (
    "LogisticRegression",
    "LogisticRegressionCV",
    "LinearSVC",
    "SGDClassifier",
    "RidgeClassifier",
    "Perceptron",
)
"""Classifiers that are a weight for each feature."""

_MODULES = ("sklearn.linear_model", "sklearn.svm", "sklearn.pipeline", "sklearn.preprocessing")
_KEPT = (*CLASSIFIERS, "Pipeline", "StandardScaler")


class _Shell:
    """Stands for an object of scikit-learn: its state, and none of its code."""

    name = ""

    def __init__(self, *arguments: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"{self.name} must have a state by name, got {type(state).__name__}")
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Knows arrays and shells, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        inside = module.replace("numpy._core", "numpy.core")
        if inside == "numpy.core.multiarray" and name in ("_reconstruct", "scalar"):
            return getattr(np._core.multiarray, name)
        if (inside, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (inside, name) in _REPLACED:
            return _REPLACED[inside, name]
        if module == "sklearn.linear_model._sgd_fast":  # the loss that it was fitted by; not used
            return type(name, (_Shell,), {"name": name})
        if name in _KEPT and any(module == one or module.startswith(f"{one}.") for one in _MODULES):
            return type(name, (_Shell,), {"name": name})
        raise pickle.UnpicklingError(f"the pickle names {module}.{name}, which a linear classifier does not need")


def _latin1(text: str, encoding: str) -> bytes:
    """How old pickles write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle names the encoding {encoding!r}, which an array does not need")
    return text.encode("latin1")


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """How newer pickles write arrays."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _new(kind: Any, base: Any, state: Any) -> Any:
    """How the oldest pickles write objects."""
    if not (isinstance(kind, type) and issubclass(kind, _Shell)) or base is not object:
        raise pickle.UnpicklingError("the pickle makes an object that a linear classifier does not need")
    return kind()


_REPLACED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("copy_reg", "_reconstructor"): _new,
    ("copyreg", "_reconstructor"): _new,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
}


def read_linear(path: str | Path) -> tuple[np.ndarray, float, list[str]]:
    """Weights, bias and class names of a classifier of two classes.

    Returns:
        weights: [feature], of the second class; what scales the features before is in them.
        bias: of the second class.
        classes: the two names.

    Raises:
        ValueError: the pickle names anything but arrays and linear classifiers, or holds no classifier of two classes.
    """
    with Path(path).open("rb") as file:
        found = _load(file, path)
    steps = _steps(found, path)
    classifier = steps.pop()
    if not isinstance(classifier, _Shell) or classifier.name not in CLASSIFIERS:
        raise ValueError(f"{path} must hold one of {', '.join(CLASSIFIERS)}, got {_name(classifier)}")
    weights, bias, classes = _weights(classifier, path)
    for scaler in reversed(steps):
        weights, bias = _before(scaler, weights, bias, path)
    return weights, bias, classes


def _load(file: BinaryIO, path: str | Path) -> Any:
    try:
        return _Unpickler(file).load()
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{path} is not a pickle of a linear classifier: {error}") from error


def _steps(found: Any, path: str | Path) -> list[Any]:
    """Of a pipeline its steps in order, else the one object."""
    if not isinstance(found, _Shell) or found.name != "Pipeline":
        return [found]
    steps = found.state.get("steps")
    if (
        not isinstance(steps, list)
        or not steps
        or not all(isinstance(step, tuple) and len(step) == 2 for step in steps)
    ):
        raise ValueError(f"{path} holds a pipeline without steps")
    return [step for _, step in steps]


def _weights(classifier: _Shell, path: str | Path) -> tuple[np.ndarray, float, list[str]]:
    state = classifier.state
    weights, bias, classes = (state.get(name) for name in ("coef_", "intercept_", "classes_"))
    if not isinstance(weights, np.ndarray) or weights.dtype.kind != "f":
        raise ValueError(f"{path} holds a {classifier.name} that was not fitted")
    bias = np.asarray(bias, dtype=np.float64).reshape(-1) if isinstance(bias, (np.ndarray, float)) else np.zeros(1)
    names = [str(name) for name in classes.tolist()] if isinstance(classes, np.ndarray) else []
    if weights.ndim != 2 or len(weights) != 1 or len(bias) != 1 or len(names) != 2:
        raise ValueError(f"{path} must tell two classes apart, got weights {weights.shape} and classes {names}")
    return weights[0].astype(np.float64), float(bias[0]), names


def _before(scaler: Any, weights: np.ndarray, bias: float, path: str | Path) -> tuple[np.ndarray, float]:
    """The classifier of what a scaler made -> one of what the scaler was given."""
    if not isinstance(scaler, _Shell) or scaler.name != "StandardScaler":
        raise ValueError(f"{path} must scale by StandardScaler or not at all, got {_name(scaler)}")
    scale, mean = (scaler.state.get(name) for name in ("scale_", "mean_"))
    if isinstance(scale, np.ndarray):
        weights = weights / scale
    if isinstance(mean, np.ndarray):
        bias -= float(weights @ mean)
    return weights, bias


def _name(value: Any) -> str:
    return value.name if isinstance(value, _Shell) else type(value).__name__
