"""``modicum methods``, ``strategies``, ``objectives`` and ``doctor``: made from the plug-ins themselves."""

from __future__ import annotations

import inspect
import json
import sqlite3
from typing import Any

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


def objectives(as_json: bool) -> None:
    """Name, default settings and summary of every objective."""
    from modicum.engine.objectives import OBJECTIVES

    _list(OBJECTIVES, as_json)


def describe(registry: Registry) -> list[dict[str, Any]]:
    """A row per plug-in: name, settings with defaults, summary."""
    found = []
    for name in registry.names():
        cls = registry.load(name)
        settings = {k: f.default for k, f in cls.model_fields.items() if not f.is_required() and k != "options"}
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
    from modicum.engine.doctor import backbone_facts, machine_facts
    from modicum.study.store import journal

    facts = machine_facts() | {"sqlite": f"{sqlite3.sqlite_version} ({journal()} journal)"} | backbone_facts(backbone)
    if as_json:
        console.say(json.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        console.say(f"{name:<26} {value}")


def reference() -> str:
    """``docs/reference.md``: all plug-ins and their settings, from their docstrings."""
    from modicum.engine.objectives import OBJECTIVES
    from modicum.methods import METHODS
    from modicum.strategies import STRATEGIES

    pages = ["# Reference", "Made from the plug-ins' docstrings: `python -m modicum.cli.info > docs/reference.md`."]
    for title, registry in (("Methods", METHODS), ("Strategies", STRATEGIES), ("Objectives", OBJECTIVES)):
        rows = [f"## {title}", "", "| name | what it does | settings | signals |", "|---|---|---|---|"]
        for row in describe(registry):
            settings = ", ".join(f"`{name} = {value}`" for name, value in row["settings"].items()) or "–"
            signals = ", ".join(f"`{name}`" for name in row.get("needs", [])) or "–"
            rows.append(f"| `{row['name']}` | {row['summary'].replace('|', '∣')} | {settings} | {signals} |")
        pages.append("\n".join(rows))
    return "\n\n".join(pages) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
