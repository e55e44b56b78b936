"""What became of each example in training, from the arrays that a study keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modicum.analysis.dynamics import cartography, first_learned, forgetting_events
from modicum.base.events import Told, Trained
from modicum.study.spec import Trial
from modicum.study.store import Store


def example_rows(
    store: Store, trials: Mapping[str, Trial], arrays: Path, called: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """One row for each trial and each example of its last round: how often it was forgotten, when it was first learned,
    and its place on the map (confidence, variability, correctness); for classification, where arrays were kept.

    trials: those to tell of, by key. called: the methods' names by their labels.
    """
    kept = json.loads(store.meta("manifest") or "{}").get("data", {})
    classes = {title: told["classes"] for title, told in kept.items()}
    for key, trial in trials.items():
        events = store.events(key)
        last = max((event.round for event in events if isinstance(event, Trained)), default=-1)
        folder = arrays / key
        if not (folder / f"{last}-correct.npy").is_file():
            continue
        correct, sure = (np.load(folder / f"{last}-{n}.npy", allow_pickle=False) for n in ("correct", "confidence"))
        if not correct.any():
            continue  # values are never correct
        answers = [sorted(event.answers.items()) for event in events if isinstance(event, Told)]
        labelled = [(example, label) for told in answers for example, label in told if label is not None]
        place = cartography(correct, sure)
        columns = {
            "forgetting_events": forgetting_events(correct, sure),
            "first_learned": first_learned(correct),
            "confidence": place.confidence,
            "variability": place.variability,
            "correctness": place.correctness,
        }
        names_of = classes.get(trial.dataset, [])
        head = {
            "dataset": trial.dataset,
            "method": trial.titled(called[trial.method.label]),
            "strategy": trial.strategy.label,
        }
        for i, (example, label) in enumerate(labelled[: correct.shape[1]]):
            found = {name: values[i].item() for name, values in columns.items()}
            shown = names_of[int(label)] if names_of else label
            yield head | {"seed": trial.seed, "id": example, "label": shown} | found
