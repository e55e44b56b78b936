"""What this machine can do, and how a backbone runs on it, in words."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from modicum.base.errors import ModicumError
from modicum.engine.backbone import Backbone
from modicum.engine.precision import best_device, matmul_rates, resolve

LIBRARIES = ("modicum", "torch", "transformers", "peft")


def machine_facts() -> dict[str, str]:
    """Versions, device, measured speed of matrix products, and the precision that follows from it."""
    device = best_device()
    facts = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    facts |= {name: _version(name) for name in LIBRARIES}
    if device.type == "cuda":
        facts["device"] = torch.cuda.get_device_name(device)
    else:
        facts["device"] = f"cpu, {torch.get_num_threads()} threads"
        facts |= {f"matrix products, {name}": f"{rate:.0f} GFLOP/s" for name, rate in matmul_rates(fresh=True).items()}
    frozen = str(resolve("auto", device)).removeprefix("torch.")
    return facts | {"precision": f"{frozen} for frozen weights, float32 for learned ones"}


def backbone_facts(name: str) -> dict[str, str]:
    """Size, checksum, pooling and kind of batches of a backbone; or why it cannot be used."""
    try:
        loaded = Backbone.load(name)
    except ModicumError as error:
        return {"backbone": f"{name}: {error}"}
    size = sum(p.numel() for p in loaded.model.parameters())
    return {
        "backbone": f"{name} ({loaded.config.model_type}, {size / 1e6:.1f} M parameters)",
        "weights": f"sha256 {loaded.fingerprint}",
        "pooling": loaded.pooling,
        "batches": "packed rows, no padding"
        if loaded.packed
        else "padded batches (its attention cannot take packed rows)",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
