"""Attention in tiles, forward and backward, against a loop over texts in plain autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modicum.engine.attention import IMPLEMENTATION, Masks, TileAttention, _interface, attend
from modicum.engine.noise import Kept
from modicum.engine.tiles import Batch, pack
from modicum.engine.tokens import Tokens
from modicum.testing.backbone import fake_backbone

HEADS, DIM, RUNS = 2, 3, 2
SCALE = DIM**-0.5
FULL, UNEVEN = [32, 16, 16, 20, 12], [1, 3, 20, 40, 7, 30, 70, 7]
CPU = torch.device("cpu")
CLOSE: dict[torch.dtype, dict[str, float]] = {
    torch.float64: dict(atol=1e-12, rtol=1e-10),
    torch.float32: dict(atol=1e-5, rtol=1e-4),
}


def batch_of(lengths: list[int], size: int = 32) -> Batch:
    """Every other text is run 1's."""
    tokens = Tokens(np.arange(sum(lengths), dtype=np.int32), None, np.concatenate([[0], np.cumsum(lengths)]))
    return pack(tokens, np.arange(len(lengths)), np.arange(len(lengths)) % RUNS, size=size)


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype).requires_grad_()


def rows(batch: Batch, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k and v, (places, heads, dim) each."""
    return [draw(batch.ids.shape[1], HEADS, DIM, seed=seed, dtype=dtype) for seed in (1, 2, 3)]


def prefixes(length: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor] | None:
    if not length:
        return None
    keys, values = (draw(RUNS, HEADS, length, DIM, seed=seed, dtype=dtype) for seed in (4, 5))
    return keys, values


def gates(batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A gate for each text, (texts, 1), and the same for each place, (places, 1)."""
    gate = draw(len(batch.lengths), 1, seed=8, dtype=dtype)
    return gate, gate[torch.from_numpy(batch.text_of_place).clamp(min=0)]


def some_kept(batch: Batch, prefix: int) -> list[Kept]:
    rng = np.random.default_rng(6)
    counts = [tiles * HEADS * size * (prefix + size) for _, tiles, size in batch.sizes]
    return [Kept(torch.from_numpy((rng.random(n) > 0.3).astype(np.uint8)), 1 / 0.7) for n in counts]


def kept_of(batch: Batch, kept: list[Kept], text: int, prefix: int) -> Tensor:
    """(heads, length, prefix + length): by what a text's own weights are multiplied."""
    place, n = int(batch.starts[text]), int(batch.lengths[text])
    for part, (start, tiles, size) in zip(kept, batch.sizes, strict=True):
        if start <= place < start + tiles * size:
            tile, offset = divmod(place - start, size)
            own = part.keep.view(tiles, HEADS, size, prefix + size)[tile, :, offset : offset + n]
            columns = [*range(prefix), *range(prefix + offset, prefix + offset + n)]
            return own[..., columns].double() * part.scale
    raise AssertionError(f"text {text} is in no tile")


def plain(
    batch: Batch, q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor] | None = None,
    gate: Tensor | None = None, window: int | None = None, kept: list[Kept] | None = None,
) -> Tensor:  # fmt: skip
    """The same, one text at a time: (tokens, heads, dim)."""
    out = []
    for i, (start, n) in enumerate(zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)):
        queries, keys, values = (t[start : start + n].transpose(0, 1) for t in (q, k, v))
        length = 0
        if prefix is not None:
            opened: Any = 1 if gate is None else gate[i]
            before = [opened * t[batch.run_of_text[i]] for t in prefix]
            keys, values = torch.cat([before[0], keys], 1), torch.cat([before[1], values], 1)
            length = prefix[0].shape[2]
        scores = queries @ keys.transpose(1, 2) * SCALE
        if window is not None:
            far = (torch.arange(n)[:, None] - torch.arange(n)).abs() >= window
            scores = scores.masked_fill(torch.nn.functional.pad(far, (length, 0)), float("-inf"))
        weights = scores.softmax(-1)
        if kept is not None:
            weights = weights * kept_of(batch, kept, i, length).to(weights.dtype)
        out.append((weights @ values).transpose(0, 1))
    return torch.cat(out)


