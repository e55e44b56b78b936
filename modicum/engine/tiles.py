"""Batches as flat rows of tiles: short texts stand side by side in pieces of one size, which attention works in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from modicum.engine.tokens import Tokens

SIZES = (32, 64, 128, 256)
"""Tiles for texts side by side."""
STEP = 64
"""A text too long for them has a tile of its own, of the next multiple of this."""
SAMPLE = 2_000
"""Texts on which sizes are compared."""


class Group(NamedTuple):
    """Tiles of one size and one run side by side: the first place, how many tiles, their size, run and texts."""

    start: int
    tiles: int
    size: int
    run: int
    texts: int

    @property
    def places(self) -> int:
        return self.tiles * self.size


@dataclass
class Batch:
    """Texts of one or more runs in one flat row of tiles: small tiles first, within a size run by run.

    ids, types, positions: (1, places) int64 (types None for single texts). Places that hold no token are spare:
    what is computed there reaches no text. lengths, run_of_text, starts, order: (texts,), where text i of the row has
    its first token at place ``starts[i]`` and was number ``order[i]`` of those given. text_of_place: (places,), -1
    where spare. source: (tokens,) where the data set's ``Tokens`` hold each token.
    """

    ids: Tensor
    types: Tensor | None
    positions: Tensor
    lengths: np.ndarray
    run_of_text: np.ndarray
    starts: np.ndarray
    order: np.ndarray
    text_of_place: np.ndarray
    source: np.ndarray
    groups: list[Group]

    @cached_property
    def text_of_token(self) -> np.ndarray:
        """(tokens,) int64, texts in the row's order."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def places(self) -> np.ndarray:
        """(tokens,) the place of each token, texts in the row's order."""
        return _ranges(self.starts, self.lengths)

    @cached_property
    def mask(self) -> np.ndarray:
        """(texts, longest) where a padded batch of the same texts has a token."""
        return np.arange(self.lengths.max())[None] < self.lengths[:, None]

    @cached_property
    def run_of_place(self) -> np.ndarray:
        """(places,), spare places included: every tile belongs to one run."""
        return np.repeat([g.run for g in self.groups], [g.places for g in self.groups])

    @cached_property
    def sizes(self) -> list[tuple[int, int, int]]:
        """(first place, tiles, size) of each size of tiles, all runs together: what attention goes through."""
        found: list[tuple[int, int, int]] = []
        for group in self.groups:
            if found and found[-1][2] == group.size:
                start, tiles, size = found[-1]
                found[-1] = (start, tiles + group.tiles, size)
            else:
                found.append((group.start, group.tiles, group.size))
        return found


