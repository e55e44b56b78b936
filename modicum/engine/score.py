"""One pass over a pool, computing only the signals that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from modicum.base.types import Signal, Task
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank
from modicum.engine.noise import Noise
from modicum.engine.tokens import Batch, Tokens, by_length, pack

TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536}
"""Tokens a scoring batch: on a CPU what stays in cache, on a GPU what fills it."""


class Scorer:
    """Scores texts with one trained run. features: (n, width) of the frozen backbone, if the run keeps it as it is."""

    def __init__(
        self,
        bank: Bank,
        tokens: Tokens,
        task: Task,
        features: np.ndarray | None = None,
        head_dropout: float = 0.1,
    ) -> None:
        self.bank, self.tokens, self.task = bank, tokens, task
        self.features, self.head_dropout = features, head_dropout

    def signals(
        self,
        positions: np.ndarray,
        needs: frozenset[Signal],
        *,
        mc_passes: int = 0,
        rng: np.random.Generator | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> dict[Signal, Any]:
        """The model's signals at (n,) positions, in their order; ``frozen_embedding`` is not the model's to give.

        rng: draws the dropout of ``mc_proba``. on_batch: called with the number of texts done, after each batch.
        """
        found: dict[Signal, Any] = {}
        if needs & {"proba", "embedding", "gradient_embedding"}:
            pooled, outputs = self._pass(positions, None, on_batch)
            if "proba" in needs:
                found["proba"] = outputs
            if "embedding" in needs:
                found["embedding"] = pooled
            if "gradient_embedding" in needs:
                found["gradient_embedding"] = (
                    outputs - np.eye(outputs.shape[1], dtype=np.float32)[outputs.argmax(1)],
                    pooled,
                )
        if "mc_proba" in needs:
            assert rng is not None, "mc_proba needs a generator"
            found["mc_proba"] = np.stack([self._pass(positions, rng, on_batch)[1] for _ in range(mc_passes)])
        return found

    def outputs(self, positions: np.ndarray, on_batch: Callable[[int], None] | None = None) -> np.ndarray:
        """(n, classes) probabilities, or (n,) predicted values for regression."""
        return self._pass(positions, None, on_batch)[1]

    def _pass(
        self, positions: np.ndarray, rng: np.random.Generator | None, on_batch: Callable[[int], None] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, width) pooled and (n, classes) probabilities or (n,) values; with dropout where rng is given."""
        backbone = self.bank.backbone
        pooled = np.empty((len(positions), backbone.width), dtype=np.float32)
        outputs = np.empty((len(positions), self.bank.outputs), dtype=np.float32)
        for where, batch in batches(backbone, self.tokens, positions):
            noise = None if rng is None else Noise(batch, [rng], backbone.device)
            with torch.inference_mode():
                hidden, logits = self._forward(batch, positions[where], noise)
                result = logits.softmax(1) if self.task == "classification" else logits
            pooled[where], outputs[where] = hidden.cpu().numpy(), result.cpu().numpy()
            if on_batch is not None:
                on_batch(len(where))
        return pooled, outputs if self.task == "classification" else outputs[:, 0]

    def _forward(self, batch: Batch, positions: np.ndarray, noise: Noise | None) -> Any:
        if self.features is None:
            return self.bank(batch, noise, self.head_dropout)
        pooled = torch.from_numpy(self.features[positions]).to(self.bank.backbone.device)
        return pooled, self.bank.classify(pooled, batch, noise, self.head_dropout)


def encode_all(backbone: Backbone, tokens: Tokens, on_batch: Callable[[int], None] | None = None) -> np.ndarray:
    """(n, width) fp32 pooled representations of the untouched backbone."""
    features = np.empty((len(tokens.lengths), backbone.width), dtype=np.float32)
    for where, batch in batches(backbone, tokens, np.arange(len(tokens.lengths))):
        with torch.inference_mode():
            features[where] = backbone.encode(batch).cpu().numpy()
        if on_batch is not None:
            on_batch(len(where))
    return features


def batches(backbone: Backbone, tokens: Tokens, positions: np.ndarray) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches of like lengths of the texts at (n,) positions, each with the indices of its texts in its row's order."""
    for chosen in by_length(tokens.lengths[positions], TOKEN_BUDGET[backbone.device.type]):
        one_run = np.zeros(len(chosen), np.int64)
        batch = pack(tokens, positions[chosen], one_run, first_position=backbone.first_position)
        yield chosen[batch.order], batch
