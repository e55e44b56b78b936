"""Coming in and going, and what is told to whom something went wrong for: the answers that are pages and no numbers."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from modicum.annotate.server.asking import the_desk, the_views
from modicum.annotate.server.auth import Denied
from modicum.annotate.server.manage import hashing, let_in
from modicum.annotate.server.security import Refused, problem
from modicum.annotate.server.views import cookie_name
from modicum.annotate.store.project import Conflict
from modicum.annotate.web import pages
from modicum.base.errors import ModicumError, StoreError

STATUSES: dict[type[ModicumError], int] = {Conflict: 409, StoreError: 503}

doors = APIRouter(include_in_schema=False)


# ---- errors ----------------------------------------------------------------------------------------------------------


async def failed(request: Request, error: Exception) -> Response:
    """Any error as JSON for programs and scripts, as a page for people."""
    status, words, hint, headers = _explained(request, error)
    if request.url.path.startswith("/api/"):
        return problem(status, words, hint, headers)
    return HTMLResponse(pages.error_page(status, words, hint), status, headers)


def _explained(request: Request, error: Exception) -> tuple[int, str, str, dict[str, str] | None]:
    """Status, what went wrong, what to do, headers."""
    if isinstance(error, Refused):
        return error.status_code, str(error.detail), error.hint, dict(error.headers or {})
    if isinstance(error, HTTPException):
        known = {404: "There is no such page.", 405: "This address takes other requests."}
        return error.status_code, known.get(error.status_code, str(error.detail)), "", dict(error.headers or {})
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return 422, f"{where}: {first['msg']}", "GET /api/openapi.json says what it takes.", None
    if isinstance(error, Denied):
        wait = {"Retry-After": str(int(error.wait) + 1)} if error.wait else None
        return 429 if error.wait else 403, f"{error}.", "", wait
    if isinstance(error, ModicumError):
        status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 422)
        return status, str(error).replace(f"{the_desk(request).store.folder}/", ""), "", None
    return 500, "The server made a mistake.", "Its terminal says more. Nothing that was saved is lost.", None


# ---- coming in and going ---------------------------------------------------------------------------------------------


def _login_page(request: Request, error: str = "", name: str = "", status: int = 200) -> Response:
    views = the_views(request)
    title = views.settings().title or views.settings().data_name
    page = pages.login_page(title=title, error=error, name=name, accounts=views.accounts())
    return HTMLResponse(page, status)


async def _end_session(request: Request) -> None:
    """A session that a browser brings to its login ends, so that nobody goes on in one that another planted."""
    token = request.cookies.get(cookie_name(request))
    if token:
        await run_in_threadpool(the_desk(request).accounts.logout, token)


@doors.get("/link")
async def link(request: Request, token: str = "") -> Response:
    """Come in by a one-time link."""
    try:
        session = await run_in_threadpool(the_desk(request).accounts.redeem, token)
    except Denied as denied:
        return _login_page(request, f"{denied}.".capitalize(), status=403)
    await _end_session(request)
    return let_in(request, RedirectResponse("/", 303), session)


@doors.get("/login")
async def login_page(request: Request) -> Response:
    """The form; who is in already goes on."""
    if await the_views(request).user(request) is not None:
        return RedirectResponse("/", 303)
    return _login_page(request)


@doors.post("/login")
async def login(request: Request) -> Response:
    """Come in by name and password."""
    desk = the_desk(request)
    if not desk.accounts.users:
        raise Refused(404, "This project has no accounts.", "Open the link that the server printed.")
    form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
    name, password = (form.get(field, [""])[0] for field in ("name", "password"))
    address = request.client.host if request.client is not None else ""
    try:
        session = await hashing(request, lambda: desk.accounts.login(name, password, address))
    except Denied as denied:
        page = _login_page(request, f"{denied}.".capitalize(), name[:80], 429 if denied.wait else 403)
        if denied.wait:
            page.headers["Retry-After"] = str(int(denied.wait) + 1)
        return page
    await _end_session(request)
    return let_in(request, RedirectResponse("/", 303), session)


@doors.post("/logout")
async def logout(request: Request) -> Response:
    """Go."""
    await _end_session(request)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie_name(request), path="/", httponly=True, samesite="strict")
    return response
