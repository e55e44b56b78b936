"""Learning rates by method, on helpdesk's training messages alone: where the methods' defaults come from.

    python benchmarks/learning_rates.py [METHOD ...]

200 labels of 600, tested on the other 300; the test file is not read. Trained as in the small profile of
papers/jukic-snajder-2023.toml, whose settings of the methods are among those looked at. Mean and values of macro-F1
over five seeds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from modicum.analysis.metrics import evaluate
from modicum.base.rng import stream
from modicum.base.training import FitJob, Training
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.study.prepare import hold_out, load_data
from modicum.study.spec import Data

LOOKED_AT: dict[str, tuple[Mapping[str, Any], tuple[float, ...]]] = {
    "full": ({}, (1e-4, 2e-4, 4e-4)),
    "bitfit": ({}, (1e-3, 2e-3, 4e-3)),
    "adapter": ({}, (1e-3, 2e-3, 4e-3)),
    "pfeiffer": ({}, (1e-3, 2e-3, 4e-3)),
    "lora": ({}, (5e-4, 1e-3, 2e-3)),
    "lora, query and value": ({"targets": "query-value"}, (1e-3, 2e-3, 4e-3, 8e-3)),
    "prefix": ({}, (2e-2, 4e-2, 8e-2)),
    "prefix, length 30": ({"length": 30}, (1e-2, 2e-2, 4e-2, 8e-2)),
    "ia3": ({}, (1e-2, 2e-2, 4e-2)),
    "unipelt": ({}, (1e-3, 2e-3, 4e-3)),
    "head": ({}, (5e-3, 2e-2, 5e-2)),
}
TRAINING = Training(epochs=6, min_steps=75, batch_size=16)
SEEDS = 5
LABELS = 200


def main() -> None:
    messages, _ = load_data(Data(train="helpdesk"))
    kept, held = hold_out(messages, 1 / 3)
    backbone = Backbone.load("minilm", max_length=64)
    train, held_out = messages.subset(kept), messages.subset(held)
    pool, test = Corpus(backbone, train), Corpus(backbone, held_out)
    print(f"{'method':<21} {'rate':>7}  {'macro-F1':>8}  {'seeds':<29}  seconds")
    for label in sys.argv[1:] or LOOKED_AT:
        options, rates = LOOKED_AT[label]
        name = label.split(",")[0]
        for rate in rates:
            option = "head_learning_rate" if name == "head" else "learning_rate"
            method = METHODS.create(name, **options, **{option: rate})
            engine = Engine(backbone, pool, method, TRAINING, train.task, len(train.classes))
            start = time.perf_counter()
            found = []
            for fitted in engine.fit([job(train, seed) for seed in range(SEEDS)]):
                outputs = engine.scorer(fitted.weights, test).outputs(np.arange(len(held_out)))
                found.append(evaluate(train.task, held_out.labels, outputs)["macro_f1"])
            seconds = time.perf_counter() - start
            values = " ".join(f"{f:.3f}" for f in found)
            print(f"{label:<21} {rate:>7.0e}  {np.mean(found):>8.3f}  {values}  {seconds:7.1f}", flush=True)


def job(train, seed: int) -> FitJob:
    chosen = stream(seed, "learning-rates").choice(len(train), size=LABELS, replace=False)
    return FitJob(tuple(train.ids[int(i)] for i in chosen), train.labels[chosen], seed, 0)


if __name__ == "__main__":
    main()
