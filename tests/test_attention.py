"""Packed attention, forward and backward, against a loop over texts in plain autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modicum.engine.attention import IMPLEMENTATION, PackedAttention, _interface
from modicum.engine.tokens import Batch, Tokens, pack
from modicum.testing.backbone import fake_backbone

HEADS, DIM = 2, 3
FULL, UNEVEN = [4, 8, 4, 12], [1, 3, 4, 6, 7, 7, 11]


def batch_of(lengths: list[int]) -> Batch:
    tokens = Tokens(np.arange(sum(lengths), dtype=np.int32), None, np.concatenate([[0], np.cumsum(lengths)]))
    return pack(tokens, np.arange(len(lengths)), np.zeros(len(lengths), np.int64))


def draw(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)
    return values.requires_grad_()


def plain(
    q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor] | None, batch: Batch, window: int | None,
    drop: Tensor | None,
) -> Tensor:  # fmt: skip
    """The same, one text at a time."""
    out, cursor, scale = [], 0, q.shape[-1] ** -0.5
    rungs = [span.rung for span in batch.spans for _ in range(span.texts)]
    for i, (start, n) in enumerate(zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)):
        queries, keys, values = (t[start : start + n].transpose(0, 1) for t in (q, k, v))
        length = 0
        if prefix is not None:
            keys, values = (torch.cat([p[i], own], 1) for p, own in zip(prefix, (keys, values), strict=True))
            length = prefix[0].shape[2]
        scores = queries @ keys.transpose(1, 2) * scale
        if window is not None:
            far = (torch.arange(n)[:, None] - torch.arange(n)).abs() >= window
            scores = scores.masked_fill(torch.nn.functional.pad(far, (length, 0)), float("-inf"))
        weights = scores.softmax(-1)
        if drop is not None:
            size = HEADS * rungs[i] * (rungs[i] + length)
            own = drop[cursor : cursor + size].view(HEADS, rungs[i], length + rungs[i])
            weights = weights * own[:, :n, : length + n]
            cursor += size
        out.append((weights @ values).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("lengths", [FULL, UNEVEN, [1], [5]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_a_loop_over_texts(
    lengths: list[int], prefix: int, window: int | None, dropped: bool, dtype: torch.dtype
) -> None:
    batch = batch_of(lengths)
    assert (batch.lift is None) == (lengths == FULL)
    tokens, texts = sum(lengths), len(lengths)
    q, k, v = (draw(tokens, HEADS, DIM, seed=s, dtype=dtype) for s in (1, 2, 3))
    before = tuple(draw(texts, HEADS, prefix, DIM, seed=s, dtype=dtype) for s in (4, 5)) if prefix else None
    drop = None
    if dropped:
        size = sum(s.texts * HEADS * s.rung * (s.rung + prefix) for s in batch.spans)
        drop = torch.from_numpy(np.random.default_rng(6).random(size) > 0.3).to(dtype) / 0.7
    scale = DIM**-0.5
    mine = PackedAttention.apply(q, k, v, *(before or (None, None)), batch.spans, batch.lift, 0, scale, window, drop)
    other = plain(q, k, v, before, batch, window, drop)
    tolerance: dict[str, Any] = dict(atol=1e-12, rtol=1e-10) if dtype == torch.float64 else dict(atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mine, other, **tolerance)
    inputs, upstream = (q, k, v, *(before or ())), draw(tokens, HEADS, DIM, seed=7, dtype=dtype).detach()
    for got, expected in zip(
        torch.autograd.grad(mine, inputs, upstream), torch.autograd.grad(other, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(got, expected, **tolerance)


@pytest.mark.parametrize("lengths", [FULL, UNEVEN])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_spare_tokens_get_zeros_and_give_no_gradient(lengths: list[int], dtype: torch.dtype) -> None:
    batch, tokens, spare = batch_of(lengths), sum(lengths), 7
    rows = [draw(tokens + spare, HEADS, DIM, seed=s, dtype=dtype) for s in (1, 2, 3)]
    out = PackedAttention.apply(*rows, None, None, batch.spans, batch.lift, spare, DIM**-0.5, None, None)
    exact = plain(*(t.detach()[:tokens].double() for t in rows), None, batch, None, None)
    torch.testing.assert_close(out[:tokens].double(), exact, atol=0.02 if dtype == torch.bfloat16 else 1e-12, rtol=0.02)
    assert not out[tokens:].any()
    for grad in torch.autograd.grad(out.square().sum(), rows):
        assert grad[:tokens].any() and not grad[tokens:].any() and grad.dtype == dtype


@pytest.mark.parametrize("prefix", [0, 2])
def test_gradcheck(prefix: int) -> None:
    batch = batch_of([3, 5])
    q, k, v = (draw(8, HEADS, DIM, seed=s, dtype=torch.float64) for s in (1, 2, 3))
    before = tuple(draw(2, HEADS, prefix, DIM, seed=s, dtype=torch.float64) for s in (4, 5)) if prefix else (None, None)
    assert torch.autograd.gradcheck(
        lambda *t: PackedAttention.apply(*t, batch.spans, batch.lift, 0, 0.5, None, None), (q, k, v, *before)
    )


def test_only_the_prefix_learns() -> None:
    """As in the first layer, whose queries and keys come from frozen maps of frozen embeddings."""
    batch = batch_of([3, 5])
    q, k, v = (draw(8, HEADS, DIM, seed=s, dtype=torch.float64).detach() for s in (1, 2, 3))
    before = tuple(draw(2, HEADS, 2, DIM, seed=s, dtype=torch.float64) for s in (4, 5))
    grads = []
    for out in (
        PackedAttention.apply(q, k, v, *before, batch.spans, batch.lift, 0, DIM**-0.5, None, None),
        plain(q, k, v, before, batch, None, None),
    ):
        grads.append(torch.autograd.grad(out.square().sum(), before))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-12, rtol=1e-10)


def test_nothing_is_kept_without_gradients() -> None:
    batch = batch_of([3, 5])
    q, k, v = (draw(8, HEADS, DIM, seed=s, dtype=torch.float32).detach() for s in (1, 2, 3))
    out = PackedAttention.apply(q, k, v, None, None, batch.spans, batch.lift, 0, 0.5, None, None)
    assert out.grad_fn is None


def test_a_text_sees_itself_alone() -> None:
    batch = batch_of([3, 5, 6])
    q, k, v = (draw(14, HEADS, DIM, seed=s, dtype=torch.float64) for s in (1, 2, 3))
    out = PackedAttention.apply(q, k, v, None, None, batch.spans, batch.lift, 0, 0.5, None, None)
    for grad in torch.autograd.grad(out[3:8].square().sum(), (q, k, v)):
        assert (grad[3:8] != 0).all() and not grad[:3].any() and not grad[8:].any()


def test_the_least_precise_type() -> None:
    """Masked places are left out in bf16, too, and far ones under a window do not make NaN of an empty place."""
    batch = batch_of([1, 9, 21])
    q, k, v = (draw(31, HEADS, DIM, seed=s, dtype=torch.bfloat16) for s in (1, 2, 3))
    out = PackedAttention.apply(q, k, v, None, None, batch.spans, batch.lift, 0, DIM**-0.5, 2, None)
    exact = plain(q.double(), k.double(), v.double(), None, batch, 2, None)
    assert out.dtype == torch.bfloat16 and (out.double() - exact).abs().max() < 0.05
    out.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (q, k, v))  # type: ignore[arg-type]


def test_the_function_needs_a_pass() -> None:
    q = torch.zeros(1, HEADS, 4, DIM)
    with pytest.raises(RuntimeError, match="only inside a pass over packed rows"):
        _interface(torch.nn.Identity(), q, q, q)
    backbone = fake_backbone()
    assert backbone.model.config._attn_implementation == IMPLEMENTATION
    with pytest.raises(RuntimeError, match="only inside a pass over packed rows"):
        backbone.model(input_ids=torch.tensor([[2, 5, 3]]))
