"""Tokens are made once, as the tokenizer itself makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import sentences, tokenizer

from modicum.data.dataset import Dataset
from modicum.engine.tokens import Tokens, tokenize


def unlabelled(texts: list[str], pairs: list[str] | None = None) -> Dataset:
    return Dataset.from_lists(texts, pairs=pairs, for_training=False)


def rows_of(tokens: Tokens, what: str = "ids") -> list[list[int]]:
    flat: Any = getattr(tokens, what)
    return [flat[a:b].tolist() for a, b in zip(tokens.starts[:-1], tokens.starts[1:], strict=True)]


@pytest.mark.parametrize("block", [1, 3, 10_000])
def test_tokenize_is_the_tokenizers_own(block: int) -> None:
    texts, own = sentences([5, 1, 30, 7, 30]), tokenizer()
    tokens = tokenize(unlabelled(texts), own, 12, block=block)
    assert rows_of(tokens) == own(texts, truncation=True, max_length=12)["input_ids"]
    assert tokens.lengths.tolist() == [7, 3, 12, 9, 12]
    assert tokens.types is None and tokens.ids.dtype == np.int32 and tokens.starts.dtype == np.int64


def test_cut_texts_keep_their_frame() -> None:
    row = rows_of(tokenize(unlabelled(sentences([30])), tokenizer(), 8))[0]
    assert (row[0], row[-1], len(row)) == (2, 3, 8)


@pytest.mark.parametrize("block", [2, 10_000])
def test_pairs_have_segments(block: int) -> None:
    texts, pairs, own = sentences([2, 20, 1]), sentences([3, 20, 1], seed=1), tokenizer()
    tokens = tokenize(unlabelled(texts, pairs), own, 16, block=block)
    expected = own(texts, pairs, truncation=True, max_length=16, return_token_type_ids=True)
    assert rows_of(tokens) == expected["input_ids"]
    assert rows_of(tokens, "types") == expected["token_type_ids"]
    assert rows_of(tokens, "types")[0] == [0] * 4 + [1] * 4
    assert tokens.lengths[1] == 16 and tokens.types is not None and tokens.types.dtype == np.int8
