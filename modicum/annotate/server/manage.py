"""The HTTP interface for accounts, settings, and labels that come and go; most of it is for leads."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from modicum.annotate.server.asking import Lead, Me, TheDesk, TheViews, the_desk
from modicum.annotate.server.bodies import ERRORS, NewUser, PasswordBody, SettingsBody, UserChange
from modicum.annotate.server.desk import Desk
from modicum.annotate.server.security import Refused, check_upload
from modicum.annotate.server.views import cookie_name
from modicum.annotate.store import exchange
from modicum.annotate.store.project import User as Account
from modicum.annotate.store.records import MODICUM
from modicum.base.errors import SpecError

ENDINGS = {"jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet", "datasets": ".zip", "spreadsheet": ".csv"}
Format = Literal["jsonl", "csv", "parquet", "datasets", "spreadsheet"]
MONTH = 30 * 86400

manage = APIRouter(prefix="/api", responses=ERRORS)


def let_in(request: Request, response: Response, token: str) -> Response:
    """Give the browser a session's cookie."""
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    name = cookie_name(request)
    response.set_cookie(name, token, max_age=MONTH, path="/", secure=secure, httponly=True, samesite="strict")
    return response


def link_of(request: Request, token: str) -> str:
    """The address that lets its reader in once."""
    here = request.headers.get("origin") or f"{request.url.scheme}://{request.headers['host']}"
    return f"{here}/link?token={token}"


# ---- the project -----------------------------------------------------------------------------------------------------


@manage.patch("/settings")
async def change_settings(body: SettingsBody, user: Lead, desk: TheDesk) -> dict[str, Any]:
    """Change settings; those that are not named stay."""
    update = body.model_dump(exclude_none=True, exclude={"client"})
    if "keys" in update:
        update["keys"] = {name: key for name, key in update["keys"].items() if key}
    client, now = f"{user.user}:{body.client}", desk.clock()
    desk.settings = await run_in_threadpool(desk.store.change, update, user.user, client, now)
    if "per_item" in update:
        desk.queue.set_per_item(desk.settings.per_item)
    if desk.supervisor is not None:
        desk.supervisor.retrain_every = desk.settings.retrain_every
    desk.news.tell("progress")
    return desk.settings.model_dump(mode="json")


@manage.get("/export", response_class=FileResponse)
async def export(user: Lead, desk: TheDesk, format: Annotated[Format, Query()] = "jsonl") -> Response:
    """All labels as a file."""
    folder = tempfile.TemporaryDirectory(prefix="modicum-")
    path = Path(folder.name) / f"labels{ENDINGS[format]}"
    try:
        async with desk.busy:
            await run_in_threadpool(exchange.export, desk.store, format, path)
    except BaseException:
        folder.cleanup()
        raise
    name = "labels-spreadsheet.csv" if format == "spreadsheet" else path.name
    return FileResponse(path, filename=name, background=BackgroundTask(folder.cleanup))


@manage.post(
    "/import",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {}}}}},
)
async def import_labels(
    request: Request, user: Lead, desk: TheDesk, name: Annotated[str, Query(min_length=1, max_length=255)]
) -> dict[str, Any]:
    """Labels for the project's items from a file, csv, tsv, jsonl or parquet; ``name`` tells which by its ending."""
    kind = Path(name.replace("\\", "/")).suffix.lower()
    with tempfile.TemporaryDirectory(prefix="modicum-") as folder:
        path = Path(folder) / f"labels{kind if kind.isascii() and kind[1:].isalnum() else ''}"
        with path.open("wb") as file:
            async for part in request.stream():
                await run_in_threadpool(file.write, part)
        async with desk.busy:
            await run_in_threadpool(check_upload, path, kind)
            client, now = f"import {uuid.uuid4()}", desk.clock()
            found = await run_in_threadpool(lambda: exchange.import_labels(desk.store, path, client=client, now=now))
    for place, item in enumerate(await run_in_threadpool(desk.store.decided), 1):
        desk.queue.decide(item)
        if place % 1_000 == 0:
            await asyncio.sleep(0)  # others' requests in between
    if found.imported and desk.supervisor is not None:
        desk.supervisor.labelled(found.imported)
    desk.news.tell("progress")
    return {name: getattr(found, name) for name in ("imported", "same", "unknown", "problems")}


