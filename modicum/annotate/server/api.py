"""The HTTP interface for labelling and looking, which the pages use as well; what leads do is in ``manage``.

A request's user is that of its token (``Authorization: Bearer …``) or of its session's cookie; nothing else names them.
Writes are acknowledged when the store has them on disk; saying the same again with the same ``client`` changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from modicum.annotate.model.queue import Pick
from modicum.annotate.server.asking import Lead, Me, TheDesk, TheViews, person
from modicum.annotate.server.auth import User
from modicum.annotate.server.bodies import ERRORS, MOST, Act, AdjudicationBody, AnswerBody, BulkBody
from modicum.annotate.server.desk import Desk
from modicum.annotate.server.security import Refused
from modicum.annotate.store.project import Answer, Receipt, Undo
from modicum.annotate.store.records import MODICUM, Adjudicated, Answering, Labelled, Marked, Skipped
from modicum.base.errors import SpecError

api = APIRouter(prefix="/api", responses=ERRORS)

# ---- labelling -------------------------------------------------------------------------------------------------------


@api.get("/next")
async def next_items(user: Me, desk: TheDesk, count: Annotated[int, Query(ge=1, le=20)] = 1) -> dict[str, Any]:
    """The items to answer next, kept for this person until ``lease_until``."""
    now = desk.clock()
    until = now + desk.settings.lease_seconds
    for _ in range(3):
        picks = desk.queue.next(user.user, count, desk.live_leases(now))
        wanted = [pick.item for pick in picks]
        desk.leases |= {(item, user.user): until for item in wanted}  # before another request asks the queue
        had = set(await run_in_threadpool(desk.store.lease, wanted, user.user, until, now)) if wanted else set()
        if len(had) == len(wanted):
            break
        desk.recall_leases(now, await run_in_threadpool(desk.store.leased, now))
    kept = [pick for pick in picks if pick.item in had]
    for pick in kept:
        desk.offer(user.user, pick)
    items = await run_in_threadpool(_offered, desk, user, [desk.reason(user.user, pick.item) for pick in kept], until)
    return {"items": items, "left": desk.queue.left(user.user), "state": ""}


def _offered(desk: Desk, user: User, picks: list[Pick], until: float) -> list[dict[str, Any]]:
    """Items as a page gets them; in a worker thread."""
    items = desk.store.items([pick.item for pick in picks])
    found = []
    for pick, item in zip(picks, items, strict=True):
        own = desk.store.answer(pick.item, user.user)
        suggestion = desk.suggestion(pick.item)
        found.append(
            {
                **item._asdict(),
                "version": own.version if own is not None else 0,
                "flag": bool(own and own.flag),
                "note": own.note if own is not None else "",
                "lease_until": until,
                "strategy": pick.strategy,
                "model": pick.model,
                "suggestion": suggestion.model_dump() if suggestion is not None else None,
            }
        )
    return found


@api.post("/answers")
async def answer(body: AnswerBody, user: Me, desk: TheDesk) -> dict[str, Any]:
    """Keep an answer; the receipt comes when it is on disk."""
    events = _events(body, desk.reason(user.user, body.item))
    receipt = await _keep(desk, user, events, body.client)
    if not receipt.repeated and (body.label is not None or body.skip is not None):
        desk.answered(user.user, [body.item], int(body.label is not None))
    return receipt._asdict()


def _events(body: AnswerBody, pick: Pick) -> list[Answering]:
    if body.label is not None and body.skip is not None:
        raise SpecError("an answer is a label or a skip, not both")
    place: dict[str, Any] = {"item": body.item, "version": body.version}
    told: dict[str, Any] = {
        "seconds": body.seconds,
        "shown": body.shown,
        "strategy": pick.strategy,
        "model": pick.model,
    }
    events: list[Answering] = []
    if body.label is not None:
        events.append(Labelled(**place, **told, label=body.label))
    if body.skip is not None:
        events.append(Skipped(**place, **told, reason=body.skip))
    if body.flag is not None or body.note is not None:
        events.append(Marked(**place, flag=body.flag, note=body.note))
    if not events:
        raise SpecError("an answer needs a label, a skip, a flag or a note")
    return events


async def _keep(desk: Desk, user: User, events: list[Answering], client: str) -> Receipt:
    named = f"{user.user}:{client}"  # another user's act by the same name is another act
    now = desk.clock()
    return await run_in_threadpool(lambda: desk.store.write_many(events, user=user.user, client=named, now=now))


@api.post("/undo")
async def undo(body: Act, user: Me, desk: TheDesk) -> dict[str, Any]:
    """Take back one's last act that is not taken back."""
    named, now = f"{user.user}:{body.client}", desk.clock()
    done = await run_in_threadpool(lambda: desk.store.undo(user=user.user, client=named, now=now))
    if done is None:
        return {"item": None, "items": 0, "undone": None, "previous": None}
    until = now + desk.settings.lease_seconds
    present = await run_in_threadpool(_present, desk, done, user, until, now)
    for item, mine, decided in present:
        (desk.queue.answered if mine else desk.queue.unanswered)(item, user.user)
        (desk.queue.decide if decided else desk.queue.undecide)(item)
    desk.leases[done.item, user.user] = until
    desk.news.tell("progress")
    first = await run_in_threadpool(_offered, desk, user, [desk.reason(user.user, done.item)], until)
    previous = {name: getattr(done.answer, name) for name in ("label", "skip", "flag", "note")}
    stands = previous if done.answer.answered or done.answer.flag or done.answer.note else None
    return {"item": first[0], "items": len(done.items), "undone": done.event.kind, "previous": stands}


