"""Hugging Face scores all texts of a file with a LoRA model: by a plain loop, or by ``Trainer.predict``.

Timed: one pass, from tokens to probabilities. Before: loading, tokens, sorting, merging of adapters, a warm-up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import chosen, read, report, settings, stopwatch, work_of
from torch.utils.data import DataLoader
from trainer_parts import CPU, TOKENIZER, base, encoded, lengths_of, trainer, with_lora
from transformers import DataCollatorWithPadding

Score = Callable[[list[dict[str, Any]]], np.ndarray]


def by_loop(model: Any, batch: int) -> Score:
    """The usual loop."""
    device = "cpu" if CPU else "cuda"
    model = model.to(device).eval()

    def score(rows: list[dict[str, Any]]) -> np.ndarray:
        found = []
        with torch.inference_mode():
            for inputs in DataLoader(rows, batch_size=batch, collate_fn=DataCollatorWithPadding(TOKENIZER)):
                found.append(model(**inputs.to(device)).logits.softmax(1).cpu().numpy())
        return np.concatenate(found)

    return score


def by_trainer(model: Any, batch: int) -> Score:
    """``Trainer.predict`` with the whole model in bf16, which is faster than autocast."""
    predictor = trainer(model, per_device_eval_batch_size=batch, bf16_full_eval=True)
    return lambda rows: torch.from_numpy(predictor.predict(rows).predictions).float().softmax(1).numpy()


def main() -> None:
    told, result = settings(), dict[str, Any]()
    texts, _ = read(told["given"]["file"])
    rows = encoded(texts, told["max_length"])
    lengths = lengths_of(rows)
    order = np.argsort(lengths, kind="stable") if told["sorted"] else np.random.default_rng(0).permutation(len(texts))
    model = with_lora(base(told["classes"], told["attention"], torch.float32), seed=0, random=True)
    if told["merged"]:
        model = model.merge_and_unload()
    score = (by_loop if told["way"] == "loop" else by_trainer)(model, told["batch"])
    work = [rows[i] for i in order]
    with stopwatch(result, "warm_up_seconds"):
        score([work[i] for i in np.sort(chosen(len(work), told["warm_up"], 2))])
    with stopwatch(result):
        outputs = score(work)
    assert outputs.shape == (len(texts), told["classes"])
    report(**result, **work_of(lengths))


if __name__ == "__main__":
    main()
