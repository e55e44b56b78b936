"""``modicum label``: a labelling project is begun or taken up again, exported, reported on, or made into a study."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from modicum.annotate.model.queue import audit_items
from modicum.annotate.model.worth import curve_point, is_worth
from modicum.annotate.store import exchange
from modicum.annotate.store.database import FILE
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME, Settings
from modicum.base.errors import SpecError, UnknownName
from modicum.base.files import atomic_write
from modicum.base.registry import Registry
from modicum.cli import console
from modicum.data.shipped import shipped
from modicum.methods import METHODS
from modicum.strategies import STRATEGIES

DEFAULTS = {"method": "lora", "strategy": "entropy", "warm_strategy": "typiclust"}
MOST_AUDIT, AUDIT_SHARE = 100, 0.2
"""Audit items where nobody says how many: a fifth of the items, and no more than these."""
QUALITY = ("macro_f1", "accuracy", "matthews", "log_loss", "f1")
COSTS = ("parameters", "steps", "train_loss", "fit_seconds", "score_seconds", "peak_memory_mb")
NEEDED = ("fastapi", "uvicorn", "argon2", "h11")
MODEL = "model"
"""A format of ``--export`` beside those of data: a checkpoint."""


def begin(
    data: str,
    out: Path | None,
    settings: Mapping[str, Any],
    *,
    columns: Mapping[str, str | None],
    classes: str | None,
    classes_file: Path | None,
    guidelines: Path | None,
    skip_bad_rows: bool,
) -> Path:
    """The folder of the project that DATA is, or that is made of it; settings that are None are as usual."""
    check_server()
    given = {name: value for name, value in settings.items() if value is not None}
    _check_plugins(given)
    if guidelines is not None:
        given["guidelines"] = guidelines.read_text(encoding="utf-8")
    named = _classes(classes, classes_file)
    folder = Path(data) if is_project(Path(data)) else out or Path(f"{Path(data).name.split('.')[0]}-labels")
    if is_project(folder):
        _take_up(folder, data, given, named)
        return folder
    if Path(data).is_dir():
        raise SpecError(f"{data} is a folder without a labelling project: give one that has {FILE}, or a data file")
    known = shipped(data)
    if known is not None:  # its labels are all known: it is there to be tried out
        named = named or _classes_in(known[0])
        data, columns = str(known[0]), {**columns, "label": ""}
    made = {**DEFAULTS, **given} | ({"classes": named} if named else {})
    began = time.perf_counter()
    store = exchange.create_project(folder, data, made, columns=columns, now=time.time(), skip_bad_rows=skip_bad_rows)
    with closing(store):
        n = store.count()
        if "audit" not in given:
            _change(store, {"audit": min(MOST_AUDIT, int(AUDIT_SHARE * n))})
        console.say(f"{folder}: {n:,} items, read in {time.perf_counter() - began:.1f} s.")
    return folder


def serve(folder: Path, host: str, port: int, users: tuple[str, ...], open_browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    from modicum.annotate.server.app import serve as run

    def announce(name: str, url: str) -> None:
        console.say(f"{name}: {url}")

    run(folder, host=host, port=port, users=users, open_browser=open_browser, announce=announce)


def use(folder: Path, out: Path | None, export_as: str | None, reported: bool, study: Path | None) -> None:
    """What is made of a project: an export, a report, a study, or several of them."""
    if not is_project(folder):
        raise SpecError(f"{folder} holds no labelling project (there is no {FILE} in it): give the folder of one")
    if export_as is not None:
        export(folder, export_as, out)
    if reported:
        report(folder, out if export_as is None else None)
    if study is not None:
        replay(folder, study)


def export(folder: Path, format: str, out: Path | None) -> None:
    """Write the labels in a format, or the model that has seen all of them."""
    if out is None:
        raise SpecError("--export needs --out: the file or folder to write")
    if format == MODEL:
        from modicum.annotate.model.trainer import train_on_all

        facts = train_on_all(folder, out)
        console.say(f"Trained on all {facts['labels']} labels, those of audit items too: {out}")
        return
    with closing(_open(folder)) as store:
        rows = exchange.export(store, format, out)
    console.say(f"Exported {rows:,} items: {out}")


def report(folder: Path, out: Path | None) -> None:
    """Write the report of a project's models."""
    from modicum.report import ReportSource, write_report

    with closing(_open(folder)) as store:
        rows, settings, models = _rows(store), store.settings, store.models()
        if not any("macro_f1" in row for row in rows):
            raise SpecError(
                f"{folder} has {len(models)} trained models, and none was measured: a report needs one that was trained"
                f" after audit items were labelled (the project has {settings.audit} of them)"
            )
        manifest = {"settings": json.loads(settings.canonical())}
        source = ReportSource(settings.title or "Labelling", "macro_f1", rows, manifest, _notes(store))
    console.say(f"Report: {write_report(source, out or folder / 'report')}")


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


def replay(folder: Path, out: Path) -> None:
    """Write a study of the project's labels: a TOML file and its data, for ``modicum study``.

    It asks for labels as the project did, first ones and batches, with the project's method and strategy and with
    random picks beside it, and is measured on the audit items.
    """
    target = out if out.suffix == ".toml" else out / "study.toml"
    with closing(_open(folder)) as store:
        settings, models = store.settings, store.models()
        labels = {row.item: row.label for row in store.resolved() if row.label is not None}
        audit = set(audit_items(store.count(), settings.audit, settings.seed).tolist())
        train, test = ([i for i in labels if (i in audit) == held] for held in (False, True))
        if len(set(labels[i] for i in train)) < 2 or len(train) < 8:
            raise SpecError(f"a study needs 8 labels of two classes or more, and {folder} has {len(train)}: label more")
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
    console.say(f"Study of {len(train)} labels{f', tested on {len(test)} audit items' if test else ''}: {target}")
    console.say(f"Run it: modicum study {target} --out {target.parent / 'results'}")