def tokens_of(batch: Batch, out: Tensor) -> Tensor:
    """The places that hold tokens, texts in the row's order."""
    return out[torch.from_numpy(batch.places)]


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("prefix", "gated"), [(0, False), (2, False), (2, True)])
@pytest.mark.parametrize(("lengths", "size"), [(FULL, 32), (UNEVEN, 32), (UNEVEN, 64), ([1], 32), ([33], 32)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_a_loop_over_texts(
    lengths: list[int], size: int, prefix: int, gated: bool, window: int | None, dropped: bool, dtype: torch.dtype
) -> None:
    batch = batch_of(lengths, size)
    if (lengths, size) == (UNEVEN, 32):
        assert [n for *_, n in batch.sizes] == [32, 64, 128]
    q, k, v = rows(batch, dtype)
    before = prefixes(prefix, dtype)
    gate, spread = gates(batch, dtype) if gated else (None, None)
    kept = some_kept(batch, prefix) if dropped else None
    out = attend(q, k, v, before, spread, Masks(batch, CPU, dtype), SCALE, window, kept)
    assert out.shape == q.shape and out.dtype == dtype
    mine, other = tokens_of(batch, out), plain(batch, q, k, v, before, gate, window, kept)
    torch.testing.assert_close(mine, other, **CLOSE[dtype])
    inputs = [q, k, v, *(before or ()), *([] if gate is None else [gate])]
    upstream = draw(*mine.shape, seed=7, dtype=dtype).detach()
    gradients = (torch.autograd.grad(t, inputs, upstream) for t in (mine, other))
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, **CLOSE[dtype])


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.05)])
def test_scoring_equals_training(dtype: torch.dtype, tolerance: float, window: int | None, prefix: int) -> None:
    """Without a gradient PyTorch's own attention does the work, with one TileAttention."""
    batch = batch_of(UNEVEN)
    q, k, v = rows(batch, dtype)
    before, masks = prefixes(prefix, dtype), Masks(batch, CPU, dtype)
    learning = attend(q, k, v, before, None, masks, SCALE, window, None)
    with torch.inference_mode():
        scoring = attend(q, k, v, before, None, Masks(batch, CPU, dtype), SCALE, window, None)
    assert learning.grad_fn is not None and scoring.grad_fn is None
    torch.testing.assert_close(tokens_of(batch, scoring), tokens_of(batch, learning), atol=tolerance, rtol=tolerance)
    frozen = attend(*(t.detach() for t in (q, k, v)), None, None, masks, SCALE, window, None)
    assert frozen.grad_fn is None


@pytest.mark.parametrize("dropped", [False, True])
def test_gradcheck(dropped: bool) -> None:
    q, k, v = (draw(2, HEADS, n, DIM, seed=s, dtype=torch.float64) for s, n in ((1, 4), (2, 5), (3, 5)))
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.float64)
    mask[0, 0, :2, 3:] = float("-inf")
    keep = torch.from_numpy((np.random.default_rng(0).random(2 * HEADS * 4 * 5) > 0.3).astype(np.uint8))
    kept = Kept(keep, 1 / 0.7) if dropped else None
    assert torch.autograd.gradcheck(lambda *t: TileAttention.apply(*t, mask, 0.5, kept), (q, k, v))


def test_only_the_prefix_learns() -> None:
    """As in the first layer, whose queries and keys come from frozen maps of frozen embeddings."""
    batch = batch_of(UNEVEN)
    q, k, v = (t.detach() for t in rows(batch))
    before = prefixes(2)
    assert before is not None
    mine = tokens_of(batch, attend(q, k, v, before, None, Masks(batch, CPU, q.dtype), SCALE, None, None))
    other = plain(batch, q, k, v, before)
    for got, expected in zip(*(torch.autograd.grad(t.square().sum(), before) for t in (mine, other)), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("text", range(3))
def test_a_text_sees_itself_alone(text: int) -> None:
    batch = batch_of([3, 9, 5, 6, 50])
    q, k, v = rows(batch)
    out = attend(q, k, v, None, None, Masks(batch, CPU, q.dtype), SCALE, None, None)
    own = torch.from_numpy(batch.text_of_place == text)
    for grad in torch.autograd.grad(out[own].square().sum(), (q, k, v)):
        assert (grad[own] != 0).all() and not grad[~own].any()


def test_spare_places_reach_no_text() -> None:
    batch = batch_of(UNEVEN)
    q, k, v = (t.detach() for t in rows(batch))
    masks = Masks(batch, CPU, q.dtype)
    before = tokens_of(batch, attend(q, k, v, None, None, masks, SCALE, None, None))
    spare = torch.from_numpy(batch.text_of_place < 0)
    assert spare.any()
    for t in (q, k, v):
        t[spare] = 1e6
    out = attend(q, k, v, None, None, masks, SCALE, None, None)
    assert torch.equal(tokens_of(batch, out), before) and torch.isfinite(out).all()


def test_a_window_that_a_tile_fits_in_hides_nothing() -> None:
    batch = batch_of([3, 20, 40])
    q, k, v = rows(batch)
    masks = Masks(batch, CPU, q.dtype)
    wide, free = (attend(q, k, v, None, None, masks, SCALE, window, None) for window in (64, None))
    assert torch.equal(wide, free)
    assert not torch.equal(attend(q, k, v, None, None, masks, SCALE, 4, None), free)


@pytest.mark.parametrize("dropped", [False, True])
def test_the_least_precise_type(dropped: bool) -> None:
    """Masked places are left out in bf16, too, and far ones under a window do not make NaN of a spare place."""
    batch = batch_of(UNEVEN)
    q, k, v = rows(batch, torch.bfloat16)
    kept = some_kept(batch, 0) if dropped else None
    out = attend(q, k, v, None, None, Masks(batch, CPU, torch.bfloat16), SCALE, 2, kept)
    exact = plain(batch, q.double(), k.double(), v.double(), None, None, 2, kept)
    assert out.dtype == torch.bfloat16 and (tokens_of(batch, out).double() - exact).abs().max() < 0.05
    out.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (q, k, v))  # type: ignore[arg-type]


def test_the_function_needs_a_pass() -> None:
    q = torch.zeros(1, HEADS, 4, DIM)
    with pytest.raises(RuntimeError, match="only inside a pass over rows of tiles"):
        _interface(torch.nn.Identity(), q, q, q)
    backbone = fake_backbone()
    assert backbone.model.config._attn_implementation == IMPLEMENTATION
    with pytest.raises(RuntimeError, match="only inside a pass over rows of tiles"):
        backbone.model(input_ids=torch.tensor([[2, 5, 3]]))
