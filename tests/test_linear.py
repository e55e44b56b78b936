"""Frozen linear maps, alone and side by side, are torch's own; LoRA's product is the plain formula's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modicum.engine.linear import Laid, Maps, together
from modicum.engine.rows import rows_of
from modicum.engine.tiles import Batch, pack
from modicum.engine.tokens import Tokens
from modicum.methods.base import Rows
from modicum.methods.low_rank import LowRank

CPU = torch.device("cpu")
INPUTS, RANK, SCALE = 24, 3, 0.7
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """To rounding in fp32; in bf16 to two of its steps at the largest value."""
    tolerance = 1e-5 if dtype == torch.float32 else 2 / 128
    torch.testing.assert_close(got.double(), expected.double(), atol=tolerance * float(expected.abs().max()), rtol=0)


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def linear(outputs: int, seed: int, dtype: torch.dtype, *, bias: bool = True) -> nn.Linear:
    module = nn.Linear(INPUTS, outputs, bias=bias).to(dtype).requires_grad_(False)
    module.weight.copy_(draw(outputs, INPUTS, seed=seed))
    if bias:
        module.bias.copy_(draw(outputs, seed=seed + 100))
    return module


# -- Laid and Maps ---------------------------------------------------------------------------------------------------


@PRECISIONS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, INPUTS), (1, 96, INPUTS), (4, 7, INPUTS), (5, INPUTS)])
def test_a_laid_map_is_the_linear_map(shape: tuple[int, ...], bias: bool, dtype: torch.dtype) -> None:
    plain = linear(16, 1, dtype, bias=bias)
    laid, x = Laid(plain.weight, plain.bias), draw(*shape, seed=2, dtype=dtype)
    for out in (laid(x), laid.product(x)):
        assert out.dtype == dtype and out.shape == (*shape[:-1], 16)
        close(out, plain(x), dtype)


@PRECISIONS
def test_its_input_alone_has_a_gradient(dtype: torch.dtype) -> None:
    plain = linear(16, 1, dtype)
    laid, x = Laid(plain.weight, plain.bias), draw(1, 64, INPUTS, seed=2, dtype=dtype).requires_grad_()
    upstream = draw(1, 64, 16, seed=3, dtype=dtype)
    (grad,) = torch.autograd.grad(laid(x), x, upstream)
    assert grad.dtype == dtype
    close(grad, upstream.double() @ plain.weight.double(), dtype)
    with torch.no_grad():
        assert laid(x).grad_fn is None
    assert not laid(x.detach()).requires_grad and not laid.product(x.detach()).requires_grad
    close(laid(x).detach(), plain(x.detach()), dtype)


@PRECISIONS
@pytest.mark.parametrize("biases", [(True, True, True), (False, True, False), (False, False, False)])
def test_maps_together_are_each_alone(biases: tuple[bool, ...], dtype: torch.dtype) -> None:
    """Of several widths, as where keys and values are fewer than queries."""
    plain = [linear(n, n, dtype, bias=bias) for n, bias in zip((16, 8, 12), biases, strict=True)]
    laid = together(*((m.weight, m.bias) for m in plain))
    x = draw(1, 40, INPUTS, seed=2, dtype=dtype).requires_grad_()
    out = laid(x)
    assert out.shape == (1, 40, 36)
    for part, module in zip(out.split([16, 8, 12], -1), plain, strict=True):
        close(part.detach(), module(x.detach()), dtype)
    upstream = draw(1, 40, 36, seed=4, dtype=dtype)
    (grad,) = torch.autograd.grad(out, x, upstream)
    weight = torch.cat([module.weight for module in plain]).double()
    close(grad, upstream.double() @ weight, dtype)


@PRECISIONS
def test_maps_are_laid_out_once_and_hold_what_changed(dtype: torch.dtype) -> None:
    plain = {"a": linear(8, 1, dtype), "b": linear(12, 2, dtype), "c": linear(4, 3, dtype, bias=False)}
    maps, x = Maps(plain), draw(6, INPUTS, seed=4, dtype=dtype)
    assert maps.of("a") is maps.of("a") and maps.of("a", "b") is maps.of("a", "b") is not maps.of("b", "a")
    close(maps.of("c")(x), plain["c"](x), dtype)
    close(maps.of("b", "c", "a")(x), torch.cat([plain[name](x) for name in "bca"], -1), dtype)
    weight, bias = draw(8, INPUTS, seed=5, dtype=dtype), draw(12, seed=6, dtype=dtype)
    changed = Maps(plain, {"a.weight": weight, "b.bias": bias})
    close(changed.of("a")(x), nn.functional.linear(x, weight, plain["a"].bias), dtype)
    expected = torch.cat([plain["c"](x), nn.functional.linear(x, plain["b"].weight, bias)], -1)
    close(changed.of("c", "b")(x), expected, dtype)
    close(maps.of("a")(x), plain["a"](x), dtype)


# -- LowRank ---------------------------------------------------------------------------------------------------------


def batch_of(runs: int) -> Batch:
    lengths = np.array([5, 9, 20, 33, 2, 14])
    tokens = Tokens(np.arange(lengths.sum(), dtype=np.int32), None, np.concatenate([[0], np.cumsum(lengths)]))
    return pack(tokens, np.arange(6), np.arange(6) % runs)


def owners_of(batch: Batch, packed: bool) -> np.ndarray:
    """The run of each row, in a batch's rows of tiles or in its padded texts."""
    return batch.run_of_place if packed else np.repeat(batch.run_of_text, batch.lengths.max())


