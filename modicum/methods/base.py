"""What a parameter-efficient method is: sites in, an adapter out.

An adapter knows nothing about texts, batches or training. It stands around some of the backbone's maps (its
*sites*), and each of its parameters has a leading ``runs`` axis, so that R runs share one pass over the backbone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from modicum.base.errors import SpecError
from modicum.base.spec import Record

Role = Literal[
    "query", "key", "value", "qkv", "attention", "attention_output", "ffn_in", "ffn_out", "norm", "other"
]  # fmt: skip
ATTENTION_INPUTS: tuple[Role, ...] = ("query", "key", "value", "qkv")
"""The maps that read a layer's input; models that fuse them have ``qkv`` alone."""


Rate = Annotated[float, Field(gt=0)]
"""A learning rate."""


@dataclass(frozen=True)
class Site:
    """A place in the backbone where an adapter may stand.

    ``attention`` sites are functions of (query, key, value), each (1, heads, places, head_dim), which also take a
    prefix: its keys and values, each (runs, heads, length, head_dim), and a gate (1, places, 1) that scales both. All
    others are maps of (..., inputs) to (..., outputs). ``layer`` counts from 0, and is -1 for what belongs to none.
    """

    name: str
    role: Role
    layer: int
    inputs: int
    outputs: int
    bias: bool = True
    heads: int = 0


@dataclass
class Rows:
    """Which run, and which text, each token of a batch belongs to.

    one_hot: (1, places, runs) in rows of tiles, (texts, 1, runs) in padded batches; None where there is a single run.
    run_of_text: (texts,) int64. mean_over_text: (..., 1) -> (texts, 1). spread: (texts, 1) -> (..., 1).
    """

    runs: int
    one_hot: Tensor | None
    run_of_text: Tensor
    mean_over_text: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    memo: dict[object, Tensor] = field(default_factory=dict)
    """What an adapter computed at one site of this pass and needs at a later one."""

    def columns(self, maps: int, rank: int, like: Tensor) -> Tensor | None:
        """(rows of ``like``, maps * runs * rank): 1 in the columns of each row's own run; None for a single run."""
        if self.one_hot is None:
            return None
        key = "columns", maps, rank, like.shape[:-1], like.dtype
        if key not in self.memo:
            own = self.one_hot.to(like.dtype).expand(*like.shape[:-1], -1).flatten(0, -2)
            self.memo[key] = own[:, None, :, None].expand(-1, maps, -1, rank).reshape(len(own), -1)
        return self.memo[key]

    def own(self, vectors: Tensor, like: Tensor) -> Tensor:
        """(runs, width) -> each token's own vector, broadcastable to ``like`` and in its precision."""
        vectors = vectors.to(like.dtype)
        return vectors[0] if self.one_hot is None else self.one_hot.to(like.dtype) @ vectors

    def down(self, x: Tensor, maps: Tensor) -> Tensor:
        """(..., inputs) through (runs, rank, inputs) -> (..., runs * rank), all runs side by side, unmasked."""
        return nn.functional.linear(x, maps.to(x.dtype).reshape(-1, maps.shape[-1]))

    def mask(self, h: Tensor) -> Tensor:
        """Keep each token's own columns of (..., runs * rank)."""
        if self.one_hot is None:
            return h
        return (h.unflatten(-1, (self.runs, -1)) * self.one_hot.to(h.dtype).unsqueeze(-1)).flatten(-2)

    def up(self, h: Tensor, maps: Tensor, onto: Tensor) -> Tensor:
        """``onto`` plus (..., runs * rank), masked, through (runs, outputs, rank) -> (..., outputs), in one product."""
        wide = maps.to(h.dtype).transpose(1, 2).reshape(h.shape[-1], -1)
        return torch.addmm(onto.flatten(0, -2), h.flatten(0, -2), wide).view_as(onto)


class Frozen(Protocol):
    """A frozen linear map, or several side by side that read the same input. product: without a gradient.

    weight: (outputs, inputs).
    """

    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor: ...

    def product(self, x: Tensor) -> Tensor: ...


