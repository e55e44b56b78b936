"""How this process gets memory, pages that a tensor leaves being kept for the next one, and how much it has taken."""

from __future__ import annotations

import ctypes
import functools
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt."""
KEEP = 2**30
LARGEST = 32 * 2**20
"""glibc takes no larger threshold."""


@functools.cache
def keep_pages() -> None:
    """Let the C library keep freed pages: to fetch and clear fresh ones for every activation costs a tenth of a step.

    Does nothing where the C library is not glibc.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  other libraries may understand mallopt otherwise
        for parameter, value in ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, KEEP), (TOP_PAD, 64 * 2**20)):
            library.mallopt(parameter, value)


def forget_peak(device: torch.device) -> None:
    """Give back what is kept, and let ``peak_memory_mb`` count from now on, where the system can (Linux, CUDA)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Most memory, in MB (10^6 bytes), since the last ``forget_peak``: of the GPU's by tensors, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of the whole life, and on macOS in bytes
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
