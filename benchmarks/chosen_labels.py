"""The recipes that `auto` chooses among, on labels that a strategy chose: is the best one that of random labels?

    python benchmarks/chosen_labels.py STUDY.toml DIR [--data-dir DATA] [--labels 100 200 300] [--strategy NAME]

DIR is the folder of a study, run before. Each seed's labels are the first so many that its longest trial asked for.
Tested are at most 1,000 of the training texts that no seed's longest trial, by any strategy, asked for.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from harness.tables import markdown
from scipy.stats import hmean

from modicum.analysis.metrics import macro_f1
from modicum.auto.engine import Auto, AutoEngine
from modicum.auto.recipes import shipped_table
from modicum.base.errors import ModicumError
from modicum.base.events import Asked
from modicum.base.rng import stream
from modicum.base.training import FitJob, Training
from modicum.engine.cache import Corpus
from modicum.study.prepare import load_backbone, load_data
from modicum.study.results import DATABASE, load_results
from modicum.study.spec import Study, Trial, read_study
from modicum.study.store import Store

TESTED = 1000


def asked(folder: Path) -> dict[tuple[str, str, int], tuple[str, ...]]:
    """By the data's fingerprint, strategy and seed the texts of the longest trial, in the order they were asked for."""
    found: dict[tuple[str, str, int], tuple[str, ...]] = {}
    with Store(folder / DATABASE) as store:
        for trial_key in (key for gang in store.gangs() for key in gang):
            trial = Trial.model_validate_json(store.spec(trial_key))
            ids = tuple(i for event in store.events(trial_key) if isinstance(event, Asked) for i in event.ids)
            key = trial.fingerprint, trial.strategy.label, trial.seed
            found[key] = max(found.get(key, ()), ids, key=len)
    return found


def compare(study: Study, folder: Path, strategy: str, numbers: list[int]) -> list[dict[str, str | int]]:
    """A row for each data set, number of labels and recipe."""
    rows: list[dict[str, str | int]] = []
    every, backbone = asked(folder), load_backbone(study.backbone)
    for data in study.data:
        train, _ = load_data(data)
        of_set = {(name, seed): ids for (of, name, seed), ids in every.items() if of == train.fingerprint}
        if not of_set:
            continue
        where = {name: position for position, name in enumerate(train.ids)}
        seen = {where[name] for ids in of_set.values() for name in ids}
        others = np.array([position for position in range(len(train)) if position not in seen])
        engine = AutoEngine(
            backbone, Corpus(backbone, train), Auto(search=False), Training(), "classification", len(train.classes)
        )
        for labels in numbers:
            jobs = [
                FitJob(
                    ids[:labels], train.labels[[where[i] for i in ids[:labels]]], seed, 0, sought=strategy != "random"
                )
                for (name, seed), ids in sorted(of_set.items())
                if name == strategy and len(ids) >= labels
            ]
            per_class = [hmean(list(Counter(job.targets.tolist()).values())) for job in jobs]
            for recipe in shipped_table().recipes if jobs else ():
                of_recipe, reached = engine.by(recipe), []
                for job, fitted in zip(jobs, of_recipe.fit(jobs), strict=True):
                    tested = np.sort(stream(job.seed, "held out").permutation(others)[:TESTED])
                    said = of_recipe.scorer(fitted.weights).outputs(tested)
                    reached.append(macro_f1(train.labels[tested], said.argmax(1)))
                rows.append({
                    "data": data.title, "labels": labels, "a class": f"{np.mean(per_class):.0f}", "recipe": recipe.name,
                    "macro-F1": f"{np.mean(reached):.3f}", "by seed": " ".join(f"{one:.3f}" for one in reached),
                })  # fmt: skip
                print(" ".join(map(str, rows[-1].values())), flush=True)
    return rows


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("study", nargs="?", type=Path, metavar="STUDY.toml")
    made.add_argument("folder", nargs="?", type=Path, metavar="DIR")
    made.add_argument("--data-dir", type=Path, metavar="DATA")
    made.add_argument("--labels", nargs="+", type=int, default=[100, 200, 300])
    made.add_argument("--strategy", default="class-balanced")
    options = made.parse_args()
    if options.folder is None:
        print("Nothing to do: give a study's file and the folder that it was run into.")
        return
    try:
        load_results(options.folder)  # refuses a folder without a study, where Store would begin one
        rows = compare(read_study(options.study, options.data_dir), options.folder, options.strategy, options.labels)
    except ModicumError as problem:
        made.error(str(problem))
    print(markdown(rows))


if __name__ == "__main__":
    main()
