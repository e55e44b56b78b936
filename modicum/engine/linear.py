"""The encoder's linear maps at full speed: frozen weights laid out once for this machine's products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Laid:
    """A frozen linear map. Where oneDNN multiplies in bf16, its weight is laid out for that once, not at every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.laid = None
        if (weight.device.type, weight.dtype) == ("cpu", torch.bfloat16) and _multiplies_bf16():
            self.laid = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), 2048)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return _Frozen.apply(x, self) if torch.is_grad_enabled() and x.requires_grad else self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """The same without a gradient."""
        if self.laid is None:
            return nn.functional.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.laid, self.bias, "none", [], "")


def _multiplies_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def together(*maps: tuple[Tensor, Tensor | None]) -> Laid:
    """Maps (weight, bias) that read the same input as one, their outputs side by side."""
    biases = [weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in maps]
    return Laid(torch.cat([weight for weight, _ in maps]), torch.cat(biases))


class _Frozen(torch.autograd.Function):
    """A map whose input alone has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, laid: Laid) -> Tensor:  # type: ignore[override]
        ctx.weight = laid.weight
        return laid.product(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad @ ctx.weight, None


class Maps:
    """The linear maps of an encoder, laid out at first use.

    modules: the encoder's own, by name. changed: weights and biases to use instead, by name, and in the same precision.
    """

    def __init__(self, modules: Mapping[str, nn.Module], changed: Mapping[str, Tensor] | None = None) -> None:
        self._modules, self._changed = modules, changed or {}
        self._laid: dict[tuple[str, ...], Laid] = {}

    def of(self, *names: str) -> Laid:
        """The map of this name, or several as one."""
        if names not in self._laid:
            self._laid[names] = Laid(*self._parts(names[0])) if len(names) == 1 else together(*map(self._parts, names))
        return self._laid[names]

    def _parts(self, name: str) -> tuple[Tensor, Tensor | None]:
        module = self._modules[name]
        weight, bias = (self._changed.get(f"{name}.{part}", getattr(module, part)) for part in ("weight", "bias"))
        return weight.detach(), None if bias is None else bias.detach()
