"""The HTML pages. They show what the API says and send what it takes; they know no store, no clock and no password.

Whatever a person or a file brought (texts, notes, guidelines, names of classes, columns, files and people) is escaped
by the templates, or set by the script as text. Pages hold no inline script or style, so that the content security
policy needs no exception.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from modicum.annotate.web import charts

HERE = Path(__file__).parent
RESERVED = "usfngjk?/"
"""Keys that do something else on the pages, and so never stand for a class."""
KEYS = "123456789" + "".join(letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in RESERVED)
SKIP_REASONS = ("unclear", "several classes fit", "no class fits", "not readable")
FORMATS = {
    "jsonl": "JSON Lines: one object per item, with every annotator's answer",
    "csv": "CSV, as faithful as CSV can be",
    "parquet": "Parquet, with types",
    "datasets": "A folder for Hugging Face datasets, classes as ClassLabel (zip)",
    "spreadsheet": "CSV for Excel and its like: cells that look like formulas are made harmless",
}
KINDS = {"model": "Model disagrees", "annotators": "Annotators disagree", "flagged": "Flagged"}
STATES = {"": "any state", "open": "not labelled", "labelled": "labelled", "skipped": "skipped"}
PHASES = {
    "waiting": "waiting for labels",
    "loading": "loading the encoder",
    "training": "training",
    "scoring": "reading the unlabelled texts",
    "ready": "ready",
    "failed": "stopped working",
}


class User(Protocol):
    """Who is asking. role: annotator or lead."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...


class Settings(Protocol):
    """What the pages read of a project's settings (``modicum.annotate.store.records.Settings``)."""

    @property
    def title(self) -> str: ...
    @property
    def data_name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def keys(self) -> dict[str, str]: ...
    @property
    def text_direction(self) -> str: ...
    @property
    def guidelines(self) -> str: ...
    @property
    def suggest(self) -> str: ...
    @property
    def per_item(self) -> int: ...
    @property
    def blind(self) -> bool: ...
    @property
    def retrain_every(self) -> int: ...
    @property
    def audit(self) -> int: ...
    @property
    def lease_seconds(self) -> float: ...


Numbers = dict[str, Any] | Awaitable[dict[str, Any]]


class Source(Protocol):
    """Where the pages' contents come from: for each GET of the API, the function that answers it (async or not)."""

    def settings(self) -> Any: ...
    def identity(self) -> str: ...
    def accounts(self) -> bool: ...
    def user(self, request: Request) -> Any: ...
    def progress(self, user: Any) -> Numbers: ...
    def curve(self, user: Any) -> Numbers: ...
    def model(self, user: Any) -> Numbers: ...
    def agreement(self, user: Any) -> Numbers: ...
    def items(self, user: Any, **query: Any) -> Numbers: ...
    def review(self, user: Any, **query: Any) -> Numbers: ...
    def people(self, user: Any) -> Any: ...


