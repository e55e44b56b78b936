"""What people get to see: the numbers and rows that the pages show and the API answers with, from one place.

Whoever may see less than all (an annotator of a blind project) is told apart here, and here alone: ``Desk.sees_all``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from modicum.analysis.agreement import Agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha, label_table
from modicum.annotate.server.auth import User
from modicum.annotate.server.desk import Desk
from modicum.annotate.store.project import Answer, Found
from modicum.annotate.store.records import MODICUM, Settings
from modicum.base.rng import stream

COOKIE = "modicum"
"""A session's cookie, with the port: browsers keep cookies by host alone, and two projects may be open in one."""
PAGE = 50
MOST_PAIRS = 50
"""Pairs of annotators whose agreement is told."""
NO_MODEL = {"phase": "waiting", "model": None, "labels": 0, "new": 0, "message": "", "worth": "unknown", "advice": ""}
NO_AGREEMENT: dict[str, Any] = {"items": 0, "fleiss": None, "krippendorff": None, "cohen": []}


def cookie_name(request: Request) -> str:
    """``modicum-8000``, or ``modicum`` where the address names no port."""
    return f"{COOKIE}-{request.url.port}" if request.url.port else COOKIE


class Views:
    """The answers to all that only asks; ``pages.routes`` takes it as its source."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.store = desk, desk.store
        first = self.store.user(MODICUM)
        made = f"{desk.settings.fingerprint} {first.created if first else 0}"
        self._identity = hashlib.sha256(made.encode()).hexdigest()[:16]

    def settings(self) -> Settings:
        """The present settings."""
        return self.desk.settings

    def identity(self) -> str:
        """Names the project, whatever its address."""
        return self._identity

    def accounts(self) -> bool:
        """Whether people have accounts."""
        return self.desk.accounts.users

    async def user(self, request: Request) -> User | None:
        """Whose page this is, by its cookie."""
        token = request.cookies.get(cookie_name(request))
        return await run_in_threadpool(self.desk.accounts.who, token, "page") if token else None

    async def people(self, user: User) -> list[dict[str, Any]]:
        """All accounts, for a lead."""
        if not user.lead:
            return []
        users = await run_in_threadpool(self.store.users)
        shown = (one for one in users if one.user != MODICUM)
        return [{"name": one.name, "role": one.role, "closed": one.closed is not None} for one in shown]

    async def progress(self, user: User) -> dict[str, Any]:
        """How far the project is; a blind annotator's own part of it."""
        found, settings = await run_in_threadpool(self.store.progress, self.desk.begin_of_today()), self.desk.settings
        users = [
            {name: getattr(one, name) for name in ("name", "labelled", "skipped", "flagged", "today", "seconds")}
            for one in found.users
            if self.desk.sees_all(user) or one.user == user.user
        ]
        shared = {"items": found.items, "per_item": settings.per_item, "users": users}
        if self.desk.sees_all(user):
            counts = {name: getattr(found, name) for name in ("labelled", "skipped", "flagged", "unresolved", "today")}
            return {**shared, **counts, "open": found.items - found.done, "classes": list(found.by_class)}
        own = {name: users[0][name] for name in ("labelled", "skipped", "flagged", "today")}
        classes = list(await run_in_threadpool(self.store.labels_of, user.user))
        return {**shared, **own, "unresolved": 0, "open": self.desk.queue.left(user.user), "classes": classes}

    async def model(self, user: User) -> dict[str, Any]:
        """What the trainer is about, and whether more labels are worth it."""
        settings, supervisor = self.desk.settings, self.desk.supervisor
        fixed = {
            "retrain_every": settings.retrain_every,
            "method": settings.method.label,
            "backbone": settings.backbone,
        }
        return {**fixed, **NO_MODEL, **(supervisor.state() if supervisor is not None else {})}

    async def curve(self, user: User) -> dict[str, Any]:
        """Accuracy on the audit items by number of labels."""
        supervisor = self.desk.supervisor
        if supervisor is None:
            return {"metric": "accuracy", "audit": 0, "points": []}
        found: dict[str, Any] = supervisor.curve()
        return found

    async def agreement(self, user: User) -> dict[str, Any]:
        """How far annotators agree; nothing for a blind annotator."""
        if not self.desk.sees_all(user):
            return NO_AGREEMENT
        async with self.desk.busy:
            seq = await run_in_threadpool(self.store.last_seq)
            if self.desk.agreements is None or self.desk.agreements[0] != seq:
                self.desk.agreements = seq, await run_in_threadpool(self._agreement)
        return self.desk.agreements[1]

    def _agreement(self) -> dict[str, Any]:
        labelled = [one for one in self.store.answers() if one.user != MODICUM and one.label is not None]
        table, _, users = label_table((one.item, one.user, one.label) for one in labelled if one.label is not None)
        table = table[(table >= 0).sum(1) >= 2]
        if not len(table):
            return NO_AGREEMENT
        names = {one.user: one.name for one in self.store.users()}
        rng = stream(0, "agreement")
        pairs = [pair for pair in combinations(range(len(users)), 2) if (table[:, pair] >= 0).all(1).any()]
        cohen = []
        for a, b in pairs[:MOST_PAIRS]:
            both = table[(table[:, a] >= 0) & (table[:, b] >= 0)]
            found = _coefficient(cohen_kappa(both[:, a], both[:, b], rng=rng))
            if found is not None:
                cohen.append({"a": names[users[a]], "b": names[users[b]], **found, "items": len(both)})
        return {
            "items": len(table),
            "fleiss": _coefficient(fleiss_kappa(table, rng=rng)),
            "krippendorff": _coefficient(krippendorff_alpha(table, rng=rng)),
            "cohen": cohen,
        }

    # ---- rows ------------------------------------------------------------------------------------------------------

    async def items(
        self,
        user: User,
        *,
        query: str = "",
        state: str | None = None,
        label: int | None = None,
        flagged: bool | None = None,
        page: int = 1,
        item: int | None = None,
    ) -> dict[str, Any]:
        """A page of the items that a search finds; the one item of that number, if it is given."""
        whose = None if self.desk.sees_all(user) else user.user

        def search() -> tuple[list[Found], int]:
            if item is not None:
                return self._found([item], whose), 1
            filters = {"state": state, "label": label, "user": whose, "flagged": flagged}
            return self.store.search(query, **filters, limit=PAGE, offset=(page - 1) * PAGE)  # type: ignore[arg-type]

        found, total = await run_in_threadpool(search)
        versions = await run_in_threadpool(self._versions, [one.item.item for one in found], user.user)
        return _paged([self._row(one, user, versions) for one in found], total, page)

    def _found(self, items: Sequence[int], whose: int | None) -> list[Found]:
        answers: dict[int, list[Answer]] = {}
        for answer in self.store.answers(items):
            if whose is None or answer.user == whose:
                answers.setdefault(answer.item, []).append(answer)
        verdicts = {one.item: one for one in self.store.verdicts(items)} if whose is None else {}
        return [Found(one, tuple(answers.get(one.item, ())), verdicts.get(one.item)) for one in self.store.items(items)]

    def _versions(self, items: Sequence[int], user: int) -> dict[int, int]:
        """Versions of a user's answers, of those that were taken back as well."""
        found = ((item, self.store.answer(item, user)) for item in items)
        return {item: answer.version for item, answer in found if answer is not None}

    def _row(self, found: Found, user: User, versions: dict[int, int]) -> dict[str, Any]:
        own = next((one for one in found.answers if one.user == user.user), None)
        label, skip = (own.label, own.skip) if own is not None and own.answered else (None, None)
        if found.verdict is not None and not (own and own.answered):
            label = found.verdict.label
            skip = "" if found.verdict.how == "skipped" else None
        state = "labelled" if label is not None else "skipped" if skip is not None else "open"
        marks = {"flag": bool(own and own.flag), "note": own.note if own else ""}
        return {
            **found.item._asdict(), "state": state, "label": label, "skip": skip, **marks,
            "version": versions.get(found.item.item, 0),
        }  # fmt: skip

    async def review(self, user: User, *, kind: str = "model", page: int = 1) -> dict[str, Any]:
        """A page of the items that are worth a second look. kind: ``model``, ``annotators`` or ``flagged``."""
        whose = None if self.desk.sees_all(user) else user.user
        offset = (page - 1) * PAGE
        if kind == "model":
            items = await run_in_threadpool(self._disagreeing, whose)
            found, total = await run_in_threadpool(self._found, items[offset : offset + PAGE], whose), len(items)
        elif kind == "flagged":
            found, total = await run_in_threadpool(
                lambda: self.store.search(flagged=True, user=whose, limit=PAGE, offset=offset)
            )
        else:
            found, total = await run_in_threadpool(
                lambda: self.store.search(state="split", user=whose, limit=PAGE, offset=offset)
            )
        decided = MODICUM if kind == "annotators" and user.lead else user.user  # whose answer a decision changes
        versions = await run_in_threadpool(self._versions, [one.item.item for one in found], decided)
        names = {one.user: one.name for one in await run_in_threadpool(self.store.users)}
        return _paged([self._card(one, user, versions, names) for one in found], total, page)

    def _card(self, found: Found, user: User, versions: dict[int, int], names: dict[int, str]) -> dict[str, Any]:
        row = self._row(found, user, versions)
        suggestion = self.desk.supervisor.suggestion(found.item.item) if self.desk.supervisor is not None else None
        row["suggestion"] = suggestion.model_dump() if suggestion is not None else None
        row["own_flag"] = row["flag"]
        row["flag"] = any(one.flag for one in found.answers)
        people = (one for one in found.answers if one.user not in (MODICUM, user.user))
        row["answers"] = [
            {"user": names[one.user], "label": one.label, "skip": one.skip, "note": one.note, "flag": one.flag}
            for one in people
        ]
        return row

    def _disagreeing(self, whose: int | None) -> list[int]:
        """Items whose label the present model doubts, the surest doubts first."""
        supervisor = self.desk.supervisor
        if supervisor is None:
            return []
        if whose is None:
            labels = [(one.item, one.label) for one in self.store.resolved()]
        else:
            labels = [(one.item, one.label) for one in self.store.answers() if one.user == whose]
        doubts = []
        for item, label in labels:
            found = supervisor.suggestion(item) if label is not None else None
            if found is not None and found.label != label:
                doubts.append((-found.confidence, item))
        return [item for _, item in sorted(doubts)]


def _paged(rows: list[dict[str, Any]], total: int, page: int) -> dict[str, Any]:
    return {"rows": rows, "total": total, "page": page, "pages": max(1, -(-total // PAGE))}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _coefficient(found: Agreement) -> dict[str, float | None] | None:
    if _number(found.value) is None:
        return None
    return {"value": _number(found.value), "low": _number(found.low), "high": _number(found.high)}
