"""Rows as a reader hands them over: unchecked columns by role, each row with its place in the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from modicum.data.findings import Role
from modicum.data.ids import BLOCK


@dataclass(frozen=True)
class Rows:
    """n rows that could be read.

    columns: role -> (n,) Arrow large strings, null where the source has nothing; labels are text whatever they were.
    places: (n,) int64, where each row begins: its line, row or item.
    ordinals: (n,) int64, each row's number among all the source's rows, from 1: the same in every file format.
    read: how many rows the source has, those that could not be read included.
    """

    columns: dict[Role, pa.Array]
    places: np.ndarray
    ordinals: np.ndarray
    read: int

    def __len__(self) -> int:
        return len(self.places)

    def keep(self, mask: np.ndarray) -> Rows:
        """The rows where the (n,) mask is true."""
        if mask.all():
            return self
        columns = {role: column.filter(pa.array(mask)) for role, column in self.columns.items()}
        return Rows(columns, self.places[mask], self.ordinals[mask], self.read)

    def without(self, role: Role) -> Rows:
        """The rows without a column."""
        columns = {other: column for other, column in self.columns.items() if other != role}
        return Rows(columns, self.places, self.ordinals, self.read)


@dataclass
class RowsBuilder:
    """Gathers rows one at a time and packs every block of them into Arrow."""

    roles: Sequence[Role]
    _pending: list[Sequence[str | None]] = field(default_factory=list)
    _places: list[int] = field(default_factory=list)
    _ordinals: list[int] = field(default_factory=list)
    _blocks: list[list[pa.Array]] = field(default_factory=list)
    _numbers: list[np.ndarray] = field(default_factory=list)

    def add(self, place: int, ordinal: int, values: Sequence[str | None]) -> None:
        """Add a row: one value per role, in the order of ``roles``, without lone surrogates."""
        self._pending.append(values)
        self._places.append(place)
        self._ordinals.append(ordinal)
        if len(self._pending) == BLOCK:
            self._pack()

    def build(self, read: int) -> Rows:
        """All rows added; ``read`` as in ``Rows``."""
        self._pack()
        columns = {role: joined([block[at] for block in self._blocks]) for at, role in enumerate(self.roles)}
        places, ordinals = np.concatenate([np.empty((2, 0), np.int64), *self._numbers], axis=1)
        return Rows(columns, places, ordinals, read)

    def _pack(self) -> None:
        if self._pending:
            columns = zip(*self._pending, strict=True)
            self._blocks.append([pa.array(column, pa.large_string()) for column in columns])
            self._numbers.append(np.array([self._places, self._ordinals], np.int64))
            self._pending, self._places, self._ordinals = [], [], []


def joined(blocks: Sequence[pa.Array]) -> pa.Array:
    """Blocks of large strings as one array."""
    return pa.concat_arrays(blocks) if blocks else pa.array([], pa.large_string())
