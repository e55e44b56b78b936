"""``modicum advise``: how to train, what to label next, and what further labels are likely to bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modicum.api.classifier import Classifier
from modicum.auto import advice
from modicum.auto.engine import AUTO, AutoEngine
from modicum.auto.search import trainings_of_search
from modicum.base.errors import DataError, SpecError
from modicum.base.training import FitJob
from modicum.cli import console
from modicum.cli.models import drawn, read
from modicum.data.dataset import Dataset
from modicum.data.shipped import shipped
from modicum.strategies import USUAL

LEAST = 20
"""Labels from which on cross-validation says something."""
UNSURE = 0.1
"""The probability that labels teach nothing, from which on it is told."""
SHOWN = 8
"""Classes that are listed at most."""


def advise(
    data: str,
    labels: int | None,
    minutes: float | None,
    *,
    worth: float,
    labels_at: int | None,
    backbone: str,
    columns: Mapping[str, str | None],
    classes: Sequence[str],
    seed: int,
    skip_bad_rows: bool,
    as_json: bool,
) -> None:
    """Look at the labels of a file, and say what they are worth and what more would be."""
    if not (np.isfinite(worth) and worth > 0):
        raise SpecError(f"--worth is a macro-F1 above 0, such as 0.01, got {worth:g}")
    known, shown = advice.shipped_knowledge(), shipped(data)
    if labels_at is not None and labels_at < LEAST:
        raise SpecError(f"--labels-at must be {LEAST} or more for advice, got {labels_at}")
    dataset = read(str(shown[0]) if shown else data, columns, skip_bad_rows, quiet=as_json, classes=classes or None)
    at = drawn(dataset, labels_at, seed)
    counts = _counts(dataset, at, known.cold)
    if labels is not None and labels <= len(at):
        raise SpecError(f"--labels is how many there will be, more than the {len(at)} that there are, got {labels}")
    model = Classifier(backbone, AUTO if minutes is None else {"name": AUTO, "minutes": minutes}, seed=seed)
    engine = model.engine(dataset.subset(at), dataset.task, len(dataset.classes))
    assert isinstance(engine, AutoEngine)
    if not as_json:
        console.say(f"Choosing how to train on {len(at)} labels …")
    job = FitJob(tuple(dataset.ids[int(row)] for row in at), dataset.labels[at], seed, 0)
    chosen, first = engine.choose(job), engine.table.recipes[0]
    steps = {name: engine.seconds_of_step(r, job) for name, r in {r.name: r for r in (first, chosen.recipe)}.items()}
    training, step = engine.by(chosen.recipe).training, steps[chosen.recipe.name]
    if not as_json:
        taken = advice.FOLDS * sum(map(engine.by(first).training.total_steps, advice.trained_on(len(at))))
        about = console.clock(taken * steps[first.name])
        console.say(f"Cross-validating them: {2 * advice.FOLDS} trainings, within about {about} …")
    evidence = advice.gather(engine.by(first), job)
    budgets = sorted({len(at), round(1.5 * len(at)), 2 * len(at), 4 * len(at), labels or 2 * len(at)})
    found: dict[str, Any] = {
        "labels": len(at), "classes": counts, "recipe": chosen.recipe.name, "reason": chosen.reason,
        "strategy": USUAL[dataset.task],
        "guessing": round(advice.guessing(evidence, known.curves), 3),
        "forecast": [advice.forecast(evidence, n, known.curves).model_dump() for n in budgets],
        "training_seconds": [round(training.total_steps(n) * step, 1) for n in budgets],
        "trainings_to_choose": [trainings_of_search(engine.table, n) for n in budgets],
        "enough": advice.enough(evidence, len(at), worth, known.curves), "worth": worth,
        "checked": known.checked.model_dump(),
    }  # fmt: skip
    if as_json:
        console.emit("advice", **found)
    else:
        _say(found)


def _counts(dataset: Dataset, at: np.ndarray, cold: str) -> dict[str, int]:
    """Labels by class.

    Raises:
        SpecError: they are values. DataError: they are too few.
    """
    if dataset.task == "regression":
        raise SpecError("advice is for classes, and these labels are values")
    counts = np.bincount(dataset.labels[at].astype(np.int64), minlength=len(dataset.classes)).tolist()
    if len(at) < LEAST or sum(count > 1 for count in counts) < 2 or max(counts) < advice.FOLDS:
        raise DataError(
            f"advice needs {LEAST} labels or more, two classes with two or more of them and one with {advice.FOLDS};"
            f" {dataset.name} has {len(at)}, and {max(counts)} of its largest class: label some first, of texts that"
            f" differ much (modicum label; its first batch is by {cold})"
        )
    return dict(zip(dataset.classes, counts, strict=True))


def _say(found: Mapping[str, Any]) -> None:
    counts: dict[str, int] = found["classes"]
    rarest = min(counts, key=lambda name: counts[name])
    console.say(f"{found['labels']} labels in {len(counts)} classes; the rarest, {rarest!r}, has {counts[rarest]}.")
    few = [f"{name} ({count})" for name, count in counts.items() if count < advice.FOLDS]
    if few:
        listed = ", ".join(few[:SHOWN]) + (f" and {len(few) - SHOWN} more" if len(few) > SHOWN else "")
        console.say(
            f"Not judged by cross-validation, and intervals are wider for it: {listed}, with fewer than"
            f" {advice.FOLDS} labels."
        )
    console.say(f"Train with {found['recipe']}: {found['reason']}.")
    console.say(f"Label next by {found['strategy']}: it evens the classes out, and explores besides.")
    console.table(
        ("labels", "macro-F1", "90 % interval", "one training", "trainings to choose"),
        [
            (
                f"{one['labels']:,}",
                f"{one['value']:.3f}",
                f"{one['low']:.3f} to {one['high']:.3f}",
                f"{seconds:,.0f} s",
                str(trainings),
            )
            for one, seconds, trainings in zip(
                found["forecast"], found["training_seconds"], found["trainings_to_choose"], strict=True
            )
        ],
        title="Random labels are expected to reach",
        plain_columns=0,
    )
    if found["guessing"] >= UNSURE:
        console.say(
            f"Cross-validation hardly tells the models from guesses: there is a probability of {found['guessing']:.2f}"
            " that such labels teach nothing, which the intervals take into account."
        )
    now, end = found["labels"], found["enough"]
    if end is None:
        console.say(f"{advice.STEP} more labels are worth it as far as one can see.")
    elif end == now:
        console.say(f"{advice.STEP} more labels are not expected to bring {found['worth']:g}.")
    else:
        console.say(
            f"From about {end:,} labels on, {advice.STEP} more are expected to bring less than {found['worth']:g}."
        )
    console.say(
        f"By {advice.FOLDS}-fold cross-validation, as if the labels had been drawn at random. Where a model chose them,"
        " this is about harder texts than usual."
    )
    checked = found["checked"]
    fewest, most = checked["labels"]
    console.say(
        f"Of {checked['forecasts']} such intervals for {fewest} to {most} labels, on {checked['data_sets']} data sets"
        f" that they were not fitted on, {100 * checked['held']:.0f} % held."
    )
