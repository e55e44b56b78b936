"""The tables of a project's database, and how the derived ones follow from the events.

``answers``, ``verdicts``, ``acts`` and ``models`` hold nothing that the events do not say: each write brings them up to
date in its own transaction, and ``rebuild`` makes them again from nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from modicum.annotate.store.records import MODICUM
from modicum.base.spec import canonical_json

SCHEMA = 1
TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE items (item INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, pair TEXT) STRICT;
CREATE VIRTUAL TABLE items_fts USING fts5(
    text, pair, content='items', content_rowid='item', tokenize="unicode61 remove_diacritics 2"
);
CREATE TABLE users (
    user INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, role TEXT NOT NULL, password TEXT,
    created REAL NOT NULL, closed REAL
) STRICT;
CREATE TABLE sessions (
    token TEXT PRIMARY KEY, user INTEGER NOT NULL, kind TEXT NOT NULL, created REAL NOT NULL, seen REAL NOT NULL
) STRICT;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, client TEXT UNIQUE, act INTEGER, user INTEGER NOT NULL, item INTEGER,
    kind TEXT NOT NULL, at REAL NOT NULL, event TEXT NOT NULL
) STRICT;
CREATE TABLE answers (
    item INTEGER NOT NULL, user INTEGER NOT NULL, label INTEGER, skip TEXT, flag INTEGER NOT NULL, note TEXT NOT NULL,
    version INTEGER NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, PRIMARY KEY (item, user)
) STRICT, WITHOUT ROWID;
CREATE TABLE verdicts (
    item INTEGER PRIMARY KEY, answers INTEGER NOT NULL, label INTEGER, how TEXT NOT NULL, split INTEGER NOT NULL
) STRICT;
CREATE TABLE acts (act INTEGER PRIMARY KEY, user INTEGER NOT NULL, undone INTEGER) STRICT;
CREATE TABLE models (model INTEGER PRIMARY KEY, at REAL NOT NULL, record TEXT NOT NULL) STRICT;
CREATE TABLE leases (
    item INTEGER NOT NULL, user INTEGER NOT NULL, until REAL NOT NULL, PRIMARY KEY (item, user)
) STRICT, WITHOUT ROWID
"""
"""``events.act``: the first event of the act that this one is part of; NULL for that first event itself."""
INDEXES = """
CREATE INDEX events_item ON events (item) WHERE item IS NOT NULL;
CREATE INDEX events_people ON events (user) WHERE user > 0;
CREATE INDEX events_act ON events (act) WHERE act IS NOT NULL;
CREATE INDEX acts_open ON acts (user, act) WHERE undone IS NULL;
CREATE INDEX answers_people ON answers (user, at) WHERE user > 0;
CREATE INDEX answers_flagged ON answers (item, user) WHERE flag = 1;
CREATE INDEX verdicts_found ON verdicts (how, label, answers);
CREATE INDEX verdicts_split ON verdicts (item) WHERE split = 1
"""
DERIVED = ("answers", "verdicts", "acts", "models")
UNDOABLE = ("labelled", "skipped", "marked", "adjudicated")


class Answer(NamedTuple):
    """What a user says of an item now. kind, seq, at: of the event that gave it; "", 0 and 0 where nothing stands.

    version: counts the acts that touched it, those taken back included, and the takings back.
    """

    item: int
    user: int
    label: int | None = None
    skip: str | None = None
    flag: bool = False
    note: str = ""
    version: int = 0
    seq: int = 0
    at: float = 0.0
    kind: str = ""

    @property
    def answered(self) -> bool:
        """Whether there is a label or a skip."""
        return self.label is not None or self.skip is not None

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Answer:
        """From a row of ``answers``."""
        return cls(*row)._replace(flag=bool(row[4]))


class Verdict(NamedTuple):
    """What all answers to an item come to.

    answers: how many people labelled or skipped it. split: people's labels differ, and no lead has decided.
    how: ``adjudicated``, ``majority`` of people's labels, ``tie`` among them, ``imported``, or ``skipped`` by all.
    """

    item: int
    answers: int
    label: int | None
    how: str
    split: bool


def owner(kind: str, user: int) -> int:
    """Whose answer an event changes: imports and decisions are the project's own."""
    return MODICUM if kind in ("adjudicated", "imported") else user


def step(answer: Answer, event: Mapping[str, Any], seq: int, at: float) -> Answer:
    """The answer after an event, its version untouched."""
    kind = event["kind"]
    if kind == "marked":
        flag = answer.flag if event["flag"] is None else event["flag"]
        note = answer.note if event["note"] is None else event["note"]
        marked = answer._replace(flag=flag, note=note)
        return marked if answer.answered else marked._replace(kind=kind, seq=seq, at=at)
    if kind == "imported" and answer.kind == "adjudicated" and answer.label is not None:
        return answer
    if kind == "skipped":
        return answer._replace(label=None, skip=event["reason"], kind=kind, seq=seq, at=at)
    return answer._replace(label=event["label"], skip=None, kind=kind, seq=seq, at=at)


