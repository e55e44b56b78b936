"""Modicum runs a whole active-learning study of one method and strategy, all its seeds in one study.

Timed: ``run_study``, from files to the last round's metrics: loading data and encoder, tokens, every round, the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import report, settings, stopwatch

from modicum.base.events import Asked
from modicum.data.sources import load
from modicum.study.results import DATABASE, Results
from modicum.study.run import run_study
from modicum.study.spec import Study, Trial, parse_study
from modicum.study.store import Store

OUT = Path("study")


class Silent:
    """Watches, and says nothing."""

    def started(self, study: Study, trials: int, rounds: int, done: int) -> None:
        """Nothing."""

    def round_done(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """Nothing."""


def study_of(told: dict[str, Any]) -> Study:
    """The study that the settings describe."""
    folder = Path(told["given"]["data"]) / told["dataset"]
    files = {name: str(folder / f"{name}.parquet") for name in ("train", "test")}
    return parse_study(
        {
            "data": [files | {"name": told["dataset"], "text": "text", "label": "label"}],
            "methods": [told["method"]],
            "strategies": ["entropy"],
            "seeds": told["seeds"],
            "backbone": {"name": "minilm", "max_length": told["max_length"]},
            "loop": {"warm_start": told["warm_start"], "batch": told["query"], "budget": told["budget"]},
            "training": {"epochs": told["epochs"], "min_steps": 1, "batch_size": told["batch"]},
        }
    )


def check_first_labels(results: Results, told: dict[str, Any]) -> None:
    """The first labels must be those that the other systems are given: runs are paired by them."""
    data = load(Path(told["given"]["data"]) / told["dataset"] / "train.parquet", text="text", label="label")
    with Store(OUT / DATABASE) as store:
        for key, seed in {row["trial"]: row["seed"] for row in results.rows}.items():
            asked = next(event for event in store.events(key) if isinstance(event, Asked))
            given = told["given"]["first_labels"][str(seed)]
            if sorted(given) != np.sort(data.ids.positions_of(asked.ids)).tolist():
                raise SystemExit(f"the study's first labels of seed {seed} are not those of the other systems")


def main() -> None:
    told, result = settings(), dict[str, Any]()
    study = study_of(told)
    with stopwatch(result):
        results = run_study(study, OUT, Silent())
    check_first_labels(results, told)
    runs = {}
    for seed in told["seeds"]:
        rows = sorted((row for row in results.rows if row["seed"] == seed), key=lambda row: row["labels"])
        names = ("labels", "macro_f1", "accuracy", "steps")
        runs[str(seed)] = {name: [row[name] for row in rows] for name in names}
    report(**result, runs=runs, precision=results.manifest["backbone"]["precision"])


if __name__ == "__main__":
    main()
