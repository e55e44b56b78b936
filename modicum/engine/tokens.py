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

    ids: (total,) int32. types: (total,) int8 segment numbers of text pairs, None for single texts. starts: (n + 1,) int64.
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


class Span(NamedTuple):
    """Texts of equal length side by side in a row: the first token, how many texts, how many tokens each."""

    start: int
    texts: int
    length: int


class Block(NamedTuple):
    """Texts of one run and one length side by side, the unit in which runs draw their dropout."""

    run: int
    texts: int
    length: int


@dataclass
class Batch:
    """Texts of one or more runs in one flat row, shortest first; within a length run by run, in their given order.

    ids, types, positions: (1, tokens) int64 (types None for single texts). lengths, run_of_text, order: (texts,), where
    text i of the row was number ``order[i]`` of those given.
    """

    ids: Tensor
    types: Tensor | None
    positions: Tensor
    lengths: np.ndarray
    run_of_text: np.ndarray
    order: np.ndarray
    spans: list[Span]
    blocks: list[Block]

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
    order = np.lexsort((runs, lengths))
    lengths, runs = lengths[order], runs[order]
    ends = np.cumsum(lengths)
    offset = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    where = np.repeat(tokens.starts[positions[order]], lengths) + offset
    return Batch(
        ids=torch.from_numpy(tokens.ids[where].astype(np.int64))[None],
        types=None if tokens.types is None else torch.from_numpy(tokens.types[where].astype(np.int64))[None],
        positions=torch.from_numpy(offset + first_position)[None],
        lengths=lengths,
        run_of_text=runs,
        order=order,
        spans=_spans(lengths),
        blocks=[Block(int(runs[i]), n, int(lengths[i])) for i, n in _stretches(lengths * (runs.max() + 1) + runs)],
    )


def _stretches(values: np.ndarray) -> list[tuple[int, int]]:
    """(first index, count) of each stretch of equal neighbours."""
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return list(zip(first.tolist(), np.diff(np.append(first, len(values))).tolist(), strict=True))


def _spans(lengths: np.ndarray) -> list[Span]:
    starts = np.cumsum(lengths) - lengths
    return [Span(int(starts[i]), n, int(lengths[i])) for i, n in _stretches(lengths)]


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
        out[mask] = row[0]
        return out

    return spread(batch.ids, pad), mask.long(), None if batch.types is None else spread(batch.types, 0)
