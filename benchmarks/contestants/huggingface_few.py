"""Trainer + PEFT LoRA on few labels, both at their defaults: 3 epochs, batches of 8, rate 5e-5.

Timed: ``Trainer.train``.
"""

from __future__ import annotations

from typing import Any

import torch
from common import judged, report, settings, stopwatch
from few import work
from peft import LoraConfig, get_peft_model
from trainer_parts import base, encoded, probabilities, trainer
from transformers import set_seed


def main() -> None:
    told, result = settings(), dict[str, Any]()
    given = work(told, told["seed"])
    set_seed(told["seed"])
    model = get_peft_model(base(given.classes, "sdpa", torch.float32), LoraConfig(task_type="SEQ_CLS"))
    made = trainer(model, encoded(given.texts, told["max_length"], given.labels), seed=told["seed"])
    with stopwatch(result):
        made.train()
    proba = probabilities(model, encoded(given.tested, told["max_length"]))
    report(**result, steps=made.state.global_step, runs={str(told["seed"]): judged(given.truth, proba)})


if __name__ == "__main__":
    main()
