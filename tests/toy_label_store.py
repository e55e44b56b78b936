"""A labelling project's store for tests, and people who write in it."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Labelled, Settings

CLASSES = ("refund", "delivery", "other")


def make_store(folder: Path, n: int = 40, labels: Any = None, **settings: Any) -> ProjectStore:
    rows = [(f"t{i}", f"the parcel number {i} is late", None) for i in range(n)]
    return ProjectStore.create(folder, Settings(classes=CLASSES, **settings), rows, labels, now=1.0)


def say(store: ProjectStore, item: int, label: int, user: int = 1, client: str = "", **fields: Any) -> Any:
    present = store.answer(item, user)
    version = fields.pop("version", 0 if present is None else present.version)
    event = Labelled(item=item, label=label, version=version, **fields)
    return store.write(event, user=user, client=client or f"c{random.random()}", now=2.0)


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
