"""Trainer + PEFT train LoRA on the same labels under several seeds, one after another.

Timed: ``Trainer.train`` alone, summed over the runs. Before: loading, tokens, models, a warm-up of one epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import labelled, quality, report, settings, stopwatch
from trainer_parts import base, encoded, merged, probabilities, trainer, training, with_lora


def main() -> None:
    told, result = settings(), dict[str, Any]()
    texts, labels, test_texts, truth = labelled(told)
    data = encoded(texts, told["max_length"], labels)
    test = encoded(test_texts, told["max_length"])
    frozen = base(int(max(labels.max(), truth.max())) + 1, told["attention"], torch.bfloat16)
    rate = told["learning_rate"]
    with stopwatch(result, "warm_up_seconds"):
        trainer(with_lora(frozen, seed=0), data, **training(1, told["batch"], rate, 0)).train()
    seconds, steps, reached = [], 0, []
    for seed in range(told["runs"]):
        model = with_lora(frozen, seed=seed)
        prepared = trainer(model, data, **training(told["epochs"], told["batch"], rate, seed))
        with stopwatch(one := {}):
            prepared.train()
        seconds.append(one["seconds"])
        steps += prepared.state.global_step
        reached.append(quality(truth, probabilities(merged(model), test).argmax(1)))
    result |= {"seconds": float(np.sum(seconds)), "seconds_of_runs": seconds, "steps": steps}
    report(**result, **{name: [q[name] for q in reached] for name in reached[0]})


if __name__ == "__main__":
    main()
