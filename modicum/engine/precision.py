"""Which precision this machine computes fast: measured once for 100 ms, remembered."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch

from modicum.base.files import atomic_write

Precision = Literal["auto", "fp32", "bf16"]


def cache_dir() -> Path:
    """Where Modicum remembers things about this machine: ``$MODICUM_CACHE``, else the user's cache folder."""
    return Path(
        os.environ.get("MODICUM_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "modicum"
    )


def best_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve(precision: Precision, device: torch.device) -> torch.dtype:
    """The precision of frozen weights and activations; learned tensors are fp32 always."""
    if precision == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products beat fp32 by half or more; on CUDA, whether they have units of their own."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    rates = matmul_rates()
    return rates["bf16"] >= 1.5 * rates["fp32"]


def matmul_rates(*, fresh: bool = False) -> dict[str, float]:
    """GFLOP/s of matrix products on the CPU by precision; remembered per machine unless asked for ``fresh``."""
    machine = f"{platform.node()}/{_processor()}/{torch.get_num_threads()}/{torch.__version__}"
    path = cache_dir() / "precision.json"
    known: dict[str, dict[str, float]] = {}
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
    if fresh or machine not in known:
        known[machine] = {name: _rate(dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
        with suppress(OSError), atomic_write(path) as file:  # a read-only home costs 100 ms a start, nothing else
            json.dump(known, file)
    return known[machine]


def _rate(dtype: torch.dtype, seconds: float = 0.05) -> float:
    """The best of many products, since other work on the machine slows some of them."""
    x, w = torch.ones(1024, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
    torch.nn.functional.linear(x, w)
    start, best = time.perf_counter(), math.inf
    while (now := time.perf_counter()) - start < seconds or best == math.inf:
        torch.nn.functional.linear(x, w)
        best = min(best, time.perf_counter() - now)
    return 2 * 1024 * 384 * 1536 / best / 1e9


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                wanted = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16"}
                return " ".join(sorted(wanted & set(line.split())))
    return platform.processor()
