"""How fast matrix products are here, in bf16 and fp32: the best of several shapes."""

from __future__ import annotations

import time

import torch
from common import report, settings

SHAPES = [(n, n, n) for n in (1024, 2048, 4096)]
SHAPES += [(2048, 384, 1536), (2048, 1536, 384), (2048, 384, 384)]
"""Rows, inner and columns: squares, and the maps of the encoder at a batch of 2,048 tokens."""


def rate(shape: tuple[int, int, int], dtype: torch.dtype, seconds: float) -> float:
    """GFLOP/s of products of one shape, over so many seconds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, inner, columns = shape
    a = torch.randn(rows, inner).to(device, dtype)
    b = torch.randn(inner, columns).to(device, dtype)
    out = torch.empty(rows, columns, dtype=dtype, device=device)

    def product() -> None:
        torch.mm(a, b, out=out)
        if device == "cuda":
            torch.cuda.synchronize()

    product()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        product()
        done += 1
    return 2 * rows * inner * columns * done / (time.perf_counter() - start) / 1e9


def main() -> None:
    chosen = settings()
    found: dict[str, dict[str, float]] = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        rates = {"×".join(map(str, shape)): round(rate(shape, dtype, chosen["seconds"]), 1) for shape in SHAPES}
        best = max(rates, key=rates.__getitem__)
        found[name] = {"gflops": rates[best], "shape": best, "all": rates}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    report(**found, device=device, threads=torch.get_num_threads(), seconds=chosen["seconds"])


if __name__ == "__main__":
    main()
