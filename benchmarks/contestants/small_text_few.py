"""small-text's full fine-tuning on few labels: no early stopping, all labels trained on, batches of 32.

Timed: ``fit``, from tokens; where no time is taken, it runs in bf16.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import judged, model_folder, report, settings, stopwatch
from few import in_bf16, work
from small_text import AMPArguments, TransformersDataset
from small_text.integrations.pytorch.classifiers.base import AMPMixin
from small_text_al import classifiers
from transformers import AutoTokenizer


def main() -> None:
    told, result = settings(), dict[str, Any]()
    given = work(told, told["seed"])
    torch.manual_seed(told["seed"])
    np.random.seed(told["seed"])
    tokenizer, classes = AutoTokenizer.from_pretrained(model_folder()), np.arange(given.classes)

    def dataset(texts: list[str], labels: np.ndarray) -> TransformersDataset:
        made = TransformersDataset.from_arrays
        return made(texts, labels, tokenizer, target_labels=classes, max_length=told["max_length"])

    train, one = dataset(given.texts, given.labels), dataset(given.texts[:1], given.labels[:1])
    model = classifiers(told, len(classes)).new()
    amp = AMPArguments(use_amp=True, device_type="cpu") if in_bf16(told, result) else AMPMixin.amp_args
    with stopwatch(result), patch.object(AMPMixin, "amp_args", amp):  # which turns it off on a CPU
        model.fit(train, validation_set=one, early_stopping="none")
    proba = model.predict_proba(dataset(given.tested, given.truth))
    report(**result, runs={str(told["seed"]): judged(given.truth, proba)})


if __name__ == "__main__":
    main()
