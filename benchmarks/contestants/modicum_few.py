"""Modicum on few labels: ``auto``, or one recipe of its table for several seeds side by side.

Timed: choosing and training, from texts; the encoder is loaded before. Of a recipe's seeds the shared time is divided.
With ``evidence`` the labels are cross-validated as ``modicum advise`` does it, by the table's first recipe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import judged, report, settings, stopwatch
from few import Work, work

from modicum.auto.advice import gather
from modicum.auto.engine import Auto, AutoEngine, make_one_method
from modicum.auto.recipes import Recipe, Table
from modicum.base.training import FitJob, Training
from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.calibration import temperature
from modicum.engine.engine import Engine


def engine_for(
    told: dict[str, Any], backbone: Backbone, given: Work, classes: list[str] | None = None
) -> tuple[AutoEngine, FitJob]:
    """``auto`` with a table of its own, as ``Classifier`` makes it with the one that is shipped, and one seed's labels.

    classes: all that there are, where it may know of those that have no label.
    ``Classifier`` refuses a class with a single label, and this does not: all systems are to see the same labels.
    """
    texts = Dataset.from_lists(given.texts, [str(label) for label in given.labels], classes=classes, for_training=False)
    table = Table(**told["given"]["table"])
    parts = (backbone, Corpus(backbone, texts), Auto(), Training(), "classification", len(texts.classes))
    return AutoEngine(*parts, table=table), FitJob(texts.ids, texts.labels, told["seed"], 0)


def auto(told: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    """One seed by ``auto``."""
    given, result = work(told, told["seed"]), dict[str, Any]()
    with stopwatch(result):
        engine, job = engine_for(told, backbone, given)
        (fitted,) = engine.fit([job])
    tested = Corpus(backbone, Dataset.from_lists(given.tested, for_training=False))
    proba = np.zeros((len(given.truth), given.classes))
    of_classes = [int(name) for name in engine.classes]
    proba[:, of_classes] = engine.scorer(fitted.weights, tested).outputs(np.arange(len(given.tested)))
    found = judged(given.truth, proba)
    (chosen,) = engine.chosen
    tried = {t.recipe.name: float(np.mean(t.scores)) for t in chosen.tried if t.scores}
    return result | {"runs": {str(told["seed"]): found}, "chosen": chosen.recipe.name, "tried": tried}


def evidence(told: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    """What a forecast from one seed's labels goes by, where all classes are named (``--classes``)."""
    given = work(told, told["seed"])
    engine, job = engine_for(told, backbone, given, [str(label) for label in range(given.classes)])
    return {"evidence": gather(engine.by(engine.table.recipes[0]), job).model_dump()}


def recipe(told: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    """All seeds by one recipe, in banks, and the temperatures that would suit the texts that they are tested on.

    Each model has all classes of the set, seen or not.
    """
    made, result, runs = Recipe(**told["recipe"]), dict[str, Any](), dict[str, dict[str, float]]()
    works = {seed: work(told, seed) for seed in told["seeds"]}
    texts = list(dict.fromkeys(text for given in works.values() for text in given.texts))
    where = {text: i for i, text in enumerate(texts)}
    corpus = Corpus(backbone, Dataset.from_lists(texts, for_training=False))
    classes = max(given.classes for given in works.values())
    engine = Engine(backbone, corpus, make_one_method(made.method), made.over(Training()), "classification", classes)
    jobs = [
        FitJob(tuple(corpus.dataset.ids[where[text]] for text in given.texts), given.labels, seed, 0)
        for seed, given in works.items()
    ]
    with stopwatch(result):
        fitted = engine.fit(jobs)
    for (seed, given), model in zip(works.items(), fitted, strict=True):
        tested = Corpus(backbone, Dataset.from_lists(given.tested, for_training=False))
        proba = engine.scorer(model.weights, tested).outputs(np.arange(len(given.tested)))
        runs[str(seed)] = judged(given.truth, proba) | {"temperature": temperature(proba, given.truth)}
    return result | {"runs": runs, "steps": fitted[0].steps}


def main() -> None:
    told = settings()
    backbone = Backbone.load("minilm", max_length=told["max_length"])
    measure = recipe if "recipe" in told else evidence if told.get("evidence") else auto
    report(**measure(told, backbone), precision=str(backbone.dtype).removeprefix("torch."))


if __name__ == "__main__":
    main()
