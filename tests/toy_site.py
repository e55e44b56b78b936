"""The labelling application on a port of its own, for tests that need a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from toy_label import FakeTrainer

from modicum.annotate.model.queue import Queue
from modicum.annotate.model.supervisor import Supervisor
from modicum.annotate.server.app import _listen, _Server, make_app, make_queue
from modicum.annotate.server.auth import Authenticator
from modicum.annotate.server.security import authorities
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Settings, Suggestion
from modicum.base.spec import Choice
from modicum.data.shipped import shipped
from modicum.data.sources import load

CLASSES = ("billing", "delivery", "refund", "setup")
WORDS = ("parcel", "lamp by the door", "last invoice", "order from March", "sensor in the attic")
EVIL = """<img src=x onerror=alert(1)></textarea><script>alert(2)</script>" ' onfocus=alert(3) autofocus {{ 7*7 }}"""
LONG = "The lamp blinks twice, waits, and blinks again. " * 120
RTL = "المصباح لا يضيء بعد التحديث، أرجو استرداد المبلغ"
TEXTS = tuple(f"My {WORDS[i % 5]}, number {i}: is this about {CLASSES[i % 4]}?" for i in range(80))
GUIDELINES = """Label what the customer wants done, not what went wrong first.

delivery: where is it, and damage on the way
refund: money or goods back, whatever the reason
technical: it worked once; setup: it never did

Two wishes in one message: the last one counts."""
PASSWORD = "a password of some length"


class SaysTheSame(FakeTrainer):
    """In a supervisor's place: a model that has one opinion of all items, and learns nothing."""

    def __init__(self, label: int, confidence: float) -> None:
        super().__init__()
        self.same = Suggestion(label=label, confidence=confidence)

    def curve(self) -> dict[str, Any]:
        points = [{"labels": 4 * i, "value": i / 8, "low": i / 9, "high": i / 7} for i in range(1, 5)]
        return {"metric": "accuracy", "audit": 20, "points": points}

    def suggestion(self, item: int) -> Suggestion:
        return self.same


@dataclass
class Site:
    """A running server. People: ana, the lead, and ben."""

    url: str
    store: ProjectStore
    auth: Authenticator

    def enter(self, page: Any, name: str) -> None:
        """Come in by a one-time link."""
        user = self.store.user_by_name(name)
        assert user is not None
        page.goto(f"{self.url}/link?token={self.auth.link(user.user)}")


@contextmanager
def served(store: ProjectStore, supervisor: Any = None, queue: Queue | None = None) -> Iterator[Site]:
    """Serve a project to ana and ben until the context ends."""
    listener = _listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    app = make_app(store, queue or make_queue(store), supervisor, hosts=authorities(port), users=True)
    auth = app.state.desk.accounts
    for name, role in (("ana", "lead"), ("ben", "annotator")):
        auth.add(name, role, None)
    config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2, lifespan="on")
    server = _Server(config)
    server.news = app.state.desk.news
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Site(f"http://127.0.0.1:{port}", store, auth)
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving(
    folder: Path,
    texts: Sequence[str | tuple[str, str]] | None = None,
    *,
    suggestion: tuple[int, float] | None = None,
    **settings: Any,
) -> Iterator[Site]:
    """Serve these texts (or pairs of texts) with these settings. suggestion: of a model, for all texts."""
    pairs = [(one, None) if isinstance(one, str) else one for one in (texts or TEXTS)]
    told = Settings(**({"title": "Helpdesk", "classes": CLASSES, "data_name": "tickets.csv"} | settings))
    rows = [(f"t{i}", text, pair) for i, (text, pair) in enumerate(pairs)]
    model = SaysTheSame(*suggestion) if suggestion else None
    with closing(ProjectStore.create(folder, told, rows, now=time.time())) as store, served(store, model) as site:
        yield site


@contextmanager
def helpdesk(folder: Path) -> Iterator[tuple[Site, dict[str, int]]]:
    """Serve the shipped data with its own trainer; also the right label of each id."""
    paths = shipped("helpdesk")
    assert paths is not None
    data = load(str(paths[0]))
    told = Settings(
        title="Helpdesk",
        data_name=data.name,
        classes=data.classes,
        guidelines=GUIDELINES,
        suggest="shown",
        strategy=Choice(name="entropy"),
        audit=60,
        audit_share=0.3,
    )
    rows = zip(data.ids, data.texts(), [None] * len(data), strict=True)
    with closing(ProjectStore.create(folder, told, rows, now=time.time())) as store:
        queue = make_queue(store)
        with served(store, Supervisor(folder, store, queue), queue) as site:
            yield site, dict(zip(data.ids, map(int, data.labels), strict=True))
