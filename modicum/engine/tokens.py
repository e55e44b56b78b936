"""Texts as token ids, made once per data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

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