class Adapter(nn.Module, ABC):
    """All that a run learns inside the backbone; every parameter is shaped (runs, ...).

    position_shift: by how much a method moves the texts' positions (prefix-tuning puts its keys before them).
    takes_packed: False where the adapter's own encoder works on padded batches only.
    """

    position_shift: int = 0
    takes_packed: bool = True

    def __init__(self, runs: int) -> None:
        super().__init__()
        self.runs = runs

    @property
    @abstractmethod
    def sites(self) -> frozenset[str]:
        """Names of the sites that ``around`` wants to see; the others run untouched."""

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        """The adapted map: ``frozen(*inputs)`` with this adapter's change."""
        return frozen(*inputs)

    def around_all(self, sites: Sequence[Site], frozen: Frozen, x: Tensor, rows: Rows) -> Sequence[Tensor]:
        """The adapted maps at sites that read the same input, the frozen ones being computed in one product."""
        parts = frozen(x).split([site.outputs for site in sites], -1)
        return [
            self.around(site, lambda _, part=part: part, x, rows=rows) if site.name in self.sites else part
            for site, part in zip(sites, parts, strict=True)
        ]

    def weights(self, dtype: torch.dtype) -> Mapping[str, Tensor]:
        """Parameters to use in place of the encoder's own, by name, without a runs axis; dtype: the backbone's."""
        return {}

    def encoder(self) -> nn.Module | None:
        """A model to call in place of the backbone, for methods that bring their own modules."""
        return None

    def exported(self, run: int = 0) -> dict[str, Tensor]:
        """One run's tensors, without the runs axis, by name."""
        return {name: p.detach()[run].clone() for name, p in self.named_parameters()}

    def imported(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What ``exported`` gave, as parameters hold it."""
        return tensors

    def narrow(self, words: np.ndarray) -> np.ndarray | None:
        """Train of the word embeddings those of these words alone, a word being its row among the rows that are kept.

        words: (k,) int64, rising. Returns the rows, rising: those of the words, and what padding needs; None where it
        trains no word embeddings. No other word may come up then; ``exported`` has them all.
        """
        return None


class Host(Protocol):
    """The backbone as methods see it.

    sites, weights: the places and the names of the weights that a method may change. plain_copy: the encoder without
    Modicum's steps, sharing the frozen weights.
    """

    model: nn.Module
    sites: Sequence[Site]
    weights: Sequence[str]

    def plain_copy(self) -> nn.Module: ...

    def drop_in(self, model: nn.Module) -> None: ...


class PeftParts(NamedTuple):
    """A run in the format of Hugging Face PEFT: its configuration, and tensors by name within the encoder."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


class Method(Record, ABC):
    """A frozen record of a method's settings; part of a trial's identity.

    learning_rate: peak rate of AdamW for the adapter; every method has a default of its own.
    head_learning_rate: the same for the classification head.
    adapt_layers: ``all``, or ``top:k`` to stand in the upper k layers only; what the layers below make of a text is
    then computed once and remembered, so that training and scoring begin there.
    """

    stackable: ClassVar[bool] = True
    identity_at_init: ClassVar[bool] = True
    needs_packed: ClassVar[bool] = False
    """True for methods that stand around attention itself, which padded fall-back batches do not expose."""

    learning_rate: Rate
    head_learning_rate: Rate = 5e-3
    adapt_layers: str = Field(default="all", pattern=r"^(all|top:[1-9]\d*)$")

    def lowest(self, layers: int) -> int:
        """The lowest layer, of so many, in which this method stands; 0 also for what lies below the layers.

        Raises:
            SpecError: the backbone has fewer layers.
        """
        if self.adapt_layers == "all":
            return 0
        top = int(self.adapt_layers.removeprefix("top:"))
        if top >= layers:
            raise SpecError(f"adapt_layers = {self.adapt_layers!r} needs a backbone of more layers than {layers}")
        return layers - top

    def within(self, sites: Sequence[Site]) -> list[Site]:
        """Of a backbone's sites those in the layers that this method adapts."""
        lowest = self.lowest(1 + max(site.layer for site in sites))
        return [site for site in sites if not lowest or site.layer >= lowest]

    @property
    def parts(self) -> tuple[Method, ...]:
        """Methods to train by in place of this one, which then is the mean of their models."""
        return ()

    def holding(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A run's tensors that make the encoder's weights, (name -> fp32), these; for methods of several ``parts``."""
        raise NotImplementedError

    @abstractmethod
    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        """An adapter for ``len(rngs)`` runs, run r drawn from ``rngs[r]`` alone.

        Raises:
            SpecError: the backbone lacks the sites that this method stands on.
        """

    def build_on(self, host: Host, rngs: Sequence[np.random.Generator]) -> Adapter:
        """As ``build``; for methods that also need the backbone's own modules (full fine-tuning, say)."""
        return self.build(host.sites, rngs)

    def to_peft(self, sites: Sequence[Site], adapter: Mapping[str, Tensor]) -> PeftParts | None:
        """One run's tensors in PEFT's format; None where PEFT has no such method."""
        return None

    def merge(self, sites: Sequence[Site], adapter: Mapping[str, Tensor], state: dict[str, Tensor]) -> bool:
        """Write one run's change into the encoder's fp32 ``state``; False where it cannot be written as weights."""
        return False


class ParameterTree(nn.Module):
    """Parameters under dotted site names, which ``nn.ParameterDict`` does not allow."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(slashed(name), nn.Parameter(tensor))

    def __getitem__(self, name: str) -> Tensor:
        return self._parameters[slashed(name)]  # type: ignore[return-value]

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self._parameters[slashed(name)] = nn.Parameter(tensor)


def slashed(name: str) -> str:
    """A site's name as a ``ParameterTree`` stores it."""
    return name.replace(".", "/")


def pick(sites: Sequence[Site], *roles: Role, layers: bool = True, method: str) -> list[Site]:
    """The sites of these roles, in order; only inside the blocks unless ``layers`` is False.

    Raises:
        SpecError: there is none.
    """
    found = [site for site in sites if site.role in roles and (site.layer >= 0 or not layers)]
    if not found:
        raise SpecError(f"{method} stands on {' or '.join(roles)}, and this backbone has none; choose another method")
    return found


def normal(rngs: Sequence[np.random.Generator], *shape: int, std: float) -> Tensor:
    """(runs, *shape) fp32, run r drawn from its own generator."""
    draws = [rng.standard_normal(shape, dtype=np.float32) for rng in rngs]
    return torch.from_numpy(np.stack(draws)) * std


def uniform(rngs: Sequence[np.random.Generator], *shape: int, bound: float) -> Tensor:
    """(runs, *shape) fp32, uniform in ±bound, run r drawn from its own generator."""
    draws = [rng.uniform(-bound, bound, shape).astype(np.float32) for rng in rngs]
    return torch.from_numpy(np.stack(draws))


def zeros(rngs: Sequence[np.random.Generator], *shape: int) -> Tensor:
    """(runs, *shape) fp32 zeros."""
    return torch.zeros(len(rngs), *shape)
