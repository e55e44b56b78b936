"""The pool: which examples are free, asked for, labelled or skipped.

A pool never changes; each step makes a new one that shares what has not changed, so that a round over a million
examples costs no more than its k answers, until ``free`` is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from modicum.base.errors import StateError, did_you_mean
from modicum.base.types import ExampleId, Label


@dataclass(frozen=True)
class Pool:
    """Disjoint sets of ids that together are all ids. Made by ``Pool.of``; every method leaves its pool as it is."""

    _all: tuple[ExampleId, ...] = field(repr=False)
    _positions: Mapping[ExampleId, int] = field(repr=False, compare=False)
    _asked: dict[ExampleId, None] = field(default_factory=dict)
    _labelled: dict[ExampleId, Label] = field(default_factory=dict)
    _skipped: dict[ExampleId, None] = field(default_factory=dict)
    _free: list[tuple[ExampleId, ...]] = field(default_factory=list, repr=False, compare=False)
    """Empty until ``free`` has been asked for; shared by the pools that have the same free ids."""

    @classmethod
    def of(cls, ids: Sequence[ExampleId]) -> Pool:
        """A pool in which all of these distinct ids are free.

        Raises:
            StateError: an id is given twice.
        """
        ids = tuple(ids)
        positions = dict(zip(ids, range(len(ids)), strict=True))
        if len(positions) < len(ids):
            twice = next(id for position, id in enumerate(ids) if positions[id] != position)
            raise StateError(f"a pool's ids must be distinct, but {twice!r} is given twice; give each example its own")
        return cls(ids, positions)

    def __len__(self) -> int:
        """How many ids the pool has, whatever their state."""
        return len(self._all)

    def __repr__(self) -> str:
        counts: dict[str, Mapping[ExampleId, object]]
        counts = {"asked": self._asked, "labelled": self._labelled, "skipped": self._skipped}
        return f"Pool({self.n_free:,} free, {', '.join(f'{len(ids):,} {state}' for state, ids in counts.items())})"

    @property
    def n_free(self) -> int:
        """How many ids are free, without listing them."""
        return len(self._all) - len(self._asked) - len(self._labelled) - len(self._skipped)

    @property
    def asked(self) -> tuple[ExampleId, ...]:
        """The ids asked for and not yet answered, in the order in which they were asked."""
        return tuple(self._asked)

    @property
    def labelled(self) -> Mapping[ExampleId, Label]:
        """The labels told, in order of arrival."""
        return MappingProxyType(self._labelled)

    @property
    def skipped(self) -> tuple[ExampleId, ...]:
        """The ids that were answered without a label, in order of arrival."""
        return tuple(self._skipped)

    def free(self) -> tuple[ExampleId, ...]:
        """The ids never asked for, in their original order: position i of a view is ``free()[i]``."""
        if not self._free:
            gaps = sorted(self._positions[id] for state in self._taken() for id in state)
            free: list[ExampleId] = []
            for start, stop in zip([0, *(gap + 1 for gap in gaps)], [*gaps, len(self._all)], strict=True):
                free += self._all[start:stop]
            self._free.append(tuple(free))
        return self._free[0]

    def state_of(self, id: ExampleId) -> str:
        """``free``, ``asked``, ``labelled`` or ``skipped``.

        Raises:
            StateError: the pool has no such id.
        """
        if id not in self._positions:
            near = did_you_mean(str(id), self._all[:1_000])
            raise StateError(f"the pool has no example {id!r}{near}; use the ids of its {len(self):,} examples")
        states = zip(("asked", "labelled", "skipped"), self._taken(), strict=True)
        return next((state for state, ids in states if id in ids), "free")

    def ask(self, ids: Iterable[ExampleId]) -> Pool:
        """Free ids become asked ones.

        Raises:
            StateError: an id is unknown, given twice or not free.
        """
        asked = dict(self._asked)
        for id in ids:
            if id in asked and id not in self._asked:
                raise StateError(f"a query asks for an example once, but {id!r} is in it twice; leave the repeats out")
            self._demand(id, "free", "ask for")
            asked[id] = None
        return self if len(asked) == len(self._asked) else replace(self, _asked=asked, _free=[])

    def tell(self, answers: Mapping[ExampleId, Label | None]) -> Pool:
        """Asked ids become labelled ones, or skipped ones where the answer is None; the others stay asked.

        Raises:
            StateError: an id is unknown or not asked for, or a label is not a number.
        """
        if not answers:
            return self
        asked, labelled, skipped = dict(self._asked), dict(self._labelled), dict(self._skipped)
        for id, answer in answers.items():
            self._demand(id, "asked", "answer")
            del asked[id]
            if answer is None:
                skipped[id] = None
            else:
                labelled[id] = _label(id, answer)
        return replace(self, _asked=asked, _labelled=labelled, _skipped=skipped)

    def withdraw(self, ids: Iterable[ExampleId]) -> Pool:
        """Asked ids become free again, at their old places.

        Raises:
            StateError: an id is unknown, given twice or not asked for.
        """
        asked = dict(self._asked)
        for id in ids:
            self._demand(id, "asked", "withdraw")
            if id not in asked:
                raise StateError(f"{id!r} is to be withdrawn twice; leave the repeats out")
            del asked[id]
        return self if len(asked) == len(self._asked) else replace(self, _asked=asked, _free=[])

    def relabel(self, id: ExampleId, label: Label | None) -> Pool:
        """Change an answer; None turns a label into a skip, and a label turns a skip into a labelled example.

        A corrected label keeps its place in the order of arrival.

        Raises:
            StateError: the id is unknown or has no answer, or the label is not a number.
        """
        state = self.state_of(id)
        if state not in ("labelled", "skipped"):
            raise StateError(f"only an answer can be changed, but {id!r} is {state}; ask for it and tell its label")
        labelled, skipped = dict(self._labelled), dict(self._skipped)
        if label is None:
            labelled.pop(id, None)
            skipped[id] = None
        else:
            skipped.pop(id, None)
            labelled[id] = _label(id, label)
        return replace(self, _labelled=labelled, _skipped=skipped)

    def _taken(self) -> tuple[Mapping[ExampleId, object], ...]:
        return self._asked, self._labelled, self._skipped

    def _demand(self, id: ExampleId, state: str, deed: str) -> None:
        found = self.state_of(id)
        if found != state:
            remedy = "withdraw or answer it first" if found == "asked" else f"choose among the {state} ones"
            if state == "asked":
                remedy = "change its answer with relabel" if found in ("labelled", "skipped") else "ask for it first"
            raise StateError(f"only {state} examples can be used to {deed}, but {id!r} is {found}; {remedy}")


def _label(id: ExampleId, label: Label) -> Label:
    """A plain int or float; NumPy's are unwrapped."""
    plain = label.item() if isinstance(label, np.generic) else label
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not math.isfinite(plain):
        must = "must be a class's position or a finite target"
        raise StateError(f"the label of {id!r} {must}, got {label!r}; None skips an example")
    return plain
