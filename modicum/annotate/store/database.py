"""A project's SQLite file: one writer that lets concurrent writes share a commit, and connections that only read."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Condition, Lock, Thread
from typing import Any, Literal, Self, TypeVar

from modicum.annotate.store.tables import INDEXES, SCHEMA, TABLES
from modicum.base.errors import ModicumError, SpecError, StoreError
from modicum.study.store import check_local, journal

FILE = "project.sqlite"
OWN = {"models", "ranks", "cache", "trainer.log", "port"}
"""What else a project's folder holds."""
GROUP = 256
"""Writes that share a commit at most."""
LINGER = 0.5
"""Seconds that soft writes wait at most for a durable one to be committed with."""
KEPT = 8
"""Reading connections that stay open."""

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]
Care = Literal["durable", "soft", "peek"]


class Database:
    """The file of one project, for any number of threads.

    A write returns when it is on disk. Those that arrive while another commits are committed together.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False) -> None:
        """Open a project's database.

        Raises:
            StoreError: none is there, or it is of another schema version, unreadable, or on a network file system.
        """
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self.read_only = read_only
        if not self.path.is_file():
            raise StoreError(
                f"{self.folder} holds no labelling project (there is no {FILE} in it): give the folder of one,"
                f" or a data file to begin with"
            )
        check_local(self.folder)
        self._readers: list[sqlite3.Connection] = []
        self._lock = Lock()
        self._gate = Gate()
        self._jobs: SimpleQueue[tuple[Job, Future[Any], Care] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._closed = False
        with self._guarded("opened as a labelling project", "Move it away, or restore it from a copy"):
            self._db = self._connect()
            try:
                self._check_schema()
            except BaseException:
                self._db.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30,
            check_same_thread=False,
        )  # fmt: skip
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA cache_size=-8000")
        return db

    def _check_schema(self) -> None:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"meta", "items", "events"} <= tables:
            raise StoreError(
                f"{self.path} is no labelling project, but a database of something else"
                f" (tables {', '.join(sorted(tables)) or 'none'}). Move it away, or choose another folder"
            )
        (found,) = self._db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() or (None,)
        if found != str(SCHEMA):
            raise StoreError(
                f"{self.path} has schema version {found}, this Modicum reads version {SCHEMA}:"
                " use the version that wrote it"
            )
        if self.read_only:
            self._db.execute("PRAGMA query_only=ON")
        else:
            with suppress(sqlite3.OperationalError):  # a read-only disk: it can still be read
                self._db.execute(f"PRAGMA journal_mode={'WAL' if journal() == 'write-ahead' else 'PERSIST'}")

    # ---- writing -------------------------------------------------------------------------------------------------

    def _write(self, job: Callable[[sqlite3.Connection], T], care: Care = "durable") -> T:
        """Run a job in a transaction and wait until it is durable. A job that raises leaves nothing behind.

        care: a ``soft`` job's result comes at once, and a crash may undo it: it is committed with the next durable one,
        or within half a second. A ``peek`` writes nothing, and sees what soft jobs wrote.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed or self.read_only:
                state = "closed" if self._closed else "open for reading only"
                raise StoreError(f"{self.path} cannot be written: it is {state}. Open it for writing")
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="project writer", daemon=True)
                self._thread.start()
            self._jobs.put((job, future, care))
        return future.result()

    def _serve(self) -> None:
        stop = False
        while not stop:
            waiting = list(self._gather())
            stop = None in waiting
            outcomes: list[tuple[Future[Any], Any, Exception | None]] = []
            try:
                for job, future, care in filter(None, waiting):
                    if care != "peek" and not self._db.in_transaction:
                        self._db.execute("BEGIN IMMEDIATE")
                    outcomes.append((future, *self._attempt(job)))
                    if care != "durable":
                        _settle(*outcomes.pop())
                if self._db.in_transaction and (outcomes or stop or not waiting):
                    with self._gate.committing():
                        self._db.execute("COMMIT")
            except Exception as error:
                with suppress(sqlite3.Error):
                    if self._db.in_transaction:  # a full disk has ended it already
                        self._db.execute("ROLLBACK")
                open_ = [future for _, future, _ in filter(None, waiting) if not future.done()]
                outcomes = [(future, None, self._failure(error)) for future in open_]
            for outcome in outcomes:
                _settle(*outcome)

    def _gather(self) -> Iterator[tuple[Job, Future[Any], Care] | None]:
        """The jobs that wait; none when soft ones have waited long enough for the others."""
        with suppress(Empty):
            yield self._jobs.get(timeout=LINGER if self._db.in_transaction else None)
            for _ in range(GROUP):
                yield self._jobs.get_nowait()

    def _attempt(self, job: Job) -> tuple[Any, Exception | None]:
        """A job's result, or the error that took its changes back; errors of the disk end the whole group."""
        self._db.execute("SAVEPOINT job")
        try:
            result, problem = job(self._db), None
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            result, problem = None, self._failure(error)
            self._db.execute("ROLLBACK TO job")
        self._db.execute("RELEASE job")
        return result, problem

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, OverflowError | UnicodeEncodeError):
            return _unfit(error)
        if not isinstance(error, sqlite3.Error):
            return error
        said = str(error)
        remedy = next((words for sign, words in REMEDIES.items() if sign in said), "")
        return StoreError(f"{self.path} cannot be written: {said}. Nothing that was saved before is lost{remedy}")

    # ---- reading -------------------------------------------------------------------------------------------------

    def _read(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query, as of the latest commit. A reader holds up commits: long answers are read in pages."""
        with self._guarded("read", "Restore it from a copy"), self._gate.reading():
            with self._lock:
                if self._closed:
                    raise StoreError(f"{self.path} cannot be read: it is closed. Open it again")
                db = self._readers.pop() if self._readers else None
            if db is None:
                db = self._connect()
                db.execute("PRAGMA query_only=ON")
            try:
                return db.execute(query, values).fetchall()
            finally:
                with self._lock:
                    keep = not self._closed and len(self._readers) < KEPT
                    if keep:
                        self._readers.append(db)
                if not keep:
                    db.close()

    @contextmanager
    def _guarded(self, deed: str, remedy: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be {deed}: {error}. {remedy}") from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise _unfit(error) from None

    def close(self) -> None:
        """Finish the writes under way and close the file; the store cannot be used afterwards."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
            readers, self._readers = self._readers, []
        if self._thread is not None:
            self._thread.join()
        for db in [*readers, self._db]:
            db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unfit(error: Exception) -> SpecError:
    return SpecError(f"numbers must fit into 64 bits and texts be Unicode without lone surrogates: {error}")


def _settle(future: Future[Any], result: Any, problem: Exception | None) -> None:
    if problem is None:
        future.set_result(result)
    else:
        future.set_exception(problem)


class Gate:
    """Lets a process's readers and its commits take turns; SQLite alone would make the losers sleep and try again."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._commits = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Wait for the commit under way, if any. Not to be nested."""
        with self._changed:
            while self._commits:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Wait for the readers under way; later ones wait for this."""
        with self._changed:
            self._commits = True
            while self._readers:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._commits = False
                self._changed.notify_all()


REMEDIES = {
    "full": "; free some space on the disk and try again",
    "readonly": "; make the folder and the file writable and try again",
    "disk I/O": "; see whether the disk is full or failing, and try again",
    "unable to open": "; make the folder and the file writable and try again",
    "locked": "; another program holds the file: end it and try again",
}


def make_file(folder: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """A new database in a folder of its own: wholly there when ``fill`` has returned, or not at all.

    Raises:
        StoreError: the folder holds a project or something else, cannot be made, or is on a network file system.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()}
        strangers = sorted(name for name in there - OWN - {FILE} if not name.startswith("."))
        if FILE not in there and strangers:
            raise StoreError(
                f"{folder} holds other files ({', '.join(strangers[:5])}): choose a new or an empty folder"
            )
        if FILE in there:
            raise StoreError(f"{folder} holds a labelling project already: go on with it, or choose another folder")
        folder.chmod(0o700)
    except OSError as error:
        raise StoreError(f"{folder} cannot hold a labelling project: {error}. Choose another folder") from error
    check_local(folder)
    path, part = folder / FILE, folder / f".{FILE}.part"
    try:
        part.unlink(missing_ok=True)  # of an import that was killed
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        _fill(part, fill)
        os.replace(part, path)
        _sync(folder)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(part)
        if isinstance(error, sqlite3.Error | OSError) and not isinstance(error, ModicumError):
            raise StoreError(f"{path} cannot be made: {error}. Free some space, or choose another folder") from error
        raise


def _fill(part: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    db = sqlite3.connect(part, isolation_level=None)
    try:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-100000"):  # what fails is thrown away whole
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN")
        for statement in TABLES.split(";\n"):
            db.execute(statement)
        fill(db)
        for statement in INDEXES.split(";\n"):
            db.execute(statement)
        db.execute("COMMIT")
    finally:
        db.close()
    _sync(part)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
