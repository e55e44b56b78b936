"""A project's log as a learner's: what was asked, told and trained, round by round.

A round ends with a training, at the last event that the training knew (``seq`` in its record). In it, the items that
were answered first are asked for, by what had chosen them, and everything that their answers came to is told at once:
None for a skip, a tie, or an answer that was taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modicum.annotate.store.reading import Reading
from modicum.annotate.store.tables import UNDOABLE, Row, fold, judge
from modicum.base.events import Asked, Event, Told, Trained
from modicum.base.types import ExampleId, Label


def learner_events(store: Reading) -> list[Event]:
    """The events of a learner over the project's items, in order, for ``Learner.replay``."""
    return list(_Replay(store).events())


class _Replay:
    def __init__(self, store: Reading) -> None:
        self.store = store
        self.round = 0
        self.rows: dict[int, list[Row]] = {}  # by item
        self.acts: dict[int, list[int]] = {}  # the items of each act that can be undone
        self.undone: dict[int, int] = {}
        self.touched: dict[int, str] = {}  # the items of this round, with what had chosen them
        self.told: dict[int, int | None] = {}
        self._imported: dict[int, dict[str, Any]] = {}

    def events(self) -> Iterator[Event]:
        """All rounds, the last one perhaps without a training."""
        trainings = self._trainings()
        for seq, act, user, item, at, event in self.store.log():
            while trainings and seq > trainings[0][0]:
                yield from self._end_round(trainings.pop(0)[1])
            if event["kind"] == "undone":
                self.undone[event["undoes"]] = seq
                self.touched |= {item: self.touched.get(item, "") for item in self.acts.get(event["undoes"], ())}
            elif item is not None:
                self._take(item, Row(seq, act, user, at, event))
        for _, training in trainings:
            yield from self._end_round(training)
        yield from self._end_round(None)

    def _trainings(self) -> list[tuple[int, Trained]]:
        """Each training, with the last event that it knew."""
        found: list[tuple[int, Trained]] = []
        for seq, *_, event in self.store.log(kind="trained"):
            training = Trained.parse(event)
            known = training.record.get("seq", seq)
            found.append((max(found[-1][0] if found else 0, min(known, seq)), training))
        return found

    def _take(self, item: int, row: Row) -> None:
        event = row.event
        if event["kind"] == "imported":  # there may be a million of them
            row = row._replace(event=self._imported.setdefault(event["label"], event))
        if event["kind"] in UNDOABLE:
            self.acts.setdefault(row.act, []).append(item)
        self.rows.setdefault(item, []).append(row)
        self.touched[item] = event.get("strategy") or self.touched.get(item) or event["kind"]

    def _end_round(self, training: Trained | None) -> Iterator[Event]:
        items = [*self.touched]
        ids = dict(zip(items, self.store.ids(items), strict=True))
        asked: dict[str, list[ExampleId]] = {}
        told: dict[ExampleId, Label | None] = {}
        for item, strategy in self.touched.items():
            verdict = judge(item, fold(item, self.rows[item], self.undone))
            label = None if verdict is None else verdict.label
            if item not in self.told:
                if verdict is None:
                    continue
                asked.setdefault(strategy or verdict.how, []).append(ids[item])
            elif self.told[item] == label:
                continue
            self.told[item] = told[ids[item]] = label
        self.touched = {}
        for strategy, chosen in asked.items():
            yield Asked(round=self.round, ids=tuple(chosen), strategy=strategy)
        if told:
            yield Told(answers=told)
        if training is not None:
            self.round = training.round + 1
            yield training
