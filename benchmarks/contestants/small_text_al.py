"""small-text's active learner with full fine-tuning.

No early stopping; all labels are trained on, since the validation set that it insists on is a single text; batches of
32 in training and 64 in scoring. Its bf16 (``AMPArguments``) is asked for, and its own code turns that off on a CPU.

Timed: from files to the last round's metrics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import model_folder, quality, read, report, settings, stopwatch
from small_text import (
    AMPArguments,
    PoolBasedActiveLearner,
    PredictionEntropy,
    TransformerBasedClassificationFactory,
    TransformerModelArguments,
    TransformersDataset,
)
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoTokenizer


def classifiers(told: dict[str, Any], classes: int) -> TransformerBasedClassificationFactory:
    """Makes a new classifier each round."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = TransformerModelArguments(
        model_folder(), train_batch_size=told["batch"], predict_batch_size=64, show_progress_bar=False
    )
    options = {
        "num_epochs": told["epochs"],
        "lr": told["learning_rate"],
        "amp_args": AMPArguments(use_amp=True, device_type=device),
        "verbosity": 0,
        "cache_dir": "cache",
    }
    return TransformerBasedClassificationFactory(model, classes, classification_kwargs=options)


def run(told: dict[str, Any], steps: list[int]) -> dict[str, list[float]]:
    """One run: its curve. steps: the one item counts the steps of all optimisers."""
    torch.manual_seed(told["seed"])
    np.random.seed(told["seed"])
    folder = Path(told["given"]["data"]) / told["dataset"]
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    files = [read(folder / f"{name}.parquet") for name in ("train", "test")]
    labels, truth = files[0][1], files[1][1]
    classes = np.arange(labels.max() + 1)
    pool, test = (
        TransformersDataset.from_arrays(texts, y, tokenizer, target_labels=classes, max_length=told["max_length"])
        for texts, y in files
    )
    first = np.array(told["given"]["first_labels"][str(told["seed"])])
    one = TransformersDataset([pool.data[first[0]]], target_labels=classes)
    fit = {"early_stopping": "none", "validation_set": one}
    learner = PoolBasedActiveLearner(classifiers(told, len(classes)), PredictionEntropy(), pool, fit_kwargs=fit)
    curve: dict[str, list[float]] = {"labels": [], "macro_f1": [], "accuracy": [], "steps": []}
    learner.initialize(first)
    while True:
        reached = quality(truth, learner.classifier.predict(test))
        for name, value in (reached | {"labels": len(learner.indices_labeled), "steps": steps[0]}).items():
            curve[name].append(value)
        if len(learner.indices_labeled) >= told["budget"]:
            return curve
        steps[0] = 0
        wanted = min(told["query"], told["budget"] - len(learner.indices_labeled))
        learner.update(labels[learner.query(num_samples=wanted)])


def main() -> None:
    told, result, steps = settings(), dict[str, Any](), [0]

    def count(*_: Any) -> None:
        steps[0] += 1

    register_optimizer_step_post_hook(count)
    with stopwatch(result):
        curve = run(told, steps)
    report(**result, runs={str(told["seed"]): curve})


if __name__ == "__main__":
    main()
