"""The labelling application, put together, and the server that runs it.

``make_app`` takes its parts as arguments, so that each can be another in a test; ``serve`` makes them for a project.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import sys
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from filelock import FileLock, Timeout
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from modicum import __version__
from modicum.annotate.model.queue import Queue, audit_items
from modicum.annotate.model.supervisor import Supervisor
from modicum.annotate.server.api import api
from modicum.annotate.server.auth import Authenticator
from modicum.annotate.server.desk import Desk
from modicum.annotate.server.doors import doors, failed
from modicum.annotate.server.manage import manage
from modicum.annotate.server.security import Limits, Shield, authorities
from modicum.annotate.server.views import Views
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME, MODICUM
from modicum.annotate.web import pages
from modicum.base.errors import ModicumError, SpecError, StoreError

KEPT_PORT = "port"
"""The file of a project that names its port."""
CONNECTIONS = 1_000
BEGIN = 10.0
"""Seconds that a connection may take to say what it wants."""
NO_TELEMETRY: Any = {
    "auto_configure": False, "tracing": False, "metrics": False, "logs": False, "operation_spans": False,
}  # fmt: skip


class LabelApp(FastAPI):
    """FastAPI behind the shield, which so covers the answers to unforeseen errors as well."""

    shield: dict[str, Any]

    def build_middleware_stack(self) -> ASGIApp:
        """The application within the shield."""
        return Shield(super().build_middleware_stack(), **self.shield)


def make_app(
    store: ProjectStore,
    queue: Queue,
    supervisor: Any = None,
    *,
    hosts: Iterable[str],
    users: bool,
    clock: Callable[[], float] = time.time,
    limits: Limits | None = None,
) -> FastAPI:
    """The application.

    queue: restored from the store. supervisor: as ``model.supervisor.Supervisor``, or None where no model is
    trained. hosts: values of the Host header that are answered (``security.authorities``). users: whether there are
    accounts with passwords.
    """
    desk = Desk(store, queue, supervisor, Authenticator(store, users=users, clock=clock), clock)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        if supervisor is not None:
            supervisor.on_change = lambda: desk.news.tell("model")
            await supervisor.start()
        try:
            yield
        finally:
            desk.news.close()
            if supervisor is not None:
                await supervisor.stop()

    app = LabelApp(
        title="Modicum: labelling", version=__version__, description=DESCRIPTION, openapi_url=None, docs_url=None,
        redoc_url=None, redirect_slashes=False, lifespan=life, telemetry=NO_TELEMETRY,
    )  # fmt: skip
    app.shield = {"hosts": hosts, "limits": limits}
    app.state.desk, app.state.views = desk, Views(desk)
    for kind in (ModicumError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, failed)
    for router in (api, manage, doors):
        app.include_router(router)
    app.routes.extend(pages.routes(app.state.views))
    return app


DESCRIPTION = """What the pages of a labelling project do, for programs.

Send `Authorization: Bearer TOKEN`, with a token from the project page or from `POST /api/tokens`. Labels are positions
in the project's list of classes. Each write names itself by `client`, an id of your making: sending it again with the
same id changes nothing. Errors are `{"error": …, "hint": …}`."""


# ---- serving ---------------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """Uvicorn that ends its streams of news before it waits for all answers to end."""

    news: Any

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.news.close()
        await super().shutdown(sockets)


class _Protocol(H11Protocol):
    """Uvicorn's, which waits for the headers of a request without end."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit = self.loop.call_later(BEGIN, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        begun = self.conn.their_state is h11.IDLE
        if self._limit is not None and not begun:
            self._limit.cancel()
            self._limit = None
        elif self._limit is None and begun and self.conn.our_state is h11.IDLE:
            self._limit = self.loop.call_later(BEGIN, self.transport.close)


