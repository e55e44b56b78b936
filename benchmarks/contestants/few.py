"""The work of the few-labels comparison: which texts are labelled, and which are tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import chosen, read


class Work(NamedTuple):
    """Labelled texts, texts to test on, and how many classes there are."""

    texts: list[str]
    labels: np.ndarray
    tested: list[str]
    truth: np.ndarray
    classes: int


def work(told: dict[str, Any], seed: int) -> Work:
    """The labels of a seed, and a fixed random part of the test texts.

    ``split``: ``test``, or ``held-out`` for other training texts, on which rules may be made.
    """
    folder = Path(told["given"]["data"]) / told["dataset"]
    texts, labels = read(folder / "train.parquet")
    at = chosen(len(texts), told["labels"], seed)
    if told["split"] == "test":
        tested, truth = read(folder / "test.parquet")
        keep = np.sort(chosen(len(tested), told["tested"], 0))
    else:
        tested, truth = texts, labels
        drawn = chosen(len(texts), told["tested"] + 5 * told["labels"], 1_000)
        keep = np.sort(drawn[~np.isin(drawn, at)][: told["tested"]])
    classes = int(labels.max()) + 1
    return Work([texts[i] for i in at], labels[at], [tested[i] for i in keep], truth[keep], classes)


def in_bf16(told: dict[str, Any], into: dict[str, Any]) -> bool:
    """Whether to compute in bf16: what is not timed, to be done sooner, where the processor has it. Notes which."""
    bf16 = bool(told["given"]["untimed"] and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    into["precision"] = "bfloat16" if bf16 else "float32"
    return bf16
