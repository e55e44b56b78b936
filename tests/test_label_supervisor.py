"""The trainer's supervisor, with a scripted child and with the real one; and whether more labels are worth it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from toy_label_store import label

from modicum.annotate.model.queue import Queue, audit_items
from modicum.annotate.model.supervisor import Supervisor
from modicum.annotate.model.worth import curve_point, gain_of_doubling, is_worth, wilson
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME
from modicum.base.errors import StoreError

SCRIPT = """
import json, sys, time
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
def say(kind, **values):
    print(json.dumps(dict(values, kind=kind)), flush=True)
print("a library talks")
(folder / "ranks").mkdir(exist_ok=True)
say("ready")
for line in sys.stdin:
    wanted = json.loads(line)
    with (folder / "asked").open("a") as file:
        file.write(line)
    plan = (folder / "plan").read_text().split() if (folder / "plan").exists() else []
    (folder / "plan").write_text(" ".join(plan[1:]))
    act = plan[0] if plan else "train"
    if wanted["kind"] == "rank":
        np.save(folder / "ranks" / "0.npy", np.arange(9))
        say("ranked", model=0, strategy="typiclust")
    elif act == "crash":
        sys.exit(7)
    elif act == "babble":
        say("trained", model="many")
    elif act == "fail":
        say("failed", error="the moon is full")
    elif act == "wait":
        say("waiting", reason="too few")
    else:
        say("started", stage="training", model=wanted["model"])
        while act == "hold" and not (folder / "go").exists():
            time.sleep(0.01)
        say("progress", stage="scoring", done=1, total=2)
        model = wanted["model"]
        (folder / "models" / str(model)).mkdir(parents=True)
        known = np.zeros(90, [("label", "<i2"), ("confidence", "<f2")])
        known["label"], known["confidence"] = -1, 0.5
        known["label"][:10] = model
        np.save(folder / "models" / str(model) / "suggestions.npy", known)
        np.save(folder / "ranks" / f"{model}.npy", np.arange(model, model + 5))
        record = dict(seq=0, strategy="entropy", audit=50, accuracy=0.8, kappa=0.9)
        say("trained", model=model, labels=20 * model, record=record)
