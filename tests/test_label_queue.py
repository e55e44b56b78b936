"""Which item goes to whom: by rules that hold for every history, and by a slow twin on small pools."""

from __future__ import annotations

import numpy as np
import pytest

from modicum.annotate.model.queue import AGAIN, ALIKE, AUDIT, RANDOM, Pick, Queue, audit_items, keep_apart, plain
from modicum.base.errors import SpecError
from modicum.base.rng import stream

ANN, BEN, EVA = 1, 2, 3


def items(picks: list[Pick]) -> list[int]:
    return [pick.item for pick in picks]


class Slow:
    """Says by plain sets what may go out, whatever the order."""

    def __init__(self, n: int, per_item: int) -> None:
        self.n, self.per_item = n, per_item
        self.answers: set[tuple[int, int]] = set()
        self.decided: set[int] = set()
        self.leases: dict[int, set[int]] = {}

    def open_to(self, user: int) -> set[int]:
        found = set()
        for item in range(self.n):
            busy = {u for i, u in self.answers if i == item} | (self.leases.get(item, set()) - {user})
            if (item, user) not in self.answers and item not in self.decided and len(busy) < self.per_item:
                found.add(item)
        return found

    def left(self, user: int) -> int:
        counts = [sum(i == item for i, _ in self.answers) for item in range(self.n)]
        return sum(
            counts[i] < self.per_item and i not in self.decided and (i, user) not in self.answers for i in range(self.n)
        )


@pytest.mark.parametrize("seed", range(12))
def test_any_history_gives_what_a_slow_twin_allows(seed: int) -> None:
    rng = stream(seed, "history")
    n, users, per_item = 40, [ANN, BEN, EVA], int(rng.integers(1, 4))
    audit = audit_items(n, 8, seed)
    queue, slow = Queue(n, per_item=per_item, audit=audit, audit_share=0.3, seed=seed), Slow(n, per_item)
    for step in range(300):
        user, act = int(rng.choice(users)), rng.random()
        if act < 0.45:
            count = int(rng.integers(1, 6))
            picks = queue.next(user, count, slow.leases)
            allowed = slow.open_to(user)
            assert set(items(picks)) <= allowed
            assert len(set(items(picks))) == len(picks) == min(count, len(allowed)), "as many as there are, each once"
            assert all((pick.strategy == AUDIT) == (pick.item in audit) for pick in picks)
            held = {i for i, holders in slow.leases.items() if user in holders} & allowed
            assert set(items(picks)[: len(held)]) >= held or len(held) >= count, "what is on lease comes first"
            for item in items(picks):
                slow.leases.setdefault(item, set()).add(user)
        elif act < 0.75:
            mine = [i for i, holders in slow.leases.items() if user in holders]
            if mine:
                item = int(rng.choice(mine))
                slow.leases[item].discard(user)
                if (item, user) in slow.answers or item in slow.open_to(user):
                    slow.answers.add((item, user))
                    queue.answered(item, user)
        elif act < 0.85 and slow.answers:
            item, who = sorted(slow.answers)[int(rng.integers(len(slow.answers)))]
            slow.answers.discard((item, who))
            queue.unanswered(item, who)
        elif act < 0.9:
            slow.leases.clear()  # all have run out
        elif act < 0.95:
            item = int(rng.integers(n))
            if item in slow.decided:
                slow.decided.discard(item)
                queue.undecide(item)
            else:
                slow.decided.add(item)
                queue.decide(item)
        else:
            queue.set_rank(rng.permutation(n)[: int(rng.integers(n))], "entropy", step)
        assert all(queue.left(u) == slow.left(u) for u in users)
    again = Queue(n, per_item=per_item, audit=audit, audit_share=0.3, seed=seed)
    again.restore(sorted(slow.answers), slow.decided)
    for user in users:
        slow.leases.clear()
        assert set(items(again.next(user, n))) == set(items(queue.next(user, n))) == slow.open_to(user)


def test_all_items_go_out_to_k_annotators_and_to_no_one_twice() -> None:
    queue, leases, given = Queue(30, per_item=2, seed=1), dict[int, set[int]](), list[tuple[int, int]]()
    busy = True
    while busy:
        busy = False
        for user in (ANN, BEN, EVA):
            for pick in queue.next(user, 3, leases):
                leases.setdefault(pick.item, set()).add(user)
            mine = [i for i, holders in leases.items() if user in holders]
            if mine:
                busy = True
                leases[mine[0]].discard(user)
                given.append((mine[0], user))
                queue.answered(mine[0], user)
    assert len(set(given)) == len(given) == 60
    assert {i: sum(i == item for item, _ in given) for i in range(30)} == dict.fromkeys(range(30), 2)


