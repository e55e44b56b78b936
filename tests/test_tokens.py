"""Tokens are made once; batches are flat rows, laid out by rung and run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import sentences, tokenizer

from modicum.data.dataset import Dataset
from modicum.engine.tokens import LADDER, Batch, Tokens, by_length, pack, padded, tokenize


def unlabelled(texts: list[str], pairs: list[str] | None = None) -> Dataset:
    return Dataset.from_lists(texts, pairs=pairs, for_training=False)


def rows_of(tokens: Tokens, what: str = "ids") -> list[list[int]]:
    flat: Any = getattr(tokens, what)
    return [flat[a:b].tolist() for a, b in zip(tokens.starts[:-1], tokens.starts[1:], strict=True)]


def numbered(lengths: list[int]) -> Tokens:
    """Text i holds 100 i, 100 i + 1, ..."""
    ids = np.concatenate([100 * i + np.arange(n) for i, n in enumerate(lengths)]).astype(np.int32)
    types = (ids % 2).astype(np.int8)
    return Tokens(ids, types, np.concatenate([[0], np.cumsum(lengths)]))


# -- tokenize --------------------------------------------------------------------------------------------------------


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


# -- pack ------------------------------------------------------------------------------------------------------------


def test_ladder() -> None:
    assert (np.diff(LADDER) > 0).all() and LADDER[0] == 4
    batch = pack(numbered([1, 4, 5, 24, 25, 33, 8193]), np.arange(7), np.zeros(7, np.int64))
    assert [span.rung for span in batch.spans] == [4, 8, 24, 32, 40, 8193]
    assert batch.spans[0].texts == 2


def test_pack_by_hand() -> None:
    """Texts 0 to 4 of runs 1, 0, 0, 1, 0: rung 4 holds 2 (run 0) and 0 (run 1), rung 8 holds 1 and 4, then 3."""
    batch = pack(numbered([3, 6, 4, 5, 8]), np.arange(5), np.array([1, 0, 0, 1, 0]), first_position=2)
    assert batch.order.tolist() == [2, 0, 1, 4, 3]
    assert batch.lengths.tolist() == [4, 3, 6, 8, 5] and batch.run_of_text.tolist() == [0, 1, 0, 0, 1]
    assert batch.starts.tolist() == [0, 4, 7, 13, 21]
    expected = [200 + i for i in range(4)] + [0, 1, 2] + [100 + i for i in range(6)] + [400 + i for i in range(8)]
    assert batch.ids[0, :21].tolist() == expected and batch.ids.shape == (1, 32) and batch.spare == 6
    assert batch.types is not None and torch.equal(batch.types, batch.ids % 2)
    assert batch.positions[0].tolist() == [2 + i for n in batch.lengths for i in range(n)] + [2] * 6
    assert [tuple(span) for span in batch.spans] == [(0, 2, 4), (8, 3, 8)]
    assert [tuple(block) for block in batch.blocks] == [(0, 1, 4, 4), (1, 1, 3, 4), (0, 2, 14, 8), (1, 1, 5, 8)]
    assert batch.text_of_token.tolist() == [i for i, n in enumerate(batch.lengths) for _ in range(n)]


def test_lift_and_back_is_the_identity() -> None:
    batch = pack(numbered([3, 6, 4, 5, 8]), np.arange(5), np.zeros(5, np.int64))
    lift = batch.lift
    assert lift is not None and len(lift.take) == len(lift.empty) == 2 * 4 + 3 * 8
    row = batch.ids[0, :26]
    lifted = row[lift.take]
    assert torch.equal(lifted[lift.back], row)
    assert int(lift.empty.sum()) == 32 - 26 and not lift.empty[lift.back].any()
    assert lifted[4:8].tolist() == [200, 201, 202, 203] and lifted[:3].tolist() == [0, 1, 2]
    assert lift.empty[:8].tolist() == [False, False, False, True, False, False, False, False]


def test_no_lift_where_every_text_fills_its_rung() -> None:
    assert pack(numbered([4, 8, 4]), np.arange(3), np.zeros(3, np.int64)).lift is None


def test_a_text_may_come_more_than_once() -> None:
    batch = pack(numbered([2, 3]), np.array([1, 0, 1]), np.array([0, 1, 1]))
    assert batch.ids[0, :8].tolist() == [100, 101, 102, 0, 1, 100, 101, 102]
    assert batch.order.tolist() == [0, 1, 2]


def test_runs_keep_their_order_within_a_rung() -> None:
    """So that a run's dropout falls on the same texts whoever else is in the row."""
    lengths = np.random.default_rng(0).integers(1, 40, 60).tolist()
    tokens, runs = numbered(lengths), np.arange(60) % 3
    together = pack(tokens, np.arange(60), runs)
    for run in range(3):
        alone = pack(tokens, np.flatnonzero(runs == run), np.zeros(20, np.int64))
        mine = np.flatnonzero(together.run_of_text == run)
        assert together.order[mine].tolist() == np.flatnonzero(runs == run)[alone.order].tolist()
        blocks = [(b.texts, b.tokens, b.rung) for b in together.blocks if b.run == run]
        assert blocks == [(b.texts, b.tokens, b.rung) for b in alone.blocks]


# -- by_length and padded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 10, 50, 10_000])
def test_by_length_covers_all_within_the_budget(budget: int) -> None:
    lengths = np.random.default_rng(1).integers(1, 30, 200)
    batches = by_length(lengths, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    assert all(lengths[b].sum() <= budget or len(b) == 1 for b in batches)
    assert (np.diff(lengths[np.concatenate(batches)]) >= 0).all()
    assert all(
        lengths[b].sum() + lengths[after[0]] > budget for b, after in zip(batches[:-1], batches[1:], strict=True)
    )


def test_by_length_of_nothing() -> None:
    assert by_length(np.zeros(0, np.int64), 10) == []


def test_padded_by_hand() -> None:
    batch: Batch = pack(numbered([3, 1]), np.arange(2), np.zeros(2, np.int64))
    ids, mask, types = padded(batch, pad=9)
    assert ids.tolist() == [[0, 1, 2], [100, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert types is not None and types.tolist() == [[0, 1, 0], [0, 0, 0]]
    single = Tokens(np.arange(4, dtype=np.int32), None, np.array([0, 4]))
    assert padded(pack(single, np.arange(1), np.zeros(1, np.int64)), pad=0)[2] is None
