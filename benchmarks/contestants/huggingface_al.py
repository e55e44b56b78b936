"""The best active-learning loop with Trainer + PEFT that we could write.

Tokens once; the encoder is read once and copied each round; training in bf16 with batches of like lengths; adapters
merged before scoring; test set and pool scored in bf16, shortest texts first.

Timed: from files to the last round's metrics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import quality, read, report, settings, stopwatch
from trainer_parts import base, encoded, merged, probabilities, trainer, training, with_lora


def entropy(proba: np.ndarray) -> np.ndarray:
    """(n,) from (n, classes)."""
    return -(proba * np.log(np.clip(proba, 1e-12, 1))).sum(1)


def run(told: dict[str, Any]) -> dict[str, list[float]]:
    """One run: its curve."""
    folder = Path(told["given"]["data"]) / told["dataset"]
    texts, labels = read(folder / "train.parquet")
    test_texts, truth = read(folder / "test.parquet")
    rows, test = encoded(texts, told["max_length"], labels), encoded(test_texts, told["max_length"])
    frozen = base(int(labels.max()) + 1, told["attention"], torch.bfloat16)
    labelled = list(told["given"]["first_labels"][str(told["seed"])])
    curve: dict[str, list[float]] = {"labels": [], "macro_f1": [], "accuracy": [], "steps": []}
    while True:
        seed = 1000 * told["seed"] + len(curve["labels"])
        model = with_lora(frozen, seed=seed)
        options = training(told["epochs"], told["batch"], told["learning_rate"], seed)
        prepared = trainer(model, [rows[i] for i in labelled], **options)
        prepared.train()
        model = merged(model)
        reached = quality(truth, probabilities(model, test).argmax(1))
        for name, value in (reached | {"labels": len(labelled), "steps": prepared.state.global_step}).items():
            curve[name].append(value)
        if len(labelled) >= told["budget"]:
            return curve
        free = np.setdiff1d(np.arange(len(rows)), labelled)
        uncertain = entropy(probabilities(model, [rows[i] for i in free]))
        wanted = min(told["query"], told["budget"] - len(labelled))
        labelled += free[np.argsort(-uncertain, kind="stable")[:wanted]].tolist()


def main() -> None:
    told, result = settings(), dict[str, Any]()
    with stopwatch(result):
        curve = run(told)
    report(**result, runs={str(told["seed"]): curve})


if __name__ == "__main__":
    main()
