"""What a labelling project comes to: its models' measurements for a report, and its labels as a study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modicum.annotate.model.queue import audit_items
from modicum.annotate.model.worth import curve_point, is_worth
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Settings
from modicum.base.errors import SpecError
from modicum.base.files import atomic_write
from modicum.base.spec import Choice
from modicum.report.frame import ReportSource

QUALITY = ("macro_f1", "accuracy", "matthews", "log_loss", "f1")
COSTS = ("parameters", "steps", "train_loss", "fit_seconds", "score_seconds", "peak_memory_mb")


def report_source(store: ProjectStore) -> ReportSource:
    """What ``modicum.report`` makes a project's report of.

    Raises:
        SpecError: no model was measured.
    """
    rows, settings, models = _rows(store), store.settings, store.models()
    if not any("macro_f1" in row for row in rows):
        raise SpecError(
            f"{store.folder} has {len(models)} trained models, and none was measured: a report needs one that was"
            f" trained after audit items were labelled (the project has {settings.audit} of them)"
        )
    manifest = {"settings": json.loads(settings.canonical())}
    return ReportSource(settings.title or "Labelling", "macro_f1", rows, manifest, _notes(store))


def _rows(store: ProjectStore) -> list[dict[str, Any]]:
    """A row for each model, as ``modicum.report`` wants them."""
    settings, models = store.settings, store.models()
    last = models[-1].record if models else {}
    identity: dict[str, Any] = {"trial": "project", "dataset": settings.title or "items", "seed": settings.seed}
    identity |= {"method": last.get("method", settings.method.label), "backbone": settings.backbone}
    identity |= {"strategy": last.get("strategy", settings.strategy.label)}
    return [
        identity
        | {"round": row.model - 1, "labels": row.labels}
        | {name: row.record[name] for name in (*QUALITY, *COSTS) if name in row.record}
        for row in models
    ]


def _notes(store: ProjectStore) -> list[str]:
    """What a reader must know of a project's numbers."""
    progress, models = store.progress(), store.models()
    every = [curve_point(row.model, row.labels, row.record) for row in models]
    points = [point for point in every if point is not None]
    low, high = points[-1]["low"], points[-1]["high"]
    return [
        f"{progress.labelled:,} of {progress.items:,} items have a label, {progress.skipped:,} were skipped and"
        f" {progress.unresolved:,} are not agreed on.",
        f"Quality is on random audit items, {points[-1]['items']} by the last model; no model was trained on them. Its"
        f" accuracy of {points[-1]['value']:.3f} has 95 % limits of {low:.3f} and {high:.3f}.",
        "Labels for training were chosen by a model, so their classes are no sample of the data's.",
        is_worth(points, [row.record["kappa"] for row in models if "kappa" in row.record]).text,
    ]


def write_study(store: ProjectStore, target: Path) -> tuple[int, int]:
    """Write a study of the project's labels, a TOML file and its data beside it; returns how many labels it trains on,
    and on how many it tests.

    It asks for labels as the project did, first ones and batches, with the project's method and strategy and with
    random picks beside it, and is measured on the audit items.

    Raises:
        SpecError: there are too few labels.
    """
    settings, models = store.settings, store.models()
    labels = {row.item: row.label for row in store.resolved() if row.label is not None}
    audit = set(audit_items(store.count(), settings.audit, settings.seed).tolist())
    train, test = ([i for i in labels if (i in audit) == held] for held in (False, True))
    if len(set(labels[i] for i in train)) < 2 or len(train) < 8:
        raise SpecError(
            f"a study needs 8 labels of two classes or more, and {store.folder} has {len(train)}: label more"
        )
    if len(test) < 2:
        train, test = sorted(train + test), []
    for name, items in (("train", train), ("test", test)):
        if items:
            given = [settings.classes[labels[i]] for i in items]
            _write_items(store, items, given, target.with_name(f"{name}.jsonl"))
    paired = store.texts(train[:1])[1] is not None
    first = models[0].labels if models else settings.retrain_every
    drawn = len(train) if test else int(0.7 * len(train))
    pace = {"warm_start": max(2, min(first, drawn // 2)), "batch": settings.retrain_every, "budget": drawn}
    with atomic_write(target) as file:
        file.write(_study(settings, pace, bool(test), paired))
    return len(train), len(test)


def _write_items(store: ProjectStore, items: Sequence[int], labels: Sequence[str], path: Path) -> None:
    texts, pairs = store.texts(items)
    with atomic_write(path) as file:
        for i, (id, label) in enumerate(zip(store.ids(items), labels, strict=True)):
            row = {"id": id, "text": texts[i]} | ({"pair": pairs[i]} if pairs else {}) | {"label": label}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _study(settings: Settings, pace: Mapping[str, int], tested: bool, paired: bool) -> str:
    """The study's file."""
    strategies = dict.fromkeys([_toml(_plain(settings.strategy)), _toml("random")])
    data = {"train": "train.jsonl"} | ({"test": "test.jsonl"} if tested else {}) | {"name": settings.title or "labels"}
    data |= {"text": "text", "label": "label", "id": "id"} | ({"pair": "pair"} if paired else {})
    lines = [
        f"title = {_toml((settings.title or 'labels') + ', labelled again')}",
        f"methods = [{_toml(_plain(settings.method))}]",
        f"strategies = [{', '.join(strategies)}]",
        "seeds = 3",
        "\n[[data]]",
        *(f"{name} = {_toml(value)}" for name, value in data.items()),
        f"classes = {_toml(list(settings.classes))}",
        "\n[backbone]",
        f"name = {_toml(settings.backbone)}",
        "\n[loop]",
        *(f"{name} = {value}" for name, value in pace.items()),
    ]
    return "\n".join(lines) + "\n"


def _plain(choice: Choice) -> Any:
    """A choice as a study names it."""
    return {"name": choice.name, **choice.options} if choice.options else choice.name


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(name)} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