def _present(desk: Desk, done: Undo, user: User, until: float, now: float) -> list[tuple[int, bool, bool]]:
    """(item, whether the user has answered it, whether it is decided), after an undo; in a worker thread."""
    desk.store.lease([done.item], user.user, until, now)
    found: dict[int, dict[int, Answer]] = {item: {} for item in done.items}
    for one in desk.store.answers(done.items):
        found[one.item][one.user] = one
    there = {item: {who for who, one in answers.items() if one.answered} for item, answers in found.items()}
    return [(item, user.user in users, MODICUM in users) for item, users in there.items()]


@api.post("/bulk")
async def bulk(body: BulkBody, user: Me, desk: TheDesk) -> dict[str, Any]:
    """Label a selection as one act, or say what that would do."""
    if body.label >= len(desk.settings.classes):
        raise SpecError(f"a label is one of 0 to {len(desk.settings.classes) - 1}, got {body.label}")
    items = list(dict.fromkeys(body.items))
    own = await run_in_threadpool(lambda: {item: desk.store.answer(item, user.user) for item in items})
    before = {item: one.label if one is not None else None for item, one in own.items()}
    changing = [item for item in items if before[item] != body.label]
    shown = await run_in_threadpool(desk.store.items, changing[:20])
    found: dict[str, Any] = {
        "new": sum(before[item] is None for item in changing),
        "changed": sum(before[item] is not None for item in changing),
        "same": len(items) - len(changing),
        "rows": [{**one._asdict(), "before": before[one.item]} for one in shown],
        "receipt": None,
    }
    if body.preview or not changing:
        return found
    events: list[Answering] = []
    for item in changing:
        one = own[item]
        pick = desk.reason(user.user, item)
        version = one.version if one is not None else 0
        event = Labelled(
            item=item, version=version, label=body.label, strategy=pick.strategy, model=pick.model, bulk=body.client
        )
        events.append(event)
    receipt = await _keep(desk, user, events, body.client)
    if not receipt.repeated:
        desk.answered(user.user, changing, len(changing))
    return {**found, "receipt": receipt._asdict()}


@api.post("/adjudications")
async def adjudicate(body: AdjudicationBody, user: Lead, desk: TheDesk) -> dict[str, Any]:
    """Decide an item for all."""
    event = Adjudicated(item=body.item, version=body.version, label=body.label)
    receipt = await _keep(desk, user, [event], body.client)
    if not receipt.repeated:
        (desk.queue.undecide if body.label is None else desk.queue.decide)(body.item)
        if body.label is not None and desk.supervisor is not None:
            desk.supervisor.labelled(1)
        desk.news.tell("progress")
    return receipt._asdict()


# ---- looking ---------------------------------------------------------------------------------------------------------


@api.get("/items")
async def items(
    user: Me,
    views: TheViews,
    query: Annotated[str, Query(max_length=500)] = "",
    state: Literal["", "open", "labelled", "skipped"] = "",
    label: Annotated[int | None, Query(ge=0, le=MOST)] = None,
    flagged: bool | None = None,
    page: Annotated[int, Query(ge=1, le=10**8)] = 1,
    item: Annotated[int | None, Query(ge=0, le=MOST)] = None,
) -> dict[str, Any]:
    """Items that hold all words of a query and match the filters; a blind annotator's filters see their own answers."""
    filters: dict[str, Any] = {"state": state or None, "label": label, "flagged": flagged or None}
    return await views.items(user, query=query, page=page, item=item, **filters)


@api.get("/review")
async def review(
    user: Me,
    views: TheViews,
    kind: Literal["model", "annotators", "flagged"] = "model",
    page: Annotated[int, Query(ge=1, le=10**8)] = 1,
) -> dict[str, Any]:
    """Items worth a second look; a blind annotator's own."""
    return await views.review(user, kind=kind, page=page)


@api.get("/progress")
async def progress(user: Me, views: TheViews) -> dict[str, Any]:
    """How far the project is; for a blind annotator, their own part."""
    return await views.progress(user)


@api.get("/curve")
async def curve(user: Me, views: TheViews) -> dict[str, Any]:
    """Accuracy on random items, by number of labels."""
    return await views.curve(user)


@api.get("/model")
async def model(user: Me, views: TheViews) -> dict[str, Any]:
    """What the trainer is about, and whether more labels are worth it."""
    return await views.model(user)


@api.get("/agreement")
async def agreement(user: Me, views: TheViews) -> dict[str, Any]:
    """How far annotators agree beyond chance; nothing for a blind annotator."""
    return await views.agreement(user)


@api.get("/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def events(request: Request, user: Me, desk: TheDesk) -> Response:
    """Server-sent events: ``event: change`` with ``{"progress": true}`` or ``{"model": true}``."""

    async def still() -> bool:
        try:
            return await person(request, None, None) == user
        except Refused:
            return False

    return StreamingResponse(
        desk.news.stream(user.user, still), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )
