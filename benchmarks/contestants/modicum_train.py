"""Modicum trains one run, or several in a bank, on the same labels.

Timed: ``Engine.fit``, from the bank's making to the runs' weights. Before: loading, tokens, a warm-up of one epoch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import quality, report, settings, stopwatch
from modicum_parts import Banked, dataset, jobs

from modicum.base.training import Training
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS


def main() -> None:
    told, result = settings(), dict[str, Any]()
    folder = Path(told["given"]["data"]) / told["dataset"]
    train = dataset(folder / "train.parquet")
    test = dataset(folder / "test.parquet", like=train)
    backbone = Backbone.load("minilm", max_length=told["max_length"])
    corpus = Corpus(backbone, train)
    method = METHODS.create(told["method"], **told["options"])
    kind = Banked if told["forced"] else Engine

    def engine(epochs: int) -> Engine:
        training = Training(epochs=epochs, min_steps=1, batch_size=told["batch"])
        made = kind(backbone, corpus, method, training, "classification", len(train.classes))
        if isinstance(made, Banked):
            made.bank_size = told["runs"]
        return made

    work = jobs(train, told["labels"], range(told["runs"]))
    with stopwatch(result, "warm_up_seconds"):
        engine(1).fit(work)
    timed = engine(told["epochs"])
    with stopwatch(result):
        fitted = timed.fit(work)
    found = [timed.scorer(f.weights, Corpus(backbone, test)).outputs(np.arange(len(test))) for f in fitted]
    reached = [quality(np.asarray(test.labels), outputs.argmax(1)) for outputs in found]
    result |= {"macro_f1": [q["macro_f1"] for q in reached], "accuracy": [q["accuracy"] for q in reached]}
    result |= {"parameters": fitted[0].parameters, "bank": timed.runs_per_bank, "precision": str(backbone.dtype)}
    report(**result, steps=sum(f.steps for f in fitted))


if __name__ == "__main__":
    main()