"""


class Watched:
    """A supervisor over a scripted child. states: all that it went through."""

    def __init__(self, store: ProjectStore, *plan: str, command: list[str] | None = None) -> None:
        self.folder, self.states = store.folder, list[tuple[str, str]]()
        self.folder.joinpath("plan").write_text(" ".join(plan))
        self.queue = Queue(store.count())
        script = [sys.executable, "-c", SCRIPT, str(store.folder)]
        self.it = Supervisor(
            store.folder, store, self.queue, on_change=self._note, command=command or script, delays=(0.01, 0.05)
        )

    def _note(self) -> None:
        now = self.it.state()
        json.dumps(now)  # the page gets it
        if (now["phase"], now["message"]) not in self.states[-1:]:
            self.states.append((now["phase"], now["message"]))

    async def until(self, condition: Callable[[], Any], seconds: float = 300.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    def asked(self) -> list[dict[str, Any]]:
        path = self.folder / "asked"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_it_ranks_at_first_and_trains_after_enough_labels(make) -> None:
    store = make(retrain_every=5)

    async def story() -> None:
        watched = Watched(store)
        await watched.it.start()
        await watched.until(lambda: watched.queue.next(ME, 1)[0].strategy == "typiclust")
        watched.it.labelled(4)
        await asyncio.sleep(0.05)
        assert [work["kind"] for work in watched.asked()] == ["rank"] and watched.it.state()["new"] == 4
        watched.it.labelled()
        await watched.until(lambda: watched.it.state()["model"] == 1)
        await watched.until(lambda: watched.it.state()["phase"] == "ready")
        now = watched.it.state()
        assert (now["labels"], now["new"], now["seconds"], now["progress"]) == (20, 0, None, None)
        assert now["worth"] == "unknown" and "1 measured model so far" in now["advice"]
        (point,) = watched.it.curve()["points"]
        assert (point["model"], point["labels"], point["items"], point["value"]) == (1, 20, 50, 0.8)
        assert point["low"] < 0.8 < point["high"] and watched.it.curve()["audit"] == 50
        assert watched.queue.next(ME, 1)[0].model == 1 and watched.queue.next(ME, 1)[0].item == 1
        first, none = watched.it.suggestion(3), watched.it.suggestion(40)
        assert first is not None and (first.label, first.confidence) == (1, 0.5) and none is None
        assert [row.model for row in store.models()] == [1]
        await watched.it.stop()
        again = Watched(store)
        await again.it.start()
        assert again.it.state()["model"] == 1 and again.queue.next(ME, 1)[0].model == 1, "taken up at once"
        assert again.queue.next(ME, 1)[0].strategy == "entropy" and again.it.suggestion(3) == first
        await again.it.stop()
        assert [work["kind"] for work in again.asked()] == ["rank", "train"]

    asyncio.run(story())


def test_one_training_at_a_time_and_labels_meanwhile_count_for_the_next(make) -> None:
    store = make(retrain_every=5)

    async def story() -> None:
        watched = Watched(store, "rank", "hold")
        await watched.it.start()
        await watched.until(lambda: watched.queue.next(ME, 1)[0].strategy == "typiclust")
        watched.it.labelled(5)
        await watched.until(lambda: watched.it.state()["phase"] == "training")
        watched.it.labelled(5)
        watched.it.retrain()
        await asyncio.sleep(0.05)
        assert [work.get("model") for work in watched.asked()] == [None, 1]
        (watched.folder / "go").touch()
        await watched.until(lambda: watched.it.state()["model"] == 2)
        await watched.until(lambda: watched.it.state()["phase"] == "ready")
        await asyncio.sleep(0.05)
        assert [work["model"] for work in watched.asked() if work["kind"] == "train"] == [1, 2]
        assert ("scoring", "") in watched.states
        await watched.it.stop()

    asyncio.run(story())


def test_crashes_are_shown_and_the_work_is_done_after_them(make) -> None:
    store = make(retrain_every=5)

    async def story() -> None:
        watched = Watched(store, "rank", "crash", "crash", "babble", "fail", "wait")
        await watched.it.start()
        await watched.until(lambda: watched.queue.next(ME, 1)[0].strategy == "typiclust")
        watched.it.labelled(5)
        await watched.until(lambda: watched.it.state()["message"] == "too few")
        assert watched.it.state()["phase"] == "waiting" and watched.it.state()["new"] == 5
        reasons = [reason for state, reason in watched.states if state == "failed"]
        assert sum("exit code 7" in reason for reason in reasons) == 2 and "the moon is full" in reasons
        assert any("could not be used" in reason for reason in reasons)
        asked = len(watched.asked())
        await asyncio.sleep(0.1)
        assert len(watched.asked()) == asked, "it waits for labels"
        watched.it.labelled()
        await watched.until(lambda: watched.it.state()["model"] == 1)
        await watched.it.stop()

    asyncio.run(story())


def test_delays_grow_and_a_missing_program_is_told(make) -> None:
    store = make()

    async def story() -> None:
        watched = Watched(store, command=["modicum-has-no-such-program"])
        await watched.it.start()
        await watched.until(lambda: watched.it._failures >= 5)
        assert "could not be started" in watched.it.state()["message"]
        delays = []
        for watched.it._failures in range(6):
            delays.append(watched.it._delay())
        assert delays == [0.01, 0.01, 0.02, 0.04, 0.05, 0.05]
        await watched.it.stop()

    asyncio.run(story())


def test_a_model_that_cannot_be_noted_is_trained_again(make, monkeypatch: pytest.MonkeyPatch) -> None:
    store, refused = make(retrain_every=5), []
    kept = ProjectStore.record_training

    def record(self: ProjectStore, *told: Any) -> None:
        if not refused:
            refused.append(told)
            (self.folder / "models" / "1").rename(self.folder / "models" / "lost")
            raise StoreError("the disk is full")
        kept(self, *told)

    monkeypatch.setattr(ProjectStore, "record_training", record)

    async def story() -> None:
        watched = Watched(store)
        await watched.it.start()
        watched.it.labelled(5)
        await watched.until(lambda: watched.it.state()["model"] == 1)
        assert any("the disk is full" in reason for state, reason in watched.states if state == "failed")
        await watched.it.stop()

    asyncio.run(story())


def test_the_real_trainer_trains_dies_and_comes_back(make, tmp_path: Path) -> None:
    tiny.save_tiny("bert", tmp_path / "base")
    store = make(backbone=str(tmp_path / "base"), retrain_every=12, audit=10)

    async def story() -> None:
        watched = Watched(store, command=[sys.executable, "-m", "modicum.annotate.model.trainer", str(store.folder)])
        await watched.it.start()
        await watched.until(lambda: (store.folder / "ranks" / "0.npy").exists())
        label(store, range(12))
        child = watched.it._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        watched.it.labelled(12)
        await watched.until(lambda: watched.it.state()["model"] == 1)
        assert any("by SIGKILL" in reason for state, reason in watched.states if state == "failed")
        assert len(list(store.answers())) == 12 and store.models()[0].labels == 12 - len(
            set(range(12)) & set(audit_items(store.count(), 10, 0).tolist())
        )
        assert (store.folder / "models" / "1").stat().st_mode & 0o077 == 0
        child = watched.it._child
        assert child is not None and child.stdin is not None
        child.stdin.close()  # as when the server is killed
        async with asyncio.timeout(300):
            assert await child.wait() == 0
        await watched.it.stop()

    asyncio.run(story())


# ---- is it worth it --------------------------------------------------------------------------------------------------


def test_limits_of_a_share() -> None:
    # Wilson's limits for 81 of 263, a much printed example: 0.2553 to 0.3662
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0) and np.isnan(wilson(0, 0)).all()


def points(labels: list[int], accuracy: list[float], audit: int) -> list[dict[str, Any]]:
    records = [{"audit": audit, "accuracy": a} for a in accuracy]
    found = [curve_point(i, n, record) for i, (n, record) in enumerate(zip(labels, records, strict=True))]
    return [point for point in found if point is not None]


def test_the_gain_of_doubling_is_the_slope() -> None:
    rising = points([25, 50, 100, 200], [0.5, 0.6, 0.7, 0.8], 10_000)
    gain = gain_of_doubling(rising[1:] + points([75], [0.6 + 0.1 * np.log2(1.5)], 10_000))
    assert gain is not None and gain.value == pytest.approx(0.1, abs=1e-6) and gain.low < 0.1 < gain.high
    assert gain_of_doubling(rising[1:]) is None, "three are too few; what is before a quarter of the labels is out"


@pytest.mark.parametrize(
    ("curve", "kappas", "verdict", "says"),
    [
        ([], [], "unknown", "0 audit items and 0 measured models"),
        (points([25, 50], [0.5, 0.7], 9), [], "unknown", "9 audit items and 2 measured models"),
        (points([50, 100, 150, 200], [0.5, 0.6, 0.66, 0.7], 2000), [], "yes", "points of accuracy"),
        (points([50, 100, 150, 200], [0.9, 0.9, 0.9, 0.9], 9000), [], "no", "+0.0 points"),
        (points([50, 100, 150, 200], [0.8, 0.8, 0.82, 0.81], 60), [], "unknown", "too wide a range"),
        (points([50, 100, 150, 200], [0.8, 0.8, 0.82, 0.81], 60), [0.2, 0.99, 0.995, 1], "no", "hardly changed"),
        ([], [1.0, 1.0, 1.0], "unknown", "whether they are right is not known"),
    ],
)
def test_whether_more_labels_are_worth_it(curve: Any, kappas: list[float], verdict: str, says: str) -> None:
    found = is_worth(curve, kappas)
    assert found.verdict == verdict and says in found.text
