"""Attacks on other people's labels, sessions and passwords: what an attacker gets, and that nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from toy_label import HOST, PASSWORD, WRITES, Clock, FakeTrainer, add, app_of, browser, label, sign_in
from toy_label_store import project

from modicum.annotate.server.app import serve
from modicum.annotate.server.auth import HOUR, IDLE, OLDEST, Guesses
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME
from modicum.base.errors import SpecError

# ---- other people's labels -------------------------------------------------------------------------------------------

QUESTIONS = [
    "/api/progress", "/api/curve", "/api/model", "/api/agreement", "/api/review", "/api/review?kind=annotators",
    "/api/review?kind=flagged", "/api/items", "/api/items?label=0", "/api/items?label=1", "/api/items?state=labelled",
    "/api/items?state=open", "/api/items?state=skipped", "/api/items?flagged=true", "/api/items?item=5",
    "/api/items?item=6", "/api/next?count=20", "/", "/items", "/items?label=1", "/items?flagged=true", "/review",
    "/review?kind=annotators", "/review?kind=flagged", "/progress", "/project", "/api/export", "/api/users",
]  # fmt: skip


def what_ben_sees(folder: Path, by_anna: dict[str, Any], blind: bool = True) -> list[tuple[str, int, str]]:
    """All that one annotator can learn after another's answers to the items 5 and 6, and their own to 7."""
    store = project(folder, blind=blind, per_item=2, suggest="shown")
    app = app_of(store, FakeTrainer())
    anna, ben = (sign_in(browser(app), add(app, name)) for name in ("anna", "ben"))
    for item in (5, 6):
        assert label(anna, item, client=f"{item}", **by_anna).status_code == 200
    seen = [("own", label(ben, 7, 1, client="7").status_code, "")]
    seen += [(path, (found := ben.get(path)).status_code, found.text) for path in QUESTIONS]
    for name, fields in {
        "stale": {"item": 5, "version": 3}, "theirs": {"item": 5, "client": "5"}, "second": {"item": 6, "client": "x"},
    }.items():  # fmt: skip
        found = label(ben, **fields)  # type: ignore[arg-type]
        seen.append((name, found.status_code, found.text))
    bulk = {"client": "b", "items": [5, 6, 8], "label": 0, "preview": True}
    found = ben.post("/api/bulk", json=bulk)
    seen.append(("bulk", found.status_code, found.text))
    for i in range(4):
        found = ben.post("/api/undo", json={"client": f"u{i}"})
        seen.append((f"undo {i}", found.status_code, found.text))
    assert [answer.label for answer in store.answers([5]) if answer.user == 2] == [by_anna["label"]]
    store.close()
    return seen


def test_blind_mode_does_not_leak(tmp_path: Path) -> None:
    """Ben's world is the same to the last byte, whatever Anna answered, noted and flagged."""
    worlds = [
        what_ben_sees(tmp_path / "a", {"label": 0, "note": "a secret", "flag": True}),
        what_ben_sees(tmp_path / "b", {"label": 1, "note": "other words", "flag": False}),
    ]
    for one, other in zip(*worlds, strict=True):
        assert one == other
    shown = {path: text for path, status, text in worlds[0] if status == 200}
    assert not [path for path, text in shown.items() if "secret" in text or "anna" in text]


def test_the_same_eyes_see_it_where_nothing_is_blind(tmp_path: Path) -> None:
    """Or else the test before this one would prove nothing."""
    worlds = [
        what_ben_sees(tmp_path / "a", {"label": 0, "note": "a secret", "flag": True}, blind=False),
        what_ben_sees(tmp_path / "b", {"label": 1, "note": "other words", "flag": False}, blind=False),
    ]
    differing = {one[0] for one, other in zip(*worlds, strict=True) if one != other}
    assert {"/api/progress", "/api/items?label=0", "/api/review?kind=flagged", "/review?kind=flagged"} <= differing


def test_idor(store: ProjectStore, app: FastAPI, lead: TestClient) -> None:
    anna, ben = (sign_in(browser(app), add(app, name)) for name in ("anna", "ben"))
    assert label(anna, 3, 1, client="same").status_code == 200
    before = [answer for answer in store.answers() if answer.user == 2]
    assert label(ben, 3, 0, client="same").status_code == 409  # another's item
    assert label(ben, 3, 0, version=1).status_code == 409
    assert ben.post("/api/undo", json={"client": "x"}).json()["item"] is None  # not another's act
    assert label(ben, 4, 2, client="same").status_code == 200  # another's client id is no door to it
    assert [answer for answer in store.answers() if answer.user == 2] == before
    events = store.last_seq()
    for method, path, fields in WRITES[3:7] + WRITES[8:9] + [("GET", "/api/export", {}), ("GET", "/api/users", {})]:
        kind = {} if method == "GET" else {"json": fields}
        assert ben.request(method, path, **kind).status_code == 403, path
    assert ben.get("/project").status_code == 403
    assert store.last_seq() == events


