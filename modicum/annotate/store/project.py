"""A labelling project's memory: one SQLite file of append-only events, and what follows from them.

The store knows no clock: callers hand in times, in seconds since the epoch. Its methods may be called from any thread;
those that write return when what they wrote is on disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from modicum.annotate.store.accounts import Accounts, Session, User, plain
from modicum.annotate.store.database import make_file
from modicum.annotate.store.overview import Found, Overview, Progress, UserProgress
from modicum.annotate.store.reading import Item, ModelRow, Resolved, Stored
from modicum.annotate.store.records import ME, MODICUM, Answering, Changed, Settings, Undone
from modicum.annotate.store.replay import learner_events
from modicum.annotate.store.tables import DERIVED, SCHEMA, Answer, Verdict, answers_of, owner, rebuild
from modicum.annotate.store.writing import (
    TAKEN,
    Act,
    Conflict,
    Past,
    Receipt,
    Undo,
    append,
    check_event,
    check_user,
    first_of,
    import_history,
    import_labels,
    next_version,
    present_answer,
    refold,
    taken,
    undo_of,
)
from modicum.base.errors import SpecError
from modicum.base.events import Event, Trained
from modicum.base.spec import canonical_json

__all__ = [
    "Answer", "Conflict", "Found", "Item", "ModelRow", "Past", "Progress", "ProjectStore", "Receipt", "Resolved",
    "Session", "Stored", "Undo", "User", "UserProgress", "Verdict",
]  # fmt: skip

FIXED = ("data_name", "fingerprint")


class ProjectStore(Overview, Accounts):
    """One project. ``create`` makes it, the constructor opens it (a project folder), ``close`` lets go of it."""

    @classmethod
    def create(
        cls,
        folder: str | Path,
        settings: Settings,
        rows: Iterable[tuple[str, str, str | None]],
        labels: Iterable[int] | None = None,
        *,
        now: float,
        history: Iterable[Past] = (),
    ) -> ProjectStore:
        """A new project of these items: (id, text, pair), ids and texts checked as by ``modicum.data.sources.load``.

        labels: a class position for each item, -1 for none; they become ``Imported`` events.
        history: what people did with these items before; they get accounts, without passwords.

        Raises:
            StoreError: the folder holds something else, or the disk refuses.
        """

        def fill(db: sqlite3.Connection) -> None:
            text = settings.canonical()
            db.executemany(
                "INSERT INTO meta VALUES (?, ?)", [("schema", str(SCHEMA)), ("created", text), ("settings", text)]
            )
            users = [(MODICUM, "modicum", "system", now), (ME, "me", "lead", now)]
            db.executemany("INSERT INTO users (user, name, role, created) VALUES (?, ?, ?, ?)", users)
            numbered = ((item, *row) for item, row in enumerate(rows))
            db.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", numbered)
            db.execute("INSERT INTO items_fts (items_fts) VALUES ('rebuild')")
            if labels is not None:
                import_labels(db, labels, now)
            if import_history(db, history, now):
                rebuild(db)

        make_file(Path(folder), fill)
        return cls(folder)

    # ---- people's writes -----------------------------------------------------------------------------------------

    def write(self, event: Answering, *, user: int, client: str, now: float) -> Receipt:
        """Keep what a user did. client: names this act for good; the same again gives the first receipt.

        Raises:
            Conflict: the answer has changed since, the item is another's, or ``client`` named something else.
            SpecError, DataError: there is no such label or item.
        """
        return self.write_many([event], user=user, client=client, now=now)

    def write_many(self, events: Iterable[Answering], *, user: int, client: str, now: float) -> Receipt:
        """Keep several events as one act: all of them or none, taken back as one.

        Several events about one item name the same version, that before the act.

        Raises:
            Conflict, SpecError, DataError: as for ``write``, of any of the events.
        """
        acts = list(events)
        plain("a client id", client, 200)
        if not acts:
            raise SpecError("there is nothing to write: give one event or more")
        settings, n = self.settings, self.count()
        for event in acts:
            check_event(event, user, settings, n)
        texts = [canonical_json(event.model_dump(mode="json")) for event in acts]

        def job(db: sqlite3.Connection) -> Receipt:
            first = first_of(db, client, user, texts)
            if first is not None:
                return Receipt(first, acts[0].item, next_version(acts[0]), True)
            check_user(db, user)
            return Act(db, user, client, now, settings.per_item).keep(acts, texts)

        return self._write(job)

    def undo(self, *, user: int, client: str, now: float) -> Undo | None:
        """Take back the user's last act that is not taken back yet; None where there is none.

        Raises:
            Conflict: ``client`` named something else.
        """
        plain("a client id", client, 200)

        def job(db: sqlite3.Connection) -> Undo | None:
            done = db.execute("SELECT seq, user, kind, event FROM events WHERE client = ?", (client,)).fetchone()
            if done is not None:
                if done[1] != user or done[2] != "undone":
                    raise Conflict(TAKEN)
                return undo_of(db, done[0], json.loads(done[3])["undoes"], True)
            query = "SELECT max(act) FROM acts WHERE user = ? AND undone IS NULL"
            (act,) = db.execute(query, (user,)).fetchone()
            if act is None:
                return None
            seq = append(db, client, None, user, None, now, Undone(undoes=act))
            db.execute("UPDATE acts SET undone = ? WHERE act = ?", (seq, act))
            undo = undo_of(db, seq, act, False)
            for item in undo.items:
                refold(db, item)
            answer = present_answer(db, undo.item, owner(undo.event.kind, user))
            return undo._replace(answer=answer)

        return self._write(job)

    def change(self, update: dict[str, Any], user: int, client: str, now: float) -> Settings:
        """Change settings; classes may be renamed and added at the end, none taken away.

        Raises:
            SpecError: a setting is unknown, unusable or fixed.
            Conflict: ``client`` named something else.
        """
        plain("a client id", client, 200)

        def job(db: sqlite3.Connection) -> None:
            (text,) = db.execute("SELECT value FROM meta WHERE name = 'settings'").fetchone()
            before = Settings.parse(json.loads(text))
            fixed = sorted(set(update) & set(FIXED))
            if fixed:
                raise SpecError(f"setting {fixed[0]!r} is fixed for a project; make another project for other data")
            after = Settings.parse({**before.model_dump(mode="json"), **update})
            if len(after.classes) < len(before.classes):
                raise SpecError(
                    f"a project keeps its {len(before.classes)} classes, got {len(after.classes)}; add or rename"
                )
            dumped = after.model_dump(mode="json")
            event = Changed(settings={name: dumped[name] for name in update})
            if first_of(db, client, user, [canonical_json(event.model_dump(mode="json"))]) is None:
                append(db, client, None, user, None, now, event)
                db.execute("UPDATE meta SET value = ? WHERE name = 'settings'", (after.canonical(),))

        self._write(job)
        self._settings = None
        return self.settings

    def record_training(self, event: Trained, model: int, now: float) -> None:
        """Note a model; its number goes into the event's record. The same again changes nothing.

        Raises:
            Conflict: another model has this number.
        """
        kept = Trained(round=event.round, labels=event.labels, record={**event.record, "model": model})
        text = canonical_json(kept.model_dump(mode="json"))

        def job(db: sqlite3.Connection) -> None:
            if first_of(db, f"model {model}", MODICUM, [text]) is None:
                append(db, f"model {model}", None, MODICUM, None, now, kept)
                db.execute("INSERT INTO models VALUES (?, ?, ?)", (model, now, text))

        self._write(job)

    # ---- leases --------------------------------------------------------------------------------------------------

    def lease(self, items: Sequence[int], user: int, until: float, now: float) -> list[int]:
        """Keep items for a user; returns those that could be had, in that order.

        An item can be had where the user has not answered it, nothing is decided or imported for it, and the others'
        answers and live leases are fewer than ``per_item``. A lease of one's own is renewed.
        A crash may lose a lease of the last half second; it cannot make an item be answered more than ``per_item``
        times.
        """
        wanted, per_item = [self._checked(item) for item in dict.fromkeys(items)], self.settings.per_item

        def job(db: sqlite3.Connection) -> list[int]:
            db.execute("DELETE FROM leases WHERE until <= ?", (now,))
            check_user(db, user)
            had = []
            for item in wanted:
                answers = answers_of(db, item)
                own = any(answer.answered and answer.user in (user, MODICUM) for answer in answers)
                if not own and taken(db, item, user, answers, now) < per_item:
                    db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (item, user, until))
                    had.append(item)
            return had

        return self._write(job, "soft")

    def release(self, user: int, items: Iterable[int] | None = None) -> None:
        """Give a user's leases back, all or those of some items."""
        rows = None if items is None else [(user, self._checked(item)) for item in items]

        def job(db: sqlite3.Connection) -> None:
            if rows is None:
                db.execute("DELETE FROM leases WHERE user = ?", (user,))
            else:
                db.executemany("DELETE FROM leases WHERE user = ? AND item = ?", rows)

        self._write(job, "soft")

    def leased(self, now: float) -> dict[int, set[int]]:
        """The items under lease, each with the users who have it."""
        query = "SELECT item, user FROM leases WHERE until > ?"
        found: dict[int, set[int]] = {}
        for item, user in self._write(lambda db: db.execute(query, (now,)).fetchall(), "peek"):
            found.setdefault(item, set()).add(user)
        return found

    # ---- the log as a whole --------------------------------------------------------------------------------------

    def learner_events(self) -> list[Event]:
        """The log as ``modicum.loop.learner.Learner.replay`` takes it; see ``modicum.annotate.store.replay``."""
        return learner_events(self)

    def rebuild(self) -> None:
        """Make all that follows from the items and events again: the derived tables and the index of words."""

        def job(db: sqlite3.Connection) -> None:
            rebuild(db)
            db.execute("INSERT INTO items_fts (items_fts) VALUES ('rebuild')")

        self._write(job)
        self._settings = None

    def check(self) -> list[str]:
        """What is wrong with the file: nothing, in a sound one. Takes long where there are many items."""
        problems = [str(row[0]) for row in self._read("PRAGMA integrity_check") if row[0] != "ok"]

        def job(db: sqlite3.Connection) -> list[str]:
            tables = [*DERIVED, "meta"]
            for table in tables:
                db.execute(f"CREATE TEMP TABLE kept_{table} AS SELECT * FROM {table}")
            rebuild(db)
            found = []
            for table in tables:
                for a, b in ((table, f"kept_{table}"), (f"kept_{table}", table)):
                    (n,) = db.execute(f"SELECT count(*) FROM (SELECT * FROM {a} EXCEPT SELECT * FROM {b})").fetchone()
                    found += [f"{n} rows of {table} do not follow from the events"] if n else []
            raise _Problems(found)  # nothing of this is kept

        try:
            return problems + self._write(job)
        except _Problems as found:
            return problems + found.problems


class _Problems(Exception):
    def __init__(self, problems: list[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
