"""Which item goes to whom next. No clock, no database: whoever drives it tells what happened, and what is out on lease.

An item is open while fewer than k annotators have answered it and nobody has decided it. Each annotator goes along the
same lanes, of which the first that has something for them wins:

    waiting   items that someone has begun, or that came back by an undo
    audit     a random set, fixed from the start, mixed in at a share of new items: the learning curve's measure
    ranked    the latest model's order, best first; before there is one, a cold start's
    random    all the rest
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modicum.base.errors import SpecError
from modicum.base.rng import stream

AUDIT, RANDOM, AGAIN = "audit", "random", "again"
"""Strategies that no model is asked for. AGAIN: someone has begun it, and why it was chosen is not known any more."""
CHUNK = 8_192
"""Places of a lane that are looked at together."""
ALIKE = 0.95
"""Cosine at which two texts count as near-duplicates."""
NO_LEASES: Mapping[int, Collection[int]] = {}


@dataclass(frozen=True)
class Pick:
    """An item to answer next, and what chose it. model: the number of the model that ranked it."""

    item: int
    strategy: str
    model: int | None


@dataclass(eq=False)
class Lane:
    """Items in the order in which they go out. starts: by annotator, before which place nothing is theirs to do."""

    items: np.ndarray
    strategy: str
    model: int | None = None
    size: int = -1
    starts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.size = len(self.items) if self.size < 0 else self.size

    def append(self, item: int) -> None:
        if self.size == len(self.items):
            self.items = np.concatenate([self.items, np.zeros(max(64, self.size), self.items.dtype)])
        self.items[self.size] = item
        self.size += 1


class Queue:
    """Hands out n items, 0..n-1.

    per_item: annotators an item (k). audit: the audit items, in the order in which they go out (``audit_items``).
    audit_share: their share of new items, until all are out. seed: decides the order of what nobody ranks.

    Memory: 6 bytes an item, 4 more for each ranked one, and 1 for each annotator who has answered.
    """

    def __init__(
        self,
        n: int,
        *,
        per_item: int = 1,
        audit: Sequence[int] | np.ndarray = (),
        audit_share: float = 0.2,
        seed: int = 0,
    ) -> None:
        if per_item < 1 or not 0 <= audit_share <= 1:
            raise SpecError(
                f"a queue needs per_item of 1 or more and audit_share from 0 to 1, got {per_item} and {audit_share}"
            )
        self.n, self.per_item, self.audit_share = n, per_item, audit_share
        chosen = self._within(audit)
        self._audited = np.zeros(n, bool)
        self._audited[chosen] = True
        self._open = np.ones(n, bool)
        self._decided = np.zeros(n, bool)
        self._answers = np.zeros(n, np.uint16)
        self._of: dict[int, np.ndarray] = {}
        self._why: dict[int, tuple[str, int | None]] = {}
        self._begun = {True: 0, False: 0}  # items with an answer, by whether they are audit items
        self._waiting = Lane(np.zeros(64, np.int32), AGAIN, size=0)
        self._audit = Lane(chosen, AUDIT)
        self._ranked = Lane(np.zeros(0, np.int32), RANDOM)
        rest = stream(seed, "queue").permutation(np.arange(n, dtype=np.int32))
        self._random = Lane(rest[~self._audited[rest]], RANDOM)

    # ---- what happened -------------------------------------------------------------------------------------------

    def restore(self, answers: Iterable[tuple[int, int]], decided: Iterable[int] = ()) -> None:
        """Take in (item, user) of all present answers, oldest first, and the items that are decided without them."""
        for item in decided:
            self.decide(item)
        for item, user in answers:
            self.answered(item, user)

    def set_rank(self, rank: Sequence[int] | np.ndarray, strategy: str, model: int | None) -> None:
        """Go by this order from now on: (m,) items, best first, some or all. Audit items in it are passed over.

        Raises:
            SpecError: it names an item that there is not.
        """
        items = self._within(rank)
        self._ranked = Lane(items[self._open[items] & ~self._audited[items]], strategy, model)

    def answered(self, item: int, user: int, strategy: str | None = None, model: int | None = None) -> None:
        """A user has labelled or skipped an item; a corrected answer changes nothing.

        strategy, model: what had chosen it, if that is known.
        """
        mine = self._by(user)
        if mine[item]:
            return
        if strategy is not None:
            self._why.setdefault(item, (strategy, model))
        mine[item] = True
        self._answers[item] += 1
        if self._answers[item] == 1:
            self._begun[bool(self._audited[item])] += 1
        self._judge(item)

    def unanswered(self, item: int, user: int) -> None:
        """A user's answer was undone; the item is theirs again."""
        mine = self._by(user)
        if not mine[item]:
            return
        mine[item] = False
        self._answers[item] -= 1
        if self._answers[item] == 0:
            self._begun[bool(self._audited[item])] -= 1
        self._judge(item)

    def decide(self, item: int) -> None:
        """An item needs no answers any more: it came with a label, or the lead has decided it."""
        self._decided[item] = True
        self._judge(item)

    def undecide(self, item: int) -> None:
        """It needs them again."""
        self._decided[item] = False
        self._judge(item)

    def set_per_item(self, per_item: int) -> None:
        """From now on so many annotators an item: what was done may be open again, what was open may be done."""
        if per_item < 1:
            raise SpecError(f"every item needs one annotator or more, got per_item = {per_item}")
        self.per_item = per_item
        for item in np.flatnonzero(self._answers).tolist():
            self._judge(item)

    def _judge(self, item: int) -> None:
        """Whether an item is open now; what may lie behind someone in the lanes goes out again first."""
        is_open = self._answers[item] < self.per_item and not self._decided[item]
        self._open[item] = is_open
        if is_open:
            self._waiting.append(item)
        else:
            self._why.pop(item, None)

    # ---- what next -----------------------------------------------------------------------------------------------

    def next(self, user: int, count: int = 1, leases: Mapping[int, Collection[int]] = NO_LEASES) -> list[Pick]:
        """Up to ``count`` items for a user: what they hold on lease first, so that a reload shows the same.

        leases: the users who hold each item now. Nothing is noted here: lease the items that are shown, and hand these
        leases in the next time.
        """
        mine = self._by(user)
        held = [i for i, users in leases.items() if user in users and self._open[i] and not mine[i]]
        picks = [self._pick(item, self._waiting) for item in held[:count]]
        taken = {i for i, users in leases.items() if self._is_full(i, users, user)}.union(held)

        def free(lane: Lane) -> Iterator[Pick]:
            for item in self._open_to(lane, user):
                if item not in taken:
                    taken.add(item)
                    yield self._pick(item, lane)

        waiting, audit, ranked, rest = map(free, (self._waiting, self._audit, self._ranked, self._random))
        while len(picks) < count and (pick := next(waiting, None)) is not None:
            picks.append(pick)
        out = [i for i in leases if not self._answers[i] and not self._decided[i]]
        begun = self._begun[True] + self._begun[False] + len(out)
        audits = self._begun[True] + int(self._audited[out].sum())
        while len(picks) < count:
            due = audits + 1 <= self.audit_share * (begun + 1)
            lanes = (audit, ranked, rest) if due else (ranked, rest, audit)
            pick = next((pick for lane in lanes if (pick := next(lane, None)) is not None), None)
            if pick is None:
                break
            begun, audits = begun + 1, audits + (pick.strategy == AUDIT)
            picks.append(pick)
        return picks

    def left(self, user: int) -> int:
        """How many items are still open to a user, on lease to others or not."""
        return int(np.count_nonzero(self._open & ~self._by(user)))

    def _open_to(self, lane: Lane, user: int) -> Iterator[int]:
        """A lane's items that are open and that the user has not answered."""
        mine, place, leading = self._by(user), lane.starts.get(user, 0), True
        while place < lane.size:
            chunk = lane.items[place : min(place + CHUNK, lane.size)]
            found = np.flatnonzero(self._open[chunk] & ~mine[chunk])
            if leading:  # all before it is the user's own or closed, and comes back by the waiting lane alone
                lane.starts[user] = place + int(found[0] if len(found) else len(chunk))
                leading = not len(found)
            yield from chunk[found].tolist()
            place += len(chunk)

    def _pick(self, item: int, lane: Lane) -> Pick:
        """Why an item was chosen at first holds as long as it is open."""
        if self._audited[item]:
            return Pick(item, AUDIT, None)
        known = self._why.get(item)
        if known is None:
            if lane is self._waiting:  # on lease or begun since before a restart
                lane = self._ranked if (self._ranked.items == item).any() else self._waiting
            known = lane.strategy, lane.model
            if lane is not self._waiting:
                self._why[item] = known
        return Pick(item, *known)

    def _is_full(self, item: int, users: Collection[int], but: int) -> bool:
        """Whether answers and other users' leases together are enough."""
        out = sum(user != but and not self._by(user)[item] for user in users)
        return int(self._answers[item]) + out >= self.per_item

    def _by(self, user: int) -> np.ndarray:
        """(n,) bool, what a user has answered."""
        if user not in self._of:
            self._of[user] = np.zeros(self.n, bool)
        return self._of[user]

    def _within(self, items: Sequence[int] | np.ndarray) -> np.ndarray:
        found = np.asarray(items, np.int64)
        wrong = found[(found < 0) | (found >= self.n)]
        if len(wrong):
            raise SpecError(f"a queue of {self.n:,} items has items 0 to {self.n - 1:,}, got {wrong[0]}")
        return found.astype(np.int32)


