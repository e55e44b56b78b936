"""Texts as token ids, made once per data set, and batches of them as flat rows without padding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modicum.data.dataset import Dataset


@dataclass(frozen=True)
class Tokens:
    """All token ids of a data set in one flat row.

    ids: (total,) int32. types: (total,) int8 segment numbers of pairs, None for single texts. starts: (n + 1,) int64.
    """

    ids: np.ndarray
    types: np.ndarray | None
    starts: np.ndarray

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) tokens per text."""
        return np.diff(self.starts)


def tokenize(dataset: Dataset, tokenizer: Any, max_length: int, block: int = 10_000) -> Tokens:
    """Tokenise all texts (and pairs), cut to ``max_length`` tokens, special tokens included."""
    ids, types, lengths = [], [], []
    paired = dataset.pairs([0]) is not None if len(dataset) else False
    for start in range(0, len(dataset), block):
        positions = np.arange(start, min(start + block, len(dataset)))
        texts, pairs = dataset.texts(positions), dataset.pairs(positions) if paired else None
        encoded = tokenizer(texts, pairs, truncation=True, max_length=max_length, return_token_type_ids=paired)
        lengths.extend(map(len, encoded["input_ids"]))
        ids.append(np.concatenate([np.asarray(row, dtype=np.int32) for row in encoded["input_ids"]]))
        if paired:
            types.append(np.concatenate([np.asarray(row, dtype=np.int8) for row in encoded["token_type_ids"]]))
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Tokens(
        np.concatenate(ids) if ids else np.zeros(0, np.int32), np.concatenate(types) if types else None, starts
    )


LADDER = np.array(
    [*range(4, 25, 4), 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 2048, 4096, 8192]
)
"""Lengths that attention works in: a text is lifted to the next rung, which depends on its own length alone."""


class Span(NamedTuple):
    """Texts of one rung side by side: the first token (of the lifted row), how many texts, and the rung."""

    start: int
    texts: int
    rung: int


class Block(NamedTuple):
    """Texts of one run and one rung side by side, the unit in which runs draw their dropout."""

    run: int
    texts: int
    tokens: int
    rung: int


@dataclass(frozen=True)
class Lift:
    """How attention sees a row: lifted to rungs. The linear maps never compute these extra tokens.

    take: (lifted,) token of the row for each place (token 0 where there is none). back: (tokens,) place of each token.
    empty: (lifted,) bool, places without a token.
    """

    take: Tensor
    back: Tensor
    empty: Tensor


@dataclass
class Batch:
    """Texts of one or more runs in one flat row, low rungs first; within a rung run by run, in their given order.

    ids, types, positions: (1, tokens + spare) int64 (types None for single texts); the last ``spare`` tokens belong to
    no text, and make rows of few different sizes. lengths, run_of_text, order: (texts,), where
    text i of the row was number ``order[i]`` of those given. lift: None where every text fills its rung.
    """

    ids: Tensor
    types: Tensor | None
    positions: Tensor
    lengths: np.ndarray
    run_of_text: np.ndarray
    order: np.ndarray
    spans: list[Span]
    blocks: list[Block]
    lift: Lift | None
    spare: int

    @cached_property
    def starts(self) -> np.ndarray:
        """(texts,) where each text begins in the row."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def text_of_token(self) -> np.ndarray:
        """(tokens,) int64."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def pack(tokens: Tokens, positions: np.ndarray, runs: np.ndarray, *, first_position: int = 0) -> Batch:
    """Lay the texts at (n,) ``positions`` side by side; ``runs`` (n,) says whose they are.

    first_position: the position number of a text's first token (RoBERTa counts from its padding index + 1).
    """
    lengths = tokens.lengths[positions]
    rungs = _rungs(lengths)
    order = np.lexsort((runs, rungs))
    lengths, rungs, runs = lengths[order], rungs[order], runs[order]
    ends = np.cumsum(lengths)
    offset = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    where = np.repeat(tokens.starts[positions[order]], lengths) + offset
    spare = -len(where) % (32 if len(where) <= 1024 else 128)
    where = np.concatenate([where, np.repeat(where[:1], spare)])
    return Batch(
        ids=torch.from_numpy(tokens.ids[where].astype(np.int64))[None],
        types=None if tokens.types is None else torch.from_numpy(tokens.types[where].astype(np.int64))[None],
        positions=torch.from_numpy(np.append(offset, np.zeros(spare, np.int64)) + first_position)[None],
        lengths=lengths,
        run_of_text=runs,
        order=order,
        spans=[Span(int(s), n, int(rungs[i])) for i, n, s in _stretches(rungs, rungs)],
        blocks=_blocks(lengths, rungs, runs),
        lift=_lift(lengths, rungs, offset),
        spare=spare,
    )


def _rungs(lengths: np.ndarray) -> np.ndarray:
    """(n,) the least rung at or above each length; lengths beyond the ladder are their own rungs."""
    index = np.searchsorted(LADDER, lengths)
    return np.where(index < len(LADDER), LADDER[np.minimum(index, len(LADDER) - 1)], lengths)


def _stretches(values: np.ndarray, sizes: np.ndarray) -> list[tuple[int, int, int]]:
    """(first index, count, sum of sizes before) of each stretch of equal neighbours."""
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    before = (np.cumsum(sizes) - sizes)[first]
    return list(zip(first.tolist(), np.diff(np.append(first, len(values))).tolist(), before.tolist(), strict=True))


def _blocks(lengths: np.ndarray, rungs: np.ndarray, runs: np.ndarray) -> list[Block]:
    ends = np.append(np.cumsum(lengths) - lengths, lengths.sum())
    stretches = _stretches(rungs * (runs.max() + 1) + runs, lengths)
    return [Block(int(runs[i]), n, int(ends[i + n] - ends[i]), int(rungs[i])) for i, n, _ in stretches]


def _lift(lengths: np.ndarray, rungs: np.ndarray, offset: np.ndarray) -> Lift | None:
    if np.array_equal(lengths, rungs):
        return None
    back = np.repeat(np.cumsum(rungs) - rungs, lengths) + offset
    take = np.zeros(int(rungs.sum()), dtype=np.int64)
    take[back] = np.arange(len(back))
    empty = np.ones(len(take), dtype=bool)
    empty[back] = False
    return Lift(torch.from_numpy(take), torch.from_numpy(back), torch.from_numpy(empty))


def by_length(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut texts of (n,) ``lengths`` into batches of at most ``budget`` tokens (one text at least), of like lengths.

    Returns indices into ``lengths``, shortest texts first.
    """
    ordered = np.argsort(lengths, kind="stable")
    batches: list[np.ndarray] = []
    start, total = 0, 0
    for i, length in enumerate(lengths[ordered].tolist()):
        if total + length > budget and i > start:
            batches.append(ordered[start:i])
            start, total = i, 0
        total += length
    if len(ordered):
        batches.append(ordered[start:])
    return batches


def padded(batch: Batch, pad: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same texts as (texts, longest) ids, attention mask and types, for models that cannot take packed rows."""
    longest = int(batch.lengths.max())
    mask = torch.from_numpy(np.arange(longest)[None] < batch.lengths[:, None])

    def spread(row: Tensor, fill: int) -> Tensor:
        out = torch.full(mask.shape, fill, dtype=torch.int64)
        out[mask] = row[0, : int(batch.lengths.sum())]
        return out

    return spread(batch.ids, pad), mask.long(), None if batch.types is None else spread(batch.types, 0)
