"""Example ids in one Arrow array: a million of them cost their bytes, not a million Python objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modicum.base.errors import DataError, did_you_mean
from modicum.base.types import ExampleId

BLOCK = 65_536
"""Rows that are Python objects at the same time."""


class Ids(Sequence[ExampleId]):
    """Distinct ids in the order of their examples, with a lookup from id to position.

    The first lookup sorts the ids (8 bytes each); later ones are binary searches.
    """

    def __init__(self, array: pa.Array) -> None:
        self._array = array
        self._order: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, at: int) -> ExampleId: ...
    @overload
    def __getitem__(self, at: slice) -> Ids: ...
    def __getitem__(self, at: int | slice) -> ExampleId | Ids:
        found = self._array[at]
        return Ids(found) if isinstance(at, slice) else str(found)

    def __iter__(self) -> Iterator[ExampleId]:
        for start in range(0, len(self), BLOCK):
            yield from self._array.slice(start, BLOCK).to_pylist()

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._find(id) is not None

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self._array.slice(0, 3).to_pylist()))
        return f"Ids({shown}{', …' if len(self) > 3 else ''}; {len(self):,} in all)"

    @property
    def array(self) -> pa.Array:
        """The ids as an Arrow array of large strings, without nulls."""
        return self._array

    def id_of(self, position: int) -> ExampleId:
        """The id of the example at a position."""
        return self[position]

    def position_of(self, id: ExampleId) -> int:
        """The position of the example with this id.

        Raises:
            DataError: no example has this id.
        """
        position = self._find(id)
        if position is None:
            raise DataError(self._unknown(id))
        return position

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """As ``list.index``, without the walk."""
        position = self.position_of(value)
        if not start <= position < (len(self) if stop is None else stop):
            raise DataError(f"id {value!r} is at position {position}, outside {start}..{stop}")
        return position

    def positions_of(self, ids: Iterable[ExampleId]) -> np.ndarray:
        """The (k,) int64 positions of k ids in one pass over all of them.

        Raises:
            DataError: no example has one of these ids.
        """
        wanted = ids.array if isinstance(ids, Ids) else pa.array(list(ids), pa.large_string())
        found = pc.index_in(wanted, value_set=self._array)
        if found.null_count:
            raise DataError(self._unknown(wanted[int(np.flatnonzero(found.is_null().to_numpy(False))[0])].as_py()))
        return np.asarray(found, dtype=np.int64)

    def _find(self, id: ExampleId) -> int | None:
        if self._order is None:
            self._order = pc.sort_indices(self._array).to_numpy().astype(np.int64)
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if str(self._array[int(self._order[middle])]) < id:
                low = middle + 1
            else:
                high = middle
        position = int(self._order[low]) if low < len(self) else -1
        return position if position >= 0 and str(self._array[position]) == id else None

    def _unknown(self, id: ExampleId) -> str:
        some = self._array.slice(0, 1_000).to_pylist()
        return f"no example has the id {id!r}{did_you_mean(str(id), some)}; the first of {len(self):,} is {some[:1]}"


def made_ids(texts: pa.Array, pairs: pa.Array | None, ordinals: np.ndarray) -> pa.Array:
    """Ids such as ``r12-3fa9c1d0``: the row's number in its source, from 1, and 32 bits of its content's hash.

    texts, pairs: (n,) strings without nulls; ordinals: (n,) int64.
    """
    blocks = []
    for start in range(0, len(texts), BLOCK):
        contents = texts.slice(start, BLOCK).to_pylist()
        if pairs is not None:
            contents = [f"{a}\0{b}" for a, b in zip(contents, pairs.slice(start, BLOCK).to_pylist(), strict=True)]
        numbers = ordinals[start : start + BLOCK].tolist()
        made = [
            f"r{number}-{hashlib.blake2b(content.encode(), digest_size=4).hexdigest()}"
            for number, content in zip(numbers, contents, strict=True)
        ]
        blocks.append(pa.array(made, pa.large_string()))
    return pa.concat_arrays(blocks) if blocks else pa.array([], pa.large_string())
