"""One active-learning round of Modicum: fit, score the pool, score the test set.

Timed: ``fit_seconds``, ``pool_seconds``, ``test_seconds`` and their sum, as in every round but the first, when what can
be kept for a data set is kept already. Filling it is ``fill_seconds``; where nothing is kept, that is a warm-up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import quality, report, settings, stopwatch
from modicum_parts import dataset, jobs

from modicum.base.training import Training
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS


def main() -> None:
    told, result = settings(), dict[str, Any]()
    method = METHODS.create("lora", adapt_layers=told["adapt_layers"])
    folder, kept = Path(told["given"]["data"]) / told["dataset"], Path(told["given"]["cache"])
    train = dataset(folder / "train.parquet")
    test = dataset(folder / "test.parquet", like=train)
    backbone = Backbone.load("minilm", max_length=told["max_length"])
    pool, held = (Corpus(backbone, data, kept) for data in (train, test))
    everything = np.arange(len(train))

    def engine(epochs: int) -> Engine:
        training = Training(epochs=epochs, min_steps=1, batch_size=told["batch"])
        return Engine(backbone, pool, method, training, "classification", len(train.classes))

    some = 1024 if told["adapt_layers"] == "all" else len(train)
    with stopwatch(result, "fill_seconds"):
        warm = engine(1).fit(jobs(train, 64, [told["seed"]]))[0].weights
        engine(1).scorer(warm).outputs(everything[:some])
        engine(1).scorer(warm, held).outputs(np.arange(len(test))[:some])
    timed = engine(told["epochs"])
    work = jobs(train, told["labels"], [told["seed"]])
    with stopwatch(result, "fit_seconds"):
        weights = timed.fit(work)[0].weights
    with stopwatch(result, "pool_seconds"):
        timed.scorer(weights).outputs(everything)
    with stopwatch(result, "test_seconds"):
        outputs = timed.scorer(weights, held).outputs(np.arange(len(test)))
    result["seconds"] = sum(result[name] for name in ("fit_seconds", "pool_seconds", "test_seconds"))
    result["precision"] = str(backbone.dtype)
    report(**result, **quality(np.asarray(test.labels), outputs.argmax(1)))


if __name__ == "__main__":
    main()
