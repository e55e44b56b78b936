"""Words that more than one floor uses."""

from __future__ import annotations

from typing import Literal

ExampleId = str
"""Names an example for good: the user's own id, or one made from the row's number and content."""

Label = int | float
"""A class's position in ``Dataset.classes``, or a regression target."""

Task = Literal["classification", "regression"]

Signal = Literal[
    "proba",  # (n, classes) class probabilities of the present model
    "mc_proba",  # (passes, n, classes) the same under dropout
    "embedding",  # (n, width) pooled representation of the present model
    "frozen_embedding",  # (n, width) pooled representation of the untouched backbone
    "name_similarity",  # (n, classes) cosines of the untouched backbone's representations of texts and class names
    "gradient_embedding",  # (residual, embedding): factors (n, classes) and (n, width) of the last layer's gradient
]
"""What a strategy can ask to know about each candidate."""

BEFORE_TRAINING: frozenset[Signal] = frozenset({"frozen_embedding", "name_similarity"})
"""Signals that can be had without a trained model."""
