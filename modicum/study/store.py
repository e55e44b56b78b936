"""A study's memory: one SQLite file of append-only events.

A transaction holds what belongs together (the events of one round of all trials that advance together), so a kill at
any moment leaves whole rounds. Nothing is ever changed or removed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from modicum.base.errors import StoreError
from modicum.base.events import Event, parse_event
from modicum.base.spec import canonical_json

SCHEMA = 1
WAL_IS_SAFE = (3, 51, 3)
"""Older SQLite libraries can corrupt a database when the write-ahead log is reset; they keep a rollback journal."""
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "lustre"}
TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE trials (key TEXT PRIMARY KEY, gang INTEGER NOT NULL, place INTEGER NOT NULL, spec TEXT NOT NULL) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, trial TEXT NOT NULL REFERENCES trials (key), seq INTEGER NOT NULL, event TEXT NOT NULL,
    UNIQUE (trial, seq)
) STRICT;
"""


def journal() -> Literal["write-ahead", "rollback"]:
    """The kind of journal that stores keep with this SQLite library."""
    return "write-ahead" if sqlite3.sqlite_version_info >= WAL_IS_SAFE else "rollback"


def check_local(folder: Path) -> None:
    """Refuse a folder on a network file system.

    Raises:
        StoreError: it is on one.
    """
    kind = _file_system(folder)
    if kind in NETWORK:
        raise StoreError(
            f"a store must lie on a local disk: {folder} is on {kind}, where SQLite's locks cannot be trusted"
        )


class Store:
    """The events of a study's trials, by trial key."""

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises:
            StoreError: not a store, one of another schema version, unreadable, or on a network file system.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot hold a study store: {error}. Choose another folder") from error
        check_local(path.parent)
        with self._guarded("opened as a study store", "Move it away, or choose another folder"), ExitStack() as undo:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            undo.callback(self._db.close)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._create()
            self._db.execute(f"PRAGMA journal_mode={'WAL' if journal() == 'write-ahead' else 'DELETE'}")
            undo.pop_all()

    def _create(self) -> None:
        with self._writing():
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                for statement in TABLES.split(";\n"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
            elif "meta" not in tables:
                raise StoreError(
                    f"{self.path} is no study store, but a database of something else "
                    f"(tables {', '.join(sorted(tables))}). Move it away, or choose another folder"
                )
        found = self.meta("schema")
        if found != str(SCHEMA):
            raise StoreError(
                f"{self.path} has schema version {found}, this Modicum reads version {SCHEMA}: "
                "use the version that wrote it"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise

    def _read(self, query: str, *values: str) -> list[Any]:
        with self._guarded("read", "Restore it from a copy, or choose another folder"):
            return self._db.execute(query, values).fetchall()

    def meta(self, name: str) -> str | None:
        """A value kept with the study, or None."""
        rows = self._read("SELECT value FROM meta WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def set_meta(self, **values: str) -> None:
        """Keep values with the study by their names, in place of earlier ones: all of them are durable, or none."""
        with self._guarded("written"), self._writing():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def merge_meta(self, name: str, values: Mapping[str, Any]) -> None:
        """Add entries to a JSON object kept with the study."""
        with self._guarded("written"), self._writing():
            found = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
            merged = json.dumps({**(json.loads(found[0]) if found else {}), **values})
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, merged))

    def add_gang(self, trials: Mapping[str, str]) -> int:
        """Note trials (key -> canonical spec) that will advance together for good; returns the gang's number."""
        with self._guarded("written"), self._writing():
            gang = int(self._db.execute("SELECT coalesce(max(gang), -1) + 1 FROM trials").fetchone()[0])
            rows = [(key, gang, place, spec) for place, (key, spec) in enumerate(trials.items())]
            self._db.executemany("INSERT INTO trials VALUES (?, ?, ?, ?)", rows)
        return gang

    def gangs(self) -> list[list[str]]:
        """Trial keys by gang, in the order in which they were added."""
        found: dict[int, list[str]] = {}
        for key, gang in self._read("SELECT key, gang FROM trials ORDER BY gang, place"):
            found.setdefault(gang, []).append(key)
        return list(found.values())

    def append(self, events: Mapping[str, Iterable[Event]]) -> None:
        """Add events to several trials in one transaction: all of them are durable, or none."""
        with self._guarded("written"), self._writing():
            for trial, new in events.items():
                start = self._db.execute("SELECT count(*) FROM events WHERE trial = ?", (trial,)).fetchone()[0]
                rows = [(trial, start + i, canonical_json(e.model_dump(mode="json"))) for i, e in enumerate(new)]
                self._db.executemany("INSERT INTO events (trial, seq, event) VALUES (?, ?, ?)", rows)

    def events(self, trial: str) -> list[Event]:
        """A trial's events, oldest first."""
        rows = self._read("SELECT event FROM events WHERE trial = ? ORDER BY seq", trial)
        return [parse_event(json.loads(text)) for (text,) in rows]

    def spec(self, trial: str) -> str:
        """A trial's canonical spec, as it was added."""
        rows = self._read("SELECT spec FROM trials WHERE key = ?", trial)
        if not rows:
            raise StoreError(f"the store {self.path} has no trial {trial}")
        return str(rows[0][0])

    @contextmanager
    def _guarded(self, deed: str, remedy: str = "Nothing that was saved before is lost") -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be {deed}: {error}. {remedy}") from error

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder; empty where the system does not tell."""
    best, kind = "", ""
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, mount, found, *_ = line.split()
            mount = mount.replace("\\040", " ")
            inside = os.path.commonpath([mount, folder.resolve()]) == mount
            if inside and len(mount) >= len(best):
                best, kind = mount, found
    return kind
