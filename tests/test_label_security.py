"""One test for each attack on the labelling server: what an attacker gets, and that nothing changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from toy_label import (
    HOST,
    HOSTED,
    WRITES,
    FakeTrainer,
    Headers,
    app_of,
    browser,
    label,
    nothing_happened,
    raw,
    session,
    sign_in,
)
from toy_label_store import project

from modicum.annotate.server import security
from modicum.annotate.server.security import HEADERS, Limits, authorities, check_upload
from modicum.annotate.store.project import ProjectStore
from modicum.base.errors import DataError

Calm = tuple[FastAPI, ProjectStore, TestClient]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calm]:
    """An application, its store and a lead's browser, for all attacks that are to change nothing."""
    store = project(tmp_path_factory.mktemp("calm"))
    app = app_of(store)
    yield app, store, sign_in(browser(app))
    assert nothing_happened(store)
    store.close()


# ---- hosts: DNS rebinding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/next", "/static/core.js", "/login", "/link?token=x", "/nothing"])
@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.test"], [f"{HOST}.evil.test"], [f"{HOST}:81"], [f"evil.test@{HOST}"], [""], [], [HOST, HOST],
        ["evil.test", HOST], [HOST, "evil.test"], [f"{HOST}, evil.test"],
    ],
)  # fmt: skip
def test_dns_rebinding(calm: Calm, path: str, hosts: list[str]) -> None:
    app, _, lead = calm
    headers = [("host", host) for host in hosts] + [session(lead)]
    status, answer, body = raw(app, path, headers)
    assert status == (403 if len(hosts) == 1 else 400)
    assert set(json.loads(body)) == {"error", "hint"}
    assert answer["x-frame-options"] == "DENY"


def test_hosts_of_a_server() -> None:
    assert authorities(8000, ["Labels.Test"]) == {"127.0.0.1:8000", "localhost:8000", "[::1]:8000", "labels.test"}
    assert "localhost" in authorities(80)


# ---- origins: CSRF, hijacked streams ---------------------------------------------------------------------------------

FOREIGN: list[Headers] = [
    [("origin", "http://evil.test"), ("sec-fetch-site", "cross-site")],
    [("origin", "http://evil.test")],
    [("origin", "null")],
    [("origin", "null"), ("sec-fetch-site", "same-origin")],
    [("origin", f"http://{HOST}:8001"), ("sec-fetch-site", "same-site")],
    [("origin", f"http://{HOST}:8001")],
    [("origin", f"http://{HOST}.evil.test")],
    [("origin", f"http://{HOST}"), ("origin", "http://evil.test")],
    [("sec-fetch-site", "same-site")],
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "none")],
    [],
]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_csrf(calm: Calm, origin: Headers, kind: str) -> None:
    app, store, lead = calm
    for method, path, fields in WRITES:
        headers = [*HOSTED, session(lead), ("content-type", kind), *origin]
        status, _, body = raw(app, path, headers, method=method, body=[json.dumps(fields).encode()])
        assert status == 403, path
        assert "not come from a page" in json.loads(body)["error"]
    assert nothing_happened(store)
    assert lead.get("/api/progress").status_code == 200  # still signed in


def test_a_form_cannot_speak_json(calm: Calm) -> None:
    _, store, lead = calm
    body = json.dumps({"client": "c", "item": 0, "version": 0, "label": 0})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert lead.post("/api/answers", content=body, headers={"content-type": kind}).status_code == 422
    assert nothing_happened(store)


@pytest.mark.parametrize("origin", FOREIGN[:-2])
def test_sse_hijack(calm: Calm, origin: Headers) -> None:
    app, _, lead = calm
    for path in ("/api/events", "/api/next", "/api/export"):
        status, headers, _ = raw(app, path, [*HOSTED, session(lead), *origin])
        assert status == 403
        assert not [name for name in headers if name.startswith("access-control")]


def test_no_stream_without_a_session(calm: Calm) -> None:
    assert raw(calm[0], "/api/events", [*HOSTED, ("sec-fetch-site", "same-origin")])[0] == 401


def test_websockets_are_refused(calm: Calm) -> None:
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)), calm[2].websocket_connect("/api/events"):
        pass


def test_no_cors(calm: Calm) -> None:
    app, _, lead = calm
    asked = [("origin", "http://evil.test"), ("access-control-request-method", "POST")]
    for path in ("/api/answers", "/api/next", "/"):
        _, headers, _ = raw(app, path, [*HOSTED, session(lead), *asked], method="OPTIONS")
        assert not [name for name in headers if name.startswith("access-control")]


