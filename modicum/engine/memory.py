"""How this process gets memory: pages that a tensor leaves are kept for the next one."""

from __future__ import annotations

import ctypes
import functools
from contextlib import suppress

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
