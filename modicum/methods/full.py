"""Full fine-tuning: every weight of the backbone moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from modicum.base.errors import SpecError
from modicum.methods.base import Adapter, Host, Method, ParameterTree, Rate, Site, slashed

ROWS = 512
"""Rows of a weight whose gradient is added at a time, so that its copy in full precision stays in the caches."""


class InPrecision(torch.autograd.Function):
    """A parameter (1, ...) without its runs axis, in the backbone's precision.

    Its gradient is added to the parameter's own, a few rows at a time: autograd would first make an fp32 copy of it as
    large as the weight, which for an embedding table costs more than the table's part of the pass.
    """

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.parameter = parameter
        return parameter[0].to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        parameter, (grad,) = ctx.parameter, grads
        if parameter.grad is None:
            return grad[None].to(parameter.dtype), None
        for own, new in zip(parameter.grad[0].split(ROWS), grad.split(ROWS), strict=True):
            own.add_(new)
        return None, None


def key(name: str) -> str:
    """What a run's tensor of this weight of the encoder is called."""
    return f"weight.{slashed(name)}"


class FullAdapter(Adapter):
    """Holds an fp32 copy of the backbone's parameters; the backbone itself stays as it is.

    Narrowed, it trains the embeddings of the words that come up, and no step moves the whole table through memory: of
    a small encoder's weights these are half. The other words' embeddings have no gradient, and stay as they are.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__(runs=1)
        self._names = list(names)
        own = dict(model.named_parameters())
        self.weight = ParameterTree({name: own[name].detach().float().unsqueeze(0).clone() for name in names})
        words = model.get_input_embeddings()  # type: ignore[operator]
        self._table = next((name for name in names if own[name] is words.weight), "")
        self._padding = max(words.padding_idx or 0, model.config.pad_token_id or 0)  # type: ignore[union-attr,operator]
        self._kept: Tensor | None = None
        self._whole = torch.empty(0)

    @property
    def sites(self) -> frozenset[str]:
        return frozenset()

    def weights(self, dtype: torch.dtype) -> Mapping[str, Tensor]:
        return {name: InPrecision.apply(self.weight[name], dtype) for name in self._names}

    def narrow(self, words: np.ndarray) -> np.ndarray | None:
        if not self._table:
            return None
        rows: np.ndarray = np.union1d(np.arange(self._padding + 1), words)  # padding keeps its place
        self._whole = self.weight[self._table].detach()[0]
        self._kept = torch.from_numpy(rows).to(self._whole.device)
        self.weight[self._table] = self._whole[self._kept][None]
        return rows

    def exported(self, run: int = 0) -> dict[str, Tensor]:
        found, table = super().exported(run), key(self._table)
        return found if self._kept is None else {**found, table: self._whole.index_copy(0, self._kept, found[table])}

    def imported(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        table = key(self._table)
        return tensors if self._kept is None else {**tensors, table: tensors[table].to(self._kept.device)[self._kept]}


class Full(Method):
    """Trains all of the backbone's weights and the head; runs cannot be stacked.

    The embeddings of words that no label holds have no gradient; they do not decay either.
    """

    stackable: ClassVar[bool] = False
    learning_rate: Rate = 2e-4
    head_learning_rate: Rate = 1e-3

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        raise SpecError("full fine-tuning needs the backbone's weights: call build_on, not build")

    def build_on(self, host: Host, rngs: Sequence[np.random.Generator]) -> Adapter:
        if len(rngs) != 1:
            raise SpecError(f"full fine-tuning cannot stack runs: it needs exactly 1 run, got {len(rngs)}")
        return FullAdapter(host.model, host.weights)

    def merge(self, sites: Sequence[Site], adapter: Mapping[str, Tensor], state: dict[str, Tensor]) -> bool:
        for name in state:
            if (learned := adapter.get(key(name))) is not None:
                state[name] = learned
        return True