def test_tokens_need_no_origin_but_a_host(app: FastAPI, lead: TestClient) -> None:
    bearer = ("authorization", f"Bearer {lead.post('/api/tokens').json()['token']}")
    assert raw(app, "/api/progress", [*HOSTED, bearer])[0] == 200
    assert raw(app, "/api/progress", [("host", "evil.test"), bearer])[0] == 403
    forged = [*HOSTED, session(lead), ("origin", "http://evil.test"), ("authorization", "Bearer x")]
    assert raw(app, "/api/undo", forged, method="POST", body=[b'{"client": "c"}'])[0] == 401  # no falling back


# ---- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../pages.py", "/static/../../annotate/pages.py", "/static//etc/passwd", "/static/..\\pages.py",
        "/static/%2e%2e/pages.py", "/static/%2e%2e%2fpages.py", "/static/....//pages.py", "/static/core.js\0.png",
        "/static/..%5cpages.py", "/static/./core.js", "/static/", "/static", "/static/c:\\windows\\win.ini",
        "/../pages.py",
    ],
)  # fmt: skip
def test_path_traversal(calm: Calm, path: str) -> None:
    status, _, body = raw(calm[0], path, HOSTED)
    assert status == 404
    assert b"import" not in body and b"root:" not in body


def test_symlinks_are_not_followed(app: FastAPI, tmp_path: Path) -> None:
    (files,) = [route.app for route in app.routes if isinstance(route, Mount) and isinstance(route.app, StaticFiles)]
    shown = tmp_path / "static"
    shown.mkdir()
    (shown / "page.js").write_text("ours")
    (tmp_path / "secret").write_text("theirs")
    (shown / "link.js").symlink_to(tmp_path / "secret")
    (shown / "up").symlink_to(tmp_path)
    files.all_directories = [shown]
    found = {name: raw(app, f"/static/{name}", HOSTED)[0] for name in ("page.js", "link.js", "up/secret")}
    assert found == {"page.js": 200, "link.js": 404, "up/secret": 404}


# ---- bodies ----------------------------------------------------------------------------------------------------------


def post(app: FastAPI, client: TestClient, path: str, body: list[bytes], *more: tuple[str, str], **how: Any) -> int:
    headers = [*HOSTED, session(client), ("content-type", "application/json"), ("origin", f"http://{HOST}"), *more]
    return raw(app, path, headers, method="POST", body=body, **how)[0]


def test_oversized_bodies(store: ProjectStore) -> None:
    limits = Limits(body=100, upload=200)
    app = app_of(store, limits=limits)
    lead = sign_in(browser(app))
    for path, most in (("/api/answers", 100), ("/login", 100), ("/nothing", 100), ("/api/import?name=a.csv", 200)):
        chunked = ("transfer-encoding", "chunked")
        assert post(app, lead, path, [b"x"], ("content-length", str(most + 1))) == 413
        assert post(app, lead, path, [b"x"], ("content-length", "1" * 30)) == 413
        assert post(app, lead, path, [b"x" * 60] * 4, chunked) == 413
        assert post(app, lead, path, [b"x" * 60] * 4) != 200  # more than was announced: not even read
    assert post(app, lead, "/api/answers", [b"{}"], ("content-length", "2"), ("content-encoding", "gzip")) == 415
    assert post(app, lead, "/api/answers", [b"{}"], ("content-length", "2")) == 422
    assert nothing_happened(store)


def test_a_stranger_uploads_nothing(store: ProjectStore) -> None:
    app = app_of(store)
    headers = [*HOSTED, ("origin", f"http://{HOST}"), ("content-length", "40000000")]
    assert raw(app, "/api/import?name=a.csv", headers, method="POST", body=[b"x", b"x"], hang=True)[0] == 401


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"client":' + "[" * 40 + "]" * 40 + "}"])
def test_deeply_nested_bodies(calm: Calm, text: str) -> None:
    app, _, lead = calm
    body = text.encode()[: Limits().body]
    assert post(app, lead, "/api/answers", [body], ("content-length", str(len(body)))) == 400


def test_brackets_in_strings_do_not_nest(lead: TestClient) -> None:
    assert label(lead, 0, note='[[[[[[[[[[[[[[[[[[[[ "{{{{{{{{{{{{{{{{{{{{{{{ \\').status_code == 200


@pytest.mark.parametrize("path", ["/api/answers", "/login", "/api/import?name=a.csv"])
def test_slow_bodies(store: ProjectStore, path: str) -> None:
    app = app_of(store, limits=Limits(seconds=0.05, upload_seconds=0.05))
    lead = sign_in(browser(app))
    assert post(app, lead, path, [b"{", b""], ("content-length", "9"), hang=True) == 408


