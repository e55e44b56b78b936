"""How a write becomes events and brings the derived tables up to date, within a transaction of its caller's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from modicum.annotate.store.accounts import plain
from modicum.annotate.store.records import (
    MODICUM,
    Adjudicated,
    Answering,
    Imported,
    Labelled,
    ProjectEvent,
    Settings,
    parse_project_event,
)
from modicum.annotate.store.tables import (
    UNDOABLE,
    Answer,
    answers_of,
    fold,
    owner,
    put_answers,
    put_verdict,
    rows_of,
    step,
)
from modicum.base.errors import DataError, ModicumError, SpecError
from modicum.base.spec import canonical_json


class Conflict(ModicumError):
    """A write that came too late, or for an item that is not the writer's. answer: the one that stands, if any."""

    def __init__(self, message: str, answer: Answer | None = None) -> None:
        super().__init__(message)
        self.answer = answer


class Receipt(NamedTuple):
    """A write is durable. seq: of its first event; item, version: of its first item; repeated: it was before."""

    seq: int
    item: int
    version: int
    repeated: bool


class Past(NamedTuple):
    """What a user of this name did in another project."""

    name: str
    at: float
    event: Answering


class Undo(NamedTuple):
    """An act was taken back. event: its first; answer: what stands now for the first of its items."""

    seq: int
    items: tuple[int, ...]
    event: ProjectEvent
    answer: Answer
    repeated: bool

    @property
    def item(self) -> int:
        """The first item of the act."""
        return self.items[0]


TAKEN = "this client id names another act already; give every act an id of its own"


class Act:
    """Writes the events of one act."""

    def __init__(self, db: sqlite3.Connection, user: int, client: str, now: float, per_item: int) -> None:
        self.db, self.user, self.client, self.now, self.per_item = db, user, client, now, per_item

    def keep(self, events: Sequence[Answering], texts: Sequence[str]) -> Receipt:
        """Append them and bring the derived tables up to date."""
        act: int | None = None
        before: dict[tuple[int, int], Answer] = {}
        after: dict[tuple[int, int], Answer] = {}
        for event, text in zip(events, texts, strict=True):
            place = (event.item, owner(event.kind, self.user))
            if place not in before:
                before[place] = after[place] = present_answer(self.db, *place)
            self._admit(event, before[place], after[place])
            client = self.client if act is None else None
            seq = _insert(self.db, client, act, self.user, event.item, event.kind, self.now, text)
            act = seq if act is None else act
            changed = step(after[place], json.loads(text), seq, self.now)
            after[place] = changed._replace(version=before[place].version + 1)
        assert act is not None
        put_answers(self.db, after.values())
        for item in dict.fromkeys(item for item, _ in after):
            put_verdict(self.db, item, answers_of(self.db, item))
            self.db.execute("DELETE FROM leases WHERE item = ? AND user = ?", (item, self.user))
        if events[0].kind in UNDOABLE:
            self.db.execute("INSERT INTO acts VALUES (?, ?, NULL)", (act, self.user))
        first = next(iter(after.values()))
        return Receipt(act, first.item, first.version, False)

    def _admit(self, event: Answering, before: Answer, present: Answer) -> None:
        """Raises Conflict where the event may not be kept."""
        if isinstance(event, Imported):
            return
        if event.version != before.version:
            raise Conflict(
                f"item {event.item} has been answered in the meantime: its answer has version {before.version},"
                f" this write was made for version {event.version}. Look at it again",
                before,
            )
        if event.kind in ("labelled", "skipped") and not present.answered:
            answers = answers_of(self.db, event.item)
            if taken(self.db, event.item, self.user, answers, self.now) >= self.per_item:
                raise Conflict(
                    f"item {event.item} is with others: it has the {self.per_item} answers or annotators that it"
                    " is to have. Go on with the next",
                    before,
                )


def taken(db: sqlite3.Connection, item: int, user: int, answers: Iterable[Answer], now: float) -> int:
    """How many others have answered an item or have it under lease."""
    others = {answer.user for answer in answers if answer.answered} - {user, MODICUM}
    query = "SELECT user FROM leases WHERE item = ? AND user <> ? AND until > ?"
    return len(others | {other for (other,) in db.execute(query, (item, user, now))})


def check_event(event: ProjectEvent, user: int, settings: Settings, n: int) -> None:
    """Raises SpecError or DataError where an event cannot be meant."""
    if not isinstance(event, Answering):
        raise SpecError(f"an event of kind {event.kind!r} is not written by people")
    if (user == MODICUM) != isinstance(event, Imported):
        raise SpecError("labels that came with the data are the project's own (user 0), and nothing else is")
    if event.item >= n:
        raise DataError(f"the project has no item {event.item}; its items are numbered 0 to {n - 1:,}")
    label = event.label if isinstance(event, Labelled | Adjudicated | Imported) else None
    if label is not None and not 0 <= label < len(settings.classes):
        raise SpecError(f"a label is one of 0 to {len(settings.classes) - 1}, a class's position, got {label}")