def test_a_closed_or_demoted_account_loses_its_rights_at_once(app: FastAPI, lead: TestClient) -> None:
    eve = sign_in(browser(app), add(app, "eve", "lead"))
    token = {"authorization": f"Bearer {eve.post('/api/tokens').json()['token']}"}
    assert lead.patch("/api/users", json={"name": "eve", "role": "annotator"}).status_code == 200
    assert eve.get("/api/users").status_code == 403
    assert lead.patch("/api/users", json={"name": "eve", "closed": True}).status_code == 200
    assert eve.get("/api/next").status_code == browser(app).get("/api/next", headers=token).status_code == 401
    assert lead.patch("/api/users", json={"name": "me", "closed": True}).status_code == 422  # the last lead


# ---- sessions --------------------------------------------------------------------------------------------------------


def log_in(client: TestClient, name: str, password: str, address: str = "10.0.0.1") -> Any:
    client._transport.client = (address, 5)  # type: ignore[attr-defined]
    return client.post("/login", data={"name": name, "password": password})


def test_session_fixation(app: FastAPI) -> None:
    add(app, "anna", password=PASSWORD)
    planted = sign_in(browser(app)).cookies["modicum"]
    for invented in ("x", planted):
        victim = browser(app)
        victim.cookies.set("modicum", invented)
        found = log_in(victim, "anna", PASSWORD)
        assert found.status_code == 303
        cookie = found.headers["set-cookie"]
        assert cookie.split(";")[0] != f"modicum={invented}"
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    attacker = browser(app)
    attacker.cookies.set("modicum", planted)
    assert attacker.get("/api/next").status_code == 401  # what was planted has ended


def test_projects_on_two_ports_of_a_host_have_sessions_of_their_own(tmp_path: Path) -> None:
    visitors, stores = [], []
    for port in (8001, 8002):  # browsers keep cookies by host, whatever the port
        stores.append(project(tmp_path / str(port)))
        host = f"{HOST}:{port}"
        visitor = TestClient(app_of(stores[-1], hosts=[host]), f"http://{host}", follow_redirects=False)
        visitor.headers.update({"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"})
        visitors.append(sign_in(visitor))
    visitors[0].cookies.update(visitors[1].cookies)
    visitors[1].cookies.update(visitors[0].cookies)
    assert [visitor.get("/api/next").status_code for visitor in visitors] == [200, 200]
    assert [len(visitor.cookies) for visitor in visitors] == [2, 2]
    for store in stores:
        store.close()


def test_logout_ends_the_session(app: FastAPI, lead: TestClient) -> None:
    kept = lead.cookies["modicum"]
    assert lead.post("/logout").status_code == 303
    assert "modicum" not in lead.cookies
    thief = browser(app)
    thief.cookies.set("modicum", kept)
    assert thief.get("/api/next").status_code == 401
    assert thief.get("/").headers["location"] == "/login"


def test_sessions_and_tokens_are_different_things(app: FastAPI, lead: TestClient) -> None:
    token, cookie = lead.post("/api/tokens").json()["token"], lead.cookies["modicum"]
    other = browser(app)
    assert other.get("/api/next", headers={"authorization": f"Bearer {cookie}"}).status_code == 401
    other.cookies.set("modicum", token)
    assert other.get("/api/next").status_code == 401
    assert lead.delete("/api/tokens").status_code == 200
    assert browser(app).get("/api/next", headers={"authorization": f"Bearer {token}"}).status_code == 401


@pytest.mark.parametrize(("step", "steps"), [(IDLE + 1, 1), (IDLE - HOUR, int(OLDEST / (IDLE - HOUR)) + 1)])
def test_sessions_end(store: ProjectStore, step: float, steps: int) -> None:
    clock = Clock()
    client = sign_in(browser(app_of(store, clock=clock)))
    for left in range(steps - 1, -1, -1):
        clock.now += step
        assert client.get("/api/progress").status_code == (200 if left else 401)
        client.post("/api/tokens")  # puts on disk that the session was used


def test_a_changed_password_ends_all_sessions(app: FastAPI) -> None:
    anna = add(app, "anna", password=PASSWORD)
    first, second = (sign_in(browser(app), anna) for _ in range(2))
    assert first.post("/api/password", json={"old": "wrong", "new": "another secret"}).status_code == 403
    assert first.post("/api/password", json={"old": PASSWORD, "new": "another secret"}).status_code == 200
    assert (first.get("/api/next").status_code, second.get("/api/next").status_code) == (200, 401)
    assert log_in(browser(app), "anna", PASSWORD).status_code == 403
    assert log_in(browser(app), "anna", "another secret").status_code == 303


