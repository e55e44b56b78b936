"""A labelling project's application and people who label in it: a fake trainer, a test client."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.testclient import TestClient

from modicum.annotate.server.app import make_app, make_queue
from modicum.annotate.server.security import Limits
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME, Suggestion

HOST = "labels.test"
ORIGIN = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
NOW = 1_780_000_000.0
PASSWORD = "a long enough secret"
Headers = list[tuple[str, str]]
HOSTED: Headers = [("host", HOST)]
WRITES = [
    ("POST", "/api/answers", {"client": "c", "item": 0, "version": 0, "label": 0}),
    ("POST", "/api/undo", {"client": "c"}),
    ("POST", "/api/bulk", {"client": "c", "items": [0], "label": 0}),
    ("POST", "/api/adjudications", {"client": "c", "item": 0, "version": 0, "label": 0}),
    ("PATCH", "/api/settings", {"client": "c", "title": "mine"}),
    ("POST", "/api/users", {"name": "eve"}),
    ("PATCH", "/api/users", {"name": "me", "role": "annotator"}),
    ("POST", "/api/tokens", {}),
    ("POST", "/api/import?name=a.csv", {}),
    ("POST", "/logout", {}),
    ("POST", "/login", {}),
]


class Clock:
    """A time that tests move."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeTrainer:
    """Stands for the supervisor: says of each item the class that its number gives."""

    def __init__(self, classes: int = 3) -> None:
        self.classes, self.heard, self.retrain_every = classes, 0, 25
        self.on_change: Any = None
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    def labelled(self, count: int = 1) -> None:
        self.heard += count

    def state(self) -> dict[str, Any]:
        return {"phase": "ready", "model": 1, "labels": 12, "new": self.heard}

    def curve(self) -> dict[str, Any]:
        point = {"labels": 12, "value": 0.5, "low": 0.3, "high": 0.7, "model": 1, "items": 20}
        return {"metric": "accuracy", "audit": 20, "points": [point]}

    def suggestion(self, item: int) -> Suggestion | None:
        return Suggestion(label=item % self.classes, confidence=0.75)


def app_of(store: ProjectStore, trainer: Any = None, *, users: bool = True, **parts: Any) -> FastAPI:
    """The application of a project. parts: as for ``make_app``."""
    parts = {"hosts": [HOST], "clock": Clock(), "limits": Limits(), **parts}
    app = make_app(store, make_queue(store), trainer, users=users, **parts)
    app.state.desk.accounts._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)  # quick, for tests
    return app


def browser(app: FastAPI) -> TestClient:
    """A browser on a page of the application, not signed in. As a context it starts the application."""
    return TestClient(app, f"http://{HOST}", raise_server_exceptions=False, follow_redirects=False, headers=ORIGIN)


def sign_in(client: TestClient, user: int = ME) -> TestClient:
    """Open a one-time link of a user's."""
    auth = client.app.state.desk.accounts  # type: ignore[attr-defined]
    assert client.get("/link", params={"token": auth.link(user)}).status_code == 303
    return client


def add(app: FastAPI, name: str, role: str = "annotator", password: str | None = None) -> int:
    """A new account's number."""
    return int(app.state.desk.accounts.add(name, role, password))


def label(browser: TestClient, item: int, label: int = 0, version: int = 0, **fields: Any) -> Any:
    """Answer an item; returns the response."""
    body: dict[str, Any] = {"client": str(uuid4()), "item": item, "version": version, "label": label}
    body |= fields
    return browser.post("/api/answers", json=body)


def raw(
    app: FastAPI,
    path: str,
    headers: Headers,
    *,
    method: str = "GET",
    body: list[bytes] | None = None,
    hang: bool = False,
) -> tuple[int, dict[str, str], bytes]:
    """What the application answers to a request as it is, whatever a well-behaved client would have made of it.

    hang: the body never ends.
    """
    parts, sent = list(body or [b""]), list[MutableMapping[str, Any]]()
    path, _, query = path.partition("?")

    async def receive() -> MutableMapping[str, Any]:
        if not parts or (hang and len(parts) == 1):
            await asyncio.sleep(60)
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80),
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers],
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 10))
    answer = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], answer, b"".join(message.get("body", b"") for message in sent[1:])


def session(client: TestClient) -> tuple[str, str]:
    return "cookie", f"modicum={client.cookies['modicum']}"


def nothing_happened(store: ProjectStore) -> bool:
    return not list(store.events()) and len(store.users()) == 2 and store.settings.title == ""
