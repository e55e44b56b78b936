"""What may end a run before its time, which model is kept, and what is left out of a second training."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from modicum.analysis.dynamics import forgetting_events
from modicum.analysis.metrics import evaluate
from modicum.base.errors import SpecError
from modicum.base.training import FitJob, Training
from modicum.engine.bank import Bank, Weights
from modicum.engine.cache import Corpus
from modicum.engine.early_stopping import EarlyStopping
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset

NAN = float("nan")


def weights(mark: float) -> Weights:
    return Weights(METHODS.create("head"), 2, {}, {"mark": torch.tensor(mark)})


@pytest.mark.parametrize(
    ("rule", "values", "ends", "kept"),
    [
        ("besov", [1, 2, 3, 2, 2.5, 9], 5, 3),
        ("besov", [9, 2, 3, 1, 1], 5, 3),  # epoch 1 is too early
        ("besov", [1, 2, NAN, 3, 2, 1], 6, 4),
        ("besov", [1, NAN, NAN, NAN], None, None),
        ("besov", [1, 2, NAN, NAN], 4, 2),
        ("oracle-test", [1, 2, 3, 4, 5], None, 5),
        ("loss-plateau", [-9, -1.0, -0.995, -0.994], 4, None),  # falls by less than a hundredth
        ("loss-plateau", [-9, -1.0, -0.9, -0.8, -0.7], None, None),
        ("loss-plateau", [-9, -1.0, -1.1, -0.9, -1.2, -1.0], 6, None),
    ],
)  # fmt: skip
def test_a_watch(rule: str, values: list[float], ends: int | None, kept: int | None) -> None:
    watch = EarlyStopping(Training(until=rule, patience=2, least_epochs=2))
    ended = None
    for epoch, value in enumerate(values, 1):
        watch.see(epoch, value, functools.partial(weights, epoch))
        ended = ended or (epoch if watch.over else None)
        if watch.over:
            break
    assert (ended, watch.kept) == (ends, kept)
    assert kept is None or (watch.best is not None and watch.best.head["mark"] == kept)


def engine(method: str = "lora", classes: int = 3, **training: object) -> Engine:
    data = toy_dataset(60, classes)
    backbone = fake_backbone()
    settings = Training(**{"epochs": 12, "min_steps": 1, "batch_size": 8, **training})
    test = Corpus(backbone, toy_dataset(30, classes, seed=1))
    made = METHODS.create(method, learning_rate=1e-2)
    return Engine(backbone, Corpus(backbone, data), made, settings, data.task, len(data.classes) or 1, test=test)


def jobs(of: Engine, seeds: int = 1) -> list[FitJob]:
    data = of.corpus.dataset
    return [FitJob(tuple(data.ids[i] for i in range(24)), data.labels[:24], seed, 0) for seed in range(seeds)]


def test_a_plateau_of_the_loss_ends_a_run() -> None:
    of = engine(until="loss-plateau", tolerance=0.9, patience=2, least_epochs=1)
    run = of.fit(jobs(of))[0]
    assert run.steps == 9 and run.kept is None and len(run.dynamics.correct) == 3


def test_the_model_of_the_best_epoch_is_kept() -> None:
    of = engine(until="oracle-test", patience=12, least_epochs=1)
    seen: list[tuple[float, Weights]] = []
    original = of._on_test

    def watched(run: object, weights: Callable[[], Weights]) -> float:
        seen.append((original(run, weights), weights()))  # type: ignore[arg-type]
        return seen[-1][0]

    of._on_test = watched  # type: ignore[method-assign]
    run = of.fit(jobs(of))[0]
    best = max(range(len(seen)), key=lambda i: seen[i][0])
    assert len(seen) == 12 and run.kept == best + 1 < 13
    for name, tensor in seen[best][1].adapter.items():
        assert torch.equal(run.weights.adapter[name], tensor)
    assert of.test is not None
    outputs = of.scorer(run.weights, of.test).outputs(np.arange(30))
    assert evaluate(of.task, of.test.dataset.labels, outputs)["macro_f1"] == pytest.approx(seen[best][0])


@pytest.mark.parametrize("until", ["besov", "loss-plateau", "oracle-test"])
@pytest.mark.parametrize("classes", [0, 3])
def test_runs_of_a_bank_end_as_they_would_alone(until: str, classes: int) -> None:
    of = engine(classes=classes, until=until, patience=1, least_epochs=2, tolerance=0.05)
    for alone, stacked in zip([of.fit([job])[0] for job in jobs(of, 3)], of.fit(jobs(of, 3)), strict=True):
        assert (alone.steps, alone.kept) == (stacked.steps, stacked.kept)
        for name, tensor in alone.weights.head.items():
            torch.testing.assert_close(tensor, stacked.weights.head[name], atol=1e-4, rtol=1e-3)


def test_smoothness_is_higher_for_a_model_that_has_learned() -> None:
    of = engine(epochs=60)
    fresh = Bank.fresh(of.backbone, of.method, 3, [(0, 0)]).row(0)
    tuned = of.fit(jobs(of))[0].weights
    positions, targets = np.arange(24), of.corpus.dataset.labels[:24]
    assert of.smoothness(tuned, positions, targets, 0) > of.smoothness(fresh, positions, targets, 0)


def test_the_oracle_needs_a_test_set() -> None:
    of = engine(until="oracle-test")
    of.test = None
    with pytest.raises(SpecError, match="needs a test set"):
        of.fit(jobs(of))


def test_what_is_forgotten_often_is_left_out() -> None:
    plain, dropping = engine(epochs=20), engine(epochs=20, drop_forgotten=2)
    first, second = plain.fit(jobs(plain))[0], dropping.fit(jobs(dropping))[0]
    events = forgetting_events(first.dynamics.correct, first.dynamics.confidence)
    assert second.dropped == (events >= 2).sum() > 0
    assert np.array_equal(first.dynamics.correct, second.dynamics.correct)  # of the first training
    kept = events < 2
    job = jobs(plain)[0]
    ids = tuple(example for example, keep in zip(job.ids, kept, strict=True) if keep)
    without = plain.fit([FitJob(ids, job.targets[kept], 0, 0)])[0]
    assert second.steps == first.steps + without.steps
    for name, tensor in without.weights.adapter.items():
        torch.testing.assert_close(tensor, second.weights.adapter[name])


def test_seconds_are_each_runs_own() -> None:
    assert engine().runs_per_bank > 1 and engine(seconds=0.1).runs_per_bank == 1
    of = engine(seconds=0.2)
    runs = of.fit(jobs(of, 2))
    assert all(run.seconds >= 0.2 and run.steps > 1 for run in runs)