# ---- uploads ---------------------------------------------------------------------------------------------------------


def upload(client: TestClient, name: str, body: bytes) -> Any:
    return client.post("/api/import", params={"name": name}, content=body)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("a.csv", b"PK\x03\x04" + bytes(100), "zip"), ("a.jsonl", b"\x1f\x8b" + bytes(100), "gzip"),
        ("a.zip", b"PK\x03\x04", "ends in"), ("a", b"id,label\n", "ends in"),
        ("a.parquet", b"id,label\n", "something else"),
        ("a.csv", b"PAR1" + bytes(100), "something else"), ("a.parquet", b"PAR1" + bytes(100), "cannot be read"),
        ("../../a.csv/", b"x", "label"), ("a.jsonl", b'{"id": ' + b"[" * 5_000, "deep"), ("a.c\0v", b"x", "ends in"),
    ],
)  # fmt: skip
def test_packed_and_mislabelled_files(
    store: ProjectStore, lead: TestClient, name: str, body: bytes, words: str
) -> None:
    found = upload(lead, name, body)
    assert found.status_code == 422
    assert words in found.json()["error"]
    assert nothing_happened(store)


def parquet(path: Path, table: pa.Table, **how: Any) -> bytes:
    pq.write_table(table, path, **how)
    return path.read_bytes()


def test_parquet_bombs(store: ProjectStore, lead: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MOST_UNPACKED", 1_000_000)
    monkeypatch.setattr(security, "MOST_ROWS", 50_000)
    long = "x" * 5_000
    bombs = {
        "zeros": parquet(tmp_path / "a", pa.table({"id": ["x" * 2_000_000]}), compression="zstd", use_dictionary=False),
        "dictionary": parquet(tmp_path / "b", pa.table({"id": [long] * 1_000})),
        "nested": parquet(tmp_path / "c", pa.table({"id": [[long] * 100] * 10})),
        "rows": parquet(tmp_path / "d", pa.table({"label": pa.nulls(100_000, pa.string())})),
    }
    for name, bomb in bombs.items():
        assert len(bomb) < 200_000, name
        found = upload(lead, "a.parquet", bomb)
        assert found.status_code == 422 and "unpacks to more" in found.json()["error"], name
    assert nothing_happened(store)


def test_an_honest_file_is_let_in(store: ProjectStore, lead: TestClient, tmp_path: Path) -> None:
    rows = {"id": store.ids([0, 1]), "label": list(store.settings.classes[:2])}
    parquet(tmp_path / "a.parquet", pa.table(rows))
    check_upload(tmp_path / "a.parquet", ".parquet")
    with pytest.raises(DataError, match="something else"):
        check_upload(tmp_path / "a.parquet", ".csv")


# ---- headers: clickjacking, sniffing, scripts of others --------------------------------------------------------------


def test_headers_on_every_answer(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(store, FakeTrainer())
    lead = sign_in(browser(app))
    monkeypatch.setattr(app.state.desk.supervisor, "state", lambda: 1 / 0)
    long = {"content": b"x", "headers": {"content-length": "9999999"}}
    answers = {
        200: [lead.get("/items"), lead.get("/api/progress"), lead.get("/static/core.js"), lead.get("/api/export")],
        303: [browser(app).get("/")],
        401: [browser(app).get("/api/next")],
        403: [lead.get("/", headers={"host": "evil.test"}), lead.post("/logout", headers={"origin": "null"})],
        404: [lead.get("/nothing"), lead.get("/api/nothing"), lead.get("/static/nothing"), lead.get("/link/..\\")],
        405: [lead.delete("/api/next"), lead.put("/")],
        413: [lead.post("/api/undo", **long)],
        422: [lead.get("/api/next", params={"count": 99})],
        500: [lead.get("/api/model"), lead.get("/progress")],
    }  # fmt: skip
    for status, found in answers.items():
        for answer in found:
            assert answer.status_code == status, answer.url
            assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer.url
            assert "cache-control" in answer.headers
    for error in answers[500]:
        assert "ZeroDivisionError" not in error.text and "Traceback" not in error.text
    assert "no-store" in answers[200][1].headers["cache-control"]


def test_the_policy_and_the_pages_agree(calm: Calm) -> None:
    lead = calm[2]
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy and "*" not in policy and "frame-ancestors 'none'" in policy
    for path in ("/", "/items", "/review", "/progress", "/project", "/login", "/nothing"):
        html = lead.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=\"/static/)|<style|\son\w+\s*=|\sstyle\s*=|javascript:", html), path
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", html), path
