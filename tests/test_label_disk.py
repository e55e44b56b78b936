"""A labelling project's file: nothing acknowledged is lost, whatever befalls the process or the disk."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_label_store import CLASSES, a_store, in_threads, make_store, say  # noqa: F401

from modicum.annotate.store.project import Conflict, ProjectStore
from modicum.annotate.store.records import Labelled, Settings
from modicum.base.errors import DataError, StoreError
from modicum.study import store as study_store

ROOT = Path(__file__).resolve().parents[1]


# ---- the disk --------------------------------------------------------------------------------------------------------


def test_the_files_are_for_their_owner_and_durable(store: ProjectStore) -> None:
    say(store, 0, 1)
    assert {path.name: oct(path.stat().st_mode)[-3:] for path in store.folder.iterdir() if path.is_file()} == (
        dict.fromkeys([path.name for path in store.folder.iterdir()], "600")
    )
    assert oct(store.folder.stat().st_mode)[-3:] == "700"
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    safe = sqlite3.sqlite_version_info >= (3, 51, 3)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal" if safe else "persist",)


def test_writes_that_wait_share_a_commit(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commits, hold = [], threading.Event()
    committing = store._gate.committing

    def slow() -> Any:
        commits.append(1)
        hold.wait(10)
        return committing()

    monkeypatch.setattr(store._gate, "committing", slow)
    threads = [threading.Thread(target=say, args=(store, k, 0)) for k in range(20)]
    threads[0].start()
    while not commits:
        time.sleep(0.001)
    for thread in threads[1:]:
        thread.start()
    while store._jobs.qsize() < 19:
        time.sleep(0.001)
    assert list(store.answers()) == []  # nothing is seen, and nobody is told, before it is on disk
    hold.set()
    for thread in threads:
        thread.join()
    assert len(commits) == 2 and len(list(store.answers())) == 20


def test_a_refused_write_does_no_harm_to_its_neighbours(store: ProjectStore) -> None:
    def work(k: int) -> bool:
        try:
            return bool(say(store, k // 2, 0, version=0))
        except Conflict:
            return False

    assert sum(in_threads(32, work)) == 16
    assert len(list(store.answers())) == 16 and store.check() == []


FULL = """
import resource, sys
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Labelled
from modicum.base.errors import StoreError
store = ProjectStore(sys.argv[1])
limit = store.path.stat().st_size + 10_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for k in range(100_000):
    try:
        store.write(Labelled(item=k % 40, label=k % 3, version=k // 40), user=1, client=f"c{k}", now=1.0)
    except StoreError as error:
        print("refused", error, flush=True)
        break
    print(k, flush=True)
try:
    store.write(Labelled(item=39, label=0, version=10**6), user=1, client="other", now=1.0)
except Exception as error:
    print(type(error).__name__)
print(len(list(store.answers())), store.search("parcel")[1])
"""


def run(script: str, *arguments: object) -> list[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_full_disk_is_named_and_costs_nothing(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    make_store(tmp_path / "p").close()
    *acknowledged, refused, _, last = run(FULL, tmp_path / "p")
    assert "cannot be written" in refused and "Nothing that was saved before is lost; " in refused
    assert last == "40 40" and len(acknowledged) > 40
    with ProjectStore(tmp_path / "p") as store:
        events = [event.event for event in store.events()]
        assert len(events) == len(acknowledged) == int(acknowledged[-1]) + 1
        assert store.check() == []
        k = len(events)
        assert not store.write(
            Labelled(item=k % 40, label=k % 3, version=k // 40), user=1, client=f"c{k}", now=1
        ).repeated


def test_a_read_only_disk_is_named_and_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_store(tmp_path / "p") as store:
        say(store, 0, 1)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **more: connect(name.replace("mode=rw", "mode=ro"), **more))
    with ProjectStore(tmp_path / "p") as store:
        with pytest.raises(
            StoreError, match="readonly database. Nothing that was saved before is lost; make the folder"
        ):
            say(store, 1, 1)
        with pytest.raises(StoreError, match="readonly database"):
            store.lease([3], 1, 9.0, 1.0)
        assert [answer.item for answer in store.answers()] == [0] and store.leased(1.0) == {}


def test_a_reader_reads_beside_the_writer_and_writes_nothing(store: ProjectStore) -> None:
    with ProjectStore(store.folder, read_only=True) as reader:
        say(store, 0, 1)
        assert [answer.item for answer in reader.answers()] == [0] and reader.last_seq() == 1
        store.change({"retrain_every": 7}, 1, "a", 2.0)
        assert reader.settings.retrain_every == 7
        with pytest.raises(StoreError, match="cannot be written: it is open for reading only"):
            say(reader, 1, 1)
    with pytest.raises(StoreError, match="cannot be read: it is closed"):
        reader.item(0)


KILLED = """
import sys, threading
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Labelled
store, turn = ProjectStore(sys.argv[1]), sys.argv[2]
def work(k):
    for j in range(10**6):
        item, client = k * 10 + j % 10, f"{turn}-{k}-{j}"
        store.lease([item], 1, 1e9, 1.0)
        version = (store.answer(item, 1) or store.undo(user=9, client="none", now=1.0) or [0] * 7)[6]
        store.write(Labelled(item=item, label=j % 3, version=version), user=1, client=client, now=1.0)
        sys.stdout.write(client + "\\n"); sys.stdout.flush()
print("ready", flush=True)
for k in range(4):
    threading.Thread(target=work, args=(k,)).start()
"""


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    make_store(tmp_path / "p").close()
    acknowledged: list[str] = []
    rng = random.Random(0)
    for turn in range(4):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "p"), str(turn)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.3 * rng.random())
        child.kill()
        acknowledged += [line.strip() for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        with ProjectStore(tmp_path / "p") as store:
            clients = [client for (client,) in store._read("SELECT client FROM events ORDER BY seq")]
            assert len(set(clients)) == len(clients) and set(acknowledged) <= set(clients)
            assert store.check() == []
    assert len(acknowledged) > 20, "the writers hardly wrote"


# ---- files that are not what they should be --------------------------------------------------------------------------


def test_another_schema_version_is_refused(store: ProjectStore) -> None:
    store._write(lambda db: db.execute("UPDATE meta SET value = 7 WHERE name = 'schema'").close())
    store.close()
    with pytest.raises(StoreError, match="has schema version 7, this Modicum reads version 1: use the version that"):
        ProjectStore(store.folder)


def test_what_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no labelling project"):
        ProjectStore(tmp_path)
    (tmp_path / "project.sqlite").write_text("label,text\n" * 100)
    with pytest.raises(
        StoreError, match="cannot be opened as a labelling project: file is not a database. Move it away"
    ):
        ProjectStore(tmp_path)
    (tmp_path / "project.sqlite").unlink()
    db = sqlite3.connect(tmp_path / "project.sqlite")
    db.execute("CREATE TABLE customers (name TEXT)")
    db.close()
    with pytest.raises(StoreError, match="a database of something else \\(tables customers\\)"):
        ProjectStore(tmp_path)


def test_a_project_takes_no_other_things_place(tmp_path: Path) -> None:
    make_store(tmp_path / "p").close()
    with pytest.raises(StoreError, match="holds a labelling project already: go on with it"):
        make_store(tmp_path / "p")
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "thesis.tex").touch()
    with pytest.raises(StoreError, match="holds other files \\(thesis.tex\\): choose a new or an empty folder"):
        make_store(tmp_path / "q")
    with pytest.raises(StoreError, match="cannot hold a labelling project"):
        make_store(tmp_path / "q" / "thesis.tex")


def test_an_import_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[str, str, None]]:
        yield "a", "text", None
        raise DataError("the next line is broken")

    with pytest.raises(DataError, match="broken"):
        ProjectStore.create(tmp_path / "p", Settings(classes=CLASSES), rows(), now=1.0)
    twice = [("a", "text", None), ("a", "text", None)]
    with pytest.raises(StoreError, match="cannot be made: UNIQUE constraint failed: items.id"):
        ProjectStore.create(tmp_path / "p", Settings(classes=CLASSES), twice, now=1.0)
    assert list((tmp_path / "p").iterdir()) == []
    (tmp_path / "p" / ".project.sqlite.part").write_text("of an import that was killed")
    make_store(tmp_path / "p").close()


@pytest.mark.parametrize("kind", ["nfs4", "cifs"])
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    make_store(tmp_path / "p").close()
    monkeypatch.setattr(study_store, "_file_system", lambda folder: kind)
    for attempt in (lambda: ProjectStore(tmp_path / "p"), lambda: make_store(tmp_path / "q")):
        with pytest.raises(StoreError, match=f"must lie on a local disk: .* is on {kind}, where"):
            attempt()
    assert not (tmp_path / "q" / "project.sqlite").exists()


def test_the_store_starts_without_torch() -> None:
    code = "import modicum.annotate.store.project, modicum.annotate.store.exchange, sys; print(*sys.modules)"
    assert {"torch", "transformers", "sklearn"}.isdisjoint(run(code)[0].split())
