"""Makes a study's ingredients ready: data split, backbone loaded, trials named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from modicum.auto.engine import make_method
from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.data.dataset import Dataset
from modicum.data.shipped import shipped
from modicum.data.sources import load
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import check_task
from modicum.strategies import STRATEGIES, make_warm
from modicum.strategies.base import Strategy
from modicum.study.spec import BackboneSettings, Choice, Data, Study, Trial


@dataclass(frozen=True)
class Prepared:
    """A data set ready for trials: labelled texts to draw from, and labelled texts to test on."""

    title: str
    pool: Corpus
    test: Corpus

    @property
    def train(self) -> Dataset:
        return self.pool.dataset

    @property
    def outputs(self) -> int:
        """Classes, or 1 for regression."""
        return len(self.train.classes) or 1


def load_backbone(settings: BackboneSettings) -> Backbone:
    """The backbone that these settings name."""
    return Backbone.load(
        settings.name, pooling=settings.pooling, max_length=settings.max_length, precision=settings.precision
    )


def load_data(data: Data) -> tuple[Dataset, Dataset]:
    """Train and test sets with the same classes; without a test file, a stratified share of train is held out.

    Raises:
        DataError: bad files. SpecError: too few labelled rows to hold some out.
    """
    found = shipped(data.train)
    columns = {"text": data.text, "pair": data.pair, "label": data.label, "id": data.id, "task": data.task}
    options = {**columns, "skip_bad_rows": data.skip_bad_rows}
    train_path, test_path = found if found is not None else (data.train, None)
    test_path = data.test or test_path
    everything = load(train_path, classes=data.classes, where=next(iter(data.where.items()), None), **options)
    train = everything.subset(everything.labelled_positions())
    if not len(train):
        raise SpecError(
            f'a study needs labels to draw on, and {data.train!r} has none: name its label column with label = "..."'
        )
    if test_path is not None:
        test = load(test_path, classes=data.classes, for_training=False, **{**options, "task": train.task})
        test = test.subset(test.labelled_positions())
        if not len(test):
            raise SpecError(f'{str(test_path)!r} has no labels to test on: name its label column with label = "..."')
        test = test.with_classes(train.classes) if train.task == "classification" else test
    else:
        kept, held = hold_out(train, data.test_share)
        train, test = train.subset(kept), train.subset(held)
    parts = ("train", train, data.train_rows), ("test", test, data.test_rows)
    train, test = (at_most(thinned(part, data.class_shares), rows, name) for name, part, rows in parts)
    return train, test


def thinned(dataset: Dataset, shares: Mapping[str, float]) -> Dataset:
    """The data set with some classes made so rare, the same rows always.

    Raises:
        SpecError: it has no such class, or the class is rarer already.
    """
    if not shares:
        return dataset
    strangers = [name for name in shares if name not in dataset.classes]
    if strangers or sum(shares.values()) >= 1:
        raise SpecError(
            f"class_shares names classes of the data ({', '.join(dataset.classes)}) and leaves the others a share, got"
            f" {dict(shares)}"
        )
    if len(shares) == len(dataset.classes):
        raise SpecError(f"class_shares leaves at least one of the classes as it is, got all of {', '.join(shares)}")
    keep = ~np.isin(dataset.labels, [dataset.classes.index(name) for name in shares])
    whole = keep.sum() / (1 - sum(shares.values()))
    for name, share in shares.items():
        rows, wanted = np.flatnonzero(dataset.labels == dataset.classes.index(name)), round(share * whole)
        if not 1 <= wanted <= len(rows):
            raise SpecError(f"class_shares wants {wanted} rows of {name!r}, and {dataset.name!r} has {len(rows)}")
        keep[stream(0, "class-shares", name).permutation(rows)[:wanted]] = True
    return dataset.subset(np.flatnonzero(keep))


def at_most(dataset: Dataset, rows: int | None, name: str) -> Dataset:
    """So many random rows of the data set, in their order, the same ones always; all where there are no more."""
    if rows is None or rows >= len(dataset):
        return dataset
    return dataset.subset(np.sort(stream(0, "rows", name).permutation(len(dataset))[:rows]))


def hold_out(dataset: Dataset, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions to keep and to hold out: of every class the same share (at least one), the same ones always."""
    rng = stream(0, "hold-out")
    groups = (
        [np.flatnonzero(dataset.labels == c) for c in range(len(dataset.classes))]
        if dataset.task == "classification"
        else [np.arange(len(dataset))]
    )
    held = []
    for group in groups:
        if len(group) > 1:
            held.append(rng.permutation(group)[: max(1, round(share * len(group)))])
    chosen = np.sort(np.concatenate(held)) if held else np.zeros(0, np.int64)
    kept = np.setdiff1d(np.arange(len(dataset)), chosen)
    if not len(chosen) or not len(kept):
        raise SpecError(
            f"{dataset.name!r} has too few labelled rows ({len(dataset)}) to hold out a test set: name a test file"
        )
    return kept, chosen


