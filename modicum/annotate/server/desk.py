"""What all requests of one server share: the store, the queue, leases and offers as the event loop knows them, news."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any

from modicum.annotate.model.queue import AGAIN, Pick, Queue
from modicum.annotate.server.auth import Authenticator, User
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Settings, Suggestion

OFFERS = 500
"""Items that are remembered for each person, with what had chosen them."""
SEARCH = "search"
"""The strategy of answers that nobody was asked for."""
BEAT = 15.0
"""Seconds after which a silent stream of news says that it is still there."""


class News:
    """Tells open pages that something changed, not what: they ask for what they may see."""

    def __init__(self, per_user: int = 8) -> None:
        self.per_user = per_user
        self._readers: dict[int, list[tuple[asyncio.Event, set[str]]]] = {}
        self._closed = False

    def tell(self, what: str) -> None:
        """``progress`` or ``model``; to be called in the event loop."""
        for readers in self._readers.values():
            for event, waiting in readers:
                waiting.add(what)
                event.set()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self.tell("progress")

    async def stream(self, user: int, still: Callable[[], Any]) -> AsyncIterator[str]:
        """Server-sent events until ``still`` (asked at each beat) is false; a user's oldest stream makes way."""
        reader = (asyncio.Event(), set[str]())
        mine = self._readers.setdefault(user, [])
        mine.append(reader)
        for event, _ in mine[: -self.per_user]:
            event.set()
        try:
            yield ": hello\n\n"
            while not self._closed and reader in mine[-self.per_user :]:
                try:
                    await asyncio.wait_for(reader[0].wait(), BEAT)
                except TimeoutError:
                    if not await still():
                        return
                    yield ": still here\n\n"
                    continue
                reader[0].clear()
                found, told = sorted(reader[1]), reader[1]
                told.clear()
                yield "".join(f'event: change\ndata: {{"{what}": true}}\n\n' for what in found)
                await asyncio.sleep(0.5)  # what happens in between is told together
        finally:
            mine.remove(reader)


class Desk:
    """What all answers of one server share. Its own state belongs to the event loop; the store is asked in threads."""

    def __init__(
        self,
        store: ProjectStore,
        queue: Queue,
        supervisor: Any,
        accounts: Authenticator,
        clock: Callable[[], float],
    ) -> None:
        self.store, self.queue, self.supervisor = store, queue, supervisor
        self.accounts, self.clock = accounts, clock
        self.news = News()
        self.settings: Settings = store.settings
        self.leases: dict[tuple[int, int], float] = {}
        self._offers: dict[int, OrderedDict[int, Pick]] = {}
        self.agreements: tuple[int, dict[str, Any]] | None = None
        self.busy, self.hashing = asyncio.Semaphore(1), asyncio.Semaphore(2)
        self.recall_leases(clock(), store.leased(clock()))

    def sees_all(self, user: User) -> bool:
        """Whether others' answers are shown to this person."""
        return user.lead or not self.settings.blind

    # ---- leases as the event loop knows them, so that requests at the same moment do not choose the same items -----

    def recall_leases(self, now: float, leased: dict[int, set[int]]) -> None:
        """Take over what the store says."""
        until = now + self.settings.lease_seconds
        self.leases = {(item, user): until for item, users in leased.items() for user in users}

    def live_leases(self, now: float) -> dict[int, set[int]]:
        """Items on lease, each with the users who have it."""
        self.leases = {place: until for place, until in self.leases.items() if until > now}
        found: dict[int, set[int]] = {}
        for item, user in self.leases:
            found.setdefault(item, set()).add(user)
        return found

    # ---- what had chosen an item -----------------------------------------------------------------------------------

    def offer(self, user: int, pick: Pick) -> None:
        """Remember what an item was chosen by; the first reason stays."""
        mine = self._offers.setdefault(user, OrderedDict())
        mine.setdefault(pick.item, pick)
        mine.move_to_end(pick.item)
        while len(mine) > OFFERS:
            mine.popitem(last=False)

    def reason(self, user: int, item: int) -> Pick:
        """What chose an item for a user: their own search, where nobody did."""
        if item in self._offers.get(user, ()):
            return self._offers[user][item]
        return Pick(item, AGAIN if (item, user) in self.leases else SEARCH, None)

    def answered(self, user: int, items: Iterable[int], labels: int) -> None:
        """A user's answers are durable. labels: how many of them a model can learn from."""
        for item in items:
            self.leases.pop((item, user), None)
            self.queue.answered(item, user)
        if labels and self.supervisor is not None:
            self.supervisor.labelled(labels)
        self.news.tell("progress")

    def suggestion(self, item: int) -> Suggestion | None:
        """What the present model says, where people may know it."""
        if self.supervisor is None or self.settings.suggest == "hidden":
            return None
        found: Suggestion | None = self.supervisor.suggestion(item)
        return found

    def begin_of_today(self) -> float:
        """Midnight, where this server is."""
        now = datetime.fromtimestamp(self.clock())
        return now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