@manage.get("/openapi.json", responses={200: {"description": "this description"}})
async def description(request: Request, user: Me) -> Response:
    """This interface, described by OpenAPI."""
    return JSONResponse(request.app.openapi())


# ---- people ----------------------------------------------------------------------------------------------------------


def _with_accounts(desk: Desk) -> None:
    if not desk.accounts.users:
        raise Refused(409, "This project has no accounts.", "Start it with --users.")


@manage.get("/users")
async def people(user: Lead, views: TheViews) -> list[dict[str, Any]]:
    """All accounts."""
    return await views.people(user)


@manage.post("/users")
async def add_user(body: NewUser, request: Request, user: Lead, desk: TheDesk) -> dict[str, Any]:
    """A new account, and a one-time link for its owner."""
    _with_accounts(desk)
    number = await hashing(request, lambda: desk.accounts.add(body.name, body.role, body.password))
    link = link_of(request, desk.accounts.link(number))
    return {"user": number, "name": body.name, "role": body.role, "link": link}


@manage.patch("/users")
async def change_user(body: UserChange, request: Request, user: Lead, desk: TheDesk) -> dict[str, Any]:
    """Change an account. What its owner labelled stays."""
    _with_accounts(desk)
    users = await run_in_threadpool(desk.store.users)
    account = next((one for one in users if one.name == body.name and one.user != MODICUM), None)
    if account is None:
        raise SpecError(f"there is no account {body.name!r}")
    demoted = body.closed or (body.role is not None and body.role != "lead")
    if demoted and not any(one.role == "lead" and one.closed is None and one != account for one in users):
        raise SpecError("a project keeps one open account of a lead: make another lead first")
    await hashing(request, lambda: _change(desk, account, body))
    if body.closed:
        desk.leases = {place: until for place, until in desk.leases.items() if place[1] != account.user}
    link = link_of(request, desk.accounts.link(account.user)) if body.link and not body.closed else None
    return {"user": account.user, "name": account.name, "link": link}


def _change(desk: Desk, account: Account, body: UserChange) -> None:
    if body.role is not None:
        desk.store.set_role(account.user, body.role)
    if body.password is not None:
        desk.accounts.set_password(account.user, body.password)
    if body.closed is not None:
        if body.closed:
            desk.accounts.close(account.user)
        elif account.closed is not None:
            desk.store.reopen_user(account.user)


@manage.post("/password")
async def change_password(body: PasswordBody, request: Request, user: Me, desk: TheDesk) -> Response:
    """Change one's own password; all sessions and tokens end, and this browser gets a new session."""
    _with_accounts(desk)
    token = await hashing(request, lambda: desk.accounts.change_password(user.user, body.old, body.new))
    return let_in(request, JSONResponse({}), token)


@manage.post("/tokens")
async def add_token(user: Me, desk: TheDesk) -> dict[str, Any]:
    """A token for one's own programs; it is told this once."""
    return {"token": await run_in_threadpool(desk.accounts.api_token, user.user)}


@manage.delete("/tokens")
async def end_tokens(user: Me, desk: TheDesk) -> dict[str, Any]:
    """End all of one's own tokens."""
    await run_in_threadpool(desk.store.end_sessions, user.user, "api")
    return {}


async def hashing(request: Request, act: Callable[[], Any]) -> Any:
    """Do in a thread what hashes a password: two at a time, so that guessing takes neither all memory nor all cores."""
    async with the_desk(request).hashing:
        return await run_in_threadpool(act)
