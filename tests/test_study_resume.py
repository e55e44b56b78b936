"""Studies interrupted, grown, renamed or already running: what is done stays done, and nothing is done twice."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_study import Interrupted, Watcher, backbone, count_jobs, events, plain, run, study

from modicum.base.errors import StoreError
from modicum.base.events import Asked, Trained
from modicum.report import TIMING_COLUMNS, ReportSource, write_report
from modicum.study import run as run_module
from modicum.study.results import DATABASE, Results, load_results
from modicum.study.store import Store

# ---- going on --------------------------------------------------------------------------------------------------------


RESUMABLE = study(loop={"plateau": 1.0, "patience": 9})
"""Remembers predictions from round to round, too, but never stops for them."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(RESUMABLE, tmp_path_factory.mktemp("whole"))


def csv_of(results: Results, folder: Path) -> bytes:
    """``results.csv`` without its timings."""
    write_report(ReportSource(**vars(results)), folder)
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(rows[0]) if name not in TIMING_COLUMNS]
    return "\n".join(",".join(row[i] for i in kept) for row in rows).encode()


@pytest.mark.parametrize("rounds", range(1, 8))
def test_an_interrupted_study_goes_on_as_if_nothing_had_been(
    uninterrupted: Results, tmp_path: Path, rounds: int
) -> None:
    with pytest.raises(Interrupted):
        run(RESUMABLE, tmp_path, Watcher(limit=rounds))
    partly = load_results(tmp_path)
    assert rounds <= len(partly.rows) < 12
    assert any(row.get("unfinished") for row in partly.rows) == (len(partly.rows) != 6)  # at 6 a method is done
    assert all(row in plain(uninterrupted) for row in plain(partly))
    watcher = Watcher()
    results = run(RESUMABLE, tmp_path, watcher)
    assert watcher.counts == (4, 12, len(partly.rows)) and len(watcher.heard) == 12 - len(partly.rows)
    assert plain(results) == plain(uninterrupted) and not any("unfinished" in row for row in results.rows)
    assert all("kappa" in row for row in results.rows if row["round"] > 0)
    if rounds == 5:
        assert csv_of(results, tmp_path / "a") == csv_of(uninterrupted, tmp_path / "b")


def test_who_worked_on_a_study_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    with pytest.raises(Interrupted):
        run(RESUMABLE, tmp_path, Watcher(limit=3))
    monkeypatch.setattr(run_module, "threads_each", lambda workers: threads + 1)
    resumed = run(RESUMABLE, tmp_path)
    monkeypatch.setattr(run_module, "threads_each", lambda workers: threads + 2)
    looked_at = run(RESUMABLE, tmp_path)  # nothing is left to do
    for results in (resumed, looked_at):
        assert results.manifest["machine"]["threads"] == threads + 1
        assert [one["machine"]["threads"] for one in results.manifest["earlier_runs"]] == [threads]
        assert "under 2 combinations of versions, machine and threads" in results.notes[-1]


@pytest.mark.parametrize("appends", [1, 2, 3])
def test_a_round_that_was_not_kept_is_done_again(
    uninterrupted: Results,
    tmp_path: Path,
    appends: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, append = [], Store.append

    def failing(self: Store, events: Any) -> None:
        if len(done) == appends:
            raise Interrupted
        done.append(append(self, events))

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Store, "append", failing)
        run(RESUMABLE, tmp_path)
    assert plain(run(RESUMABLE, tmp_path)) == plain(uninterrupted)


def test_the_time_spent_includes_the_query_before_the_interruption(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(study(methods=["lora"]), tmp_path, Watcher(limit=1))
    run(study(methods=["lora"]), tmp_path)
    for trial, asked in events(tmp_path, Asked).items():
        records = [event.record for event in events(tmp_path, Trained)[trial]]
        for query, record in zip(asked, records, strict=True):
            assert record["seconds"] == pytest.approx(record["fit_seconds"] + sum(query.cost.values()))


def test_a_finished_study_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = count_jobs(monkeypatch)
    first = run(study(methods=["head"]), tmp_path)
    trained = len(jobs)
    watcher = Watcher()
    again = run(study(methods=["head"]), tmp_path, watcher)
    assert len(jobs) == trained and watcher.counts == (2, 6, 6) and watcher.heard == []
    assert again.rows == first.rows == load_results(tmp_path).rows


def test_a_grid_can_grow_and_shrink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = count_jobs(monkeypatch)
    first = run(study(methods=["head"]), tmp_path / "out")
    jobs.clear()
    larger: dict[str, Any] = {"strategies": ["random", "badge", "margin"], "seeds": [0, 7]}
    grown = run(study(methods=["head", "bitfit"], **larger), tmp_path / "out")
    assert len(grown.rows) == 36 and all(row in grown.rows for row in first.rows)
    old = [job for bank in jobs for job in bank if job[0] == "Head" and job[2] == 0]
    assert old == [("Head", 0, 0), ("Head", 1, 0), ("Head", 2, 0)]  # those of margin alone
    alone = run(study(methods=["bitfit"], **larger), tmp_path / "alone")
    assert plain(alone) == [row for row in plain(grown) if row["method"] == "bitfit"]
    jobs.clear()
    shrunk = run(study(methods=["head"], seeds=[7]), tmp_path / "out")
    assert jobs == [] and len(shrunk.rows) == 6 and all(row in grown.rows for row in shrunk.rows)


def test_new_names_for_old_things_train_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = count_jobs(monkeypatch)
    first = run(study(methods=["head"]), tmp_path)
    jobs.clear()
    monkeypatch.setattr(backbone(), "name", "moved/fake")
    renamed = run(study(methods=["head"], data={"name": "new", "train": "toy.csv"}), tmp_path)
    assert jobs == []
    assert renamed.rows == [row | {"dataset": "new", "backbone": "moved/fake"} for row in first.rows]


# ---- one at a time ---------------------------------------------------------------------------------------------------

HOLD = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print(flush=True)\n    sys.stdin.read()"


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreError, match="another process is running a study in .*: wait for it, or choose"):
            run(study(), tmp_path)
        other.communicate()
    assert not (tmp_path / DATABASE).exists()


def test_what_is_taken_out_of_the_file_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(study(methods=["head"]), tmp_path, Watcher(limit=2))
    watcher = Watcher()
    results = run(study(methods=["head"], strategies=["random"]), tmp_path, watcher)
    assert watcher.counts == (1, 3, 1) and len(watcher.heard) == 2
    assert {row["strategy"] for row in results.rows} == {"random"}
    whole = run(study(methods=["head"]), tmp_path)
    assert len(whole.rows) == 6 and not any(row.get("unfinished") for row in whole.rows)


def test_a_failed_study_lets_go_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as held:  # as a notebook holds on to its last error
        run(study(methods=["head"]), tmp_path, Watcher(limit=1))
    assert len(run(study(methods=["head"]), tmp_path).rows) == 6 and held


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(StoreError, match="out cannot hold a study: .*File exists.*. Choose another --out"):
        run(study(), tmp_path / "out")


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no study .study.sqlite is missing.: give the folder that was passed"):
        load_results(tmp_path)
    Store(tmp_path / DATABASE).close()
    with pytest.raises(StoreError, match="holds no trials yet: run the study first"):
        load_results(tmp_path)