def prepare(study: Study, backbone: Backbone, folder: Path) -> list[Prepared]:
    """All data sets of a study as the backbone sees them; features are remembered in ``folder``."""
    ready = []
    titles: dict[tuple[str, str], str] = {}
    for data in study.data:
        train, test = load_data(data)
        twin = titles.setdefault((train.fingerprint, test.fingerprint), data.title)
        if twin != data.title:
            raise SpecError(f"data sets {twin!r} and {data.title!r} hold the same examples: leave one of them out")
        for grid in study.grids:
            if data in grid.data:
                _check_grid(grid, data.title, train)
        if 0 < len(test) < 4 and study.layer_similarity:
            raise SpecError(f"layer_similarity needs 4 test texts or more, and {data.title!r} has {len(test)}")
        ready.append(Prepared(data.title, Corpus(backbone, train, folder), Corpus(backbone, test, folder)))
    return ready


def _check_grid(grid: Study, title: str, train: Dataset) -> None:
    loop = grid.loop
    for training in grid.trainings:
        check_task(training, train.task)
    if any(training.self_training for training in grid.trainings) and loop.schedule(len(train))[-1] >= len(train):
        raise SpecError(
            f"self_training needs unlabelled texts, and in the last round all {len(train)} of {title!r} are labelled: "
            "take a lower budget or last share"
        )
    if not loop.shares and loop.warm_start >= len(train):
        raise SpecError(
            f"warm_start = {loop.warm_start} leaves no pool: {title!r} has {len(train)} labelled rows to draw from"
        )
    make_warm(loop.warm_strategy, train.task)  # a wrong one is told before any work
    for name in ("plateau", "noise"):
        if train.task == "regression" and getattr(loop, name):
            raise SpecError(f"{name} works on classes, and {title!r} has values: leave it out of [loop]")


def make_strategy(choice: Choice, task: str) -> Strategy:
    """The strategy that a choice names, checked against the task."""
    strategy: Strategy = STRATEGIES.create(choice.name, **choice.options)
    if task not in strategy.tasks:
        raise SpecError(f"strategy {choice.name!r} works for {' and '.join(sorted(strategy.tasks))}, not for {task}")
    return strategy


def make_trials(study: Study, backbone: Backbone, prepared: Prepared) -> list[Trial]:
    """All trials of one grid on one data set, ordered by method, pretraining, time, seed, then strategy."""
    trials = []
    every = product(study.methods, study.tapt, study.trainings, study.seeds, study.strategies)
    for method, tapt, training, seed, strategy in every:
        trials.append(
            Trial(
                dataset=prepared.title,
                fingerprint=prepared.train.fingerprint,
                test_fingerprint=prepared.test.dataset.fingerprint,
                backbone=backbone.name,
                backbone_fingerprint=backbone.fingerprint,
                pooling=backbone.pooling,
                max_length=backbone.max_length,
                precision=str(backbone.dtype).removeprefix("torch."),
                method=method,
                method_settings=make_method(method).canonical(),
                strategy=strategy,
                strategy_settings=make_strategy(strategy, prepared.train.task).canonical(),
                loop=study.loop,
                training=training,
                tapt=tapt,
                seed=seed,
                part=study.name,
            )
        )
    return trials