class Static(StaticFiles):
    """Files that a browser asks about again, so that a page never meets the script of an older version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def routes(source: Source) -> list[BaseRoute]:
    """The pages and their static files, to be mounted beside the API.

    Who is not logged in is sent to ``/login``; who is no lead is refused ``/project`` with an error page.
    """
    pages: dict[str, Callable[[Source, Any, Request], Awaitable[dict[str, Any]]]] = {
        "/": _label,
        "/items": _items,
        "/review": _review,
        "/progress": _progress,
        "/project": _project,
    }

    def endpoint(path: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            user = await _maybe(source.user(request))
            if user is None:
                return RedirectResponse("/login", 303)
            if path == "/project" and user.role != "lead":
                told = error_page(403, "This page is for the project's lead.", "Ask them, or go on labelling.")
                return HTMLResponse(told, 403)
            name = path.strip("/") or "label"
            content = await pages[path](source, user, request)
            return HTMLResponse(_render(f"{name}.html.j2", **_frame(source, user, request, name), **content))

        return answer

    found: list[BaseRoute] = [Route(path, endpoint(path), methods=["GET"]) for path in pages]
    return [*found, Mount("/static", Static(directory=HERE / "static"))]


def login_page(*, title: str, error: str = "", name: str = "", accounts: bool = True) -> str:
    """The form that asks for name and password; without accounts, a word on where the one-time link is."""
    return _render("login.html.j2", title=title, error=error, name=name, accounts=accounts, theme="")


def error_page(status: int, error: str, hint: str = "") -> str:
    """What went wrong and what to do, for people."""
    return _render("error.html.j2", status=status, error=error, hint=hint, theme="")


def class_keys(classes: Sequence[str], keys: Mapping[str, str]) -> dict[str, str]:
    """A key for each class while there are any: the given ones, then 1 to 9, then letters.

    A given key that is reserved, taken or not one character is passed over.
    """
    found: dict[str, str] = {}
    for name in classes:
        key = keys.get(name, "").lower()
        if len(key) == 1 and not key.isspace() and key not in RESERVED and key not in found.values():
            found[name] = key
    free = (key for key in KEYS if key not in found.values())
    return {name: found.get(name) or next(free, "") for name in classes}


async def _label(source: Source, user: User, request: Request) -> dict[str, Any]:
    return {
        "progress": await _maybe(source.progress(user)),
        "model": await _maybe(source.model(user)),
        "reasons": SKIP_REASONS,
    }


async def _items(source: Source, user: User, request: Request) -> dict[str, Any]:
    asked = request.query_params
    filters = {
        "query": asked.get("query", "")[:500],
        "state": asked.get("state", "") if asked.get("state", "") in STATES else "",
        "label": _whole(asked.get("label")),
        "flagged": True if asked.get("flagged") == "true" else None,
    }
    page = max(1, _whole(asked.get("page")) or 1)
    query = {name: value for name, value in filters.items() if value not in ("", None)}
    found = await _maybe(source.items(user, **query, page=page))
    return {"filters": filters, "found": found, "states": STATES, "turn": _turner("/items", query)}


async def _review(source: Source, user: User, request: Request) -> dict[str, Any]:
    kind = request.query_params.get("kind", "model")
    kind = kind if kind in KINDS else "model"
    page = max(1, _whole(request.query_params.get("page")) or 1)
    found = await _maybe(source.review(user, kind=kind, page=page))
    return {"kind": kind, "kinds": KINDS, "found": found, "turn": _turner("/review", {"kind": kind})}


async def _progress(source: Source, user: User, request: Request) -> dict[str, Any]:
    progress, points = await _maybe(source.progress(user)), await _maybe(source.curve(user))
    settings = source.settings()
    balance = list(zip(settings.classes, progress["classes"], strict=True))
    return {
        "progress": progress,
        "curve": points,
        "model": await _maybe(source.model(user)),
        "agreement": await _maybe(source.agreement(user)) if settings.per_item > 1 else None,
        "curve_chart": charts.curve(points["points"]),
        "balance_chart": charts.bars(balance, "Labels by class"),
    }


async def _project(source: Source, user: User, request: Request) -> dict[str, Any]:
    return {"people": await _maybe(source.people(user)), "formats": FORMATS}


def _frame(source: Source, user: User, request: Request, page: str) -> dict[str, Any]:
    """What every page has: who, where, and the settings that its script needs."""
    settings = source.settings()
    keys = class_keys(settings.classes, settings.keys)
    state = {
        "user": user.name,
        "project": source.identity(),
        "classes": settings.classes,
        "keys": [keys[name] for name in settings.classes],
        "reserved": RESERVED,
        "suggest": settings.suggest,
        "role": user.role,
    }
    theme = request.cookies.get("modicum-theme", "")
    return {
        "page": page,
        "user": user,
        "settings": settings,
        "keys": keys,
        "accounts": source.accounts(),
        "state": json.dumps(state),
        "theme": theme if theme in ("light", "dark") else "",
        "phases": PHASES,
        "direction": settings.text_direction if settings.text_direction in ("ltr", "rtl") else "auto",
    }


async def _maybe(value: Any) -> Any:
    """The value, or what it is a promise of."""
    return await value if inspect.isawaitable(value) else value


def _whole(text: str | None) -> int | None:
    """A whole number below a million millions, or None for whatever else a query string may hold."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 13 else None


def _turner(path: str, query: Mapping[str, Any]) -> Callable[[int], str]:
    """Addresses of the other pages of a list."""
    fixed = {name: "true" if value is True else value for name, value in query.items()}
    return lambda page: f"{path}?{urlencode({**fixed, 'page': page})}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["amount"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{100 * value:.0f} %"
    return environment


ENVIRONMENT = _environment()


def _render(template: str, **content: Any) -> str:
    return ENVIRONMENT.get_template(template).render(**content)
