"""What can be asked of a project. Long answers are read a page at a time, since a reader holds up commits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from modicum.annotate.store.database import Database
from modicum.annotate.store.records import ProjectEvent, Settings, parse_project_event
from modicum.annotate.store.tables import Answer, Verdict
from modicum.base.errors import DataError

PAGE = 2_000
"""Rows read at a time."""


class Item(NamedTuple):
    """item: its position in the data, from 0. pair: its second text, where the data has pairs."""

    item: int
    id: str
    text: str
    pair: str | None


class Stored(NamedTuple):
    """An event of the log, with its number, its user, its item and its time."""

    seq: int
    user: int
    item: int | None
    at: float
    event: ProjectEvent


class Resolved(NamedTuple):
    """What the answers to an item come to; see ``Verdict``."""

    item: int
    label: int | None
    how: str


class ModelRow(NamedTuple):
    """A model that was trained. record: its metrics and costs."""

    model: int
    at: float
    labels: int
    record: dict[str, Any]


class Reading(Database):
    """All that reads."""

    _settings: tuple[str, Settings] | None = None
    _count: int | None = None

    @property
    def settings(self) -> Settings:
        """The present settings. They are changed by the process that writes, so it knows them."""
        known = self._settings
        if known is None or self.read_only:
            ((text,),) = self._read("SELECT value FROM meta WHERE name = 'settings'")
            if known is None or known[0] != text:
                self._settings = known = (text, Settings.parse(json.loads(text)))
        return known[1]

    # ---- items ---------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """How many items there are."""
        if self._count is None:
            ((n,),) = self._read("SELECT coalesce(max(item), -1) + 1 FROM items")
            self._count = int(n)
        return self._count

    def item(self, position: int) -> Item:
        """The item at a position.

        Raises:
            DataError: there is none.
        """
        return self.items([position])[0]

    def items(self, positions: Sequence[int] | np.ndarray) -> list[Item]:
        """The items at k positions, in that order.

        Raises:
            DataError: a position is outside 0..n-1.
        """
        wanted = [self._checked(position) for position in positions]
        found: dict[int, Item] = {}
        for start in range(0, len(wanted), PAGE):
            part = json.dumps(wanted[start : start + PAGE])
            query = "SELECT item, id, text, pair FROM items WHERE item IN (SELECT value FROM json_each(?))"
            found.update((row[0], Item(*row)) for row in self._read(query, part))
        return [found[position] for position in wanted]

    def _checked(self, position: int) -> int:
        if not 0 <= position < self.count():
            raise DataError(f"the project has no item {position}; its items are numbered 0 to {self.count() - 1:,}")
        return int(position)

    def texts(self, positions: Sequence[int] | np.ndarray) -> tuple[list[str], list[str] | None]:
        """The texts at k positions, and the second ones where the data has pairs."""
        items = self.items(positions)
        pairs = [item.pair for item in items if item.pair is not None]
        return [item.text for item in items], pairs if pairs else None

    def position_of(self, id: str) -> int | None:
        """Where the item with this id is."""
        found = self._read("SELECT item FROM items WHERE id = ?", id)
        return int(found[0][0]) if found else None

    def positions_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Where the items with these ids are; an id that no item has is left out."""
        found: dict[str, int] = {}
        for start in range(0, len(ids), PAGE):
            part = json.dumps(list(ids[start : start + PAGE]))
            found.update(self._read("SELECT id, item FROM items WHERE id IN (SELECT value FROM json_each(?))", part))
        return found

    def each_item(self, start: int = 0) -> Iterator[Item]:
        """All items in order, from a position on."""
        while page := self._read("SELECT item, id, text, pair FROM items WHERE item >= ? LIMIT ?", start, PAGE):
            yield from map(Item._make, page)
            start = page[-1][0] + 1

    def ids(self, positions: Sequence[int] | None = None) -> list[str]:
        """The ids of the items at k positions, all n by default."""
        if positions is None:
            return [id for (id,) in self._read("SELECT id FROM items ORDER BY item")]
        found: dict[int, str] = {}
        for start in range(0, len(positions), PAGE):
            part = json.dumps(positions[start : start + PAGE])
            query = "SELECT item, id FROM items WHERE item IN (SELECT value FROM json_each(?))"
            found.update(self._read(query, part))
        return [found[position] for position in positions]

    # ---- answers -------------------------------------------------------------------------------------------------

    def answer(self, item: int, user: int) -> Answer | None:
        """A user's answer to an item; one that was taken back has its version still."""
        found = self._read("SELECT * FROM answers WHERE item = ? AND user = ?", self._checked(item), user)
        return Answer.of(found[0]) if found else None

    def answers(self, items: Iterable[int] | None = None) -> Iterator[Answer]:
        """All users' answers by item and user, to some items or all; those that were taken back are left out."""
        for found in self._pages(items, "SELECT * FROM answers", "item, user"):
            answer = Answer.of(found)
            if answer.answered or answer.flag or answer.note:
                yield answer

    def verdicts(self, items: Iterable[int] | None = None) -> Iterator[Verdict]:
        """What the answers to each answered item come to, by item."""
        for row in self._pages(items, "SELECT * FROM verdicts", "item"):
            yield Verdict._make(row)._replace(split=bool(row[-1]))

    def resolved(self) -> Iterator[Resolved]:
        """(item, label or None, how) of each answered item, by item, whether or not more answers are to come."""
        return (Resolved(verdict.item, verdict.label, verdict.how) for verdict in self.verdicts())

    def ranked(self) -> list[tuple[int, str]]:
        """(item, strategy) of the items that were labelled when a model's rank had brought them up."""
        model, strategy = "json_extract(event, '$.model')", "json_extract(event, '$.strategy')"
        query = f"SELECT DISTINCT item, {strategy} FROM events WHERE kind = 'labelled' AND {model} IS NOT NULL"
        return self._read(query)

    def decided(self) -> list[int]:
        """Items whose label no further answer changes: imported ones, and those that a lead decided; in order."""
        found = self._read("SELECT item FROM verdicts WHERE how IN ('adjudicated', 'imported') ORDER BY item")
        return [item for (item,) in found]

    def done_items(self) -> np.ndarray:
        """(n,) bool: the items that have ``per_item`` answers, a decision or an imported label."""
        done = np.zeros(self.count(), bool)
        query = "SELECT item FROM verdicts WHERE answers >= ? OR how IN ('adjudicated', 'imported')"
        found = self._read(query, self.settings.per_item)
        done[np.fromiter((item for (item,) in found), np.int64, len(found))] = True
        return done

    def _pages(self, items: Iterable[int] | None, select: str, order: str) -> Iterator[tuple[Any, ...]]:
        if items is not None:
            wanted = sorted({self._checked(item) for item in items})
            for start in range(0, len(wanted), PAGE):
                part = json.dumps(wanted[start : start + PAGE])
                yield from self._read(f"{select} WHERE item IN (SELECT value FROM json_each(?)) ORDER BY {order}", part)
            return
        last = -1
        while page := self._read(f"{select} WHERE item > ? ORDER BY {order} LIMIT ?", last, PAGE):
            if len(page) == PAGE and page[0][0] != page[-1][0]:  # the last item may go on beyond the page
                page = [row for row in page if row[0] != page[-1][0]]
            yield from page
            last = page[-1][0]

    # ---- the log -------------------------------------------------------------------------------------------------

    def last_seq(self) -> int:
        """The number of the latest event; 0 where there is none."""
        ((seq,),) = self._read("SELECT coalesce(max(seq), 0) FROM events")
        return int(seq)

    def events(self, after: int = 0) -> Iterator[Stored]:
        """The events after one, oldest first."""
        for seq, _, user, item, at, event in self.log(after):
            yield Stored(seq, user, item, at, parse_project_event(event))

    def log(self, after: int = 0, kind: str | None = None) -> Iterator[tuple[int, int, int, int | None, float, Any]]:
        """(seq, act, user, item, at, event as JSON values) of the events after one, all or of one kind.

        act: the first event of the act that it is part of.
        """
        query = (
            "SELECT seq, coalesce(act, seq), user, item, at, event FROM events"
            " WHERE seq > ?1 AND (?3 IS NULL OR kind = ?3) ORDER BY seq LIMIT ?2"
        )
        while page := self._read(query, after, PAGE, kind):
            for *rest, event in page:
                yield (*rest, json.loads(event))
            after = page[-1][0]

    def models(self) -> list[ModelRow]:
        """The models so far, oldest first."""
        rows = self._read("SELECT model, at, record FROM models ORDER BY model")
        parsed = [(model, at, json.loads(record)) for model, at, record in rows]
        return [ModelRow(model, at, record["labels"], record["record"]) for model, at, record in parsed]