def audit_items(n: int, count: int, seed: int) -> np.ndarray:
    """(min(count, n),) int64 items to measure on, drawn at random once and for all, in random order.

    A larger count keeps the items of a smaller one.
    """
    return stream(seed, "audit").permutation(n)[:count]


def keep_apart(
    texts: Sequence[str], embeddings: np.ndarray | None = None, known: Iterable[str] = (), alike: float = ALIKE
) -> np.ndarray:
    """(k,) places of k texts, in their order, but what is nearly the same as an earlier one comes after all others.

    Nearly the same: equal but for case, spacing and punctuation, or embeddings, (k, width), whose cosine is ``alike``
    or more. known: texts that count as earlier ones.
    """
    seen = {plain(text) for text in known}
    directions = None
    if embeddings is not None and len(texts):
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        directions = embeddings / np.maximum(lengths, 1e-12)
    first: list[int] = []
    later: list[int] = []
    for i, text in enumerate(texts):
        key = plain(text)
        twin = key in seen
        if not twin and directions is not None and first:
            twin = bool((directions[first] @ directions[i]).max() >= alike)
        seen.add(key)
        (later if twin else first).append(i)
    return np.array(first + later, np.int64)


def plain(text: str) -> str:
    """A text without case, spacing and punctuation; as it is, where it has nothing else."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", " ", folded).strip() or text
