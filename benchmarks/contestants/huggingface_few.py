"""Trainer + PEFT LoRA on few labels: both at their defaults, or as long as others train, at a rate for LoRA.

Timed: ``Trainer.train``.
"""

from __future__ import annotations

from typing import Any

import torch
from common import judged, report, settings, stopwatch
from few import work
from peft import LoraConfig, get_peft_model
from trainer_parts import base, encoded, probabilities, trainer, training, with_lora
from transformers import set_seed


def main() -> None:
    told, result = settings(), dict[str, Any]()
    given = work(told, told["seed"])
    set_seed(told["seed"])
    plain, seed = base(given.classes, "sdpa", torch.float32), told["seed"]
    if "epochs" in told:
        model = with_lora(plain, seed=seed)
        options = training(told["epochs"], told["batch"], told["learning_rate"], seed)
    else:
        model, options = get_peft_model(plain, LoraConfig(task_type="SEQ_CLS")), {"seed": seed}
    made = trainer(model, encoded(given.texts, told["max_length"], given.labels), **options)
    with stopwatch(result):
        made.train()
    proba = probabilities(model, encoded(given.tested, told["max_length"]))
    report(**result, steps=made.state.global_step, runs={str(told["seed"]): judged(given.truth, proba)})


if __name__ == "__main__":
    main()
