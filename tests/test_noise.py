"""Dropout: a run's own, wherever it runs, at the right rate, on all that belongs to a text and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from modicum.engine.noise import Dropped, Kept, Noise
from modicum.engine.tiles import Batch, pack
from modicum.engine.tokens import Tokens

LENGTHS = np.random.default_rng(0).integers(1, 80, 24)
RUNS = np.arange(24) % 3
CPU = torch.device("cpu")


def batch_of(lengths: np.ndarray = LENGTHS, runs: np.ndarray | None = None) -> Batch:
    ids = np.arange(lengths.sum(), dtype=np.int32)
    tokens = Tokens(ids, None, np.concatenate([[0], np.cumsum(lengths)]))
    return pack(tokens, np.arange(len(lengths)), np.zeros(len(lengths), np.int64) if runs is None else runs)


def places(batch: Batch) -> int:
    return batch.ids.shape[1]


def rngs(runs: int = 1) -> list[np.random.Generator]:
    return [np.random.default_rng(run) for run in range(runs)]


# -- Kept and Dropped ------------------------------------------------------------------------------------------------

KEEP = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep", [KEEP, KEEP.bool()])
def test_kept_is_a_product(keep: Tensor, dtype: torch.dtype) -> None:
    kept, x = Kept(keep, 1.25), torch.tensor([[1.5, -2.0, 0.0], [-0.75, float("inf"), 3e-3]], dtype=dtype)
    before = x.clone()
    expected = torch.tensor([[1.5, 0, 0], [-0.75, 0, 3e-3]], dtype=dtype)
    for _ in range(2):
        assert torch.equal(kept.cut(x), expected) and torch.equal(kept.of(x), expected * 1.25)
    assert torch.equal(x, before) and kept.of(x).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_serves_any_layout_and_precision(dtype: torch.dtype) -> None:
    kept, x = Kept(KEEP, 2.0), torch.arange(1.0, 7, dtype=dtype).view(3, 2).t()
    assert not x.is_contiguous()
    assert kept.of(x).tolist() == [[2, 0, 10], [4, 0, 12]]
    assert kept.of(torch.ones(6, dtype=torch.float64)).tolist() == [2, 0, 2, 2, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_gradient_is_dropped_alike(dtype: torch.dtype) -> None:
    x = torch.arange(1.0, 7, dtype=dtype).view(2, 3).requires_grad_()
    out = Dropped.apply(x, Kept(KEEP, 1.25))
    upstream = torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=dtype)
    (grad,) = torch.autograd.grad(out, x, upstream)
    assert grad.dtype == dtype and torch.equal(grad, upstream * KEEP.view(2, 3) * 1.25)
    assert torch.equal(out.detach(), x.detach() * KEEP.view(2, 3) * 1.25)


# -- Noise -----------------------------------------------------------------------------------------------------------


def test_rate_and_scale() -> None:
    """0.1 becomes 26/256, and what is kept is scaled by exactly as much."""
    noise = Noise(batch_of(), rngs(), CPU)
    for p, dropped in ((0.1, 26 / 256), (0.5, 0.5), (0.25, 0.25), (0.001, 1 / 256), (0.999, 255 / 256)):
        out = noise.tokens(torch.ones(1, places(noise.batch), 1000), p)
        assert abs(float((out == 0).float().mean()) - dropped) < 0.002
        assert out.max().item() == pytest.approx(1 / (1 - dropped), rel=1e-6)
        assert abs(float(out.mean()) - 1) < 0.05


@pytest.mark.parametrize("what", ["tokens", "texts", "attention", "padded tokens", "padded attention"])
def test_a_run_draws_the_same_alone_and_in_a_bank(what: str) -> None:
    together = batch_of(runs=RUNS)
    assert len(together.sizes) > 1
    noise = Noise(together, rngs(3), CPU)
    bank = [factors_per_text(what, noise, together) for _ in range(2)]  # twice: the generators move on alike
    assert not torch.equal(bank[0][0], bank[1][0])
    for run in range(3):
        alone = batch_of(LENGTHS[run == RUNS])
        own = Noise(alone, [rngs(3)[run]], CPU)
        for seen in bank:
            mine = [t for t, r in zip(seen, together.run_of_text, strict=True) if r == run]
            for first, second in zip(mine, factors_per_text(what, own, alone), strict=True):
                assert torch.equal(first, second)
                assert first.numel() < 40 or 0 < (first == 0).float().mean() < 0.5


def factors_per_text(what: str, noise: Noise, batch: Batch) -> list[Tensor]:
    """What falls on each text, in the row's order."""
    lengths, texts, longest = batch.lengths, len(batch.lengths), int(batch.lengths.max())
    if what == "tokens":
        row = noise.tokens(torch.ones(1, places(batch), 8), 0.2)[0]
        return [row[start : start + n] for start, n in zip(batch.starts, lengths, strict=True)]
    if what == "texts":
        return list(noise.texts(torch.ones(texts, 64), 0.2))
    if what == "attention":
        return rows_of_weights(noise.attention(2, 3, 0.2), batch, heads=2, prefix=3)
    if what == "padded tokens":
        return [t[:n] for t, n in zip(noise.tokens(torch.ones(texts, longest, 8), 0.2), lengths, strict=True)]
    weights = noise.tokens(torch.ones(texts, 2, longest, longest), 0.2)
    return [t[:, :n, :n] for t, n in zip(weights, lengths, strict=True)]


