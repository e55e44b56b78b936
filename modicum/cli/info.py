"""``modicum methods``, ``strategies`` and ``doctor``: made from the plug-ins themselves."""

from __future__ import annotations

import inspect
import json
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modicum.base.errors import ModicumError
from modicum.base.registry import Registry
from modicum.cli import console


def methods(as_json: bool) -> None:
    """Name, default settings and summary of every method."""
    from modicum.methods import METHODS

    _list(METHODS, as_json)


def strategies(as_json: bool) -> None:
    """Name, default settings, needs and summary of every strategy."""
    from modicum.strategies import STRATEGIES

    _list(STRATEGIES, as_json)


def describe(registry: Registry) -> list[dict[str, Any]]:
    """A row per plug-in: name, settings with defaults, summary."""
    found = []
    for name in registry.names():
        cls = registry.load(name)
        settings = {k: f.default for k, f in cls.model_fields.items() if not f.is_required()}
        row = {"name": f"{name}…" if name.endswith(":") else name, "settings": settings, "summary": summary(cls)}
        needs = getattr(cls, "needs", None)
        if isinstance(needs, frozenset):
            row["needs"] = sorted(needs)
        found.append(row)
    return found


def summary(cls: type[Any]) -> str:
    """The first paragraph of a class's docstring, on one line."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _list(registry: Registry, as_json: bool) -> None:
    rows = describe(registry)
    if as_json:
        console.say(json.dumps(rows, ensure_ascii=False, default=str))
        return
    shown = [[row["name"], row["summary"], ", ".join(f"{k}={v}" for k, v in row["settings"].items())] for row in rows]
    console.table([registry.kind, "what it does", "settings"], shown, plain_columns=3)


def doctor(backbone: str, as_json: bool) -> None:
    """What this machine can do, and how a backbone runs on it."""
    facts = _machine() | _backbone(backbone)
    if as_json:
        console.say(json.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        console.say(f"{name:<26} {value}")


def _machine() -> dict[str, Any]:
    import torch

    from modicum.engine.precision import best_device, matmul_rates, resolve
    from modicum.study.store import WAL_IS_SAFE

    device = best_device()
    journal = "write-ahead log" if sqlite3.sqlite_version_info >= WAL_IS_SAFE else "rollback journal"
    facts: dict[str, Any] = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in ("modicum", "torch", "transformers", "peft"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    facts["sqlite"] = f"{sqlite3.sqlite_version} ({journal})"
    facts["device"] = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    )
    if device.type == "cpu":
        facts |= {f"matrix products, {name}": f"{rate:.0f} GFLOP/s" for name, rate in matmul_rates().items()}
    facts["precision"] = (
        f"{str(resolve('auto', device)).removeprefix('torch.')} for frozen weights, float32 for learned ones"
    )
    return facts


def _backbone(name: str) -> dict[str, Any]:
    from modicum.engine.backbone import Backbone

    try:
        loaded = Backbone.load(name)
    except ModicumError as error:
        return {"backbone": f"{name}: {error}"}
    size = sum(p.numel() for p in loaded.model.parameters())
    batches = "packed rows, no padding" if loaded.packed else "padded batches (its attention cannot take packed rows)"
    return {
        "backbone": f"{name} ({loaded.config.model_type}, {size / 1e6:.1f} M parameters)",
        "weights": f"sha256 {loaded.fingerprint}",
        "pooling": loaded.pooling,
        "batches": batches,
    }
