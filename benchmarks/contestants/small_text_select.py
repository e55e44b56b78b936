"""small-text's ``greedy_coreset`` picks k of n candidates by Euclidean distance.

Timed: the one call. Before: making the candidates, and a warm-up on 1,000 of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import points, report, settings, stopwatch
from memory import extra_memory
from small_text.query_strategies.coresets import greedy_coreset


def main() -> None:
    told, result = settings(), dict[str, Any]()
    x = np.concatenate([points(told["n"], told["width"], 0), points(told["labelled"], told["width"], 1)])
    known = np.arange(told["n"], len(x))

    def select(n: int, k: int) -> np.ndarray:
        return greedy_coreset(x, np.arange(n), known, k, distance_metric="euclidean", batch_size=told["batch_size"])

    select(min(1000, told["n"]), 2)
    with extra_memory(result), stopwatch(result):
        picked = select(told["n"], told["k"])
    assert len(picked) == told["k"]
    report(**result)


if __name__ == "__main__":
    main()