class Row(NamedTuple):
    """An event about an item, as the folds take it. act: never None here."""

    seq: int
    act: int
    user: int
    at: float
    event: dict[str, Any]


ROWS = "SELECT seq, coalesce(act, seq), user, at, event FROM events"


def rows_of(db: sqlite3.Connection, item: int) -> list[Row]:
    """All events about an item, oldest first."""
    found = db.execute(f"{ROWS} WHERE item = ? AND kind <> 'trained' ORDER BY seq", (item,))
    return [Row(seq, act, user, at, json.loads(event)) for seq, act, user, at, event in found]


def fold(item: int, rows: Iterable[Row], undone: Mapping[int, int]) -> list[Answer]:
    """All users' answers to an item, from its events. undone: acts taken back -> the event that did."""
    answers: dict[int, Answer] = {}
    acts: dict[int, set[int]] = {}
    for seq, act, user, at, event in rows:
        who = owner(event["kind"], user)
        acts.setdefault(who, set()).add(act)
        before = answers.setdefault(who, Answer(item, who))
        if act not in undone:
            answers[who] = step(before, event, seq, at)
    return [
        answer._replace(version=len(acts[who]) + sum(act in undone for act in acts[who]))
        for who, answer in sorted(answers.items())
    ]


def judge(item: int, answers: Iterable[Answer]) -> Verdict | None:
    """What these answers to an item come to; None where nobody has answered."""
    answered = [answer for answer in answers if answer.answered]
    own = next((answer for answer in answered if answer.user == MODICUM), None)
    people = len(answered) - (own is not None)
    votes = Counter(a.label for a in answered if a.user != MODICUM and a.label is not None).most_common(2)
    if own is not None and own.kind == "adjudicated":
        return Verdict(item, people, own.label, "adjudicated", False)
    if votes:
        tie = len(votes) == 2 and votes[0][1] == votes[1][1]
        return Verdict(item, people, None if tie else votes[0][0], "tie" if tie else "majority", len(votes) == 2)
    if own is not None:
        return Verdict(item, people, own.label, "imported", False)
    return Verdict(item, people, None, "skipped", False) if people else None


def answers_of(db: sqlite3.Connection, item: int) -> list[Answer]:
    """All users' answers to an item."""
    return [Answer.of(row) for row in db.execute("SELECT * FROM answers WHERE item = ?", (item,))]


def put_answers(db: sqlite3.Connection, answers: Iterable[Answer]) -> None:
    """Answers in place of the earlier ones."""
    db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", answers)


def put_verdict(db: sqlite3.Connection, item: int, answers: Iterable[Answer]) -> None:
    """Bring an item's verdict up to date."""
    verdict = judge(item, answers)
    if verdict is None:
        db.execute("DELETE FROM verdicts WHERE item = ?", (item,))
    else:
        db.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)", verdict)


def undone_acts(db: sqlite3.Connection) -> dict[int, int]:
    """Acts taken back -> the event that did."""
    rows = db.execute("SELECT seq, event FROM events WHERE kind = 'undone' ORDER BY seq")
    return {json.loads(event)["undoes"]: seq for seq, event in rows}


def settings_now(db: sqlite3.Connection) -> str:
    """The settings at the beginning with every change since, as canonical JSON."""
    settings = json.loads(db.execute("SELECT value FROM meta WHERE name = 'created'").fetchone()[0])
    for (event,) in db.execute("SELECT event FROM events WHERE kind = 'changed' ORDER BY seq"):
        settings |= json.loads(event)["settings"]
    return canonical_json(settings)


def rebuild(db: sqlite3.Connection) -> None:
    """Make all derived tables again, within the caller's transaction."""
    for table in DERIVED:
        db.execute(f"DELETE FROM {table}")
    undone = undone_acts(db)
    kinds = ", ".join(f"'{kind}'" for kind in UNDOABLE)
    db.execute(f"INSERT INTO acts SELECT seq, user, NULL FROM events WHERE act IS NULL AND kind IN ({kinds})")
    db.executemany("UPDATE acts SET undone = ? WHERE act = ?", [(seq, act) for act, seq in undone.items()])
    for item, rows in groupby(_by_item(db), key=lambda row: row[0]):
        answers = fold(item, (Row(*row[1:]) for row in rows), undone)
        put_answers(db, answers)
        put_verdict(db, item, answers)
    for at, event in db.execute("SELECT at, event FROM events WHERE kind = 'trained' ORDER BY seq"):
        record = json.loads(event)
        db.execute("INSERT INTO models VALUES (?, ?, ?)", (record["record"]["model"], at, canonical_json(record)))
    db.execute("INSERT OR REPLACE INTO meta VALUES ('settings', ?)", (settings_now(db),))


def _by_item(db: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    found = db.execute(
        "SELECT item, seq, coalesce(act, seq), user, at, event FROM events WHERE item IS NOT NULL ORDER BY item, seq"
    )
    for *rest, event in found:
        yield (*rest, json.loads(event))
