"""Who asks, and of what: the dependencies of the HTTP interface's functions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from modicum.annotate.server.auth import User
from modicum.annotate.server.desk import Desk
from modicum.annotate.server.security import Refused
from modicum.annotate.server.views import COOKIE, Views


def the_desk(request: Request) -> Desk:
    """What this application's requests share."""
    desk: Desk = request.app.state.desk
    return desk


def the_views(request: Request) -> Views:
    """What this application shows."""
    views: Views = request.app.state.views
    return views


async def person(
    request: Request,
    _bearer: Annotated[Any, Depends(HTTPBearer(auto_error=False))],
    _cookie: Annotated[
        Any, Depends(APIKeyCookie(name=COOKIE, description="with -PORT where the address has one", auto_error=False))
    ],
) -> User:
    """Whose request this is. With a token, the cookie is not looked at."""
    auth = the_desk(request).accounts
    header = request.headers.get("authorization")
    if header is not None:
        kind, _, token = header.partition(" ")
        found = await run_in_threadpool(auth.who, token.strip(), "api") if kind.lower() == "bearer" else None
    else:
        found = await the_views(request).user(request)
    if found is None:
        raise Refused(401, "You are not signed in.", "Sign in again, or send a valid token.")
    return found


async def lead_person(user: Annotated[User, Depends(person)]) -> User:
    """A lead's request."""
    if not user.lead:
        raise Refused(403, "This is for the project's lead.", "Ask them.")
    return user


Me = Annotated[User, Depends(person)]
Lead = Annotated[User, Depends(lead_person)]
TheDesk = Annotated[Desk, Depends(the_desk)]
TheViews = Annotated[Views, Depends(the_views)]
