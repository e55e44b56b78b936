"""AdamW over a bank: one flat row of parameters per run, so that clipping and rates are per run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modicum.engine.bank import Bank


class BankOptimizer:
    """Lays a bank's parameters out as one (runs, parameters) buffer, with gradients beside it.

    Each run is two parameter groups (adapter, head) with rates of their own; a run that has finished is left alone.
    """

    def __init__(self, bank: Bank, *, weight_decay: float, clip: float) -> None:
        self.clip, self.runs = clip, bank.runs
        parts = [list(bank.adapter.parameters()), list(bank.head.parameters())]
        peaks = [bank.method.learning_rate, bank.method.head_learning_rate]
        sizes = [sum(p[0].numel() for p in part) for part in parts]
        device = bank.backbone.device
        self.values = torch.empty(bank.runs, sum(sizes), device=device)
        self.grads = torch.zeros_like(self.values)
        _adopt([p for part in parts for p in part], self.values, self.grads)
        self._groups: list[list[dict[str, object]]] = []
        for r in range(bank.runs):
            cuts = zip(self.values[r].split(sizes), self.grads[r].split(sizes), peaks, strict=True)
            self._groups.append([_group(value, grad, peak) for value, grad, peak in cuts if len(value)])
        every = [group for run in self._groups for group in run]
        self._adamw = torch.optim.AdamW(every, lr=0.0, weight_decay=weight_decay, fused=True)
        self._by_run = [self._adamw.param_groups[i : i + len(own)] for i, own in self._starts()]

    def _starts(self) -> list[tuple[int, list[dict[str, object]]]]:
        start, found = 0, []
        for own in self._groups:
            found.append((start, own))
            start += len(own)
        return found

    def step(self, factors: list[float]) -> None:
        """One update; ``factors[r]`` scales run r's peak rates, and 0 leaves the run as it is."""
        norms = torch.linalg.vector_norm(self.grads, dim=1)
        self.grads.mul_((self.clip / norms.clamp(min=1e-12)).clamp(max=1.0)[:, None])
        for own, groups, factor in zip(self._groups, self._by_run, factors, strict=True):
            for source, group in zip(own, groups, strict=True):
                group["lr"] = source["peak"] * factor  # type: ignore[operator]
                group["params"][0].grad = source["grad"] if factor else None
        self._adamw.step()
        self.grads.zero_()

    def state(self) -> dict[str, Tensor]:
        """All that a later ``restore`` needs to go on as if nothing had happened."""
        found = {"values": self.values}
        for i, group in enumerate(self._adamw.param_groups):
            for name, tensor in self._adamw.state[group["params"][0]].items():
                found[f"{i}.{name}"] = tensor
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` gave."""
        with torch.no_grad():
            self.values.copy_(state["values"])
        for i, group in enumerate(self._adamw.param_groups):
            own = {
                name.partition(".")[2]: t.to(self.values.device, copy=True)
                for name, t in state.items()
                if name.startswith(f"{i}.")
            }
            self._adamw.state[group["params"][0]] = own


def rate_factor(done: float, step: float, warmup: float, *, decays: bool = True) -> float:
    """The share of the peak rate where a share ``done`` of a run is over and the next update takes ``step`` more:
    linear warm-up over a share ``warmup``, then linear decay to 0, or none."""
    if done < warmup:
        return min(1.0, max((done + step) / warmup, 1e-3))  # the first step moves, too
    return (1 - done) / (1 - warmup) if decays else 1.0


def _adopt(parameters: list[nn.Parameter], values: Tensor, grads: Tensor) -> None:
    """Make each parameter (runs, ...) a view into the buffers; autograd then accumulates into them in place."""
    start = 0
    for p in parameters:
        end = start + p[0].numel()
        for buffer in (values, grads):
            view = buffer[:, start:end].unflatten(1, p.shape[1:])
            if buffer is values:
                view.copy_(p.detach())
                p.data = view
            else:
                p.grad = view
        start = end


def _group(value: Tensor, grad: Tensor, peak: float) -> dict[str, object]:
    return {"params": [nn.Parameter(value)], "grad": grad, "peak": peak}
