"""Searches and progress: what pages show of a whole project."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from modicum.annotate.store.reading import PAGE, Item, Reading
from modicum.annotate.store.records import MODICUM
from modicum.annotate.store.tables import Answer, Verdict
from modicum.base.errors import UnknownName

COUNTED = 10_000
"""A search counts its results as far as this."""
STATES = ("open", "labelled", "skipped", "tie", "split")
WORD = re.compile(r"[^\W_]+(?:[^\w\s]*[^\W_]+)*")
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Letters of scripts that put no space between words: the index knows no words of theirs."""
SIGNS = "\"'.,;:!?()[]{}*^-。、「」！？（）"
"""What may stand around such a word in a query."""
MOST_WORDS = 32
PREFIX = 4
"""Words so long find those that they begin; shorter ones begin too many."""
TIMED = 200
"""The last labels of a user whose times count."""
ALL = "FROM items i"


class Found(NamedTuple):
    """An item that a search found. answers: those that the search looked at: one user's, or all.

    verdict: what all answers come to; None where nobody has answered, and in a search of one user's answers.
    """

    item: Item
    answers: tuple[Answer, ...]
    verdict: Verdict | None


class UserProgress(NamedTuple):
    """What one user has done. today: answers since the given time; seconds: the median of the latest labels."""

    user: int
    name: str
    labelled: int
    skipped: int
    flagged: int
    today: int
    seconds: float | None


class Progress(NamedTuple):
    """How far a project is, in items. by_class: (C,) of the resolved labels.

    done: have per_item answers, a decision or an imported label; started: have some answers, and are not done.
    """

    items: int
    done: int
    started: int
    labelled: int
    skipped: int
    unresolved: int
    split: int
    flagged: int
    today: int
    by_class: tuple[int, ...]
    users: tuple[UserProgress, ...]


