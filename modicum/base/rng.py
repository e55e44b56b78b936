"""Random streams by name: adding a draw in one place moves none elsewhere."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """An independent generator for one purpose, such as ``stream(seed, "select", round)``."""
    name = "/".join(str(part) for part in path)
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint32)
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *words.tolist()])))
