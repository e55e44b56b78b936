"""Any strategy on a random part of a pool that is too large to score."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from modicum.base.types import Signal, Task
from modicum.strategies import STRATEGIES
from modicum.strategies.base import Selection, Strategy, View


class OfInner:
    """A class attribute of ``Strategy`` that each instance takes from its inner strategy."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Subsample | None, owner: type[Subsample]) -> Any:
        return getattr(Strategy if instance is None else instance.inner, self.name)


def of_inner(name: str) -> Any:
    """``OfInner(name)``, to type checkers of the type that the attribute stands for."""
    return OfInner(name)


class Subsample(Strategy):
    """Lets another strategy choose among a random part of the pool, and scores only that: ``subsample:entropy``.

    Options other than ``size`` go to the other strategy. What it needs is what that one needs.

    member: the other strategy's name. inner: its settings. size: how many candidates to draw.
    """

    needs: ClassVar[frozenset[Signal]] = of_inner("needs")
    needs_labelled: ClassVar[frozenset[Signal]] = of_inner("needs_labelled")
    tasks: ClassVar[frozenset[Task]] = of_inner("tasks")
    deterministic: ClassVar[bool] = False
    member: str
    inner: SerializeAsAny[Strategy]
    size: int = Field(default=10_000, ge=1)

    @classmethod
    def family_member(cls, member: str, *, size: int = 10_000, **options: Any) -> Self:
        """``subsample:<member>``.

        Raises:
            SpecError: there is no such strategy, or it has no such option.
        """
        return cls(member=member, inner=STRATEGIES.create(member, **options), size=size)

    @classmethod
    def family_members(cls) -> list[str]:
        """The names that may follow ``subsample:``, for lists and contract tests."""
        return [name for name in STRATEGIES.names() if not name.endswith(":")]

    @field_validator("inner", mode="before")
    @classmethod
    def _from_settings(cls, inner: Any, info: ValidationInfo) -> Any:
        """Make the inner strategy where its settings arrive, as they do from JSON."""
        return STRATEGIES.create(info.data.get("member", ""), **inner) if isinstance(inner, dict) else inner

    @property
    def mc_passes(self) -> int:
        return self.inner.mc_passes

    def narrow(self, n: int, n_labelled: int, k: int, *, rng: np.random.Generator) -> np.ndarray | None:
        size = max(self.size, k)
        if size >= n:
            return self.inner.narrow(n, n_labelled, k, rng=rng)
        drawn = np.sort(rng.choice(n, size, replace=False))
        kept = self.inner.narrow(size, n_labelled, k, rng=rng)
        return drawn if kept is None else drawn[kept]

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        return self.inner.select(view, k, rng=rng)
