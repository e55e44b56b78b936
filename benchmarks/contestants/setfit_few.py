"""SetFit on few labels, at its defaults; or with so many pairs a text of one class, and as many of two
(``num_iterations``, 20 in its paper).

Timed: ``Trainer.train``; where no time is taken, it runs in bf16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import judged, model_folder, report, settings, stopwatch
from datasets import Dataset
from few import in_bf16, work
from setfit import SetFitModel, Trainer, TrainingArguments


def main() -> None:
    told, result = settings(), dict[str, Any]()
    given = work(told, told["seed"])
    data = Dataset.from_dict({"text": given.texts, "label": given.labels.tolist()})
    model = SetFitModel.from_pretrained(model_folder())
    model.model_body.max_seq_length = told["max_length"]  # as all others read
    options = {"num_iterations": told["pairs"]} if told["pairs"] else {}
    arguments = TrainingArguments(
        save_strategy="no", report_to=[], show_progress_bar=False, seed=told["seed"], **options
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    bf16 = in_bf16(told, result)  # weights that are cast once and kept would stay the first ones
    with stopwatch(result), torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
        trainer.train()
    proba = np.zeros((len(given.truth), given.classes))
    proba[:, np.unique(given.labels)] = np.asarray(model.predict_proba(given.tested, as_numpy=True))
    report(**result, runs={str(told["seed"]): judged(given.truth, proba)})


if __name__ == "__main__":
    main()