def test_the_rank_is_followed_and_a_new_one_takes_over() -> None:
    queue = Queue(10, seed=0)
    queue.set_rank([7, 3, 9], "entropy", 1)
    assert queue.next(ANN, 2) == [Pick(7, "entropy", 1), Pick(3, "entropy", 1)]
    queue.answered(7, ANN)
    queue.set_rank([7, 5, 2], "entropy", 2)
    picks = queue.next(ANN, 9)
    assert picks[:2] == [Pick(5, "entropy", 2), Pick(2, "entropy", 2)]
    rest = {pick.item: pick for pick in picks[2:]}
    assert rest.pop(3) == Pick(3, "entropy", 1), "why it was chosen at first, though it comes by chance now"
    assert sorted(rest) == [0, 1, 4, 6, 8, 9] and {pick.strategy for pick in rest.values()} == {RANDOM}
    with pytest.raises(SpecError, match="has items 0 to 9, got 10"):
        queue.set_rank([1, 10], "entropy", 3)


def test_unranked_items_come_in_an_order_that_the_seed_decides() -> None:
    orders = [items(Queue(50, seed=seed).next(ANN, 50)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == list(range(50)) != orders[0]


def test_audit_items_are_mixed_in_at_their_share() -> None:
    audit = audit_items(200, 20, seed=5)
    queue = Queue(200, audit=audit, audit_share=0.25, seed=5)
    queue.set_rank(np.arange(200), "margin", 1)
    shown: list[Pick] = []
    for _ in range(120):
        pick = queue.next(ANN, 1)[0]
        queue.answered(pick.item, ANN)
        shown.append(pick)
    places = [i for i, pick in enumerate(shown) if pick.strategy == AUDIT]
    assert items([shown[i] for i in places]) == audit.tolist(), "all of them, in their random order"
    assert places == list(range(3, 80, 4)), "one in four until they are out"
    chosen = [pick.item for pick in shown if pick.strategy == "margin"]
    assert not set(chosen) & set(audit.tolist()) and chosen == [i for i in range(200) if i not in audit][:100]
    ahead = Queue(200, audit=audit, audit_share=0.25, seed=5).next(ANN, 20)
    assert [i for i, pick in enumerate(ahead) if pick.strategy == AUDIT] == [3, 7, 11, 15, 19], "in one batch as well"


def test_the_audit_set_is_random_and_grows_without_moving() -> None:
    assert audit_items(100, 10, 3).tolist() == audit_items(100, 40, 3)[:10].tolist()
    assert len(set(audit_items(100, 100, 3).tolist())) == 100 == len(audit_items(100, 500, 3))
    counts = np.bincount(np.concatenate([audit_items(20, 5, seed) for seed in range(2000)]), minlength=20)
    assert abs(counts / 2000 - 0.25).max() < 0.06


def test_audit_items_alone_are_handed_out_when_nothing_else_is_left() -> None:
    queue = Queue(5, audit=[4, 2], audit_share=0.0)
    assert [pick.strategy for pick in queue.next(ANN, 9)] == [RANDOM] * 3 + [AUDIT] * 2


def test_what_is_out_is_not_handed_out_again_until_it_comes_back() -> None:
    queue = Queue(4, seed=0)
    queue.set_rank([0, 1, 2, 3], "entropy", 1)
    leases = {0: {ANN}, 1: {ANN}}
    assert items(queue.next(BEN, 4, leases)) == [2, 3]
    assert items(queue.next(ANN, 3, leases)) == [0, 1, 2], "after a reload the same, then more"
    assert items(queue.next(BEN, 4, {1: {ANN}})) == [0, 2, 3], "the lease of 0 has run out"
    fresh = Queue(4)
    fresh.set_rank([1, 2], "margin", 7)
    assert fresh.next(ANN, 2, {1: {ANN}, 3: {ANN}}) == [Pick(1, "margin", 7), Pick(3, AGAIN, None)], "after a restart"


def test_an_item_that_one_annotator_began_goes_to_the_next_first() -> None:
    queue = Queue(10, per_item=2)
    queue.set_rank(np.arange(10), "entropy", 4)
    assert items(queue.next(ANN, 1)) == [0]
    queue.answered(0, ANN)
    queue.set_rank([5, 6], "entropy", 5)
    assert queue.next(BEN, 2) == [Pick(0, "entropy", 4), Pick(5, "entropy", 5)]
    assert items(queue.next(ANN, 1)) == [5]
    queue.answered(0, BEN)
    assert 0 not in items(queue.next(EVA, 10))


def test_an_undone_answer_brings_the_item_back() -> None:
    queue = Queue(6)
    for item in range(6):
        queue.answered(item, ANN)
    assert queue.next(ANN, 6) == [] and queue.left(ANN) == 0
    queue.unanswered(2, ANN)
    queue.unanswered(2, ANN)
    assert items(queue.next(ANN, 6)) == items(queue.next(BEN, 6)) == [2] and queue.left(BEN) == 1
    queue.answered(2, BEN)
    queue.answered(2, BEN)
    assert queue.next(ANN, 1) == []


def test_decided_items_stay_in() -> None:
    queue = Queue(3, per_item=3)
    queue.restore([(0, ANN), (1, ANN)], decided=[1, 2])
    assert items(queue.next(BEN, 3)) == [0] and queue.next(ANN, 3) == []
    queue.undecide(1)
    assert set(items(queue.next(BEN, 3))) == {0, 1}


def test_more_annotators_an_item_open_what_was_done_and_fewer_close_what_was_open() -> None:
    queue = Queue(4)
    for item in (0, 1):
        queue.answered(item, ANN)
    queue.set_per_item(2)
    queue.answered(0, BEN)
    assert items(queue.next(BEN, 1)) == [1] and set(items(queue.next(ANN, 4))) == {2, 3}
    assert queue.left(EVA) == 3
    queue.set_per_item(1)
    assert set(items(queue.next(EVA, 4))) == {2, 3}
    with pytest.raises(SpecError, match="got per_item = 0"):
        queue.set_per_item(0)


def test_a_large_pool_is_walked_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    n, done = 200_000, 100_000
    queue = Queue(n, per_item=2)
    rank = stream(0, "rank").permutation(n)
    queue.set_rank(rank, "entropy", 1)
    for item in rank[:done].tolist():
        queue.answered(item, ANN)
        queue.answered(item, BEN)
    assert items(queue.next(ANN, 2)) == rank[done : done + 2].tolist()
    walked: list[int] = []
    kept = Queue._open_to
    monkeypatch.setattr(Queue, "_open_to", lambda q, lane, user: (walked.append(i) or i for i in kept(q, lane, user)))
    for step in range(50):
        (pick,) = queue.next(ANN, 1)
        assert pick.item == rank[done + step]
        queue.answered(pick.item, ANN)
    assert len(walked) == 50, "what is behind an annotator is not looked at again"


def test_near_duplicates_come_after_all_others() -> None:
    texts = ["Refund, please!", "lost card", "refund please", "  LOST   card. ", "new pin", "lost card"]
    assert keep_apart(texts).tolist() == [0, 1, 4, 2, 3, 5]
    assert keep_apart(texts, known=["New pin?"]).tolist() == [0, 1, 2, 3, 4, 5][:2] + [2, 3, 4, 5]
    angle = np.arccos(ALIKE)
    turned = np.array([[np.cos(a), np.sin(a)] for a in (0.0, 0.9 * angle, 1.1 * angle, 2.0)])
    assert keep_apart(["a", "b", "c", "d"], 5 * turned).tolist() == [0, 2, 3, 1]
    assert keep_apart([], np.zeros((0, 2))).tolist() == []
    assert keep_apart(["a", "b"], np.zeros((2, 3))).tolist() == [0, 1], "texts without a direction are not alike"


def test_texts_are_compared_by_their_words() -> None:
    assert plain("Ｆｕｌｌ—Width_x") == plain("full width X") == "full width x"
    assert plain("…") == "…" != plain("!!!"), "nothing but signs: as it is"


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError, match="per_item of 1 or more"):
        Queue(3, per_item=0)
    with pytest.raises(SpecError, match="audit_share from 0 to 1"):
        Queue(3, audit_share=1.5)
    assert Queue(0).next(ANN, 3) == []