def make_queue(store: ProjectStore) -> Queue:
    """The queue of a project, restored from what is answered."""
    settings, n = store.settings, store.count()
    audit = audit_items(n, settings.audit, settings.seed)
    queue = Queue(n, per_item=settings.per_item, audit=audit, audit_share=settings.audit_share, seed=settings.seed)
    answers = ((one.item, one.user) for one in store.answers() if one.user != MODICUM and one.answered)
    queue.restore(answers, store.decided())
    return queue


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    hosts: Iterable[str] = (),
    open_browser: bool = False,
    users: tuple[str, ...] = (),
    announce: Callable[[str, str], None] = lambda name, url: print(f"{name}: {url}"),
) -> None:
    """Serve a project until Ctrl-C.

    port: 0 takes that of the last time, so that open pages and what they have not sent yet find their server again, or
    any that is free. hosts: further names of this server, as a proxy's browsers send them in Host.
    users: names of accounts, the first a lead's; those that there are not yet are added. announce: told each person's
    name and one-time link, the lead's first; then those of the accounts that have no password yet.

    Raises:
        SpecError: ``host`` is not this machine's own address, and no lead has a password; the port is taken; or the
            project is served already.
        StoreError: the project cannot be opened.
    """
    with _alone(folder), closing(ProjectStore(folder)) as store:
        accounts = bool(users) or any(one.user > ME for one in store.users())
        if not _is_loopback(host):
            _check_accounts(store, host)
        listener = _listen(host, port) if port else _listen_again(host, store.folder / KEPT_PORT)
        port = listener.getsockname()[1]
        named = {*hosts, *(f"{name}:{port}" for name in _names(host))}
        queue = make_queue(store)
        supervisor = Supervisor(Path(folder), store, queue)
        app = make_app(store, queue, supervisor, hosts=authorities(port, named), users=accounts)
        auth = app.state.desk.accounts
        _add_missing(store, auth, users)
        here = f"http://{_written(host)}:{port}"
        leads = [one for one in store.users() if one.role == "lead" and one.closed is None]
        lead = next((one for one in leads if one.user > ME), leads[0])

        def tell() -> str:
            url = f"{here}/link?token={auth.link(lead.user)}"
            announce(lead.name, url)
            return url

        first = tell()
        for one in store.users() if accounts else ():
            if one.password is None and one.closed is None and one.user not in (MODICUM, ME, lead.user):
                announce(one.name, f"{here}/link?token={auth.link(one.user)}")
        if open_browser:
            Timer(0.5, webbrowser.open, [first]).start()
        if sys.stdin is not None and sys.stdin.isatty():
            Thread(target=_tell_again, args=[tell], daemon=True).start()
        _run(app, listener)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two servers would each hand out what the other has handed out."""
    if not folder.is_dir():
        raise StoreError(f"there is no labelling project at {folder}: give the folder of one")
    lock = FileLock(folder / ".served", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SpecError(f"{folder} is being served already: open the link of that server, or end it first") from None
    with lock:
        yield


def _run(app: FastAPI, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app, http=_Protocol, log_level="warning", access_log=False, ws="none", proxy_headers=False, server_header=False,
        timeout_keep_alive=30, timeout_graceful_shutdown=3, limit_concurrency=CONNECTIONS, lifespan="on",
        h11_max_incomplete_event_size=16_384,
    )  # fmt: skip
    server = _Server(config)
    server.news = app.state.desk.news
    before = signal.getsignal(signal.SIGTERM)
    with suppress(KeyboardInterrupt, SystemExit):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # what uvicorn raises again once it has ended well
        server.run(sockets=[listener])
    signal.signal(signal.SIGTERM, before)


def _tell_again(tell: Callable[[], Any]) -> None:
    """A new link for each Enter."""
    for _ in sys.stdin:
        tell()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _written(host: str) -> str:
    """A host as it stands in an address; for all interfaces, this machine's own."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _check_accounts(store: ProjectStore, host: str) -> None:
    """Raises SpecError where anyone could come in from outside."""
    open_accounts = [one for one in store.users() if one.user != MODICUM and one.closed is None]
    if not any(one.role == "lead" and one.password is not None for one in open_accounts):
        raise SpecError(
            f"to listen at {host}, which other machines can reach, a project needs accounts: start it without --host"
            " and with --users first, and set the lead's password on the project page"
        )


def _add_missing(store: ProjectStore, auth: Authenticator, users: tuple[str, ...]) -> None:
    for place, name in enumerate(users):
        if store.user_by_name(name) is None:
            auth.add(name, "lead" if place == 0 else "annotator", None)


def _names(host: str) -> list[str]:
    """What a server that listens at this host is called."""
    if host not in ("0.0.0.0", "::"):
        return [_written(host)]
    name = socket.gethostname()
    addresses: list[str] = []
    with suppress(OSError):
        addresses = [str(found[4][0]) for found in socket.getaddrinfo(name, None)]
    return [name, socket.getfqdn(), *map(_written, addresses)]


def _listen_again(host: str, kept: Path) -> socket.socket:
    """At the port that a file names, if it is free; at any that is, which the file names then."""
    with suppress(OSError, ValueError, SpecError):
        return _listen(host, int(kept.read_text()))
    listener = _listen(host, 0)
    with suppress(OSError):  # a read-only disk: another port the next time
        kept.write_text(f"{listener.getsockname()[1]}\n")
        kept.chmod(0o600)
    return listener


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
    except (OSError, OverflowError) as error:
        listener.close()
        raise SpecError(f"cannot listen at {host}, port {port}: {error}. Choose another with --port") from None
    return listener
