"""A bank: R runs of one method over one backbone, their learned tensors stacked along the leading axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.engine.backbone import Backbone, Changed
from modicum.engine.heads import Head
from modicum.engine.noise import Noise
from modicum.engine.tiles import Batch
from modicum.engine.tokens import Tokens
from modicum.methods.base import Adapter, Method


class Output(NamedTuple):
    """pooled: (texts, width) fp32. logits: (texts, outputs) fp32. Both in the row's order."""

    pooled: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Weights:
    """All that one run learned: a few named tensors without the runs axis. outputs: classes, or 1 for regression."""

    method: Method
    outputs: int
    adapter: Mapping[str, Tensor]
    head: Mapping[str, Tensor]

    @property
    def prototypes(self) -> int:
        """How many of the head's maps each output has."""
        return len(self.head["bias"]) // self.outputs

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        return sum(tensor.numel() for tensor in (*self.adapter.values(), *self.head.values()))


class Bank(nn.Module):
    """The adapters and heads of R runs; a single run is a bank of one."""

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        outputs: int,
        rngs: Sequence[np.random.Generator],
        prototypes: int = 1,
    ) -> None:
        super().__init__()
        if len(rngs) > 1 and not method.stackable:
            raise SpecError(f"{type(method).__name__} runs cannot be stacked: build banks of one")
        if method.needs_packed and not backbone.packed:
            raise SpecError(
                f"{type(method).__name__} stands around attention, which {backbone.name!r} does not expose; "
                "use lora, adapter or bitfit with it"
            )
        self.backbone, self.method, self.outputs, self.runs = (backbone, method, outputs, len(rngs))
        if len(rngs) > 1 and not backbone.stackable:
            raise SpecError(f"{backbone.name!r} sends more than texts through its maps: build banks of one run")
        host, lowest = backbone.above(method)
        self.adapter: Adapter = method.build_on(host, rngs)
        self.lowest = lowest if self.adapter.encoder() is None else 0
        """The layer at which a pass begins if what lies below it is known."""
        if self.lowest:
            self.adapter.position_shift = 0  # positions belong to the layers below
        self._changed: Changed | None = None
        self.head = Head(backbone.width, outputs, rngs, prototypes)
        self.to(backbone.device)

    @classmethod
    def fresh(
        cls,
        backbone: Backbone,
        method: Method,
        outputs: int,
        seeds: Sequence[tuple[int, int]],
        prototypes: int = 1,
    ) -> Bank:
        """New runs, each initialised from its own (seed, round). prototypes: of each output in the head."""
        return cls(backbone, method, outputs, [stream(seed, "init", round_) for seed, round_ in seeds], prototypes)

    @classmethod
    def stack(cls, backbone: Backbone, weights: Sequence[Weights]) -> Bank:
        """Trained runs of one method in one bank."""
        method, outputs = weights[0].method, weights[0].outputs
        prototypes = weights[0].prototypes
        if any((w.method, w.outputs, w.prototypes) != (method, outputs, prototypes) for w in weights):
            raise SpecError("only runs of one method with the same number of outputs can be stacked")
        bank = cls(backbone, method, outputs, [stream(0, "overwritten") for _ in weights], prototypes)
        for r, own in enumerate(weights):
            bank.put(r, own)
        return bank

    def begin_from(self, adapter: Mapping[str, Tensor]) -> None:
        """Let the adapters of all runs begin from these tensors, which have no runs axis."""
        for r in range(self.runs):
            _fill(self.adapter, adapter, r)

    def unstack(self) -> list[Weights]:
        """Each run's own tensors, copied."""
        return [self.row(r) for r in range(self.runs)]

    def row(self, run: int) -> Weights:
        """One run's own tensors, copied."""
        return Weights(self.method, self.outputs, self.adapter.exported(run), _row(self.head, run))

    def put(self, run: int, weights: Weights) -> None:
        """Let a run have these tensors."""
        _fill(self.adapter, self.adapter.imported(weights.adapter), run)
        _fill(self.head, weights.head, run)

    def narrow(self, tokens: Tokens, positions: np.ndarray) -> Tokens:
        """Train the embeddings of these texts' words alone, where the adapter trains any; returns what to train on."""
        texts = [tokens.ids[tokens.starts[p] : tokens.starts[p + 1]] for p in np.unique(positions)]
        rows = self.adapter.narrow(np.unique(np.concatenate(texts)).astype(np.int64))
        if rows is None:
            return tokens
        places = np.zeros(1 + max(int(tokens.ids.max()), int(rows[-1])), dtype=np.int32)
        places[rows] = np.arange(len(rows))
        return replace(tokens, ids=places[tokens.ids])

    @property
    def frozen(self) -> bool:
        """Whether the adapter leaves the backbone's output as it is, so that its features serve all runs."""
        return not any(True for _ in self.adapter.parameters()) and self.adapter.encoder() is None

    @property
    def trainable(self) -> int:
        """Trained parameters of one run."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad) // self.runs

    def forward(
        self, batch: Batch, noise: Noise | None = None, head_dropout: float = 0.0, lower: Tensor | None = None
    ) -> Output:
        """Encode and classify the texts of a batch; dropout only where ``noise`` is given.

        lower: what the layers below ``lowest`` make of the batch, where that is known: (1, places, width).
        """
        pooled = self.backbone.encode(
            batch,
            runs=self.runs,
            adapter=self.adapter,
            noise=noise,
            changed=self._changed,
            lower=lower,
            layer=self.lowest if lower is not None else 0,
        )
        return Output(pooled, self.classify(pooled, batch, noise, head_dropout))

    def by_layer(self, batch: Batch) -> Tensor:
        """What the embeddings and each layer make of the texts, (layers + 1, texts, width); for a single run."""
        return self.backbone.by_layer(batch, adapter=self.adapter, changed=self._changed)

    def settle(self) -> Bank:
        """From now on score only: a single run's change is written into weights, where its method can be."""
        if self.runs == 1 and not self.frozen:
            self._changed = self.backbone.change(self.method, self.adapter.exported())
        return self

    def classify(self, pooled: Tensor, batch: Batch, noise: Noise | None = None, head_dropout: float = 0.0) -> Tensor:
        """The head alone: (texts, width) -> (texts, outputs)."""
        if noise is not None and head_dropout:
            pooled = noise.texts(pooled, head_dropout)
        return self.head(pooled, torch.from_numpy(batch.run_of_text).to(pooled.device))


def _row(module: nn.Module, run: int) -> dict[str, Tensor]:
    return {name: p.detach()[run].clone() for name, p in module.named_parameters()}


@torch.no_grad()
def _fill(module: nn.Module, tensors: Mapping[str, Tensor], run: int) -> None:
    own = dict(module.named_parameters())
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())[:3]
        raise SpecError(f"these tensors do not belong to this method and backbone: {', '.join(odd)}")
    for name, tensor in tensors.items():
        if own[name].shape[1:] != tensor.shape:
            raise SpecError(f"tensor {name!r} must be {tuple(own[name].shape[1:])}, got {tuple(tensor.shape)}")
        own[name][run] = tensor.to(own[name].device)
