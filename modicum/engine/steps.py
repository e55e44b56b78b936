"""Where Modicum steps into a model: around its sites, layers, dropouts and attention, without a change to its code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from modicum.engine.attention import attend, current
from modicum.engine.linear import Maps
from modicum.engine.passes import Pass
from modicum.engine.sites import find_layers, siblings
from modicum.methods.base import Adapter, Site


class Steps:
    """The steps into one model. They do nothing outside a pass: without one the model is its own self.

    modules: the model's, by name. layers: the names of its layers, from the lowest. maps: its frozen linear maps.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site]) -> None:
        self.modules = dict(model.named_modules())
        self.maps = Maps(self.modules)
        self.layers = find_layers(sites)
        self._siblings = siblings(sites)
        self._pass: Pass | None = None
        self._wrapped: list[nn.Module] = []
        for site in sites:
            if site.role == "attention":
                self.modules[site.name].modicum_site = site  # type: ignore[assignment]
            else:
                self._wrap(self.modules[site.name], functools.partial(self._at_site, site))
        for number, name in enumerate(self.layers):
            self._wrap(self.modules[name], functools.partial(self._at_layer, number))
        if "embeddings" in self.modules:
            self._wrap(self.modules["embeddings"], self._at_embeddings)
        for module in self.modules.values():
            if isinstance(module, nn.Dropout) and module.p > 0:
                self._wrap(module, functools.partial(self._at_dropout, module.p))

    @contextmanager
    def during(self, now: Pass) -> Iterator[None]:
        """Let this pass step in."""
        self._pass = now
        token = current.set(self._attend)
        try:
            yield
        finally:
            self._pass = None
            current.reset(token)

    @contextmanager
    def absent(self) -> Iterator[None]:
        """The model as it was before any step into it."""
        steps = [module.__dict__.pop("forward") for module in self._wrapped]
        try:
            yield
        finally:
            for module, step in zip(self._wrapped, steps, strict=True):
                module.forward = step

    def drop_in(self, model: nn.Module) -> None:
        """Let the dropouts of a copy, and of what was built around it, draw from the present pass's streams."""
        for module in model.modules():
            if isinstance(module, nn.Dropout) and module.p > 0 and "forward" not in module.__dict__:
                module.forward = functools.partial(self._at_dropout, module.p, module.forward)

    def _wrap(self, module: nn.Module, step: Callable[..., Tensor]) -> None:
        module.forward = functools.partial(step, module.forward)
        self._wrapped.append(module)

    def _at_site(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        now = self._pass
        if now is None:
            return frozen(*inputs)
        adapter = None if now.changed is not None else now.adapter
        linear = now.maps is not None and isinstance(self.modules[site.name], nn.Linear)
        if linear and site.name in self._siblings:
            return self._one_of(self._siblings[site.name], site, inputs[0], now, adapter)
        frozen = now.maps.of(site.name) if linear else frozen  # type: ignore[union-attr]
        if adapter is None or site.name not in adapter.sites:
            return frozen(*inputs)
        return adapter.around(site, frozen, *inputs, rows=now.rows)

    def _at_embeddings(self, frozen: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        now = self._pass
        return frozen(*args, **kwargs) if now is None or now.lower is None else now.lower

    def _at_layer(
        self, number: int, frozen: Callable[..., Tensor], hidden: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        now = self._pass
        if now is None or now.layer == 0:
            return frozen(hidden, *args, **kwargs)
        if now.lower is not None:
            return hidden if number < now.layer else frozen(hidden, *args, **kwargs)
        if number == now.layer:
            now.reached = hidden
        return frozen(hidden, *args, **kwargs) if number < now.layer else hidden

    def _one_of(self, sites: list[Site], site: Site, x: Tensor, now: Pass, adapter: Adapter | None) -> Tensor:
        """A site's output, computed together with its siblings' when the first of them is asked for this input."""
        known, outputs = now.together.get(sites[0].name, (None, {}))
        if known is not x or site.name not in outputs:
            frozen = now.maps.of(*(s.name for s in sites))  # type: ignore[union-attr]
            parts = (
                frozen(x).split([s.outputs for s in sites], -1)
                if adapter is None
                else adapter.around_all(sites, frozen, x, now.rows)
            )
            outputs = dict(zip((s.name for s in sites), parts, strict=True))
            now.together[sites[0].name] = x, outputs
        return outputs.pop(site.name)

    def _at_dropout(self, p: float, frozen: Callable[..., Tensor], x: Tensor) -> Tensor:
        now = self._pass
        return x if now is None or now.noise is None else now.noise.tokens(x, p, packed=now.packed)

    def _attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        now = self._pass
        assert now is not None
        drop_rate = _attention_dropout(module)

        def frozen(
            q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor] | None = None, gate: Tensor | None = None
        ) -> Tensor:
            q, k, v = (t[0].transpose(0, 1) for t in (q, k, v))
            length = 0 if prefix is None else prefix[0].shape[2]
            noisy = now.noise is not None and drop_rate > 0
            kept = now.noise.attention(q.shape[1], length, drop_rate) if noisy else None  # type: ignore[union-attr]
            return attend(q, k, v, prefix, None if gate is None else gate[0], now.masks, scale, window, kept)

        site: Site = module.modicum_site  # type: ignore[assignment]
        if now.adapter is not None and site.name in now.adapter.sites:
            return now.adapter.around(site, frozen, q, k, v, rows=now.rows)
        return frozen(q, k, v)


def _attention_dropout(module: nn.Module) -> float:
    rate = getattr(module, "dropout", getattr(module, "attention_dropout", 0.0))
    return float(rate.p if isinstance(rate, nn.Dropout) else rate)
