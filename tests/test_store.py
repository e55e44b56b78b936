"""The study store: the contract, and what a user meets when a file is not what it should be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modicum.base.errors import StoreError
from modicum.base.events import Stopped, Told
from modicum.study import store as module
from modicum.study.store import Store
from modicum.testing.store import StoreContract

TOLD = Told(answers={"a": 1})


class TestSQLiteStore(StoreContract):
    target = "modicum.study.store:Store"

    def check(self, path: Path) -> None:
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.close()


class Forgetful(Store):
    """Breaks the contract: keeps only the first event of every append."""

    def append(self, events: Any) -> None:
        super().append({trial: list(new)[:1] for trial, new in events.items()})


class Eager(Store):
    """Breaks the contract: one transaction for each trial."""

    def append(self, events: Any) -> None:
        for trial, new in events.items():
            super().append({trial: new})


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Forgetful, lambda contract, store, path: contract.test_appending_then_reading_is_the_identity(store, path)),
        (
            Eager,
            lambda contract, store, path: contract.test_a_refused_append_leaves_nothing_behind(
                store, path, {"nobody": [TOLD]}
            ),
        ),
    ],
)
def test_the_contract_catches_faults(broken: type[Store], test: Any, tmp_path: Path) -> None:
    contract = TestSQLiteStore()
    with broken(tmp_path / "db") as store:
        store.add_gang({"one": "{}", "two": "{}"})
        with pytest.raises(AssertionError):
            test(contract, store, tmp_path / "db")


def test_the_store_stands_without_torch() -> None:
    code = "import modicum.study.store, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "numpy", "sklearn"}.isdisjoint(done.stdout.split())


def test_events_are_readable_with_any_tool(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        store.add_gang({"t": "{}"})
        store.append({"t": [Told(answers={"ü": None, "a": 2}), Stopped(reason="done")]})
    rows = sqlite3.connect(tmp_path / "db").execute("SELECT trial, seq, event FROM events").fetchall()
    assert rows == [
        ("t", 0, '{"answers":{"a":2,"ü":null},"kind":"told"}'),
        ("t", 1, '{"kind":"stopped","reason":"done"}'),
    ]


def test_settings_are_the_durable_ones(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert store._db.execute("PRAGMA foreign_keys").fetchone() == (1,)
        safe = sqlite3.sqlite_version_info >= (3, 51, 3)
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal" if safe else "delete",)


# ---- files that are not what they should be --------------------------------------------------------------------------


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        store.set_meta(schema="7")
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(StoreError, match="has schema version 7, this Modicum reads version 1: use the version that"):
        Store(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("label,text\n" * 100)
    with pytest.raises(StoreError, match=r"db cannot be opened as a study store: file is not a database. Move it away"):
        Store(tmp_path / "db")
    assert (tmp_path / "db").read_text() == "label,text\n" * 100


def test_a_database_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "db")
    db.execute("CREATE TABLE customers (name TEXT)")
    db.commit()
    db.close()
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(StoreError, match=r"is no study store, but a database of something else \(tables customers\)"):
        Store(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == before


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "db").touch()
    with Store(tmp_path / "db") as store:
        assert store.gangs() == [] and store.meta("schema") == "1"


def test_a_damaged_database_is_named_when_it_is_read(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        store.add_gang({"t": "{}"})
        store.append({"t": [Told(answers={f"{i}-{j}": 1 for j in range(50)}) for i in range(100)]})
    pages = bytearray((tmp_path / "db").read_bytes())
    pages[-20 * 4096 :] = b"\xff" * (20 * 4096)
    (tmp_path / "db").write_bytes(bytes(pages))
    with pytest.raises(StoreError, match="cannot be read: database disk image is malformed. Restore it from a copy"):  # noqa: SIM117
        with Store(tmp_path / "db") as store:
            store.events("t")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened as a study store: unable to open database file"):
        Store(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(StoreError, match="out cannot hold a study store: .*File exists.* Choose another folder"):
        Store(tmp_path / "out" / "db")


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="new cannot hold a study store: .*Permission denied. Choose another folder"):
        Store(tmp_path / "new" / "db")


def test_a_read_only_file_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path / "db") as store:
        store.add_gang({"t": "{}"})
        store.append({"t": [TOLD]})
    connect = sqlite3.connect

    def read_only(path: Path, **options: Any) -> sqlite3.Connection:
        return connect(f"file:{path}?mode=ro", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with Store(tmp_path / "db") as store:
        assert store.events("t") == [TOLD]
        with pytest.raises(StoreError, match="cannot be written: attempt to write a readonly database. Nothing that"):
            store.append({"t": [TOLD]})


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(module, "_file_system", lambda folder: kind)
    with pytest.raises(StoreError, match=f"must lie on a local disk: .* is on {kind}, where SQLite's locks cannot be"):
        Store(tmp_path / "db")
    assert not (tmp_path / "db").exists()


def test_the_file_system_of_a_folder_is_that_of_the_deepest_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a b" / "deep"
    folder.mkdir(parents=True)
    mounts = f"/dev/sda / ext4 rw 0 0\nserver:/x {str(tmp_path)}/a\\040b nfs4 rw 0 0\nx {tmp_path}/a tmpfs rw 0 0\n"
    read_text = Path.read_text
    fake = lambda self, **_: mounts if str(self) == "/proc/mounts" else read_text(self)  # noqa: E731
    monkeypatch.setattr(Path, "read_text", fake)
    assert module._file_system(folder) == "nfs4"
    assert module._file_system(tmp_path) == "ext4"


def test_a_system_that_does_not_tell_its_mounts_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, **_: Any) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    assert module._file_system(tmp_path) == ""


def test_a_refused_file_is_let_go(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        store.set_meta(schema="7")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "db")
    db = sqlite3.connect(tmp_path / "db", timeout=0, isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")  # while the error, and with it the refused store, is still held
    db.close()
    assert caught


def test_a_busy_store_is_named_and_goes_on_afterwards(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        store.add_gang({"t": "{}"})
        store._db.execute("PRAGMA busy_timeout=10")
        other = sqlite3.connect(tmp_path / "db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="cannot be written: database is locked. Nothing that was saved before"):
            store.append({"t": [TOLD]})
        other.execute("ROLLBACK")
        store.append({"t": [TOLD]})
        assert store.events("t") == [TOLD]


def test_a_commit_that_fails_is_undone(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        store.add_gang({"t": "{}"})
        if store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            pytest.skip("readers do not hold up a write-ahead log")
        store._db.execute("PRAGMA busy_timeout=10")
        reader = sqlite3.connect(tmp_path / "db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM trials").fetchall()  # its shared lock holds up the commit, not the writing
        with pytest.raises(StoreError, match="cannot be written: database is locked"):
            store.append({"t": [TOLD]})
        reader.execute("COMMIT")
        assert store.events("t") == []
        store.append({"t": [TOLD, TOLD]})
        assert store.events("t") == [TOLD, TOLD]
