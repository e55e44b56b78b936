"""``modicum label``: a labelling project is begun or taken up again, exported, reported on, or made into a study."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from modicum.annotate.store import exchange
from modicum.annotate.store.database import FILE
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME
from modicum.auto.recipes import AUTO
from modicum.base.errors import SpecError, UnknownName
from modicum.base.files import read_text
from modicum.base.registry import Registry
from modicum.cli import console
from modicum.data.labels import listed_classes
from modicum.data.shipped import shipped
from modicum.methods import METHODS
from modicum.strategies import STRATEGIES, make_warm

MOST_AUDIT, AUDIT_SHARE = 100, 0.2
"""Audit items where nobody says how many: a fifth of the items, and no more than these."""
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
        given["guidelines"] = read_text(guidelines)
    named = listed_classes(classes, classes_file)
    folder = Path(data) if is_project(Path(data)) else out or Path(f"{Path(data).name.split('.')[0]}-labels")
    if is_project(folder):
        _take_up(folder, data, given, named)
        return folder
    if Path(data).is_dir():
        raise SpecError(f"{data} is a folder without a labelling project: give one that has {FILE}, or a data file")
    known = shipped(data)
    if known is not None:  # its labels are all known: it is there to be tried out
        named = named or _classes_in(known[0])
        given.setdefault("title", data)
        data, columns = str(known[0]), {**columns, "label": ""}
    made = given | ({"classes": named} if named else {})
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
    from modicum.annotate.outcome import report_source
    from modicum.report import write_report

    with closing(_open(folder)) as store:
        source = report_source(store)
    console.say(f"Report: {write_report(source, out or folder / 'report')}")


def replay(folder: Path, out: Path) -> None:
    """Write a study of the project's labels, for ``modicum study``."""
    from modicum.annotate.outcome import write_study

    target = out if out.suffix == ".toml" else out / "study.toml"
    with closing(_open(folder)) as store:
        trained, tested = write_study(store, target)
    console.say(f"Study of {trained} labels{f', tested on {tested} audit items' if tested else ''}: {target}")
    console.say(f"Run it: modicum study {target} --out {target.parent / 'results'}")


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
        expected = wanted[0].stem if wanted else Path(data).name.split(".")[0]
        if not is_project(Path(data)) and name != expected:
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
        name, more = given.get(setting), (AUTO,) if setting == "method" else ()
        known = {*registry.targets, *more}
        if name is not None and name not in known and name.partition(":")[0] + ":" not in known:
            raise UnknownName(setting.replace("_", " "), name, (*more, *registry.names()))
    if "strategy" in given:
        STRATEGIES.create(given["strategy"])  # what follows a colon
    if "warm_strategy" in given:
        make_warm(given["warm_strategy"])


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
