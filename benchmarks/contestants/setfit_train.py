"""SetFit trains on the same labels at its defaults.

Timed: ``Trainer.train``. Where ``max_steps`` ends it early, the mean step stands for those that were not taken.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import labelled, model_folder, quality, report, settings, stopwatch
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
from torch.optim.optimizer import register_optimizer_step_post_hook


def main() -> None:
    told, result = settings(), dict[str, Any]()
    texts, labels, test_texts, truth = labelled(told)
    data = Dataset.from_dict({"text": texts, "label": labels.tolist()})
    model = SetFitModel.from_pretrained(model_folder())
    options = {"max_steps": told["max_steps"]} if told["max_steps"] else {}
    arguments = TrainingArguments(save_strategy="no", report_to=[], show_progress_bar=False, **options)
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    whole = all_steps(labels, arguments.embedding_batch_size)
    times: list[float] = []
    register_optimizer_step_post_hook(lambda *_: times.append(time.perf_counter()))
    with stopwatch(result):
        trainer.train()
    result |= {"steps": len(times), "measured_seconds": result["seconds"], "projected": len(times) < whole}
    result["seconds"] += (whole - len(times)) * (times[-1] - times[0]) / (len(times) - 1)
    predicted = np.asarray(model.predict(test_texts, as_numpy=True)).astype(np.int64)
    report(**result, all_steps=whole, **{name: [value] for name, value in quality(truth, predicted).items()})


def all_steps(labels: np.ndarray, batch: int) -> int:
    """Steps of an epoch by default: as many pairs of one class as of two, each pair of the more frequent kind once."""
    _, counts = np.unique(labels, return_counts=True)
    alike = int((counts * (counts + 1) // 2).sum())
    apart = int((len(labels) ** 2 - (counts**2).sum()) // 2)
    return -(-2 * max(alike, apart) // batch)


if __name__ == "__main__":
    main()
