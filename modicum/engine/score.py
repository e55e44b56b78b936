"""One pass over a pool, computing only the signals that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from modicum.base.types import Signal, Task
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank
from modicum.engine.noise import Noise
from modicum.engine.tiles import Batch, fill, lay, tile_size
from modicum.engine.tokens import Tokens

TOKEN_BUDGET = {"cpu": 4096, "cuda": 65536}
"""Places a scoring batch."""
SCORING_COST = {
    "cpu": {32: 1.20, 64: 1.26, 128: 1.33, 256: 1.50},
    "cuda": {32: 1.0, 64: 1.0, 128: 1.02, 256: 1.05},
}
"""What a place costs by its tile's size, relative to its linear maps: measured on a CPU, estimated for CUDA."""


class Lowered(Protocol):
    """Knows what the lower layers make of a batch, (1, places, width)."""

    def of(self, batch: Batch) -> Tensor: ...


class Scorer:
    """Scores texts with one trained run.

    features: (n, width) of the frozen backbone, if the run keeps it as it is. lower: what the layers below the run's
    lowest make of the texts, if that is known.
    """

    def __init__(
        self,
        bank: Bank,
        tokens: Tokens,
        task: Task,
        features: np.ndarray | None = None,
        head_dropout: float = 0.1,
        lower: Lowered | None = None,
    ) -> None:
        self.bank, self.tokens, self.task = bank.settle(), tokens, task
        self.features, self.head_dropout, self.lower = features, head_dropout, lower

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
            pooled = np.empty((len(positions), self.bank.backbone.width), np.float32) if needs != {"proba"} else None
            outputs = self._pass(positions, None, on_batch, pooled)
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
            found["mc_proba"] = np.stack([self._pass(positions, rng, on_batch) for _ in range(mc_passes)])
        return found

    def outputs(self, positions: np.ndarray, on_batch: Callable[[int], None] | None = None) -> np.ndarray:
        """(n, classes) probabilities, or (n,) predicted values for regression."""
        return self._pass(positions, None, on_batch)

    def _pass(
        self,
        positions: np.ndarray,
        rng: np.random.Generator | None,
        on_batch: Callable[[int], None] | None,
        pooled: np.ndarray | None = None,
    ) -> np.ndarray:
        """(n, classes) probabilities or (n,) values, with dropout where rng is given.

        pooled: (n, width), filled with the texts' representations where given.
        """
        backbone = self.bank.backbone
        outputs = np.empty((len(positions), self.bank.outputs), dtype=np.float32)
        for where, batch in batches(backbone, self.tokens, positions):
            noise = None if rng is None else Noise(batch, [rng], backbone.device)
            with torch.inference_mode():
                hidden, logits = self._forward(batch, positions[where], noise)
                result = logits.softmax(1) if self.task == "classification" else logits
            outputs[where] = result.cpu().numpy()
            if pooled is not None:
                pooled[where] = hidden.cpu().numpy()
            if on_batch is not None:
                on_batch(len(where))
        return outputs if self.task == "classification" else outputs[:, 0]

    def _forward(self, batch: Batch, positions: np.ndarray, noise: Noise | None) -> Any:
        if self.features is None:
            return self.bank(batch, noise, self.head_dropout, self.lower.of(batch) if self.lower else None)
        pooled = torch.from_numpy(self.features[positions]).to(self.bank.backbone.device)
        return pooled, self.bank.classify(pooled, batch, noise, self.head_dropout)


def encode_all(
    backbone: Backbone,
    tokens: Tokens,
    on_batch: Callable[[int], None] | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """(n, width) fp32 pooled representations of the untouched backbone, written into ``out`` if that is given."""
    features = np.empty((len(tokens.lengths), backbone.width), dtype=np.float32) if out is None else out
    for where, batch in batches(backbone, tokens, np.arange(len(tokens.lengths))):
        with torch.inference_mode():
            features[where] = backbone.encode(batch).cpu().numpy()
        if on_batch is not None:
            on_batch(len(where))
    return features


def layers_of(model: Backbone | Bank, tokens: Tokens, positions: np.ndarray) -> np.ndarray:
    """(layers + 1, n, width) fp32, what the embeddings and each layer make of the texts at (n,) positions."""
    backbone = model.backbone if isinstance(model, Bank) else model
    found = np.empty((0, len(positions), backbone.width), np.float32)
    for where, batch in batches(backbone, tokens, positions):
        with torch.inference_mode():
            states = model.by_layer(batch).cpu().numpy()
        if not len(found):
            found = np.empty((len(states), *found.shape[1:]), np.float32)
        found[:, where] = states
    return found


def walk_all(
    backbone: Backbone, tokens: Tokens, layer: int, on_batch: Callable[[int], None] | None, out: np.ndarray
) -> None:
    """Write what the layers below this one make of every token into ``out``, (tokens, width), bf16 as its bits."""
    for where, batch in batches(backbone, tokens, np.arange(len(tokens.lengths))):
        with torch.inference_mode():
            states = backbone.walk_to(layer, batch)[0, torch.from_numpy(batch.places)].cpu()
            out[batch.source] = (states.view(torch.uint16) if out.dtype == np.uint16 else states).numpy()
        if on_batch is not None:
            on_batch(len(where))


def batches(backbone: Backbone, tokens: Tokens, positions: np.ndarray) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches of the texts at (n,) positions, laid into tiles all at once, each with the indices of its texts in its
    row's order."""
    kind = backbone.device.type
    lengths = tokens.lengths[positions]
    tile, offset, sizes = fill(lengths, tile_size(lengths, SCORING_COST[kind]))
    by_tile = np.argsort(tile, kind="stable")
    ends = np.cumsum(np.bincount(tile, minlength=len(sizes)))
    for first, last in _stretches(sizes, TOKEN_BUDGET[kind]):
        chosen = by_tile[ends[first - 1] if first else 0 : ends[last - 1]]
        owners = np.zeros(last - first, np.int64)
        laid = tile[chosen] - first, offset[chosen], sizes[first:last], owners
        batch = lay(tokens, positions[chosen], *laid, backbone.first_position)
        yield chosen[batch.order], batch


def _stretches(sizes: np.ndarray, budget: int) -> Iterator[tuple[int, int]]:
    """First and past-last tile of stretches of one size, at most ``budget`` places (one tile at least) each."""
    start = 0
    while start < len(sizes):
        same = int(np.searchsorted(sizes, sizes[start], side="right"))
        end = min(same, start + max(1, budget // int(sizes[start])))
        yield start, end
        start = end
