"""Short texts stand side by side in tiles: all inside, none on another, a run's as when it is alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modicum.engine.tiles import SAMPLE, SIZES, STEP, Batch, fill, pack, padded, tile_size
from modicum.engine.tokens import Tokens

RISING = {32: 1.0, 64: 1.1, 128: 1.2, 256: 1.3}


def numbered(lengths: list[int]) -> Tokens:
    """Text i holds 1000 i, 1000 i + 1, ..."""
    ids = np.concatenate([1000 * i + np.arange(n) for i, n in enumerate(lengths)]).astype(np.int32)
    return Tokens(ids, (ids % 2).astype(np.int8), np.concatenate([[0], np.cumsum(lengths)]))


def some_lengths(n: int, longest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, longest + 1, n)


# -- fill ------------------------------------------------------------------------------------------------------------


def test_fill_by_hand() -> None:
    """30 and 20 open tiles, 12 goes where it leaves least; 40 and 65 are too long and stand alone, shorter first."""
    tile, offset, sizes = fill(np.array([20, 65, 12, 30, 40, 2]), 32)
    assert tile.tolist() == [1, 3, 1, 0, 2, 0] and offset.tolist() == [0, 0, 20, 0, 0, 30]
    assert sizes.tolist() == [32, 32, 64, 128]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("n", "longest"), [(1, 1), (1, 500), (7, 8), (200, 40), (300, 300), (50, 32)])
def test_every_text_is_inside_its_tile_and_on_no_other(n: int, longest: int, size: int) -> None:
    lengths = some_lengths(n, longest)
    tile, offset, sizes = fill(lengths, size)
    assert (offset >= 0).all() and (offset + lengths <= sizes[tile]).all()
    assert sorted(set(tile.tolist())) == list(range(len(sizes))), "a tile is empty"
    assert (np.diff(sizes) >= 0).all()
    taken = np.zeros((len(sizes), sizes.max()), np.int64)
    for t, start, length in zip(tile, offset, lengths, strict=True):
        taken[t, start : start + length] += 1
    assert taken.max() == 1
    long = lengths > size
    assert (sizes[tile[~long]] == size).all() and (sizes[tile[long]] == -(-lengths[long] // STEP) * STEP).all()
    assert (np.bincount(tile, minlength=len(sizes))[tile[long]] == 1).all(), "a long text is not alone"


@pytest.mark.parametrize("size", SIZES)
def test_fill_is_best_fit(size: int) -> None:
    """Longest first, equal ones in their order, each in the tile that it leaves fullest; new tiles only where none."""
    lengths = some_lengths(250, size, seed=1)
    tile, offset, sizes = fill(lengths, size)
    rooms: dict[int, int] = {}
    for text in np.argsort(-lengths, kind="stable"):
        fitting = [room for room in rooms.values() if room >= lengths[text]]
        room = rooms.get(tile[text], size)
        assert (tile[text] in rooms) == bool(fitting) and room == min(fitting, default=size)
        assert offset[text] == size - room
        rooms[tile[text]] = room - lengths[text]
    assert len(rooms) == len(sizes)


def test_fill_says_the_same_again() -> None:
    for first, second in zip(*(fill(some_lengths(300, 90), 64) for _ in range(2)), strict=True):
        np.testing.assert_array_equal(first, second)


def test_fill_wastes_little_of_short_texts() -> None:
    lengths = some_lengths(1000, 30)
    assert fill(lengths, 128)[2].sum() < 1.02 * lengths.sum() + 128


def test_fill_of_nothing() -> None:
    assert [len(part) for part in fill(np.zeros(0, np.int64), 32)] == [0, 0, 0]


# -- tile_size -------------------------------------------------------------------------------------------------------


def test_tile_size_is_the_cheapest() -> None:
    for seed, longest in enumerate((8, 20, 33, 60, 100, 200, 400)):
        lengths = some_lengths(150, longest, seed)

        def total(size: int, lengths: np.ndarray = lengths) -> float:
            return sum(n * float(np.interp(n, list(RISING), list(RISING.values()))) for n in fill(lengths, size)[2])

        found = tile_size(lengths, RISING)
        assert found in SIZES and total(found) == pytest.approx(min(map(total, SIZES)))


def test_tile_size_weighs_room_against_cost() -> None:
    """Texts of 33 tokens: a tile of 64 has room for one, one of 256 for seven, if that is not too dear."""
    lengths = np.full(100, 33)
    assert tile_size(lengths, RISING) == 256
    assert tile_size(lengths, {32: 1.0, 64: 1.0, 128: 3.0, 256: 5.0}) in (32, 64)
    assert tile_size(np.full(100, 16), RISING) == 32
    assert tile_size(np.zeros(0, np.int64), RISING) in SIZES


def test_tile_size_of_a_sample_is_that_of_all() -> None:
    lengths = np.tile(np.full(10, 33), SAMPLE)
    assert tile_size(lengths, RISING) == tile_size(lengths[:100], RISING)


# -- pack ------------------------------------------------------------------------------------------------------------


def test_pack_by_hand() -> None:
    """Run 0 has texts 0, 2 and 3, run 1 has 1, 4 and 5, of which two are longer than a tile."""
    batch = pack(
        numbered([20, 40, 12, 30, 70, 5]), np.arange(6), np.array([0, 1, 0, 0, 1, 1]), size=32, first_position=2
    )
    assert batch.order.tolist() == [3, 0, 2, 5, 1, 4]
    assert batch.lengths.tolist() == [30, 20, 12, 5, 40, 70] and batch.run_of_text.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.starts.tolist() == [0, 32, 52, 64, 96, 160]
    assert [tuple(g) for g in batch.groups] == [
        (0, 2, 32, 0, 3),
        (64, 1, 32, 1, 1),
        (96, 1, 64, 1, 1),
        (160, 1, 128, 1, 1),
    ]
    assert batch.sizes == [(0, 3, 32), (96, 1, 64), (160, 1, 128)]
    assert batch.ids.shape == batch.positions.shape == (1, 288) and batch.ids.dtype == torch.int64
    assert batch.ids[0, 30:34].tolist() == [3000, 3000, 0, 1] and batch.ids[0, 50:54].tolist() == [18, 19, 2000, 2001]
    assert batch.positions[0, 28:34].tolist() == [30, 31, 2, 2, 2, 3]
    assert batch.types is not None and batch.types[0, 64:70].tolist() == [1000 * 5 % 2, 1, 0, 1, 0, 0]
    assert batch.run_of_place.tolist() == [0] * 64 + [1] * 224
    assert batch.text_of_place[28:34].tolist() == [0, 0, -1, -1, 1, 1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("runs", [1, 3])
def test_every_token_is_where_the_batch_says(runs: int, size: int) -> None:
    lengths = some_lengths(90, 100)
    tokens, positions = numbered(lengths.tolist()), np.random.default_rng(1).permutation(90)
    owners = np.random.default_rng(2).integers(0, runs, 90)
    batch = pack(tokens, positions, owners, size=size, first_position=1)
    chosen = positions[batch.order]
    assert sorted(batch.order.tolist()) == list(range(90))
    np.testing.assert_array_equal(batch.lengths, lengths[chosen])
    np.testing.assert_array_equal(batch.run_of_text, owners[batch.order])
    assert batch.types is not None
    for i, (start, n) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        own = slice(start, start + n)
        assert batch.ids[0, own].tolist() == (1000 * chosen[i] + np.arange(n)).tolist()
        assert batch.types[0, own].tolist() == (np.arange(n) % 2).tolist()
        assert batch.positions[0, own].tolist() == (1 + np.arange(n)).tolist()
        assert (batch.text_of_place[own] == i).all() and (batch.run_of_place[own] == batch.run_of_text[i]).all()
    assert (batch.text_of_place >= 0).sum() == lengths.sum()
    np.testing.assert_array_equal(batch.text_of_place[batch.places], batch.text_of_token)
    np.testing.assert_array_equal(np.bincount(batch.text_of_token), batch.lengths)
    assert not batch.types[0, batch.text_of_place < 0].any()
    assert (batch.positions[0, batch.text_of_place < 0] == 1).all()


@pytest.mark.parametrize("size", SIZES)
def test_groups_and_sizes_cover_the_row(size: int) -> None:
    batch = pack(numbered(some_lengths(60, 300).tolist()), np.arange(60), np.arange(60) % 3, size=size)
    end = 0
    for group in batch.groups:
        inside = (batch.starts >= end) & (batch.starts < end + group.places)
        assert group.start == end and group.texts == inside.sum() and (batch.run_of_text[inside] == group.run).all()
        end += group.places
    assert end == batch.ids.shape[1] == sum(tiles * n for _, tiles, n in batch.sizes)
    kinds = [(group.size, group.run) for group in batch.groups]
    assert kinds == sorted(set(kinds)) and [n for *_, n in batch.sizes] == sorted({n for n, _ in kinds})


@pytest.mark.parametrize("size", SIZES)
def test_a_run_is_laid_as_when_it_is_alone(size: int) -> None:
    """So that its dropout falls on the same texts whoever else is in the row."""
    lengths = some_lengths(90, 150)
    tokens, runs = numbered(lengths.tolist()), np.random.default_rng(3).integers(0, 3, 90)
    together = pack(tokens, np.arange(90), runs, size=size)
    for run in range(3):
        own = np.flatnonzero(runs == run)
        alone = pack(tokens, own, np.zeros(len(own), np.int64), size=size)
        groups = [group for group in together.groups if group.run == run]
        assert [g[1:3] + g[4:] for g in groups] == [g[1:3] + g[4:] for g in alone.groups]
        mine = np.concatenate([np.arange(g.start, g.start + g.places) for g in groups])
        texts = together.text_of_place[mine]
        expected = np.append(own[alone.order], -1)[alone.text_of_place]
        np.testing.assert_array_equal(np.append(together.order, -1)[texts], expected)
        used = torch.from_numpy(texts >= 0)
        assert torch.equal(together.ids[0, mine][used], alone.ids[0][used])


def test_a_text_may_come_more_than_once() -> None:
    batch = pack(numbered([2, 3]), np.array([1, 0, 1]), np.array([0, 1, 1]))
    assert batch.order.tolist() == [0, 2, 1] and batch.starts.tolist() == [0, 32, 35]
    assert batch.ids[0, 32:37].tolist() == [1000, 1001, 1002, 0, 1]


# -- padded ----------------------------------------------------------------------------------------------------------


def test_padded_by_hand() -> None:
    batch: Batch = pack(numbered([1, 3]), np.arange(2), np.zeros(2, np.int64))
    ids, mask, types = padded(batch, pad=9)
    assert ids.tolist() == [[1000, 1001, 1002], [0, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert types is not None and types.tolist() == [[0, 1, 0], [0, 0, 0]]
    single = Tokens(np.arange(4, dtype=np.int32), None, np.array([0, 4]))
    assert padded(pack(single, np.arange(1), np.zeros(1, np.int64)), pad=0)[2] is None


def test_padded_holds_each_text() -> None:
    lengths = some_lengths(40, 80)
    batch = pack(numbered(lengths.tolist()), np.arange(40), np.arange(40) % 2)
    ids, mask, _ = padded(batch, pad=-5)
    assert ids.shape == mask.shape == (40, lengths.max()) and mask.sum(1).tolist() == batch.lengths.tolist()
    for text, row, n in zip(batch.order, ids, batch.lengths, strict=True):
        assert row[:n].tolist() == (1000 * text + np.arange(n)).tolist() and (row[n:] == -5).all()
