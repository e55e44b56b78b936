"""Keeps freed memory in the process: a training step frees and takes the same large blocks over and over."""

from __future__ import annotations

import ctypes
import functools
import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library


@functools.cache
def _libc() -> ctypes.CDLL | None:
    """The GNU C library; None elsewhere."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            if libc.mallopt and libc.malloc_trim:
                return libc
    return None


@functools.cache
def keep_pages() -> bool:
    """Ask the GNU C library not to give freed blocks back (10 % of a training step on a CPU); False elsewhere."""
    libc = _libc()
    return libc is not None and bool(
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    )


def give_back() -> None:
    """Give freed memory back to the system, between one long piece of work and the next (about 20 ms)."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)
