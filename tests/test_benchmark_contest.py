"""Measurements of benchmarks: kept at once, shared among processes, and taken anew where times are wanting."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from harness import contest as contest_module
from harness.contest import Contest, ContestantFailed, Entry

ENTRY = Entry("trec, 50 labels", "auto", "x.py", settings={"seed": 0})


class Calls(list[str]):
    """Stands for the contestants: counts them, and answers with seconds."""

    def __call__(self, _: Contest, entry: Entry, timeout: float | None = None) -> dict[str, Any]:
        self.append(entry.script)
        if entry.system == "broken":
            raise ContestantFailed("it broke")
        return {"seconds": 2.0 + len(self), "runs": {"0": {"macro_f1": 0.5}}}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    made = Calls()
    monkeypatch.setattr(Contest, "_call", lambda *args, **more: made(*args, **more))
    monkeypatch.setattr(contest_module, "FOLDER", tmp_path)
    monkeypatch.setattr(contest_module, "ROOT", tmp_path)
    monkeypatch.setattr(contest_module, "CLAIMS", tmp_path / "claims")
    (tmp_path / "results").mkdir()
    return made


def contest(*, resume: bool = True, untimed: bool = True, threads: int = 2, threads_decide: bool = False) -> Contest:
    options = argparse.Namespace(quick=False, resume=resume, untimed=untimed, threads=threads, repeats=1)
    return Contest("few", options, {}, threads_decide=threads_decide)


def test_what_was_measured_is_not_measured_again(calls: Calls) -> None:
    contest().measure(ENTRY)
    assert contest(threads=1).measure(ENTRY) == {"runs": {"0": {"macro_f1": 0.5}}} and len(calls) == 1
    contest(resume=False).measure(ENTRY)
    assert len(calls) == 2
    contest(threads_decide=True).measure(ENTRY)
    contest(threads_decide=True, threads=1).measure(ENTRY)
    assert len(calls) == 4, "speed depends on threads"


def test_what_another_benchmark_measured_is_taken_over(calls: Calls) -> None:
    contest().measure(ENTRY)
    elsewhere = [m | {"result": {"runs": {"0": {"macro_f1": 0.7}}}} for m in contest().data["measurements"]]
    own = contest()
    own.adopt(ENTRY, elsewhere)
    assert own.measure(ENTRY) == {"runs": {"0": {"macro_f1": 0.5}}}, "what is the benchmark's own stays"
    own.path.unlink()
    other = contest()
    other.adopt(ENTRY, elsewhere)
    assert other.measure(ENTRY) == elsewhere[0]["result"] and len(calls) == 1
    other.finish()
    assert contest().results(ENTRY) == [elsewhere[0]["result"]]


def test_times_are_taken_where_they_are_wanting(calls: Calls) -> None:
    contest().measure(ENTRY)
    timed = contest(untimed=False)
    assert calls[-1] == "peak.py"
    assert timed.measure(ENTRY)["seconds"] > 0 and timed.values(ENTRY) and calls.count("x.py") == 2  # type: ignore[index]
    assert contest().measure(ENTRY)["seconds"] and calls.count("x.py") == 2, "a time serves where none is wanted"  # type: ignore[index]


def test_processes_share_what_is_to_be_measured(calls: Calls) -> None:
    one, other = contest(), contest()
    with one._claimed(ENTRY, 0):
        assert other.measure(ENTRY) is None and not calls
    one.measure(ENTRY)
    assert other.measure(ENTRY) and len(calls) == 1, "it looks before it measures"


def test_times_of_different_machines_are_not_mixed(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    first = contest(untimed=False)
    for number in range(2):
        first.measure(ENTRY, number)
    monkeypatch.setattr(contest_module.machine, "record", lambda: {"cpu": "another", "commit": "c"})
    second = contest(untimed=False)
    second.measure(ENTRY, 2)
    assert calls.count("peak.py") == 2 and second.timed_on == first.data["machine"]["cpu"]
    assert len(second.results(ENTRY)) == 3 and len(second.values(ENTRY)) == 2
    assert second.data["matrix_products"]["cpu"] == "another"
    untold = json.loads(second.path.read_text())
    for one in untold["measurements"]:
        one.pop("cpu")
    second.path.write_text(json.dumps(untold))
    assert {m["cpu"] for m in contest().data["measurements"]} == {"another"}, "the file's own machine"


def test_a_time_that_cannot_be_taken_costs_no_quality(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    contest().measure(ENTRY)
    timed = contest(untimed=False)

    def fails(*_: object, **__: object) -> dict[str, Any]:
        raise ContestantFailed("it broke")

    monkeypatch.setattr(Contest, "_call", fails)
    assert timed.measure(ENTRY) == {"runs": {"0": {"macro_f1": 0.5}}} and timed.errors
    assert "result" in contest().data["measurements"][0]


def test_a_failure_is_kept_and_tried_again(calls: Calls) -> None:
    broken, made = Entry("w", "broken", "y.py"), contest()
    assert made.measure(broken) is None and made.errors == ["w · broken: it broke"]
    assert "error" in contest().data["measurements"][0] and contest().measure(broken) is None and len(calls) == 2
    with pytest.raises(SystemExit, match="Some contestants failed:\n  w · broken: it broke"):
        made.finish(table=[])
