"""Modicum scores all texts of a file with one LoRA model.

Timed: making the scorer from the run's weights, and one pass over all texts. Before: loading, tokens, a warm-up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import chosen, report, settings, stopwatch, work_of
from modicum_parts import dataset, random_lora

from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus


def main() -> None:
    told, result = settings(), dict[str, Any]()
    data = dataset(told["given"]["file"], labelled=told["labelled"])
    backbone = Backbone.load("minilm", max_length=told["max_length"])
    corpus = Corpus(backbone, data)
    with stopwatch(result, "tokenise_seconds"):
        lengths = np.array(corpus.tokens.lengths)
    engine, weights = random_lora(backbone, corpus, told["classes"], seed=0)
    with stopwatch(result, "warm_up_seconds"):
        engine.scorer(weights).outputs(chosen(len(data), told["warm_up"], 2))
    with stopwatch(result):
        outputs = engine.scorer(weights).outputs(np.arange(len(data)))
    assert outputs.shape == (len(data), told["classes"])
    report(**result, **work_of(lengths), precision=str(backbone.dtype))


if __name__ == "__main__":
    main()