def fill(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay texts of (n,) ``lengths`` into tiles, longest first, each where it leaves the least room (best fit).

    Returns: tile (n,) of each text, its offset (n,) in there, and the size (tiles,) of each tile, sizes ascending.
    A text longer than ``size`` has a tile of its own, of the next multiple of ``STEP``.
    """
    tile, offset = np.empty(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    descending = np.argsort(-lengths, kind="stable")
    long = int(np.searchsorted(-lengths[descending], -size))
    open_tiles: list[list[int]] = [[] for _ in range(size + 1)]  # by the room that is left
    rooms, count = 0, 0  # bit r of rooms: some tile has room r
    for text, length in zip(descending[long:].tolist(), lengths[descending[long:]].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = open_tiles[room].pop()
            if not open_tiles[room]:
                rooms ^= 1 << room
        else:
            room, chosen, count = size, count, count + 1
        tile[text], offset[text] = chosen, size - room
        if room > length:
            open_tiles[room - length].append(chosen)
            rooms |= 1 << (room - length)
    alone = descending[:long][::-1]
    tile[alone] = count + np.arange(long)
    own = -(-lengths[alone] // STEP) * STEP
    return tile, offset, np.concatenate([np.full(count, size), own])


def tile_size(lengths: np.ndarray, cost: dict[int, float]) -> int:
    """The size of tiles that computes texts of (n,) ``lengths`` soonest.

    cost: of a place by its tile's size; between the sizes that are named it grows linearly.
    """
    if not len(lengths):
        return SIZES[0]
    sample = lengths[:: max(1, len(lengths) // SAMPLE)]
    known = sorted(cost)

    def total(size: int) -> float:
        sizes = fill(sample, size)[2]
        return float((sizes * np.interp(sizes, known, [cost[k] for k in known])).sum())

    return min(SIZES, key=total)


def pack(
    tokens: Tokens, positions: np.ndarray, runs: np.ndarray, *, size: int = SIZES[0], first_position: int = 0
) -> Batch:
    """Lay the texts at (n,) ``positions`` into tiles of ``size``; ``runs`` (n,) says whose they are.

    Every run has tiles of its own, laid as if it were alone. first_position: the position number of a text's first
    token (RoBERTa counts from its padding index + 1).
    """
    lengths = tokens.lengths[positions]
    tile, offset = np.empty(len(runs), np.int64), np.empty(len(runs), np.int64)
    sizes: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    before = 0
    for run in np.unique(runs).tolist():
        own = np.flatnonzero(runs == run)
        tile[own], offset[own], laid = fill(lengths[own], size)
        tile[own] += before
        before += len(laid)
        sizes.append(laid)
        owners.append(np.full(len(laid), run))
    return lay(tokens, positions, tile, offset, np.concatenate(sizes), np.concatenate(owners), first_position)


def lay(
    tokens: Tokens,
    positions: np.ndarray,
    tile: np.ndarray,
    offset: np.ndarray,
    sizes: np.ndarray,
    owners: np.ndarray,
    first_position: int,
) -> Batch:
    """The row of texts whose tiles and offsets are known; sizes, owners: (tiles,) of each tile."""
    by_size = np.lexsort((owners, sizes))
    rank = np.empty_like(by_size)
    rank[by_size] = np.arange(len(by_size))
    sizes, owners, tile = sizes[by_size], owners[by_size], rank[tile]
    begins = np.cumsum(sizes) - sizes
    order = np.lexsort((offset, tile))
    lengths, tile = tokens.lengths[positions[order]], tile[order]
    starts = begins[tile] + offset[order]
    places, total = _ranges(starts, lengths), int(sizes.sum())
    source = _ranges(tokens.starts[positions[order]], lengths)

    def spread(values: np.ndarray, fill_with: int) -> Tensor:
        row = np.full(total, fill_with, dtype=np.int64)
        row[places] = values
        return torch.from_numpy(row)[None]

    text_of_place = np.full(total, -1, dtype=np.int64)
    text_of_place[places] = np.repeat(np.arange(len(lengths)), lengths)
    return Batch(
        ids=spread(tokens.ids[source], int(tokens.ids[source[0]])),
        types=None if tokens.types is None else spread(tokens.types[source], 0),
        positions=spread(_ranges(np.full(len(lengths), first_position), lengths), first_position),
        lengths=lengths,
        run_of_text=owners[tile],
        starts=starts,
        order=order,
        text_of_place=text_of_place,
        source=source,
        groups=_groups(begins, sizes, owners, np.bincount(tile, minlength=len(sizes))),
    )


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, … of each of (n,) stretches, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


def _groups(begins: np.ndarray, sizes: np.ndarray, owners: np.ndarray, texts: np.ndarray) -> list[Group]:
    kind = np.stack([sizes, owners])
    first = np.flatnonzero(np.concatenate([[True], (kind[:, 1:] != kind[:, :-1]).any(0)]))
    ends = np.append(first[1:], len(sizes))
    return [
        Group(int(begins[a]), int(b - a), int(sizes[a]), int(owners[a]), int(texts[a:b].sum()))
        for a, b in zip(first, ends, strict=True)
    ]


def padded(batch: Batch, pad: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same texts as (texts, longest) ids, attention mask and types, for models that cannot take rows of tiles."""
    mask = torch.from_numpy(batch.mask)
    places = torch.from_numpy(batch.places)

    def spread(row: Tensor, fill_with: int) -> Tensor:
        out = torch.full(mask.shape, fill_with, dtype=torch.int64)
        out[mask] = row[0, places]
        return out

    return spread(batch.ids, pad), mask.long(), None if batch.types is None else spread(batch.types, 0)
