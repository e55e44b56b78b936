"""Probabilities that mean what they say: one temperature a model, written into its head (Guo et al. 2017)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from modicum.base.errors import SpecError
from modicum.engine.bank import Weights
from modicum.engine.fit import Fitted

RANGE = (-3.0, 3.0)
"""Logarithms of the temperatures that are looked at."""


def temperature(proba: np.ndarray, targets: np.ndarray) -> float:
    """What to divide logits by so that (n, classes) probabilities of unseen labels have the least log loss."""
    logits = np.log(np.clip(proba.astype(np.float64), 1e-12, 1.0))

    def loss(log_t: float) -> float:
        return float(-log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(targets)), targets].mean())

    return float(np.exp(minimize_scalar(loss, bounds=RANGE, method="bounded").x))


def calibrated(fitted: Fitted, proba: np.ndarray, targets: np.ndarray) -> Fitted:
    """The run at the temperature that suits (n, classes) probabilities of labels that its like did not see."""
    return at_temperature(fitted, temperature(proba, targets))


def at_temperature(fitted: Fitted, by: float) -> Fitted:
    """The run with its logits divided by a temperature."""
    return replace(fitted, weights=cooled(fitted.weights, by), temperature=by)


def cooled(weights: Weights, by: float) -> Weights:
    """The same model with its logits divided by a temperature.

    Raises:
        SpecError: its head has several maps a class, of which the logits are no linear function.
    """
    if weights.prototypes > 1:
        raise SpecError("a head with several prototypes a class cannot be calibrated: take prototypes = 1")
    return replace(weights, head={name: tensor / by for name, tensor in weights.head.items()})
