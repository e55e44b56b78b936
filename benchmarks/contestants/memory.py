"""Memory that a piece of work takes beyond what its process held before."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def extra_memory(into: dict[str, Any]) -> Iterator[None]:
    """Note, in MB, by how much the peak of resident memory in a block exceeds what was resident before.

    Linux lets a process reset its own peak; where it cannot, the peak of its whole life counts, and may say 0.
    """
    _give_back()
    now, peak = ("VmRSS", "VmHWM") if _reset_peak() else ("", "")
    before = _resident(now)
    yield
    into["extra_memory_mb"] = _resident(peak) - before


def _give_back() -> None:
    """What was freed before must not serve the block unseen."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(name: str) -> float:
    """MB, by the name of a line in /proc/self/status; without one, the peak of the process's life."""
    if not name:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024
