"""The contract that every study store keeps, as a test class.

A store author's own tests subclass it::

    class TestMine(StoreContract):
        target = "my_package.store:MyStore"

The class must open or create a store at ``MyStore(path)``, without torch.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modicum.base.errors import StoreError
from modicum.base.events import Asked, Event, Stopped, Told, Trained
from modicum.base.rng import stream

WRITER = """
import importlib, sys
from pathlib import Path
from modicum.base.events import Told

target, path, first, last, *trials = sys.argv[1:]
module, _, name = target.partition(":")
store = getattr(importlib.import_module(module), name)(Path(path))
for i in range(int(first), int(last)):
    store.append({trial: [Told(answers={f"{i}{part}": i}) for part in "ab"] for trial in trials})
    print(i, flush=True)
"""
"""Another process: appends one transaction after another, and prints the number of each when it is acknowledged."""

LOG: list[Event] = [
    Asked(round=0, ids=("a", "ü 'x'\n"), strategy="random", cost={"score_seconds": 0.1 + 0.2}),
    Told(answers={"a": 1, "ü 'x'\n": None}),
    Trained(round=0, labels=1, record={"macro_f1": 1 / 3, "steps": 12, "stop_predictions": [0, 1], "nested": {"a": 1}}),
    Told(answers={"a": -2.5e-17}),
    Stopped(reason="budget of 1 labels reached"),
]


class StoreContract:
    """What holds for every store. Subclass it, name the subclass ``Test...``, and name the store in ``target``."""

    target: ClassVar[str]
    """``module:Class`` of the store under test."""
    kills: ClassVar[int] = 10

    def open(self, path: Path) -> Any:
        """A store at this path, made where there is none."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)(path)

    def check(self, path: Path) -> None:
        """More to look at in a store whose writer was killed, such as a database's own check."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "study" / "store"

    @pytest.fixture
    def store(self, path: Path) -> Any:
        with self.open(path) as store:
            store.add_gang({"one": "{}", "two": "{}"})
            yield store

    def test_appending_then_reading_is_the_identity(self, store: Any, path: Path) -> None:
        for event in LOG:
            store.append({"one": [event]})
        store.append({"two": LOG})
        with self.open(path) as again:
            for found in (store.events("one"), store.events("two"), again.events("one"), again.events("two")):
                assert found == LOG
                assert [type(a) for e in found if isinstance(e, Told) for a in e.answers.values()] == [
                    int, type(None), float,
                ]  # fmt: skip

    def test_nothing_is_there_before_it_is_appended(self, store: Any) -> None:
        assert store.events("one") == []
        store.append({})
        store.append({"one": []})
        assert store.events("one") == []

    @pytest.mark.parametrize(
        "bad",
        [
            {"two": [LOG[1], Trained(round=0, labels=1, record={"what": object()})]},
            {"nobody": LOG},
        ],
        ids=["no JSON value", "unknown trial"],
    )
    def test_a_refused_append_leaves_nothing_behind(self, store: Any, path: Path, bad: dict[str, list[Event]]) -> None:
        store.append({"one": LOG[:1]})
        with pytest.raises((ValueError, StoreError)):
            store.append({"one": LOG[1:], **bad})
        with self.open(path) as again:
            assert again.events("one") == LOG[:1] and again.events("two") == []
        store.append({"one": LOG[1:], "two": LOG})
        assert store.events("one") == store.events("two") == LOG

    def test_gangs_keep_their_order_and_members(self, store: Any, path: Path) -> None:
        store.add_gang({"z": '{"seed":1}', "a": '{"seed":2}'})
        store.add_gang({"m": "{}"})
        with self.open(path) as again:
            assert again.gangs() == [["one", "two"], ["z", "a"], ["m"]]
            assert (again.spec("z"), again.spec("a")) == ('{"seed":1}', '{"seed":2}')

    def test_a_trial_is_added_once(self, store: Any) -> None:
        with pytest.raises(StoreError):
            store.add_gang({"three": "{}", "one": '{"other":1}'})
        assert store.gangs() == [["one", "two"]] and store.spec("one") == "{}"

    def test_an_unknown_trial_has_no_spec(self, store: Any) -> None:
        with pytest.raises(StoreError, match="no trial nobody"):
            store.spec("nobody")

    def test_the_last_value_of_a_name_counts(self, store: Any, path: Path) -> None:
        assert store.meta("current") is None
        for value in ("first", "ß 'second'"):
            store.set_meta(current=value)
        with self.open(path) as again:
            assert again.meta("current") == "ß 'second'"

    def test_two_writers_lose_nothing(self, store: Any, path: Path) -> None:
        rounds = 60
        writers = [self.writer(path, 0, rounds, trial) for trial in ("one", "two")]
        for writer in writers:
            assert writer.wait(timeout=60) == 0
            assert writer.stdout is not None
            writer.stdout.close()
        for trial in ("one", "two"):
            assert self.numbers(store, trial) == [i for i in range(rounds) for _ in "ab"]

    def test_a_kill_loses_nothing_that_was_acknowledged(self, store: Any, path: Path) -> None:
        rng, done = stream(0, "kills"), 0
        for turn in range(self.kills):
            writer = self.writer(path, done, 10**9, "one", "two")
            assert writer.stdout is not None
            acknowledged = [] if turn % 5 == 0 else [writer.stdout.readline()]  # now and then while it starts
            time.sleep(0.2 * rng.random() if turn % 5 == 0 else 0.03 * rng.random())
            writer.kill()
            acknowledged += writer.stdout.readlines()
            writer.stdout.close()
            writer.wait()
            whole = [int(line) for line in acknowledged if line.endswith("\n")]
            with self.open(path) as again:
                found = self.numbers(again, "one")
                assert found == self.numbers(again, "two"), "part of a transaction was kept"
            assert found == [i for i in range(len(found) // 2) for _ in "ab"], "events are missing, doubled or moved"
            assert max(whole, default=done - 1) + 1 <= len(found) // 2, "an acknowledged append is lost"
            self.check(path)
            done = len(found) // 2
        assert done >= self.kills // 2, "the writers hardly wrote"

    def writer(self, path: Path, first: int, last: int, *trials: str) -> subprocess.Popen[str]:
        """A process that appends to these trials at once; ``numbers`` reads what it wrote."""
        command = [sys.executable, "-c", WRITER, self.target, str(path), str(first), str(last), *trials]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    @staticmethod
    def numbers(store: Any, trial: str) -> list[int]:
        """The numbers that writers told, in the order in which the store holds them."""
        return [int(number) for event in store.events(trial) for number in event.answers.values()]
