"""When a run is over before its time: without a validation set, or, as a diagnostic, with the test set."""

from __future__ import annotations

import math
from collections.abc import Callable

from modicum.base.training import Training
from modicum.engine.bank import Weights

KEEPS_ITS_BEST = {"besov", "oracle-test"}
"""Rules that go back to the model of the best epoch."""


class EarlyStopping:
    """Follows one run. over: whether it is to end. best, kept: the model to go back to and its epoch, from 1."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.over = False
        self.best: Weights | None = None
        self.kept: int | None = None
        self._highest: float | None = None
        self._since = 0

    def see(self, epoch: int, value: float, weights: Callable[[], Weights]) -> None:
        """An epoch has ended: how good the run is (higher is better), and what it has learned.

        A value that is NaN says nothing before the first that is a number, and is the worst after it.
        """
        training, highest = self.training, self._highest
        if epoch < training.least_epochs or (math.isnan(value) and highest is None):
            return
        value = -math.inf if math.isnan(value) else value
        keeps = training.until in KEEPS_ITS_BEST
        if highest is None or value > highest + (0.0 if keeps else training.tolerance * abs(highest)):
            self._highest, self._since = value, 0
            if keeps:
                self.best, self.kept = weights(), epoch
        else:
            self._since += 1
        self.over = self._since >= training.patience
