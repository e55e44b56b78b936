"""Modicum trains a run a seed in one precision, each seed on labels of its own, and scores test texts in the same.

Timed: all fits with all scoring; tokens are made before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import chosen, quality, report, settings, stopwatch
from modicum_parts import dataset

from modicum.base.training import FitJob, Training
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS


def main() -> None:
    told, result = settings(), dict[str, Any]()
    folder = Path(told["given"]["data"]) / told["dataset"]
    train = dataset(folder / "train.parquet")
    test = dataset(folder / "test.parquet", like=train)
    backbone = Backbone.load("minilm", max_length=told["max_length"], precision=told["precision"])
    corpus, held = Corpus(backbone, train), Corpus(backbone, test)
    training = Training(epochs=told["epochs"], min_steps=1, batch_size=told["batch"])
    engine = Engine(backbone, corpus, METHODS.create("lora"), training, "classification", len(train.classes))
    jobs = []
    for seed in range(told["seeds"]):
        at = chosen(len(train), told["labels"], seed)
        jobs.append(FitJob(tuple(train.ids[int(i)] for i in at), train.labels[at], seed, 0))
    tested = chosen(len(test), told["tested"], 0)
    with stopwatch(result):
        outputs = [engine.scorer(run.weights, held).outputs(tested) for run in engine.fit(jobs)]
    truth = np.asarray(test.labels)[tested]
    reached = [quality(truth, found.argmax(1)) for found in outputs]
    result |= {name: [one[name] for one in reached] for name in reached[0]}
    result |= {"predicted": ["".join(map(str, found.argmax(1))) for found in outputs]}  # a digit a text
    report(**result, bank=engine.runs_per_bank, precision=str(backbone.dtype))


if __name__ == "__main__":
    main()
