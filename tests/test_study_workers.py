"""Gangs side by side, in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny
from toy_study import Watcher, plain, study

from modicum.base.errors import ModicumError, StoreError
from modicum.study.results import Results
from modicum.study.run import run_study
from modicum.study.spec import Study


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two gangs on a tiny encoder, each with a pretraining."""
    folder = save_tiny("bert", tmp_path_factory.mktemp("tiny"))
    return study(
        methods=["lora", "bitfit"], strategies=["random"], backbone={"name": str(folder), "precision": "fp32"},
        tapt={"objective": "simcse", "epochs": 1}, keep_dynamics=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(grid: Study, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_study(grid, tmp_path_factory.mktemp("alone"), Watcher())


def rounded(results: Results) -> list[dict[str, Any]]:
    """All that must not depend on how a study came about, but for the last digits: threads add up in another order."""
    rows = [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in plain(results)]
    return sorted(rows, key=lambda row: (row["method"], row["round"]))


def test_they_come_to_the_same(grid: Study, alone: Results, tmp_path: Path) -> None:
    watcher = Watcher()
    results = run_study(grid, tmp_path, watcher, workers=2)
    assert rounded(results) == rounded(alone)
    assert len(watcher.heard) == 6 and sorted(watcher.epochs) == [("bitfit", 1), ("lora", 1)]
    assert len(results.pretraining) == 2 and len(results.examples) == len(alone.examples)
    again = Watcher()
    assert rounded(run_study(grid, tmp_path, again, workers=2)) == rounded(alone) and not again.heard


class Killer(Watcher):
    """Kills a process as soon as it has done a round."""

    def round_done(self, trial: Any, record: Mapping[str, Any]) -> None:
        super().round_done(trial, record)
        for process in multiprocessing.active_children():
            process.kill()


def test_a_killed_process_is_told_and_costs_no_finished_round(grid: Study, alone: Results, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"ended with exit code -9 .*the same command.* goes on"):
        run_study(grid, tmp_path, Killer(), workers=2)
    assert not multiprocessing.active_children()
    assert rounded(run_study(grid, tmp_path, Watcher())) == rounded(alone)


def test_what_a_gang_refuses_is_told_here(grid: Study, tmp_path: Path) -> None:
    wrong = [choice.model_copy(update={"options": {"learning_rate": 1e9}}) for choice in grid.methods]
    with pytest.raises(ModicumError, match="diverged"):
        run_study(grid.model_copy(update={"methods": tuple(wrong), "tapt": (None,)}), tmp_path, Watcher(), workers=2)
    assert not multiprocessing.active_children()