def plainly(
    x: Tensor, frozen: Sequence[nn.Linear], owners: np.ndarray, downs: Sequence[Tensor], ups: Sequence[Tensor]
) -> Tensor:
    """Each row through its own run's maps, by autograd."""
    out = []
    for module, down, up in zip(frozen, downs, ups, strict=True):
        flat = x.flatten(0, -2)
        change = torch.stack([up[r] @ (down[r] @ row) for row, r in zip(flat, owners.tolist(), strict=True)])
        out.append(module(x) + SCALE * change.view(*x.shape[:-1], -1))
    return torch.cat(out, -1)


def tensors(runs: int, widths: Sequence[int]) -> list[Tensor]:
    """Down maps, then up maps, in fp32."""
    downs = [draw(runs, RANK, INPUTS, seed=10 + i).requires_grad_() for i in range(len(widths))]
    return downs + [draw(runs, n, RANK, seed=20 + i).requires_grad_() for i, n in enumerate(widths)]


def setting(runs: int, packed: bool) -> tuple[Tensor, Rows, np.ndarray]:
    batch = batch_of(runs)
    shape = tuple(batch.ids.shape) if packed else (6, int(batch.lengths.max()))
    return draw(*shape, INPUTS, seed=1), rows_of(batch, runs, packed, CPU, torch.float32), owners_of(batch, packed)


@PRECISIONS
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("widths", [(16,), (16, 8, 12)])
@pytest.mark.parametrize("runs", [1, 3])
def test_low_rank_is_the_plain_formula(runs: int, widths: tuple[int, ...], packed: bool, dtype: torch.dtype) -> None:
    x, rows, owners = setting(runs, packed)
    frozen, learned = [linear(n, n, torch.float32) for n in widths], tensors(runs, widths)
    other = [t.detach().clone().requires_grad_() for t in (x, *learned)]
    x = x.to(dtype).requires_grad_()
    laid = together(*((m.weight.to(dtype), m.bias.to(dtype)) for m in frozen))
    mine = LowRank.apply(x, laid, rows, SCALE, *learned)
    expected = plainly(other[0], frozen, owners, other[1 : 1 + len(widths)], other[1 + len(widths) :])
    assert mine.dtype == dtype
    close(mine.detach(), expected.detach(), dtype)
    upstream = draw(*expected.shape, seed=3)
    got = torch.autograd.grad(mine, [x, *learned], upstream.to(dtype))
    for one, two in zip(got, torch.autograd.grad(expected, other, upstream), strict=True):
        close(one, two, dtype)
    assert got[0].dtype == dtype and all(grad.dtype == torch.float32 for grad in got[1:])


def test_low_rank_learns_over_an_input_without_a_gradient() -> None:
    """As in the first layer."""
    x, rows, owners = setting(3, True)
    frozen, learned = linear(16, 16, torch.float32), tensors(3, (16,))
    mine = LowRank.apply(x, Laid(frozen.weight, frozen.bias), rows, SCALE, *learned)
    expected = plainly(x, [frozen], owners, learned[:1], learned[1:])
    upstream = draw(*expected.shape, seed=3)
    gradients = (torch.autograd.grad(out, learned, upstream) for out in (mine, expected))
    for one, two in zip(*gradients, strict=True):
        close(one, two, torch.float32)
    assert not x.requires_grad


def test_low_rank_leaves_its_input_and_its_run_alone() -> None:
    """Nothing is written in place that others read; and no run's gradient has anything of another's rows."""
    x, rows, owners = setting(3, True)
    frozen, learned = linear(16, 16, torch.float32), tensors(3, (16,))
    before = [t.detach().clone() for t in (x, frozen.weight, *learned)]
    x.requires_grad_()
    out = LowRank.apply(x, Laid(frozen.weight, frozen.bias), rows, SCALE, *learned)
    mine = torch.from_numpy(owners == 1)
    grads = torch.autograd.grad(out[0, mine].sum(), [x, *learned])
    assert not grads[0][0, ~mine].any() and grads[0][0, mine].any()
    for grad in grads[1:]:
        assert grad[1].any() and not grad[0].any() and not grad[2].any()
    for t, was in zip((x, frozen.weight, *learned), before, strict=True):
        assert torch.equal(t, was)