class Overview(Reading):
    """What takes in a whole project."""

    def search(
        self,
        query: str = "",
        *,
        state: str | None = None,
        label: int | None = None,
        user: int | None = None,
        flagged: bool | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[list[Found], int]:
        """The items that hold all words of a query and match the filters, in order, and how many there are.

        A word of four letters finds the longer ones that it begins as well; no sign in a query has a meaning. A word of
        a script without spaces (Chinese, Japanese, Thai) is found wherever it stands, by reading every text. The
        filters are on one user's answers, or on what all answers come to where ``user`` is None. state: ``open``,
        ``labelled``, ``skipped``, ``tie`` (no majority) or ``split`` (people's labels differ). Counting ends at 10,001.

        Raises:
            UnknownName: there is no such state.
        """
        if state is not None and state not in STATES:
            raise UnknownName("state", state, STATES)
        words, parts = _words(query)
        nothing = bool(query.strip()) and not (words or parts)
        if nothing or (label is not None and not 0 <= label < len(self.settings.classes)):
            return [], 0
        key, source, values = _source(words, parts, state, label, user, flagged)
        limit, offset = max(0, min(limit, PAGE)), max(0, min(offset, self.count()))
        found = self._read(f"SELECT {key} {source} ORDER BY {key} LIMIT ? OFFSET ?", *values, limit, offset)
        if source == ALL:
            total = self.count()
        else:
            query = f"SELECT count(*) FROM (SELECT 1 {source} LIMIT ?)"
            ((total,),) = self._read(query, *values, COUNTED + 1)
        return self._found([item for (item,) in found], user), int(total)

    def _found(self, positions: list[int], user: int | None) -> list[Found]:
        answers: dict[int, list[Answer]] = {}
        for answer in self._pages(positions, "SELECT * FROM answers", "item, user"):
            if user is None or answer[1] == user:
                answers.setdefault(answer[0], []).append(Answer.of(answer))
        verdicts = {verdict.item: verdict for verdict in self.verdicts(positions)} if user is None else {}
        return [
            Found(item, tuple(answers.get(item.item, ())), verdicts.get(item.item)) for item in self.items(positions)
        ]

    def progress(self, since: float = 0.0) -> Progress:
        """How far the project is. since: when today began, in seconds since the epoch."""
        settings = self.settings
        by_class, counts = [0] * len(settings.classes), dict.fromkeys(("done", "some", "skipped", "tie"), 0)
        query = "SELECT how, label, answers, count(*) FROM verdicts GROUP BY how, label, answers"
        for how, label, answers, n in self._read(query):
            done = how in ("adjudicated", "imported") or answers >= settings.per_item
            counts["done" if done else "some"] += n
            if label is not None:
                by_class[label] += n
            else:
                counts[how] += n
        ((split,),) = self._read("SELECT count(*) FROM verdicts WHERE split = 1")
        ((flagged,),) = self._read("SELECT count(DISTINCT item) FROM answers WHERE flag = 1")
        users = self._by_user(since)
        return Progress(
            items=self.count(), done=counts["done"], started=counts["some"], labelled=sum(by_class),
            skipped=counts["skipped"], unresolved=counts["tie"], split=split, flagged=flagged,
            today=sum(user.today for user in users), by_class=tuple(by_class), users=tuple(users),
        )  # fmt: skip

    def labels_of(self, user: int) -> tuple[int, ...]:
        """(C,) how many labels of each class a user has given."""
        query = "SELECT label, count(*) FROM answers WHERE user = ? AND user > 0 AND label IS NOT NULL GROUP BY label"
        counts = dict(self._read(query, user))
        return tuple(counts.get(label, 0) for label in range(len(self.settings.classes)))

    def _by_user(self, since: float) -> list[UserProgress]:
        query = (
            "SELECT user, sum(label IS NOT NULL), sum(skip IS NOT NULL), sum(flag),"
            " sum((label IS NOT NULL OR skip IS NOT NULL) AND at >= ?) FROM answers WHERE user > 0 GROUP BY user"
        )
        counts = {row[0]: row[1:] for row in self._read(query, since)}
        users = self._read("SELECT user, name FROM users WHERE user > ? ORDER BY user", MODICUM)
        rows = [(user, name, *counts.get(user, (0, 0, 0, 0)), self._pace(user)) for user, name in users]
        return [UserProgress._make(row) for row in rows]

    def _pace(self, user: int) -> float | None:
        query = "SELECT event FROM events WHERE user = ? AND user > 0 AND kind = 'labelled' ORDER BY seq DESC LIMIT ?"
        taken = [json.loads(event)["seconds"] for (event,) in self._read(query, user, TIMED)]
        known = [seconds for seconds in taken if seconds is not None]
        return float(median(known)) if known else None


def _words(query: str) -> tuple[str, list[str]]:
    """An FTS5 expression for the words of a query, "" where there is none, and its words of scripts without spaces."""
    plain = query.encode("utf-8", "ignore").decode().replace("\0", " ").split()
    parts = [word.strip(SIGNS) for word in plain if UNSPACED.search(word)][:MOST_WORDS]
    rest = " ".join(word for word in plain if not UNSPACED.search(word))
    quoted = ((word, word.replace('"', '""')) for word in [*dict.fromkeys(WORD.findall(rest))][:MOST_WORDS])
    return " ".join(f'"{inner}"{"*" * (len(word) >= PREFIX)}' for word, inner in quoted), parts


def _source(
    words: str, parts: Sequence[str], state: str | None, label: int | None, user: int | None, flagged: bool | None
) -> tuple[str, str, list[Any]]:
    """The item's column, FROM and WHERE of a search: what it costs is what it finds, wherever that can be.

    ``v`` are the verdicts, or one user's answers.
    """
    table, own = ("verdicts v NOT INDEXED", "") if user is None else ("answers v", " AND v.user = ? AND v.user > 0")
    there = state in ("labelled", "skipped", "tie", "split") or label is not None
    values: list[Any] = [] if user is None else [user]
    if words:
        key, source = "f.rowid", f"FROM items_fts f LEFT JOIN {table} ON v.item = f.rowid{own} WHERE items_fts MATCH ?"
        values.append(words)
    elif there:
        key, source = "v.item", f"FROM {table} WHERE 1{own}"
    elif state == "open":
        key, source = "i.item", f"FROM items i LEFT JOIN {table} ON v.item = i.item{own} WHERE 1"
    else:
        key, source, values = "i.item", ALL, []
    tests = {"open": "v.label IS NULL AND v.skip IS NULL", "skipped": "v.skip IS NOT NULL", "tie": "0", "split": "0"}
    if user is None:
        tests = {"open": "v.item IS NULL", "skipped": "v.how = 'skipped'", "tie": "v.how = 'tie'", "split": "v.split"}
    tests["labelled"] = "v.label IS NOT NULL"
    where = [tests[state]] if state else []
    for part in parts:
        where.append(
            f"{key} IN (SELECT item FROM items WHERE instr(lower(text), lower(?)) OR instr(lower(pair), lower(?)))"
        )
        values += [part, part]
    if label is not None:
        where.append("v.label = ?")
        values.append(label)
    if flagged is not None:
        whose = "" if user is None else " AND a.user = ?"
        where.append(f"{key} {'' if flagged else 'NOT '}IN (SELECT a.item FROM answers a WHERE a.flag = 1{whose})")
        values += [] if user is None else [user]
    if where:
        source += (" AND " if " WHERE " in source else " WHERE ") + " AND ".join(where)
    return key, source, values