def check_user(db: sqlite3.Connection, user: int) -> None:
    found = db.execute("SELECT closed FROM users WHERE user = ?", (user,)).fetchone()
    if found is None or found[0] is not None:
        raise SpecError(f"user number {user} has no open account; add one, or open it again")


def first_of(db: sqlite3.Connection, client: str, user: int, texts: Sequence[str]) -> int | None:
    """The number of the act that this client id names already, None where it names none.

    Raises:
        Conflict: that act is another user's, or says something else.
    """
    found = db.execute("SELECT seq, user FROM events WHERE client = ?", (client,)).fetchone()
    if found is None:
        return None
    told = db.execute("SELECT event FROM events WHERE seq = ?1 OR act = ?1 ORDER BY seq", found[:1])
    if found[1] != user or [_body(text) for (text,) in told] != [_body(text) for text in texts]:
        raise Conflict(TAKEN)
    return int(found[0])


def _body(text: str) -> dict[str, Any]:
    """What an event says of its item; why the item was shown is the server's to say, and a restart forgets it."""
    return {name: value for name, value in json.loads(text).items() if name not in ("strategy", "model")}


def next_version(event: Answering) -> int:
    return 0 if isinstance(event, Imported) else event.version + 1


def append(
    db: sqlite3.Connection, client: str | None, act: int | None, user: int, item: int | None, now: float,
    event: ProjectEvent,
) -> int:  # fmt: skip
    return _insert(db, client, act, user, item, event.kind, now, canonical_json(event.model_dump(mode="json")))


def _insert(
    db: sqlite3.Connection, client: str | None, act: int | None, user: int, item: int | None, kind: str, now: float,
    text: str,
) -> int:  # fmt: skip
    row = (client, act, user, item, kind, now, text)
    query = "INSERT INTO events (client, act, user, item, kind, at, event) VALUES (?, ?, ?, ?, ?, ?, ?)"
    return int(db.execute(query, row).lastrowid or 0)


def present_answer(db: sqlite3.Connection, item: int, user: int) -> Answer:
    found = db.execute("SELECT * FROM answers WHERE item = ? AND user = ?", (item, user)).fetchone()
    return Answer.of(found) if found else Answer(item, user)


def undo_of(db: sqlite3.Connection, seq: int, act: int, repeated: bool) -> Undo:
    query = "SELECT user, item, event FROM events WHERE seq = ?1 OR act = ?1 ORDER BY seq"
    found = db.execute(query, (act,)).fetchall()
    event = parse_project_event(json.loads(found[0][2]))
    items = tuple(dict.fromkeys(item for _, item, _ in found))
    return Undo(seq, items, event, present_answer(db, items[0], owner(event.kind, found[0][0])), repeated)


def refold(db: sqlite3.Connection, item: int) -> None:
    rows = rows_of(db, item)
    acts = json.dumps(sorted({row.act for row in rows}))
    query = "SELECT act, undone FROM acts WHERE undone IS NOT NULL AND act IN (SELECT value FROM json_each(?))"
    answers = fold(item, rows, dict(db.execute(query, (acts,)).fetchall()))
    put_answers(db, answers)
    put_verdict(db, item, answers)


def import_labels(db: sqlite3.Connection, labels: Iterable[int], now: float) -> None:
    """Imported labels of a new project, as one act."""
    known = [(item, int(label)) for item, label in enumerate(labels) if label >= 0]
    if not known:
        return
    texts = (canonical_json(Imported(item=item, label=label).model_dump(mode="json")) for item, label in known)
    query = (
        "INSERT INTO events (seq, client, act, user, item, kind, at, event) VALUES (?, ?, ?, 0, ?, 'imported', ?, ?)"
    )
    db.executemany(
        query,
        (
            (seq, None if seq > 1 else "import", None if seq == 1 else 1, item, now, text)
            for seq, ((item, _), text) in enumerate(zip(known, texts, strict=True), 1)
        ),
    )
    put_answers(
        db,
        (
            Answer(item, MODICUM, label, version=1, seq=seq, at=now, kind="imported")
            for seq, (item, label) in enumerate(known, 1)
        ),
    )
    db.executemany("INSERT INTO verdicts VALUES (?, 0, ?, 'imported', 0)", known)


def import_history(db: sqlite3.Connection, history: Iterable[Past], now: float) -> int:
    """Keep what people did before; the derived tables are left to be rebuilt. Returns how many events there were."""
    users = {name.lower(): user for user, name in db.execute("SELECT user, name FROM users")}
    n = 0
    for n, (name, at, event) in enumerate(history, 1):  # noqa: B007
        if name.lower() not in users:
            users[name.lower()] = user = max(users.values()) + 1
            db.execute(
                "INSERT INTO users VALUES (?, ?, 'annotator', NULL, ?, NULL)",
                (user, plain("a user name", name, 100), now),
            )
        user = users[name.lower()]
        append(db, None, None, user, event.item, at, event)
    return n
