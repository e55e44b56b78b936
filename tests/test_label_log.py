"""A labelling project's log is its only truth: all else follows from it, and can be asked for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from toy_label_store import CLASSES, a_store, make_store, say  # noqa: F401

from modicum.annotate.store.project import Answer, Conflict, ProjectStore
from modicum.annotate.store.records import Adjudicated, Answering, Imported, Labelled, Marked, Settings, Skipped
from modicum.annotate.store.tables import DERIVED
from modicum.base.errors import DataError, SpecError, UnknownName
from modicum.base.events import Asked, Told, Trained
from modicum.loop.learner import Learner, Pace
from modicum.loop.stopping import Stopping
from modicum.strategies.random import Random


def dump(store: ProjectStore) -> dict[str, list[Any]]:
    return {table: store._read(f"SELECT * FROM {table}") for table in (*DERIVED, "meta")}


# ---- the log is the truth --------------------------------------------------------------------------------------------


def play(store: ProjectStore, acts: int, seed: int) -> None:
    """Random acts of three people, some of them refused."""
    rng = random.Random(seed)
    users = [1, store.add_user("ann", "annotator", None, 1.0), store.add_user("Bob", "lead", None, 1.0)]
    for act in range(acts):
        user, item, client, now = rng.choice(users), rng.randrange(8), f"act {act}", 10.0 + act
        version = (store.answer(item, user) or Answer(item, user)).version
        own = (store.answer(item, 0) or Answer(item, 0)).version
        events: list[list[Answering]] = [
            [Labelled(item=item, label=rng.randrange(3), version=version, strategy="entropy")],
            [Skipped(item=item, reason="?", version=version)],
            [Marked(item=item, flag=rng.random() < 0.5, note=rng.choice(["", "hm"]), version=version)],
            [Labelled(item=item, label=0, version=version), Marked(item=item, flag=True, version=version)],
            [Adjudicated(item=item, label=rng.choice([None, 1, 2]), version=own)],
        ]
        try:
            if rng.random() < 0.25:
                store.undo(user=user, client=client, now=now)
            elif rng.random() < 0.1:
                store.write(Imported(item=item, label=rng.randrange(3)), user=0, client=client, now=now)
            elif rng.random() < 0.1:
                store.record_training(Trained(round=act, labels=1, record={"seq": store.last_seq() - 1}), act, now)
            else:
                store.write_many(rng.choice(events), user=user, client=client, now=now)
        except Conflict:
            continue


@pytest.mark.parametrize("seed", range(4))
def test_all_that_is_derived_can_be_derived_again(tmp_path: Path, seed: int) -> None:
    with make_store(tmp_path / "p", n=8, labels=[-1, 0, 1, 2, -1, -1, -1, -1], per_item=2) as store:
        play(store, 80, seed)
        store.change({"per_item": 3, "title": "Parcels"}, 1, "settings", 200.0)
        before = dump(store)
        assert store.check() == [] and dump(store) == before
        store.rebuild()
        assert dump(store) == before
        store._write(lambda db: db.execute("UPDATE answers SET label = 2 - label").close())
        assert any("of answers do not follow from the events" in problem for problem in store.check())
        store.rebuild()
        assert dump(store) == before


@pytest.mark.parametrize("seed", range(4))
def test_a_learner_replays_the_log(tmp_path: Path, seed: int) -> None:
    with make_store(tmp_path / "p", n=8, labels=[-1, 0, 1, 2, -1, -1, -1, -1], per_item=2) as store:
        play(store, 60, seed)
        pace, stopping = Pace(warm_start=2, batch=2), Stopping(budget=8)
        learner = Learner.replay(
            store.ids(), Random(), store.learner_events(), warm=Random(), pace=pace,
            stopping=stopping, seed=0,
        )  # fmt: skip
        labels = {f"t{item}": label for item, label, _ in store.resolved() if label is not None}
        assert dict(learner.pool.labelled) == labels
        assert learner.pool.asked == () and len(learner.records) == len(store.models())


def test_a_round_holds_the_labels_that_its_training_knew(store: ProjectStore) -> None:
    say(store, 0, 1, strategy="random")
    say(store, 1, 2, strategy="entropy")
    known = store.last_seq()
    say(store, 2, 0, strategy="entropy")  # while the model was trained
    store.record_training(Trained(round=0, labels=2, record={"seq": known, "accuracy": 0.5}), 1, 9.0)
    store.undo(user=1, client="u", now=10.0)
    say(store, 1, 1)
    assert store.learner_events() == [
        Asked(round=0, ids=("t0",), strategy="random"),
        Asked(round=0, ids=("t1",), strategy="entropy"),
        Told(answers={"t0": 1, "t1": 2}),
        Trained(round=0, labels=2, record={"seq": known, "accuracy": 0.5, "model": 1}),
        Told(answers={"t1": 1}),
    ]


def test_models_are_noted_once(store: ProjectStore) -> None:
    event = Trained(round=0, labels=5, record={"accuracy": 0.5})
    for _ in "ab":
        store.record_training(event, 1, 9.0)
    with pytest.raises(Conflict):
        store.record_training(Trained(round=0, labels=6, record={}), 1, 9.0)
    assert store.models() == [(1, 9.0, 5, {"accuracy": 0.5, "model": 1})]


def test_settings_change_in_the_open(store: ProjectStore) -> None:
    before = store.settings
    changed = store.change({"classes": [*CLASSES, "spam"], "keys": {"spam": "s"}}, 1, "a", 2.0)
    assert changed == store.settings and changed.classes == (*CLASSES, "spam")
    assert store.change({"classes": [*CLASSES, "spam"], "keys": {"spam": "s"}}, 1, "a", 3.0) == changed
    assert store.last_seq() == 1
    for bad, message in (
        ({"classes": ["a", "b"], "keys": {}}, "keeps its 4 classes"),
        ({"fingerprint": "x"}, "'fingerprint' is fixed"),
        ({"per_itm": 2}, "did you mean 'per_item'"),
        ({"keys": {"refund": "s", "spam": "s"}}, "setting 'keys': each class has a key of its own"),
        ({"keys": {"ham": "h"}}, "'ham' is none of the classes"),
    ):
        with pytest.raises(SpecError, match=message):
            store.change(bad, 1, "b", 4.0)
    assert store.settings == changed and before != changed and store.check() == []


# ---- what can be asked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 5), ("   ", 5), ("parcel", 2), ("PARCEL late", 1), ("parc", 2), ("late parcel", 1), ("straße", 1),
        ("cafe", 1), ('"parcel"', 2), ("parcel OR refund", 0), ("parcel NOT late", 0), ("NEAR(parcel late)", 0),
        ("text:parcel", 0), ("parcel*", 2), ("-parcel", 2), ("^parcel", 2), ("(parcel", 2), ('"', 0), ("*", 0),
        ("'; DROP TABLE items; --", 0), ("can't", 1), ('can"t', 1), ('a"b', 0), ('can"*t', 1), ("e-mail", 1),
        ("\ud800 parcel", 2), ("a\0b", 0), ("🙂", 0),
        ("東京", 1), ("京", 2), ("PYTHON入門", 1), ("「東京」", 1), ("ดี", 0),
        ("東京 駅", 0), ("東京 late", 0), ("京都 pair", 1), ("ขาย", 1), ("東", 2),
        ("pair words", 1), ("x" * 5000, 0), (" ".join(f"w{i}" for i in range(3000)), 0),
    ],
)  # fmt: skip
def test_a_search_takes_every_query_as_plain_words(tmp_path: Path, query: str, found: int) -> None:
    texts = ["The parcel is late", "parcels, lost", "A café in the Straße", "can't log in by e-mail", "x 東アジア"]
    pairs = ["second", "私は東京タワーに行く", "second", "ฉันขายของดำ Python入門", "pair words, 京都"]
    rows = [(str(i), text, pair) for i, (text, pair) in enumerate(zip(texts, pairs, strict=True))]
    with ProjectStore.create(tmp_path / "p", Settings(classes=CLASSES), rows, now=1.0) as store:
        items, total = store.search(query)
        assert len(items) == total == found


def test_a_search_filters_by_what_was_said(tmp_path: Path) -> None:
    with make_store(tmp_path / "p", per_item=2) as store:
        ann = store.add_user("ann", "annotator", None, 1.0)
        say(store, 1, 2)
        say(store, 1, 0, user=ann)
        say(store, 3, 2, user=ann)
        store.write(Skipped(item=5), user=ann, client="s", now=2.0)
        store.write(Marked(item=7, flag=True), user=ann, client="m", now=2.0)

        def items(**filters: Any) -> list[int]:
            found, total = store.search(**filters)
            assert total == len(found) or filters.get("limit")
            return [each.item.item for each in found]

        assert items(state="labelled", user=1) == [1] and items(state="labelled", user=ann) == [1, 3]
        assert items(state="labelled") == [3] and items(state="tie") == [1] and items(state="skipped") == [5]
        assert (
            items(label=2) == [3] and items(label=2, user=1) == [1] and items(label=2, user=1, query="parcel 1") == [1]
        )
        assert items(flagged=True) == [7] == items(flagged=True, user=ann) and items(flagged=True, user=1) == []
        assert items(state="open", query="number 5", user=1) == [5] and items(state="open", query="number 5") == []
        assert 7 in items(state="open", user=ann) and len(items(state="open", user=ann)) == 37
        assert len(items(flagged=False)) == 39 and items(limit=2, offset=4) == [4, 5]
        (found,), _ = store.search(user=1, state="labelled")
        assert [answer.user for answer in found.answers] == [1] and found.verdict is None  # nobody else's
        assert items(label=3) == items(label=10**30) == items(label=-1) == []
        assert store.labels_of(1) == (0, 0, 1) and store.labels_of(ann) == (1, 0, 1)
        with pytest.raises(SpecError, match="numbers must fit into 64 bits"):
            store.search(state="labelled", user=10**30)
        with pytest.raises(UnknownName, match="unknown state 'labeled' \\(did you mean 'labelled'"):
            store.search(state="labeled")


def test_progress_counts_items_and_people(tmp_path: Path) -> None:
    with make_store(tmp_path / "p", labels=[1] + [-1] * 39, per_item=2) as store:
        ann = store.add_user("ann", "annotator", None, 1.0)
        for item, given in ((1, 2), (2, 0)):
            say(store, item, given, user=1, seconds=1.0 + item)
            say(store, item, 2, user=ann)
        store.write(Skipped(item=3), user=ann, client="s", now=50.0)
        store.write(Marked(item=4, flag=True), user=ann, client="m", now=50.0)
        found = store.progress(since=10.0)
        assert (found.items, found.done, found.started, found.labelled, found.skipped) == (40, 3, 1, 2, 1)
        assert (found.unresolved, found.split, found.flagged, found.today) == (1, 1, 1, 1)
        assert found.by_class == (0, 1, 1)
        assert [tuple(user) for user in found.users] == [(1, "me", 2, 0, 0, 0, 2.5), (2, "ann", 2, 1, 1, 1, None)]


def test_long_answers_come_in_pages_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modicum.annotate.store.reading.PAGE", 3)
    with make_store(tmp_path / "p", n=11, per_item=3) as store:
        users = [1, store.add_user("b", "annotator", None, 1.0), store.add_user("c", "annotator", None, 1.0)]
        for item in range(11):
            for user in users[: 1 + item % 3]:
                say(store, item, 0, user=user)
        expected = [(item, user) for item in range(11) for user in users[: 1 + item % 3]]
        assert [(answer.item, answer.user) for answer in store.answers()] == expected
        assert len(list(store.resolved())) == 11 and len(list(store.events())) == len(expected)
        assert [item.id for item in store.each_item()] == store.ids() == [f"t{i}" for i in range(11)]
        assert store.texts([10, 0]) == (["the parcel number 10 is late", "the parcel number 0 is late"], None)
        assert store.ids([9, 2, 9, 1]) == ["t9", "t2", "t9", "t1"] and store.position_of("t7") == 7
        with pytest.raises(DataError, match="no item -1"):
            store.item(-1)
