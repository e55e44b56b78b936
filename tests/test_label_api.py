"""The HTTP interface over the real store and queue: what programs and pages can rely on."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from toy_label import HOST, NOW, PASSWORD, Clock, FakeTrainer, add, app_of, browser, label, sign_in
from toy_label_store import project

from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME, MODICUM
from modicum.base.errors import StoreError


def next_items(client: TestClient, count: int = 5) -> list[dict[str, Any]]:
    found = client.get("/api/next", params={"count": count}).json()["items"]
    assert isinstance(found, list)
    return found


# ---- labelling -------------------------------------------------------------------------------------------------------


def test_next_holds_items_and_shows_the_same_after_a_reload(lead: TestClient, store: ProjectStore) -> None:
    first = next_items(lead)
    assert len({item["item"] for item in first}) == 5
    assert next_items(lead) == first
    assert set(store.leased(NOW)) == {item["item"] for item in first}
    one = first[0]
    assert (one["text"], one["id"]) == (store.item(one["item"]).text, store.item(one["item"]).id)
    assert one["suggestion"] == {"label": one["item"] % 3, "confidence": 0.75}
    assert one["lease_until"] == NOW + 300


def test_a_hidden_suggestion_does_not_leave_the_server(tmp_path: Path) -> None:
    store = project(tmp_path, suggest="hidden")
    assert {item["suggestion"] and 1 for item in next_items(sign_in(browser(app_of(store, FakeTrainer()))))} == {None}


def test_an_answer_is_logged_with_all_that_was_known(
    lead: TestClient, store: ProjectStore, trainer: FakeTrainer
) -> None:
    item = next_items(lead)[0]["item"]
    shown = {"label": 2, "confidence": 0.5}
    receipt = label(lead, item, 1, client="c1", seconds=1.5, shown=shown, flag=True, note="odd").json()
    assert receipt == {"seq": 1, "item": item, "version": 1, "repeated": False}
    labelled, marked = (stored.event.model_dump() for stored in store.events())
    assert labelled["strategy"] == "random" and labelled["shown"] == shown and labelled["seconds"] == 1.5
    assert (marked["flag"], marked["note"]) == (True, "odd")
    assert trainer.heard == 1
    assert item not in {one["item"] for one in next_items(lead, 20)}


def test_a_retry_changes_nothing_even_after_a_restart(
    lead: TestClient, store: ProjectStore, trainer: FakeTrainer
) -> None:
    item = next_items(lead)[0]["item"]
    first = label(lead, item, 1, client="c1").json()
    again = label(lead, item, 1, client="c1").json()
    later = label(sign_in(browser(app_of(store, trainer))), item, 1, client="c1").json()
    assert again == later == {**first, "repeated": True}
    assert trainer.heard == 1
    assert store.last_seq() == 1
    assert label(lead, item, 2, client="c1").status_code == 409  # other words by the same name


def test_a_stale_answer_is_refused(lead: TestClient, store: ProjectStore) -> None:
    assert label(lead, 7, 1).json()["version"] == 1
    stale = label(lead, 7, 2, version=0)
    assert stale.status_code == 409 and set(stale.json()) == {"error", "hint"}
    answer = store.answer(7, ME)
    assert answer is not None and answer.label == 1
    assert label(lead, 7, 2, version=1).json()["version"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {}, {"label": 0, "skip": "x"}, {"label": 3}, {"label": -1}, {"label": "0"}, {"label": 0, "item": 60},
        {"label": 0, "item": 2**40}, {"label": 0, "version": -1}, {"label": 0, "client": ""}, {"label": 0, "more": 1},
        {"label": 0, "client": "a b"}, {"label": 0, "seconds": -1}, {"label": 0, "note": "x" * 20_000}, {"skip": 1},
        {"label": 0, "shown": {"label": 0, "confidence": 2}}, {"label": 0, "item": True}, {"note": "\ud800"},
    ],
)  # fmt: skip
def test_unusable_answers(lead: TestClient, store: ProjectStore, body: dict[str, Any]) -> None:
    sent = json.dumps({"client": "c", "item": 0, "version": 0, **body})
    found = lead.post("/api/answers", content=sent, headers={"content-type": "application/json"})
    assert found.status_code == 422
    assert found.json()["error"]
    assert store.last_seq() == 0


def test_skip_flag_and_note(lead: TestClient, store: ProjectStore, trainer: FakeTrainer) -> None:
    def post(**body: Any) -> Any:
        return lead.post("/api/answers", json={"client": f"{body}", **body}).json()

    for n, body in enumerate(({"skip": "unclear"}, {"flag": True}, {"note": "see 5"})):
        sent = {"client": f"c{n}", "item": 4, "version": n, **body}
        assert lead.post("/api/answers", json=sent).json()["version"] == n + 1
    answer = store.answer(4, ME)
    assert answer is not None and (answer.skip, answer.flag, answer.note) == ("unclear", True, "see 5")
    assert trainer.heard == 0
    assert 4 not in {one["item"] for one in next_items(lead, 20)}


def test_undo_goes_back_all_the_way(lead: TestClient, store: ProjectStore) -> None:
    order = [item["item"] for item in next_items(lead, 20)]
    for place, item in enumerate(order):
        label(lead, item, place % 3)
    for n, item in enumerate(reversed(order)):
        found = lead.post("/api/undo", json={"client": f"u{n}"}).json()
        assert (found["item"]["item"], found["undone"], found["previous"]) == (item, "labelled", None)
        assert found["item"]["version"] == 2 and found["item"]["strategy"] == "random"
    assert lead.post("/api/undo", json={"client": "last"}).json()["item"] is None
    assert {one["item"] for one in next_items(lead, 20)} == set(order)
    assert lead.post("/api/undo", json={"client": "u0"}).json()["item"]["item"] == order[-1]  # a retry
    assert label(lead, order[0], 2, version=2).status_code == 200


def test_undo_tells_what_stands_again(lead: TestClient) -> None:
    label(lead, 3, 1)
    label(lead, 3, 2, version=1, note="sure")
    found = lead.post("/api/undo", json={"client": "u"}).json()
    assert found["previous"] == {"label": 1, "skip": None, "flag": False, "note": ""}
    assert (found["items"], found["item"]["version"], found["item"]["note"]) == (1, 3, "")


def test_bulk(lead: TestClient, store: ProjectStore, trainer: FakeTrainer) -> None:
    label(lead, 1, 0)
    label(lead, 2, 1)
    asked = {"client": "b", "items": [1, 2, 3, 4, 3], "label": 1}
    told = lead.post("/api/bulk", json={**asked, "preview": True}).json()
    assert (told["new"], told["changed"], told["same"], told["receipt"]) == (2, 1, 1, None)
    assert [(row["item"], row["before"]) for row in told["rows"]] == [(1, 0), (3, None), (4, None)]
    assert store.last_seq() == 2
    done = lead.post("/api/bulk", json=asked).json()
    assert done["receipt"]["repeated"] is False
    assert [answer.label for answer in store.answers([1, 2, 3, 4])] == [1] * 4
    assert trainer.heard == 5
    assert {event.event.strategy for event in store.events(2)} == {"search"}  # type: ignore[union-attr]
    assert lead.post("/api/bulk", json=asked).json()["same"] == 4  # a retry
    undone = lead.post("/api/undo", json={"client": "u"}).json()
    assert (undone["items"], undone["item"]["item"]) == (3, 1)
    assert [(answer.item, answer.label) for answer in store.answers()] == [(1, 0), (2, 1)]
    assert lead.post("/api/bulk", json={**asked, "label": 9}).status_code == 422


def test_search(lead: TestClient, store: ProjectStore) -> None:
    word = store.item(5).text.split()[0]
    label(lead, 5, 2, flag=True)
    found = lead.get("/api/items", params={"query": word, "state": "labelled"}).json()
    assert [row["item"] for row in found["rows"]] == [5]
    row = found["rows"][0]
    assert (row["label"], row["state"], row["flag"], row["version"]) == (2, "labelled", True, 1)
    assert lead.get("/api/items", params={"flagged": "true"}).json()["total"] == 1
    assert lead.get("/api/items", params={"state": "open", "page": 2}).json()["pages"] == 2
    assert lead.get("/api/items", params={"item": 9}).json()["rows"][0]["id"] == store.item(9).id
    assert lead.get("/api/items", params={"item": 60}).status_code == 422
    for odd in ('"', "a AND", "NEAR(", "*", "' OR 1=1 --", "\x00", "(" * 50, "text:x", "-a", 'a"b'):
        assert lead.get("/api/items", params={"query": odd}).status_code == 200, odd


def test_review_lists(app: FastAPI, lead: TestClient, store: ProjectStore) -> None:
    label(lead, 3, 1)  # the model says 0
    label(lead, 4, 1)  # and 1
    (row,) = lead.get("/api/review").json()["rows"]
    assert (row["item"], row["label"], row["suggestion"]["label"], row["answers"]) == (3, 1, 0, [])
    label(lead, 5, 0, flag=True)
    found = lead.get("/api/review", params={"kind": "flagged"}).json()["rows"]
    assert [(one["item"], one["flag"], one["own_flag"]) for one in found] == [(5, True, True)]


# ---- several people --------------------------------------------------------------------------------------------------


def people(folder: Path, names: str = "anna ben", **settings: Any) -> tuple[ProjectStore, Clock, list[TestClient]]:
    store, clock = project(folder, **settings), Clock()
    app = app_of(store, FakeTrainer(), clock=clock)
    return store, clock, [sign_in(browser(app), add(app, name)) for name in names.split()] + [sign_in(browser(app))]


def test_no_item_goes_out_twice_and_the_vanished_give_back(tmp_path: Path) -> None:
    store, clock, (anna, ben, _) = people(tmp_path, lease_seconds=30)
    hers, his = ({item["item"] for item in next_items(one, 20)} for one in (anna, ben))
    assert len(hers) == len(his) == 20 and not hers & his
    assert label(ben, min(hers)).status_code == 409
    rest = {item["item"] for item in next_items(ben, 20)}
    assert rest == his
    for item in his:
        assert label(ben, item).status_code == 200
    assert not hers & {item["item"] for item in next_items(ben, 20)}
    clock.now += 31
    for _ in range(4):
        for item in next_items(ben, 20):
            assert label(ben, item["item"]).status_code == 200
    assert ben.get("/api/next").json()["left"] == 0
    assert len(list(store.answers())) == 60


def test_leases_outlive_a_restart(tmp_path: Path) -> None:
    store, _, (anna, _, _) = people(tmp_path)
    hers = {item["item"] for item in next_items(anna, 20)}
    label(anna, min(hers))  # what is durable takes the leases along
    app = app_of(store)
    lead = sign_in(browser(app))
    assert not hers & {item["item"] for item in next_items(lead, 20)}
    assert {item["item"] for item in next_items(sign_in(browser(app), 2), 19)} == hers - {min(hers)}


def test_each_item_goes_to_k(tmp_path: Path) -> None:
    store, _, clients = people(tmp_path, "anna ben carl", n=9, per_item=2)
    for _ in range(4):
        for client in clients:
            for item in next_items(client, 3):
                assert label(client, item["item"]).status_code == 200
    users = {item: {a.user for a in store.answers([item])} for item in range(9)}
    assert {len(found) for found in users.values()} == {2}
    assert [client.get("/api/next").json()["left"] for client in clients] == [0] * 4


def test_adjudication(tmp_path: Path) -> None:
    store, _, (anna, ben, lead) = people(tmp_path, per_item=2)
    label(anna, 3, 0)
    label(ben, 3, 1)
    (row,) = lead.get("/api/review", params={"kind": "annotators"}).json()["rows"]
    assert {answer["user"]: answer["label"] for answer in row["answers"]} == {"anna": 0, "ben": 1}
    body = {"client": "a", "item": 3, "version": row["version"], "label": 2}
    assert lead.post("/api/adjudications", json=body).json()["repeated"] is False
    assert [(one.item, one.label, one.how) for one in store.resolved()] == [(3, 2, "adjudicated")]
    assert lead.get("/api/review", params={"kind": "annotators"}).json()["rows"] == []
    assert lead.post("/api/adjudications", json={**body, "client": "b"}).status_code == 409
    assert lead.post("/api/undo", json={"client": "u"}).json()["undone"] == "adjudicated"
    assert lead.get("/api/review", params={"kind": "annotators"}).json()["total"] == 1


def test_agreement_and_progress(tmp_path: Path) -> None:
    _, _, (anna, ben, lead) = people(tmp_path, per_item=2)
    assert lead.get("/api/agreement").json()["items"] == 0
    for item in range(12):
        label(anna, item, item % 3)
        label(ben, item, item % 3 if item else 1)
    found = lead.get("/api/agreement").json()
    assert found["items"] == 12
    assert [(one["a"], one["b"], one["items"]) for one in found["cohen"]] == [("anna", "ben", 12)]
    assert found["krippendorff"]["low"] <= found["krippendorff"]["value"] <= found["krippendorff"]["high"] <= 1
    progress = lead.get("/api/progress").json()
    assert (progress["labelled"], progress["unresolved"], progress["open"]) == (11, 1, 48)
    assert {one["name"]: one["labelled"] for one in progress["users"]} == {"me": 0, "anna": 12, "ben": 12}


def test_accounts_by_http(app: FastAPI, lead: TestClient) -> None:
    made = lead.post("/api/users", json={"name": " Zoë  B ", "role": "annotator"}).json()
    zoe = browser(app)
    assert zoe.get(made["link"].removeprefix(f"http://{HOST}")).status_code == 303
    assert zoe.post("/api/password", json={"new": PASSWORD}).status_code == 200
    assert zoe.post("/logout").status_code == 303
    assert zoe.post("/login", data={"name": "Zoe\u0308 b", "password": PASSWORD}).status_code == 303
    assert lead.get("/api/users").json()[1] == {"name": "Zoë B", "role": "annotator", "closed": False}
    for body in ({"name": "Zoë B"}, {"name": "modicum"}, {"name": "x", "password": "short"}, {"name": "a\0b"}):
        assert lead.post("/api/users", json=body).status_code == 422, body
    assert lead.patch("/api/users", json={"name": "nobody", "closed": True}).status_code == 422
    assert lead.patch("/api/users", json={"name": "modicum", "password": PASSWORD}).status_code == 422
    assert "/link?token=" in lead.patch("/api/users", json={"name": "Zoë B", "link": True}).json()["link"]


# ---- the project -----------------------------------------------------------------------------------------------------


def test_settings(lead: TestClient, store: ProjectStore, trainer: FakeTrainer) -> None:
    first, second, _ = store.settings.classes
    keys = {first: "x", second: ""}
    body = {"client": "s", "title": "Mail", "keys": keys, "retrain_every": 7, "per_item": 2}
    assert lead.patch("/api/settings", json=body).json()["keys"] == {first: "x"}
    assert (store.settings.title, store.settings.per_item, trainer.retrain_every) == ("Mail", 2, 7)
    for wrong in ({"retrain_every": 0}, {"classes": ["a"]}, {"fingerprint": "x"}, {"keys": {"no such class": "x"}}):
        assert lead.patch("/api/settings", json={"client": "t", **wrong}).status_code == 422, wrong
    assert store.settings.title == "Mail"


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "datasets", "spreadsheet"])
def test_export(lead: TestClient, store: ProjectStore, format: str) -> None:
    label(lead, 3, 1, note="=1+1")
    found = lead.get("/api/export", params={"format": format})
    assert found.status_code == 200
    assert found.headers["content-disposition"].startswith('attachment; filename="labels')
    if format in ("csv", "spreadsheet"):
        rows = list(csv.DictReader(io.StringIO(found.text)))
        assert rows[3]["label"] == store.settings.classes[1]
    assert lead.get("/api/export", params={"format": "exe"}).status_code == 422


def test_import(lead: TestClient, store: ProjectStore, trainer: FakeTrainer) -> None:
    ids, classes = store.ids([4, 5]), store.settings.classes
    lines = ["id,text,label", f"{ids[0]},x,{classes[1]}", f"{ids[1]},x,{classes[2]}", f"stranger,x,{classes[0]}"]
    found = lead.post("/api/import", params={"name": "old labels.csv"}, content="\n".join(lines).encode())
    assert found.status_code == 200, found.text
    assert (found.json()["imported"], found.json()["unknown"]) == (2, 1)
    assert [(answer.item, answer.user, answer.label) for answer in store.answers()] == [
        (4, MODICUM, 1),
        (5, MODICUM, 2),
    ]
    assert trainer.heard == 2
    shown = {item["item"] for _ in range(3) for item in next_items(lead, 20)}
    assert not shown & {4, 5}
    assert lead.get("/api/items", params={"item": 4}).json()["rows"][0]["label"] == 1


def test_the_disk_refuses(lead: TestClient, store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreError(f"{store.folder}/project.sqlite cannot be written: database or disk is full")

    monkeypatch.setattr(store, "write_many", full)
    found = label(lead, 3)
    assert found.status_code == 503 and "disk is full" in found.json()["error"]
    assert str(store.folder) not in found.text


def test_openapi_describes_it_and_no_page_comes_from_elsewhere(lead: TestClient) -> None:
    found = lead.get("/api/openapi.json").json()
    assert {"/api/next", "/api/answers", "/api/events", "/api/import"} <= found["paths"].keys()
    assert found["paths"]["/api/answers"]["post"]["responses"]["409"]
    assert {"HTTPBearer", "APIKeyCookie"} <= found["components"]["securitySchemes"].keys()
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert lead.get(path).status_code == 404


def test_pages_show_what_the_interface_says(lead: TestClient, store: ProjectStore) -> None:
    label(lead, 3, 1)
    for path in ("/", "/items", "/review", "/progress", "/project"):
        assert lead.get(path).status_code == 200, path
    assert store.item(3).text in lead.get("/review").text
