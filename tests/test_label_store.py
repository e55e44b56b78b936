"""What people write into a labelling project: kept once, never overwritten, taken back in order."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from toy_label_store import a_store, in_threads, make_store, say  # noqa: F401

from modicum.annotate.store.project import Answer, Conflict, ProjectStore, Resolved
from modicum.annotate.store.records import Adjudicated, Answering, Imported, Labelled, Marked, Skipped, Suggestion
from modicum.base.errors import DataError, SpecError

# ---- people's writes -------------------------------------------------------------------------------------------------


def test_what_was_written_is_in_the_log_and_in_the_answers(store: ProjectStore) -> None:
    seen = Suggestion(label=2, confidence=0.75)
    event = Labelled(item=3, label=1, seconds=1.5, shown=seen, strategy="entropy", model=4)
    receipt = store.write(event, user=1, client="a", now=5.0)
    assert (receipt.item, receipt.version, receipt.repeated) == (3, 1, False)
    assert [(e.seq, e.user, e.item, e.at, e.event) for e in store.events()] == [(receipt.seq, 1, 3, 5.0, event)]
    assert store.answer(3, 1) == Answer(3, 1, 1, version=1, seq=receipt.seq, at=5.0, kind="labelled")
    store.write_many(
        [Skipped(item=4, reason="no text"), Marked(item=4, flag=True, note="ß")], user=1, client="b", now=6
    )
    found = store.answer(4, 1)
    assert found is not None and (found.label, found.skip, found.flag, found.note) == (None, "no text", True, "ß")
    assert found.version == 1 and list(store.resolved()) == [Resolved(3, 1, "majority"), Resolved(4, None, "skipped")]


def test_the_same_write_again_gives_the_first_receipt(store: ProjectStore) -> None:
    first = say(store, 0, 1, client="a")
    again = store.write(Labelled(item=0, label=1, strategy="search", model=3), user=1, client="a", now=99.0)
    assert again == first._replace(repeated=True)
    say(store, 0, 2, client="b")
    assert store.write(Labelled(item=0, label=1), user=1, client="a", now=99.0) == again  # however late it comes
    assert store.answer(0, 1).label == 2 and len(list(store.events())) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("event", "user"),
    [(Labelled(item=0, label=2), 1), (Labelled(item=1, label=1), 1), (Labelled(item=0, label=1), 2)],
    ids=["another label", "another item", "another user"],
)
def test_a_client_id_with_another_body_is_a_conflict(store: ProjectStore, event: Answering, user: int) -> None:
    store.add_user("ann", "annotator", None, 1.0)
    say(store, 0, 1, client="a")
    with pytest.raises(Conflict, match="names another act already"):
        store.write(event, user=user, client="a", now=3.0)
    with pytest.raises(Conflict, match="names another act already"):
        store.undo(user=1, client="a", now=3.0)
    assert [event.event for event in store.events()] == [Labelled(item=0, label=1)]


def test_retries_that_race_are_one_write(store: ProjectStore) -> None:
    receipts = in_threads(16, lambda k: say(store, 5, 2, client="same", version=0))
    assert Counter(receipt.repeated for receipt in receipts) == {False: 1, True: 15}
    assert len({receipt._replace(repeated=False) for receipt in receipts}) == 1
    assert len(list(store.events())) == 1


def test_a_stale_write_is_refused_and_overwrites_nothing(store: ProjectStore) -> None:
    say(store, 0, 1, version=0)
    with pytest.raises(Conflict, match="has version 1, this write was made for version 0. Look at it again") as caught:
        say(store, 0, 2, version=0)
    assert caught.value.answer == store.answer(0, 1)
    for event in (Skipped(item=0, version=0), Marked(item=0, version=2, flag=True)):
        with pytest.raises(Conflict):
            store.write(event, user=1, client="late", now=3.0)
    assert store.answer(0, 1).label == 1 and len(list(store.events())) == 1  # type: ignore[union-attr]
    assert say(store, 0, 2, version=1).version == 2


def test_one_bad_event_refuses_the_whole_act(store: ProjectStore) -> None:
    say(store, 7, 0)
    events = [Labelled(item=item, label=1) for item in (5, 6, 7, 8)]
    with pytest.raises(Conflict):
        store.write_many(events, user=1, client="bulk", now=3.0)
    assert [answer.item for answer in store.answers()] == [7]
    assert store.check() == []


@pytest.mark.parametrize(
    ("event", "user", "error", "message"),
    [
        (Labelled(item=40, label=0), 1, DataError, "no item 40; its items are numbered 0 to 39"),
        (Labelled(item=10**30, label=0), 1, DataError, "no item 10"),
        (Labelled(item=0, label=3), 1, SpecError, "a label is one of 0 to 2, a class's position, got 3"),
        (Labelled(item=0, label=0), 9, SpecError, "user number 9 has no open account"),
        (Labelled(item=0, label=0), 0, SpecError, "are the project's own"),
        (Imported(item=0, label=0), 1, SpecError, "are the project's own"),
        (Labelled(item=0, label=0, model=10**30), 10**30, SpecError, "numbers must fit into 64 bits"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    store: ProjectStore, event: Answering, user: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        store.write(event, user=user, client="a", now=1.0)
    assert store.last_seq() == 0


@pytest.mark.parametrize("client", ["", "x" * 201, "a\0b", "half \ud800"])
def test_a_client_id_is_a_short_text(store: ProjectStore, client: str) -> None:
    with pytest.raises(SpecError, match="a client id must"):
        store.write(Labelled(item=0, label=0), user=1, client=client, now=1.0)


def test_a_label_that_goes_out_is_one_of_the_annotators_own(tmp_path: Path) -> None:
    with make_store(tmp_path / "p", labels=[0] * 3 + [-1] * 37, per_item=3) as store:
        users = [1, store.add_user("ann", "annotator", None, 1.0), store.add_user("Bob", "annotator", None, 1.0)]
        for user, given in zip(users, (1, 1, 2), strict=True):
            say(store, 0, given, user)
        say(store, 4, 0, users[0])
        say(store, 4, 1, users[1])
        assert list(store.resolved()) == [(0, 1, "majority"), (1, 0, "imported"), (2, 0, "imported"), (4, None, "tie")]
        assert [found.item.item for found in store.search(state="split")[0]] == [0, 4]
        store.write(Adjudicated(item=4, label=2, version=0), user=1, client="d", now=3.0)
        assert list(store.resolved())[-1] == (4, 2, "adjudicated")
        assert store.write(Imported(item=4, label=0), user=0, client="i", now=4.0)
        assert list(store.resolved())[-1] == (4, 2, "adjudicated")  # an import does not overrule the lead
        assert store.done_items().nonzero()[0].tolist() == [0, 1, 2, 4]
        store.undo(user=1, client="u", now=5.0)
        assert list(store.resolved())[-1][1:] == (None, "tie") or list(store.resolved())[-1].label == 0
        assert store.check() == []


# ---- taking back -----------------------------------------------------------------------------------------------------


def test_sixty_acts_can_be_taken_back_also_after_a_restart(tmp_path: Path) -> None:
    with make_store(tmp_path / "p", n=30) as store:
        for act in range(60):
            say(store, act % 30, act % 3)
    with ProjectStore(tmp_path / "p") as store:
        for act in reversed(range(60)):
            undo = store.undo(user=1, client=f"u{act}", now=3.0)
            assert undo is not None and undo.items == (act % 30,) and undo.event.label == act % 3  # type: ignore[union-attr]
            assert undo.answer.label == ((act - 30) % 3 if act >= 30 else None)
        assert store.undo(user=1, client="more", now=3.0) is None
        assert list(store.answers()) == [] and list(store.resolved()) == [] and not store.done_items().any()
        assert store.answer(0, 1).version == 4  # type: ignore[union-attr] # two labels and two takings back
        assert store.check() == []


def test_a_bulk_is_taken_back_as_one_and_others_acts_stay(store: ProjectStore) -> None:
    ann = store.add_user("ann", "annotator", None, 1.0)
    say(store, 1, 2)
    events = [Labelled(item=item, label=0, version=int(item == 1), bulk="late") for item in range(4)]
    store.write_many(events, user=1, client="bulk", now=3.0)
    say(store, 9, 1, user=ann)
    undo = store.undo(user=1, client="u", now=4.0)
    assert undo is not None and undo.items == (0, 1, 2, 3) and undo.answer.label is None
    assert {answer.item: answer.label for answer in store.answers()} == {1: 2, 9: 1}
    again = store.undo(user=1, client="u", now=9.0)
    assert again == undo._replace(repeated=True)
    with pytest.raises(Conflict):
        store.undo(user=ann, client="u", now=9.0)
    assert store.undo(user=1, client="u2", now=5.0).items == (1,)  # type: ignore[union-attr]
    assert [answer.item for answer in store.answers()] == [9]


def test_an_item_that_another_has_got_meanwhile_is_not_labelled_again(store: ProjectStore) -> None:
    ann = store.add_user("ann", "annotator", None, 1.0)
    say(store, 0, 1)
    store.undo(user=1, client="u", now=3.0)
    assert store.lease([0], ann, 100.0, 4.0) == [0]
    with pytest.raises(Conflict, match="item 0 is with others"):
        say(store, 0, 1)
    assert say(store, 0, 2, user=ann).version == 1


# ---- leases ----------------------------------------------------------------------------------------------------------


def test_leases_keep_an_item_to_its_annotators(tmp_path: Path) -> None:
    with make_store(tmp_path / "p", labels=[1] + [-1] * 39, per_item=2) as store:
        one, two, three = 1, store.add_user("b", "annotator", None, 1.0), store.add_user("c", "annotator", None, 1.0)
        assert store.lease([0, 1, 2], one, 100.0, 10.0) == [1, 2]  # the first has a label of the data's own
        assert store.lease([1, 2], two, 50.0, 10.0) == [1, 2]
        assert store.lease([1, 2, 3], three, 100.0, 10.0) == [3]
        assert store.leased(10.0) == {1: {one, two}, 2: {one, two}, 3: {three}}
        say(store, 1, 0, user=one)
        assert store.lease([1], one, 100.0, 11.0) == [] and store.lease([1], three, 100.0, 11.0) == []
        assert store.lease([1, 2], three, 200.0, 60.0) == [1, 2]  # the second one has vanished
        with pytest.raises(Conflict, match="is with others: it has the 2 answers or annotators"):
            store.write(Labelled(item=2, label=0), user=two, client="late", now=61.0)
        store.release(three, [2])
        store.write(Labelled(item=2, label=0), user=two, client="late", now=61.0)
        store.release(three)
        assert store.leased(61.0) == {2: {one}}
        store.close_user(one, 62.0)
        assert store.leased(62.0) == {} and store.check() == []


def test_leases_outlive_the_server(tmp_path: Path) -> None:
    with make_store(tmp_path / "p") as store:
        store.lease([3, 4], 1, 100.0, 10.0)
    with ProjectStore(tmp_path / "p") as store:
        assert store.leased(11.0) == {3: {1}, 4: {1}} and store.leased(100.0) == {}


def test_a_crowd_gives_no_item_too_many_answers(tmp_path: Path) -> None:
    with make_store(tmp_path / "p", n=12, per_item=2) as store:
        users = [1, *(store.add_user(f"u{k}", "annotator", None, 1.0) for k in range(7))]

        def work(k: int) -> int:
            done = 0
            for item in random.Random(k).sample(range(12), 12):
                if store.lease([item], users[k], 1000.0, 10.0) or k % 2:  # every other one does not ask
                    try:
                        store.write(Labelled(item=item, label=k % 3), user=users[k], client=f"{k}-{item}", now=11.0)
                        done += 1
                    except Conflict:
                        continue
            return done

        assert sum(in_threads(8, work)) == 24
        assert Counter(answer.item for answer in store.answers()) == dict.fromkeys(range(12), 2)
        assert store.done_items().all() and store.check() == []


def test_users_and_sessions_are_kept(store: ProjectStore) -> None:
    ann = store.add_user("Ann", "annotator", "hash", 2.0)
    assert store.user_by_name("ANN") == store.user(ann) and [u.name for u in store.users()] == ["modicum", "me", "Ann"]
    with pytest.raises(SpecError, match="there is a user 'aNN' already"):
        store.add_user("aNN", "lead", None, 2.0)
    for token, kind in (("t1", "page"), ("t2", "api")):
        store.add_session(token, ann, kind, 3.0)
    store.touch_session("t1", 9.0)
    store.set_role(ann, "lead")
    assert store.session("t1") == (ann, "page", 3.0, 9.0) and store.session("other") is None
    store.end_sessions(ann, "page")
    assert store.session("t1") is None and store.session("t2") is not None
    store.set_password(ann, "new")
    assert store.session("t2") is None and store.user(ann) == (ann, "Ann", "lead", "new", 2.0, None)
    store.close_user(ann, 9.0)
    with pytest.raises(SpecError, match="no open account"):
        say(store, 0, 1, user=ann)
    for number in (0, 77):
        with pytest.raises(SpecError, match=f"no user number {number}"):
            store.set_password(number, "x")
