"""One of Modicum's strategies picks k of n candidates.

Timed: ``Strategy.select``. Before: making the candidates, and a warm-up on 5,000 of them, which loads the libraries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import points, report, settings, stopwatch
from memory import extra_memory

from modicum.base.rng import stream
from modicum.strategies import STRATEGIES
from modicum.strategies.base import View


def residuals(n: int, classes: int) -> np.ndarray:
    """(n, classes) float32, p - onehot(argmax p) of random probabilities."""
    logits = np.random.default_rng(2).standard_normal((n, classes), dtype=np.float32)
    proba = np.exp(logits)
    proba /= proba.sum(1, keepdims=True)
    proba[np.arange(n), proba.argmax(1)] -= 1
    return proba


def main() -> None:
    told, result = settings(), dict[str, Any]()
    strategy = STRATEGIES.create(told["strategy"])
    x, known = points(told["n"], told["width"], 0), points(told["labelled"], told["width"], 1)
    every = {"embedding": x, "frozen_embedding": x}
    if "gradient_embedding" in strategy.needs:
        every["gradient_embedding"] = (residuals(len(x), told["classes"]), x)
    labelled = {name: known for name in strategy.needs_labelled}

    def select(n: int) -> np.ndarray:
        first = {s: tuple(a[:n] for a in v) if isinstance(v, tuple) else v[:n] for s, v in every.items()}
        view = View(n, {s: first[s] for s in strategy.needs}, labelled, told["labelled"])
        return strategy.select(view, told["k"], rng=stream(0, "benchmark")).positions

    select(min(5000, told["n"]))
    with extra_memory(result), stopwatch(result):
        picked = select(told["n"])
    assert len(set(picked.tolist())) == told["k"]
    report(**result)


if __name__ == "__main__":
    main()
