"""Dropout: a run's own, wherever it runs, at the right rate, on all that belongs to a text and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from modicum.engine.noise import Noise
from modicum.engine.tokens import Batch, Tokens, pack

LENGTHS = np.random.default_rng(0).integers(1, 30, 24)
RUNS = np.arange(24) % 3
CPU = torch.device("cpu")


def batch_of(lengths: np.ndarray = LENGTHS, runs: np.ndarray | None = None) -> Batch:
    ids = np.arange(lengths.sum(), dtype=np.int32)
    tokens = Tokens(ids, None, np.concatenate([[0], np.cumsum(lengths)]))
    return pack(tokens, np.arange(len(lengths)), np.zeros(len(lengths), np.int64) if runs is None else runs)


def rngs(runs: int = 1) -> list[np.random.Generator]:
    return [np.random.default_rng(run) for run in range(runs)]


def test_rate_and_scale() -> None:
    """0.1 becomes 26/256, and what is kept is scaled by exactly as much."""
    noise = Noise(batch_of(), rngs(), CPU)
    for p, dropped in ((0.1, 26 / 256), (0.5, 0.5), (0.25, 0.25), (0.001, 1 / 256), (0.999, 255 / 256)):
        out = noise.tokens(torch.ones(1, int(LENGTHS.sum()), 2000), p)
        assert abs(float((out == 0).float().mean()) - dropped) < 0.002
        assert out.max().item() == pytest.approx(1 / (1 - dropped), rel=1e-6)
        assert abs(float(out.mean()) - 1) < 0.05


@pytest.mark.parametrize("what", ["tokens", "texts", "attention", "padded tokens", "padded attention"])
def test_a_run_draws_the_same_alone_and_in_a_bank(what: str) -> None:
    together = batch_of(runs=RUNS)
    noise = Noise(together, rngs(3), CPU)
    bank = [factors_per_text(what, noise, together) for _ in range(2)]  # twice: the generators move on alike
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
    lengths = batch.lengths
    texts, longest, tokens = len(lengths), int(lengths.max()), int(lengths.sum())
    if what == "tokens":
        return list(noise.tokens(torch.ones(1, tokens, 8), 0.2)[0].split(lengths.tolist()))
    if what == "texts":
        return list(noise.texts(torch.ones(texts, 64), 0.2))
    if what == "attention":
        flat, sizes = noise.attention(2, 3, 0.2, torch.float32), []
        for span in batch.spans:
            sizes += [2 * span.rung * (span.rung + 3)] * span.texts
        return list(flat.split(sizes))
    if what == "padded tokens":
        return [t[:n] for t, n in zip(noise.tokens(torch.ones(texts, longest, 8), 0.2), lengths, strict=True)]
    weights = noise.tokens(torch.ones(texts, 2, longest, longest), 0.2)
    return [t[:, :n, :n] for t, n in zip(weights, lengths, strict=True)]


def test_padding_and_prompts_are_left_alone() -> None:
    """Prompts of other tuners stand before the text, and are nobody's text."""
    batch, prompt = batch_of(np.array([2, 5])), 3
    out = Noise(batch, rngs(), CPU).tokens(torch.ones(2, prompt + 5, 1000), 0.5)
    touched = (out != 1).any(-1)
    assert touched.tolist() == [[False] * 3 + [True] * 2 + [False] * 3, [False] * 3 + [True] * 5]
    weights = Noise(batch, rngs(), CPU).tokens(torch.ones(2, 500, prompt + 5, prompt + 5), 0.5)
    assert not (weights[:, :, :prompt] != 1).any() and not (weights[..., :prompt] != 1).any()
    assert (weights[1, :, 3:, 3:] != 1).any(0).all()


def test_padded_states_get_what_packed_ones_get() -> None:
    batch = batch_of()
    row = Noise(batch, rngs(), CPU).tokens(torch.ones(1, int(LENGTHS.sum()), 4), 0.3)[0]
    spread = Noise(batch, rngs(), CPU).tokens(torch.ones(24, int(LENGTHS.max()), 4), 0.3)
    mask = torch.arange(int(LENGTHS.max())) < torch.from_numpy(batch.lengths)[:, None]
    assert torch.equal(spread[mask], row)


def test_what_belongs_to_no_text_is_left_alone() -> None:
    noise, positions = Noise(batch_of(), rngs(), CPU), torch.ones(64, 16)
    assert noise.tokens(positions, 0.5) is positions
    assert torch.equal(noise.tokens(torch.ones(1, 64, 16), 0.5), torch.ones(1, 64, 16))


def test_precision_and_gradient() -> None:
    x = torch.ones(1, int(LENGTHS.sum()), 8, dtype=torch.bfloat16, requires_grad=True)
    out = Noise(batch_of(), rngs(), CPU).tokens(x, 0.5)
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and x.grad is not None and torch.equal(x.grad, out.detach())
