"""Learning rates by method, on helpdesk's training messages alone: where the methods' defaults come from.

    python benchmarks/learning_rates.py [METHOD ...]

100 labels of 600, tested on the other 300; the test file is not read. Mean and values of macro-F1 over three seeds.
"""

from __future__ import annotations

import sys
import time

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

RATES = {
    "full": (5e-5, 1e-4, 2e-4, 4e-4),
    "bitfit": (1e-3, 2e-3, 4e-3, 8e-3),
    "adapter": (1e-3, 2e-3, 4e-3),
    "pfeiffer": (1e-3, 2e-3, 4e-3),
    "lora": (5e-4, 1e-3, 2e-3, 4e-3),
    "prefix": (1e-2, 2e-2, 4e-2),
    "ia3": (1e-2, 2e-2, 4e-2),
    "unipelt": (1e-3, 2e-3, 4e-3),
    "head": (5e-3, 2e-2, 5e-2),
}
TRAINING = Training(epochs=10, min_steps=60, batch_size=16)
SEEDS = 3
LABELS = 100


def main() -> None:
    messages, _ = load_data(Data(train="helpdesk"))
    kept, held = hold_out(messages, 1 / 3)
    backbone = Backbone.load("minilm", max_length=64)
    train, held_out = messages.subset(kept), messages.subset(held)
    pool, test = Corpus(backbone, train), Corpus(backbone, held_out)
    print(f"{'method':<10} {'rate':>7}  {'macro-F1':>8}  seeds                 seconds")
    for name in sys.argv[1:] or RATES:
        for rate in RATES[name]:
            option = "head_learning_rate" if name == "head" else "learning_rate"
            method = METHODS.create(name, **{option: rate})
            engine = Engine(backbone, pool, method, TRAINING, train.task, len(train.classes))
            start = time.perf_counter()
            found = []
            for fitted in engine.fit([job(train, seed) for seed in range(SEEDS)]):
                outputs = engine.scorer(fitted.weights, test).outputs(np.arange(len(held_out)))
                found.append(evaluate(train.task, held_out.labels, outputs)["macro_f1"])
            seconds = time.perf_counter() - start
            values = " ".join(f"{f:.3f}" for f in found)
            print(f"{name:<10} {rate:>7.0e}  {np.mean(found):>8.3f}  {values}  {seconds:7.1f}", flush=True)


def job(train, seed: int) -> FitJob:
    chosen = stream(seed, "learning-rates").choice(len(train), size=LABELS, replace=False)
    return FitJob(tuple(train.ids[int(i)] for i in chosen), train.labels[chosen], seed, 0)


if __name__ == "__main__":
    main()
