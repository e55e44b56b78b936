"""The pool: four disjoint states, and a clear refusal of every step between them that makes no sense."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import pytest

from modicum.base.errors import StateError
from modicum.data.pool import Pool

POOL = Pool.of(["a", "b", "c", "d", "e"])


def states(pool: Pool) -> dict[str, str]:
    return {id: pool.state_of(id) for id in ["a", "b", "c", "d", "e"]}


def test_all_ids_begin_free_and_in_order() -> None:
    pool = Pool.of(["z", "a", "m"])
    assert pool.free() == ("z", "a", "m")
    assert (pool.asked, dict(pool.labelled), pool.skipped) == ((), {}, ())
    assert len(pool) == pool.n_free == 3


def test_a_round() -> None:
    asked = POOL.ask(["d", "b", "a"])
    assert asked.asked == ("d", "b", "a")
    assert asked.free() == ("c", "e")
    told = asked.tell({"b": 1, "d": None})
    assert told.asked == ("a",)
    assert dict(told.labelled) == {"b": 1}
    assert told.skipped == ("d",)
    assert told.free() == ("c", "e")
    assert states(told) == {"a": "asked", "b": "labelled", "c": "free", "d": "skipped", "e": "free"}
    assert repr(told) == "Pool(2 free, 1 asked, 1 labelled, 1 skipped)"


def test_labels_keep_their_order_of_arrival_over_rounds() -> None:
    pool = POOL.ask(["e", "a"]).tell({"e": 0}).ask(["c"]).tell({"c": 1, "a": 0})
    assert list(pool.labelled.items()) == [("e", 0), ("c", 1), ("a", 0)]


def test_a_step_leaves_the_pool_it_started_from_as_it_was() -> None:
    asked = POOL.ask(["a", "b"])
    asked.tell({"a": 1})
    asked.withdraw(["a"])
    assert POOL.free() == ("a", "b", "c", "d", "e")
    assert asked.asked == ("a", "b")
    assert not asked.labelled
    with pytest.raises(TypeError):
        asked.labelled["a"] = 1  # type: ignore[index]


def test_withdrawn_ids_return_to_their_old_places() -> None:
    assert POOL.ask(["c", "a", "e"]).withdraw(["c", "a"]).free() == ("a", "b", "c", "d")


def test_nothing_asked_told_or_withdrawn_changes_nothing() -> None:
    assert POOL.ask([]) is POOL
    assert POOL.tell({}) is POOL
    assert POOL.withdraw([]) is POOL


def test_relabel_changes_an_answer_in_its_place() -> None:
    pool = POOL.ask(["a", "b", "c"]).tell({"a": 0, "b": 1, "c": None})
    assert list(pool.relabel("a", 1).labelled.items()) == [("a", 1), ("b", 1)]
    assert list(pool.relabel("c", 0).labelled.items()) == [("a", 0), ("b", 1), ("c", 0)]
    assert pool.relabel("c", 0).skipped == ()
    skip = pool.relabel("a", None)
    assert (skip.skipped, dict(skip.labelled)) == (("c", "a"), {"b": 1})


def test_pools_of_the_same_states_are_equal() -> None:
    one = POOL.ask(["a", "b"]).tell({"a": 1}).tell({"b": None})
    assert one == POOL.ask(["a", "b"]).tell({"a": 1, "b": None})
    assert one != one.relabel("a", 0)


def test_numpy_labels_become_plain_ones() -> None:
    pool = POOL.ask(["a", "b"]).tell({"a": np.int64(2), "b": np.float64(0.5)})  # type: ignore[dict-item]
    assert [type(label) for label in pool.labelled.values()] == [int, float]


def test_a_random_walk_keeps_the_states_disjoint_and_complete() -> None:
    rng = np.random.default_rng(0)
    ids = [f"x{i}" for i in range(60)]
    pool = Pool.of(ids)
    while pool.n_free:
        pool = pool.ask(rng.permutation(pool.free())[: rng.integers(1, 9)].tolist())
        pool.free()
        answered = [id for id in pool.asked if rng.random() < 0.7]
        pool = pool.tell({id: None if rng.random() < 0.2 else 1 for id in answered})
        pool = pool.withdraw(list(pool.asked)[:2])
        parts = [pool.free(), pool.asked, tuple(pool.labelled), pool.skipped]
        assert sorted(sum(parts, ())) == sorted(ids)
        taken = {*pool.asked, *pool.labelled, *pool.skipped}
        assert pool.free() == tuple(id for id in ids if id not in taken)


ASKED = POOL.ask(["a", "b"])
DONE = POOL.ask(["a", "b"]).tell({"a": 0, "b": None})


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: Pool.of(["a", "b", "a"]), "a pool's ids must be distinct, but 'a' is given twice"),
        (lambda: ASKED.ask(["a"]), "only free examples can be used to ask for, but 'a' is asked; withdraw or answer"),
        (lambda: DONE.ask(["a"]), "but 'a' is labelled; choose among the free ones"),
        (lambda: DONE.ask(["b"]), "but 'b' is skipped; choose among the free ones"),
        (lambda: POOL.ask(["c", "c"]), "a query asks for an example once, but 'c' is in it twice"),
        (lambda: Pool.of(["apple"]).ask(["aple"]), "no example 'aple' (did you mean 'apple'?)"),
        (lambda: ASKED.tell({"c": 1}), "only asked examples can be used to answer, but 'c' is free; ask for it first"),
        (lambda: DONE.tell({"a": 1}), "but 'a' is labelled; change its answer with relabel"),
        (lambda: ASKED.tell({"zz": 1}), "the pool has no example 'zz'"),
        (lambda: ASKED.tell({"a": "sports"}), "must be a class's position or a finite target, got 'sports'"),  # type: ignore[dict-item]
        (lambda: ASKED.tell({"a": math.nan}), "finite target, got nan; None skips an example"),
        (lambda: ASKED.tell({"a": True}), "got True"),
        (lambda: POOL.withdraw(["a"]), "only asked examples can be used to withdraw, but 'a' is free"),
        (lambda: ASKED.withdraw(["a", "a"]), "'a' is to be withdrawn twice"),
        (lambda: ASKED.relabel("a", 1), "only an answer can be changed, but 'a' is asked"),
        (lambda: DONE.relabel("a", math.inf), "finite target, got inf"),
        (lambda: POOL.state_of("q"), "the pool has no example 'q'; use the ids of its 5 examples"),
    ],
)
def test_misuse_is_refused(misuse, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StateError, match=re.escape(message)):
        misuse()


def test_a_refused_step_changes_nothing() -> None:
    with pytest.raises(StateError):
        ASKED.tell({"a": 1, "c": 1})
    assert ASKED.asked == ("a", "b") and not ASKED.labelled


def test_answers_to_a_large_pool_cost_no_walk_over_it() -> None:
    ids = [str(i) for i in range(300_000)]
    pool = Pool.of(ids)
    start = time.perf_counter()
    for turn in range(200):
        query = ids[turn * 10 : turn * 10 + 10]
        pool = pool.ask(query).tell(dict.fromkeys(query, 1))
    assert time.perf_counter() - start < 1.0  # 200 walks over 300,000 ids would take several seconds
    assert pool.free() == tuple(ids[2000:])


def test_telling_keeps_the_list_of_free_ids() -> None:
    pool = Pool.of([str(i) for i in range(1000)]).ask(["5"])
    free = pool.free()
    assert pool.tell({"5": 1}).free() is free
