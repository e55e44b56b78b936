"""Modicum's public parts, put together as the contestants need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import chosen

from modicum.base.training import FitJob, Training
from modicum.data.dataset import Dataset
from modicum.data.sources import load
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Weights
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS


def dataset(path: str | Path, like: Dataset | None = None, *, labelled: bool = True) -> Dataset:
    """A Parquet file's texts and labels, with the classes of another data set where one is given."""
    found = load(path, text="text", label="label" if labelled else "", for_training=False)
    return found if like is None else found.with_classes(like.classes)


def jobs(data: Dataset, labels: int, seeds: Sequence[int]) -> list[FitJob]:
    """A job a seed, all on the same ``labels`` examples."""
    at = chosen(len(data), labels, 0)
    ids = tuple(data.ids[int(i)] for i in at)
    return [FitJob(ids, data.labels[at], seed, 0) for seed in seeds]


def random_lora(backbone: Backbone, corpus: Corpus, classes: int, seed: int) -> tuple[Engine, Weights]:
    """An engine and LoRA weights (r = 8, all linear maps) that are random and nowhere zero."""
    engine = Engine(backbone, corpus, METHODS.create("lora", rank=8), Training(steps=1), "classification", classes)
    ids = tuple(corpus.dataset.ids[i] for i in range(8))
    weights = engine.fit([FitJob(ids, np.arange(8) % classes, seed, 0)])[0].weights
    rng = torch.Generator().manual_seed(seed)
    noisy = {k: t + 0.02 * torch.randn(t.shape, generator=rng).to(t) for k, t in weights.adapter.items()}
    return engine, replace(weights, adapter=noisy)


class Banked(Engine):
    """An engine whose banks have a given number of runs."""

    bank_size = 1

    @property
    def runs_per_bank(self) -> int:
        return self.bank_size

    def fit(self, jobs: Sequence[FitJob], on_fit: Any = None) -> Any:
        sizes: list[int] = []
        fitted = super().fit(jobs, on_fit=sizes.append)
        if sizes != [len(jobs)]:
            raise SystemExit(f"{len(jobs)} runs were to train in one bank, but trained in banks of {sizes}")
        return fitted
