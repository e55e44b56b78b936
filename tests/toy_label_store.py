"""A labelling project's store for tests, and who writes in it: people, and a trainer."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Labelled, Settings
from modicum.base.events import Trained

CLASSES = ("refund", "delivery", "other")


def make_store(folder: Path, n: int = 40, labels: Any = None, **settings: Any) -> ProjectStore:
    rows = [(f"t{i}", f"the parcel number {i} is late", None) for i in range(n)]
    return ProjectStore.create(folder, Settings(classes=CLASSES, **settings), rows, labels, now=1.0)


@pytest.fixture(name="store")
def a_store(tmp_path: Path) -> Iterator[ProjectStore]:
    with make_store(tmp_path / "project") as store:
        yield store


def project(folder: Path, n: int = 60, classes: int = 3, **settings: Any) -> ProjectStore:
    """A project of n toy texts without labels."""
    from modicum.testing.backbone import toy_dataset

    data = toy_dataset(n, classes)
    rows = zip(data.ids, data.texts(), [None] * n, strict=True)
    return ProjectStore.create(folder / "project", Settings(classes=data.classes, **settings), rows, now=1.0)


def say(store: ProjectStore, item: int, label: int, user: int = 1, client: str = "", **fields: Any) -> Any:
    present = store.answer(item, user)
    version = fields.pop("version", 0 if present is None else present.version)
    event = Labelled(item=item, label=label, version=version, **fields)
    return store.write(event, user=user, client=client or f"c{random.random()}", now=2.0)


def label(store: ProjectStore, items: Any, wrong: int = 0) -> None:
    """Give toy texts of three classes the right one, or the one that is so many further on."""
    for item in map(int, items):
        say(store, item, (item + wrong) % 3)


class Ear(list[tuple[str, dict[str, Any]]]):
    """All that a trainer said."""

    def __call__(self, kind: str, **values: Any) -> None:
        self.append((kind, json.loads(json.dumps(values))))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self]


def taught(store: ProjectStore, backbone: Any, *models: int) -> Ear:
    """Train these models, each noted in the store."""
    from modicum.annotate.model.trainer import Trainer, work

    ear = Ear()
    child = Trainer(store.folder, ear, backbone)
    for model in models:
        work(child, {"kind": "train", "model": model})
        kind, told = ear[-1]
        assert kind == "trained", told
        store.record_training(Trained(round=model - 1, labels=told["labels"], record=told["record"]), model, 3.0)
    return ear


def in_threads(n: int, work: Any) -> list[Any]:
    """The results of work(0), work(1), ... at the same time; the first error is raised."""
    results: list[Any] = [None] * n
    errors: list[BaseException] = []
    barrier = threading.Barrier(n)

    def run(k: int) -> None:
        try:
            barrier.wait()
            results[k] = work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