def _write_items(store: ProjectStore, items: Sequence[int], labels: Sequence[str], path: Path) -> None:
    texts, pairs = store.texts(items)
    with atomic_write(path) as file:
        for i, (id, label) in enumerate(zip(store.ids(items), labels, strict=True)):
            row = {"id": id, "text": texts[i]} | ({"pair": pairs[i]} if pairs else {}) | {"label": label}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _study(settings: Settings, pace: Mapping[str, int], tested: bool, paired: bool) -> str:
    """The study's file."""
    strategies: list[Any] = [settings.strategy.model_dump()]
    if settings.strategy.name != "random":
        strategies.append("random")
    data = {"train": "train.jsonl"} | ({"test": "test.jsonl"} if tested else {}) | {"name": settings.title or "labels"}
    data |= {"text": "text", "label": "label", "id": "id"} | ({"pair": "pair"} if paired else {})
    lines = [
        f"title = {_toml(settings.title + ', labelled again')}",
        f"methods = {_toml([_plain(settings.method.model_dump(), 'method')])}",
        f"strategies = {_toml([_plain(one, 'strategy') for one in strategies])}",
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


def _plain(choice: Any, kind: str) -> Any:
    """A choice as a study names it."""
    if isinstance(choice, str) or choice["options"]:
        return choice if isinstance(choice, str) else {"name": choice["name"], **choice["options"]}
    known = (METHODS if kind == "method" else STRATEGIES).targets
    return DEFAULTS[kind] if choice["name"] == "auto" and "auto" not in known else choice["name"]


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(name)} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ---- parts -----------------------------------------------------------------------------------------------------------


def is_project(folder: Path) -> bool:
    """Whether a folder holds a labelling project."""
    return (folder / FILE).is_file()


def check_server() -> None:
    """Refuse where what the page needs is not installed.

    Raises:
        SpecError: it is not; says how to install it.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SpecError(f"labelling needs {', '.join(missing)}, not installed here: pip install 'modicum[web]'")


def _open(folder: Path) -> ProjectStore:
    return ProjectStore(folder, read_only=True)


def _take_up(folder: Path, data: str, given: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Go on with a project, under the settings that are given now."""
    with closing(ProjectStore(folder)) as store:
        name, wanted = store.settings.data_name, shipped(data)
        begun = name if wanted is None else wanted[0].stem
        if not is_project(Path(data)) and begun != Path(data).name.split(".")[0] and wanted is None:
            raise SpecError(f"{folder} holds a project of other data ({name!r}): choose another --out")
        changed: dict[str, Any] = {name: value for name, value in given.items()}
        if classes and tuple(classes) != store.settings.classes:
            changed["classes"] = list(classes)
        if changed:
            _change(store, changed)
        done = store.progress()
        console.say(f"{folder}: going on; {done.labelled:,} of {done.items:,} items have a label.")


def _change(store: ProjectStore, settings: dict[str, Any]) -> None:
    store.change(settings, ME, uuid4().hex, time.time())


def _check_plugins(given: Mapping[str, Any]) -> None:
    """Wrong names are told at once, not by the trainer later."""
    kinds: dict[str, Registry] = {"method": METHODS, "strategy": STRATEGIES, "warm_strategy": STRATEGIES}
    for setting, registry in kinds.items():
        name = given.get(setting, "auto")
        known = registry.targets
        if name != "auto" and name not in known and name.partition(":")[0] + ":" not in known:
            raise UnknownName(setting.replace("_", " "), name, registry.names())
    warm = given.get("warm_strategy")
    if warm is not None and STRATEGIES.create(warm).needs - {"frozen_embedding"}:
        raise SpecError(f"--warm-strategy {warm} needs a trained model: use random, kmeans or typiclust")


def _classes(names: str | None, file: Path | None) -> list[str]:
    """The classes' names from the option or from a file's lines; none where neither is given."""
    if names is not None and file is not None:
        raise SpecError("classes come from --classes or from --classes-file: give one of the two")
    listed = file.read_text(encoding="utf-8").splitlines() if file is not None else (names or "").split(",")
    found = [name.strip() for name in listed if name.strip()]
    if len(found) == 1:
        raise SpecError(f"labelling needs two classes or more, got {found[0]!r}")
    return found


def _classes_in(path: Path) -> list[str]:
    from modicum.data.sources import load

    return list(load(path).classes)


def user_names(users: str | None) -> tuple[str, ...]:
    """``3`` -> lead, annotator-1, annotator-2; ``anna,ben`` -> these, the first a lead."""
    if users is None:
        return ()
    if users.strip().isdecimal():
        if int(users) < 1:
            raise SpecError("--users is a number of 1 or more, or names with commas between, got 0")
        return ("lead", *(f"annotator-{i}" for i in range(1, int(users))))
    names = [name.strip() for name in users.split(",") if name.strip()]
    if not names or len({name.casefold() for name in names}) < len(names):
        raise SpecError(f"--users is a number, or different names with commas between, got {users!r}")
    return tuple(names)