def test_links_open_once_and_not_for_long(store: ProjectStore) -> None:
    clock = Clock()
    app = app_of(store, clock=clock)
    auth = app.state.desk.accounts
    used, old = auth.link(ME), auth.link(ME)
    assert browser(app).get("/link", params={"token": used}).status_code == 303
    clock.now += 90_000
    for token in (used, old, "", "x" * 5_000):
        found = browser(app).get("/link", params={"token": token})
        assert found.status_code == 403 and "set-cookie" not in found.headers


def test_no_secret_is_kept_as_it_is(app: FastAPI, store: ProjectStore, lead: TestClient) -> None:
    add(app, "anna", password=PASSWORD)
    token = lead.post("/api/tokens").json()["token"]
    kept = (store.folder / "project.sqlite").read_bytes()
    for secret in (PASSWORD, token, lead.cookies["modicum"]):
        assert secret.encode() not in kept
    assert b"$argon2id$" in kept


# ---- guessing --------------------------------------------------------------------------------------------------------


def test_brute_force_on_one_account(store: ProjectStore) -> None:
    clock = Clock()
    app = app_of(store, clock=clock)
    add(app, "anna", password=PASSWORD)
    client = browser(app)
    tried = [log_in(client, "anna", f"guess {i}", f"10.0.{i}.1").status_code for i in range(7)]
    assert tried == [403] * 5 + [429] * 2
    waits = []
    for i in range(8):
        found = log_in(
            client, "ANNA ", PASSWORD, f"10.1.{i}.1"
        )  # the right one does not help either, nor other spelling
        assert found.status_code == 429
        waits.append(int(found.headers["retry-after"]))
        clock.now += waits[-1]
        assert log_in(client, "anna", "guess", f"10.2.{i}.1").status_code == 403
    assert waits[:4] == [2, 3, 5, 9] and waits[-1] == waits[-2] == 61
    clock.now += 61
    assert log_in(client, "anna", PASSWORD).status_code == 303
    assert log_in(client, "anna", "guess").status_code == 403  # and all is forgiven


def test_brute_force_from_one_address(store: ProjectStore) -> None:
    app = app_of(store)
    add(app, "anna", password=PASSWORD)
    client = browser(app)
    tried = [log_in(client, f"name {i}", "guess", f"2001:db8::{i:x}").status_code for i in range(22)]
    assert tried == [403] * 20 + [429] * 2
    assert log_in(client, "anna", PASSWORD, "2001:db8::ffff").status_code == 429
    assert log_in(client, "anna", PASSWORD, "2001:db8:0:1::1").status_code == 303


def test_many_guesses_at_once_gain_nothing() -> None:
    guesses = Guesses(5, 60.0)
    assert sum(guesses.begin("anna", 0.0) == 0.0 for _ in range(100)) == 5
    for i in range(20_000):
        guesses.begin(f"{i}", 0.0)
    assert len(guesses._found) <= 10_000


def test_user_enumeration(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that there is not gets the same words, the same work and the same limits."""
    app = app_of(store)
    add(app, "anna", password=PASSWORD)
    add(app, "ben")
    app.state.desk.accounts.close(add(app, "carl", password=PASSWORD))
    verified: list[str] = []
    hasher = app.state.desk.accounts._hasher

    class Counting:
        hash = hasher.hash

        def verify(self, hashed: str, password: bytes) -> bool:
            verified.append(hashed.split("$")[3])
            return bool(hasher.verify(hashed, password))

    monkeypatch.setattr(app.state.desk.accounts, "_hasher", Counting())
    found: dict[str, list[tuple[int, str, int]]] = {}
    for i, name in enumerate(("anna", "ben", "carl", "dora", "modicum", "")):
        client, told = browser(app), []
        for attempt in range(6):
            verified.clear()
            password = "guess" if name == "anna" else PASSWORD
            answer = log_in(client, name, password, f"10.{i}.{attempt}.1")
            told.append((answer.status_code, answer.text.replace(f'value="{name}"', ""), len(verified)))
        found[name] = told
    first = found.pop("dora")
    assert [status for status, _, _ in first] == [403] * 5 + [429]
    assert [work for _, _, work in first] == [1] * 5 + [0]
    found.pop("")  # its form has the cursor elsewhere
    assert all(told == first for told in found.values())


def test_only_accounts_open_the_server_to_others(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="needs accounts"):
        store = project(tmp_path)
        store.close()
        serve(store.folder, host="0.0.0.0", port=0)


def test_a_project_without_accounts_takes_no_password(store: ProjectStore) -> None:
    client = browser(app_of(store, users=False))
    assert log_in(client, "me", PASSWORD).status_code == 404
    assert "password" not in client.get("/login").text.lower()
    assert sign_in(client).post("/api/users", json={"name": "eve"}).status_code == 409


def test_no_default_secrets(store: ProjectStore, app: FastAPI) -> None:
    assert [user.password for user in store.users()] == [None, None]
    for name in ("me", "modicum", "admin"):
        for password in ("", "admin", "modicum", "me"):
            assert log_in(browser(app), name, password, f"10.{len(name)}.{len(password)}.1").status_code != 303
