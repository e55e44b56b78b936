"""Backbones that this process has loaded: each is loaded once, whoever asks for it."""

from __future__ import annotations

import functools

from modicum.engine.backbone import Backbone, Pooling
from modicum.engine.precision import Precision


@functools.lru_cache(maxsize=4)
def shared_backbone(name: str, pooling: Pooling, max_length: int, precision: Precision, device: str | None) -> Backbone:
    """As ``Backbone.load``, remembering the last few."""
    return Backbone.load(name, pooling=pooling, max_length=max_length, precision=precision, device=device)
