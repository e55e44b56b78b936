"""The labelling server as a process: its event loop, news, beginning and end, and whatever may be sent to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from toy_label import HOST, FakeTrainer, browser, label, sign_in
from toy_label_store import project

from modicum.annotate.server.app import _listen_again, make_queue, serve
from modicum.annotate.server.desk import News
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME
from modicum.base.errors import SpecError

# ---- the event loop --------------------------------------------------------------------------------------------------


def test_a_slow_disk_holds_nobody_up(app: FastAPI, store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    write = store.write_many

    def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go.wait(20)
        return write(*args, **kwargs)

    monkeypatch.setattr(store, "write_many", slow)
    with browser(app) as client:
        sign_in(client)
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(label(client, 3)))
        thread.start()
        assert begun.wait(20)
        assert client.get("/api/next").status_code == client.get("/api/progress").status_code == 200
        assert not answers
        go.set()
        thread.join(20)
    assert answers[0].status_code == 200


def test_the_trainer_lives_as_long_as_the_application(app: FastAPI, trainer: FakeTrainer) -> None:
    with browser(app):
        assert trainer.running
    assert not trainer.running


def test_news() -> None:
    async def listen() -> list[str]:
        news, heard = News(per_user=2), []

        async def still() -> bool:
            return True

        async def read(user: int) -> None:
            heard.extend([part async for part in news.stream(user, still)])

        readers = [asyncio.create_task(read(1)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        assert [reader.done() for reader in readers] == [True, False, False]  # the oldest made way
        news.tell("model")
        await asyncio.sleep(0.05)
        news.close()
        await asyncio.wait_for(asyncio.gather(*readers), 5)
        return heard

    heard = asyncio.run(listen())
    assert heard.count('event: change\ndata: {"model": true}\n\n') == 2


def test_news_ends_with_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modicum.annotate.server.desk.BEAT", 0.01)

    async def listen() -> list[str]:
        answers = iter([True, False])

        async def still() -> bool:
            return next(answers)

        return [part async for part in News().stream(1, still)]

    assert asyncio.run(listen()) == [": hello\n\n", ": still here\n\n"]


# ---- the server ------------------------------------------------------------------------------------------------------

SERVER = """
import sys, pathlib
sys.path.insert(0, "tests")
import modicum.annotate.server.app as app
from toy_label import FakeTrainer
app.Supervisor = lambda *parts: FakeTrainer()
app.BEGIN = 0.2
tell = lambda name, url: print(name, url, flush=True)
app.serve(pathlib.Path(sys.argv[1]), port=0, users=("anna", "ben"), announce=tell)
print("ended well", flush=True)
"""


def ask(port: int, head: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def test_serve(tmp_path: Path) -> None:
    project(tmp_path).close()
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", SERVER, str(tmp_path / "project")]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        try:
            links = dict(child.stdout.readline().split() for _ in range(2))
            assert links.keys() == {"anna", "ben"}
            where, path = links["anna"].removeprefix("http://").split("/", 1)
            port = int(where.split(":")[1])
            end = "Connection: close\r\n\r\n"
            opened = ask(port, f"GET /{path} HTTP/1.1\r\nHost: {where}\r\n{end}").decode()
            assert opened.startswith("HTTP/1.1 303")
            cookie = opened.split("set-cookie: ")[1].split(";")[0]
            asked = f"GET /api/next HTTP/1.1\r\nHost: {where}\r\nCookie: {cookie}\r\n{end}"
            assert ask(port, asked).startswith(b"HTTP/1.1 200")
            for hosts in ("", "Host: evil.test\r\n", f"Host: {where}\r\nHost: {where}\r\n", "Host: 127.0.0.1\r\n"):
                assert ask(port, f"GET / HTTP/1.1\r\n{hosts}{end}")[:10] == b"HTTP/1.1 4", hosts
            assert ask(port, f"GET / HTTP/1.0\r\n{end}")[:10] == b"HTTP/1.1 4"
            assert ask(port, f"GET /login HTTP/1.1\r\nHost: {where}\r\nX-Slow: ") == b""  # it gave up waiting
            spoofed = f"GET /login HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: {where}\r\n{end}"
            assert ask(port, spoofed)[:12] == b"HTTP/1.1 403"
            stream = socket.create_connection(("127.0.0.1", port), timeout=10)
            stream.sendall(f"GET /api/events HTTP/1.1\r\nHost: {where}\r\nCookie: {cookie}\r\n\r\n".encode())
            assert stream.recv(15) == b"HTTP/1.1 200 OK"
            with pytest.raises(SpecError, match="served already"):
                serve(tmp_path / "project")
            child.send_signal(signal.SIGINT)
            assert child.stdout.read() == "ended well\n"
            stream.close()
            assert child.wait(10) == 0
            assert "Traceback" not in child.stderr.read()
        finally:
            child.kill()


def test_a_project_keeps_its_port(tmp_path: Path) -> None:
    kept = tmp_path / "port"
    with _listen_again("127.0.0.1", kept) as first:
        port = first.getsockname()[1]
        with _listen_again("127.0.0.1", kept) as other:
            assert other.getsockname()[1] != port
    kept.write_text(f"{port}")
    with _listen_again("127.0.0.1", kept) as again:
        assert again.getsockname()[1] == port
    kept.write_text("no port")
    with _listen_again("127.0.0.1", kept) as another:
        assert int(kept.read_text()) == another.getsockname()[1]
        assert kept.stat().st_mode & 0o77 == 0
    with pytest.raises(SpecError, match="cannot listen"):
        serve(project(tmp_path).folder, port=70_000)


def test_the_server_loads_no_model_library() -> None:
    code = "import modicum.annotate.server.app, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "sklearn", "matplotlib", "pandas"}
    assert not heavy.intersection(done.stdout.split())


def test_a_restored_queue_goes_on(lead: TestClient, store: ProjectStore) -> None:
    for item in range(10):
        label(lead, item)
    assert make_queue(store).left(ME) == 50
    assert make_queue(store).left(99) == 50


# ---- whatever may be sent --------------------------------------------------------------------------------------------


def test_no_request_that_fits_the_description_breaks_the_server(app: FastAPI, lead: TestClient) -> None:
    schemathesis = pytest.importorskip(
        "schemathesis", reason="schemathesis makes the requests: pip install schemathesis"
    )
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_dict(app.openapi())
    quick = settings(
        max_examples=15, deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    seen: dict[str, set[int]] = {}
    for operation in (result.ok() for result in schema.get_all_operations()):
        if operation.path in ("/api/events", "/api/password"):  # endless; ends the session
            continue

        @quick
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            kwargs = case.as_transport_kwargs(base_url=f"http://{HOST}")
            kwargs["headers"] = {
                k: v for k, v in kwargs["headers"].items() if k.lower() not in ("authorization", "cookie")
            }
            kwargs.pop("cookies", None)
            answer = lead.request(**kwargs)
            assert answer.status_code < 500, (kwargs, answer.text)
            seen.setdefault(case.path, set()).add(answer.status_code)

        check()
    assert len(seen) > 15
    assert sum(200 in statuses for statuses in seen.values()) > 10, seen