def rows_of_weights(kept: list[Kept], batch: Batch, heads: int, prefix: int) -> list[Tensor]:
    """(heads, length, prefix + size) of each text, the rows of its own tokens."""
    found: dict[int, Tensor] = {}
    for part, (start, tiles, size) in zip(kept, batch.sizes, strict=True):
        tiled = (part.keep * part.scale).view(tiles, heads, size, prefix + size)
        for text in np.flatnonzero((batch.starts >= start) & (batch.starts < start + tiles * size)).tolist():
            tile, offset = divmod(int(batch.starts[text]) - start, size)
            found[text] = tiled[tile, :, offset : offset + int(batch.lengths[text])]
    return [found[text] for text in range(len(batch.lengths))]


@pytest.mark.parametrize("runs", [None, RUNS])
def test_attention_keeps_for_every_size_of_tiles(runs: np.ndarray | None) -> None:
    batch = batch_of(runs=runs)
    kept = Noise(batch, rngs(3 if runs is not None else 1), CPU).attention(2, 5, 0.25)
    assert [len(part.keep) for part in kept] == [tiles * 2 * size * (size + 5) for _, tiles, size in batch.sizes]
    assert all(part.scale == 256 / 192 for part in kept)
    assert abs(float(torch.cat([part.keep for part in kept]).float().mean()) - 0.75) < 0.01


def test_padding_and_prompts_are_left_alone() -> None:
    """Prompts of other tuners stand before the text, and are nobody's text."""
    batch, prompt = batch_of(np.array([2, 5])), 3
    assert batch.lengths.tolist() == [5, 2]
    out = Noise(batch, rngs(), CPU).tokens(torch.ones(2, prompt + 5, 1000), 0.5)
    touched = (out != 1).any(-1)
    assert touched.tolist() == [[False] * 3 + [True] * 5, [False] * 3 + [True] * 2 + [False] * 3]
    weights = Noise(batch, rngs(), CPU).tokens(torch.ones(2, 500, prompt + 5, prompt + 5), 0.5)
    assert not (weights[:, :, :prompt] != 1).any() and not (weights[..., :prompt] != 1).any()
    assert (weights[0, :, 3:, 3:] != 1).any(0).all() and (weights[1, :, 3:5, 3:5] != 1).any(0).all()
    assert not (weights[1, :, 5:] != 1).any() and not (weights[1, :, :, 5:] != 1).any()


def test_padded_states_get_what_rows_of_tiles_get() -> None:
    batch = batch_of()
    row = Noise(batch, rngs(), CPU).tokens(torch.ones(1, places(batch), 4), 0.3)[0]
    spread = Noise(batch, rngs(), CPU).tokens(torch.ones(24, int(LENGTHS.max()), 4), 0.3)
    mask = torch.arange(int(LENGTHS.max())) < torch.from_numpy(batch.lengths)[:, None]
    assert torch.equal(spread[mask], row[torch.from_numpy(batch.places)])


def test_padded_weights_get_what_tiles_get() -> None:
    batch, longest = batch_of(), int(LENGTHS.max())
    tiled = rows_of_weights(Noise(batch, rngs(), CPU).attention(2, 0, 0.3), batch, heads=2, prefix=0)
    weights = Noise(batch, rngs(), CPU).tokens(torch.ones(24, 2, longest, longest), 0.3)
    for text, n in enumerate(batch.lengths.tolist()):
        start, _, size = next(s for s in reversed(batch.sizes) if s[0] <= batch.starts[text])
        offset = (int(batch.starts[text]) - start) % size
        torch.testing.assert_close(weights[text, :, :n, :n], tiled[text][..., offset : offset + n])


def test_what_belongs_to_no_text_is_left_alone() -> None:
    noise, positions = Noise(batch_of(), rngs(), CPU), torch.ones(64, 16)
    assert noise.tokens(positions, 0.5) is positions
    assert torch.equal(noise.tokens(torch.ones(1, 64, 16), 0.5), torch.ones(1, 64, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_and_gradient(dtype: torch.dtype) -> None:
    batch = batch_of()
    x = torch.ones(1, places(batch), 8, dtype=dtype, requires_grad=True)
    out = Noise(batch, rngs(), CPU).tokens(x, 0.5)
    out.sum().backward()
    assert out.dtype == dtype and x.grad is not None and torch.equal(x.grad, out.detach())
