"""Forecasts of learning curves: what they make of exact, of noisy and of real evidence."""

from __future__ import annotations

import numpy as np
import pytest

from modicum.auto.advice import (
    FOLDS,
    GUESS_SD,
    UNJUDGED,
    UNJUDGED_SD,
    Curves,
    Evidence,
    forecast,
    gather,
    guessing,
    log_error,
)
from modicum.base.errors import SpecError
from modicum.base.training import FitJob, Training
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset

USUAL = Curves(slope=0.3, slope_sd=0.1, offset=0.0, offset_sd=0.1, noise=0.001, flat=0.2)


def evidence(slope: float, noise: float, of_half: float | None = None, at: int = 80, error: float = 0.4) -> Evidence:
    first = float(np.log(error))
    second = float(first + slope * np.log(2))
    independent = ((noise**2, 0.0), (0.0, (of_half or noise) ** 2))
    known = {"classes": 4, "guessed": np.log(1 - 1 / 4), "labels": (at, at // 2)}
    return Evidence(**known, log_errors=(first, second), covariance=independent)


def test_an_exact_curve_is_carried_on() -> None:
    mean, deviation = log_error(evidence(0.5, 1e-4), 320, USUAL)
    assert mean == pytest.approx(np.log(0.4) - 0.5 * np.log(4), abs=0.01)
    assert deviation == pytest.approx(USUAL.offset_sd, rel=0.01)


def test_where_labels_say_little_the_usual_slope_counts() -> None:
    mean, _ = log_error(evidence(0.9, 0.01, of_half=3.0), 160, USUAL)
    assert mean == pytest.approx(np.log(0.4) - USUAL.slope * np.log(2), abs=0.01)


def test_doubt_grows_with_the_distance_and_with_the_noise() -> None:
    def width(labels: int, noise: float) -> float:
        found = forecast(evidence(0.3, noise), labels, USUAL)
        assert found.low < found.value < found.high <= 1 and found.labels == labels
        return found.high - found.low

    assert width(160, 0.1) < width(1600, 0.1) and width(160, 0.05) < width(160, 0.2)


def test_equal_errors_are_no_certainty() -> None:
    usual = USUAL.model_copy(update={"noise": 0.05})
    near, far = (forecast(evidence(0.0, 1e-3), labels, usual) for labels in (100, 1000))
    assert far.high - far.low > near.high - near.low and far.value > near.value
    assert forecast(evidence(-0.9, 1e-3), 1000, USUAL).value == pytest.approx(0.6, abs=0.01), "labels do no harm"


def test_no_error_in_few_labels_is_no_certainty_either() -> None:
    class Perfect:
        training = Training(steps=20)

        def out_of_fold(self, jobs: list[FitJob], folds: int, thin: int = 1) -> tuple[list[np.ndarray], list[float]]:
            return [np.eye(2)[jobs[0].targets]], [1.0]

    widths = []
    for n in (20, 200):
        job = FitJob(tuple(f"t{i}" for i in range(n)), np.arange(n) % 2, 0, 0)
        found = forecast(gather(Perfect(), job), n, USUAL)  # type: ignore[arg-type]
        widths.append(found.high - found.low)
        assert found.low < 1 - 1 / n < found.high <= 1
    assert widths[0] > 0.05 > widths[1]


def test_intervals_cover_what_they_say() -> None:
    """Also where some data sets teach nothing, and cross-validation hardly tells which."""
    rng, inside, suspected = np.random.default_rng(0), 0, []
    for _ in range(1000):
        slope, offset = rng.normal(USUAL.slope, USUAL.slope_sd), rng.normal(0, USUAL.offset_sd)
        flat, guess, level = rng.uniform() < USUAL.flat, *np.log(0.75 * np.array([1, rng.uniform(0.1, 1)]))
        true = guess + GUESS_SD / 3 * rng.normal() if flat else level
        noise = 0.1 * np.sqrt(np.expm1(-true))  # as of 100 labels
        half = true if flat else true + slope * np.log(2)
        told = np.minimum(np.array([true, half]) + noise * rng.normal(size=2), -0.01)
        seen = evidence(0, 0.1 * np.sqrt(np.expm1(-told[0])))
        seen = seen.model_copy(update={"log_errors": tuple(told.tolist())})
        found = forecast(seen, 320, USUAL)
        reached = guess + GUESS_SD / 3 * rng.normal() if flat else true - slope * np.log(4) + offset
        inside += found.low <= 1 - np.exp(reached) <= found.high
        suspected.append((guessing(seen, USUAL), flat))
    assert 870 <= inside <= 930
    probable = [(told, flat) for told, flat in suspected if told > 0.5]
    assert len(probable) > 100 and np.ptp(np.mean(probable, axis=0)) < 0.1, "the probability is what comes"


def test_labels_that_may_teach_nothing_are_expected_to_bring_less() -> None:
    never = USUAL.model_copy(update={"flat": 0.0})
    near, far = evidence(0.0, 0.2, error=0.7), evidence(0.3, 0.2, error=0.2)
    assert 0.3 < guessing(near, USUAL) < 0.9 and guessing(far, USUAL) < 1e-3 and guessing(near, never) == 0
    assert forecast(near, 320, USUAL).low < 0.3 < forecast(near, 320, never).low
    assert forecast(near, 320, USUAL).value < forecast(near, 320, never).value - 0.03
    assert forecast(far, 320, USUAL).low == pytest.approx(forecast(far, 320, never).low, abs=1e-3)


def test_guessing_is_told_from_learning_with_any_number_of_classes() -> None:
    for classes in (2, 10, 50):
        chance = np.log(1 - 1 / classes)
        spread = (1 - np.exp(chance)) / np.sqrt(400) / np.exp(chance)
        known = {"classes": classes, "guessed": chance, "labels": (80, 40)}
        known["covariance"] = ((spread**2, 0.0), (0.0, spread**2))
        guesses, learned = (Evidence(**known, log_errors=(e, e)) for e in (chance, np.log(1 - 2.5 / (classes + 1))))
        usual = USUAL.model_copy(update={"noise": spread})
        assert guessing(guesses, usual) > 0.6 > 0.05 > guessing(learned, usual)
        found = forecast(guesses, 320, usual)
        assert found.low <= 1 / classes <= found.high and found.low <= found.value <= found.high


def test_a_class_with_fewer_labels_than_folds_leaves_its_f1_open() -> None:
    class Told:
        def __init__(self, said: np.ndarray) -> None:
            self.said = said

        def out_of_fold(self, jobs: list[FitJob], folds: int, thin: int = 1) -> tuple[list[np.ndarray], list[float]]:
            return [self.said], [1.0]

    def seen(targets: list[int], predicted: np.ndarray | None = None) -> Evidence:
        job = FitJob(tuple(f"t{i}" for i in range(len(targets))), np.array(targets), 0, 0)
        engine = Told(np.eye(4)[targets if predicted is None else predicted])
        return gather(engine, job)  # type: ignore[arg-type]

    most = [0] * 40 + [1] * 40 + [2] * 15
    for rare in (0, FOLDS - 1):
        one, whole = seen(most + [3] * rare), seen(most + [3] * FOLDS)
        n = len(most) + rare
        assert np.exp(one.log_errors[0]) == pytest.approx((n * (1 - UNJUDGED) / 4 + 0.5) / (n + 1))
        assert 1 < one.covariance[0][0] * np.exp(2 * one.log_errors[0]) / (UNJUDGED_SD / 4) ** 2 < 1.3
        assert np.exp(whole.log_errors[0]) < 0.01 and whole.classes == one.classes == 4
        assert whole.guessed == pytest.approx(np.log(1 - 1 / 4))

    rng, targets = np.random.default_rng(0), [0] * 60 + [1] * 60 + [2] * 2
    guesses, known = seen(targets, rng.permutation(targets)), seen(targets)
    assert np.exp(guesses.log_errors[0]) == pytest.approx(np.exp(guesses.guessed), abs=0.05)
    assert guessing(guesses, USUAL) > USUAL.flat > 0.05 > guessing(known, USUAL)
    with pytest.raises(SpecError, match="no class has 5 labels"):
        seen([0, 1, 2, 3] * (FOLDS - 1))


def test_evidence_of_real_models() -> None:
    backbone, data = fake_backbone(), toy_dataset(60)
    engine = Engine(backbone, Corpus(backbone, data), METHODS.create("head"), Training(steps=20), "classification", 3)
    job = FitJob(data.ids, data.labels, 0, 0)
    found = gather(engine, job)
    assert found.labels == (48, 24) and max(found.log_errors) <= 0
    assert np.linalg.eigvalsh(np.array(found.covariance)).min() > 0
    same = gather(engine, job)
    assert same.log_errors == found.log_errors and same.covariance == found.covariance
    assert Evidence(**found.model_dump(mode="json")) == found
    with pytest.raises(SpecError, match="no class has 5 labels"):
        gather(engine, FitJob(data.ids[: FOLDS - 1], data.labels[: FOLDS - 1], 0, 0))


def test_thin_folds_train_on_a_part_of_every_class() -> None:
    backbone, data = fake_backbone(), toy_dataset(60)
    engine = Engine(backbone, Corpus(backbone, data), METHODS.create("head"), Training(steps=2), "classification", 3)
    trained: list[FitJob] = []
    fit = engine._in_banks
    engine._in_banks = lambda jobs, on_fit=None: trained.extend(jobs) or fit(jobs, on_fit)  # type: ignore[method-assign]
    (said,), _ = engine.out_of_fold([FitJob(data.ids, data.labels, 0, 0)], 5, thin=2)
    assert said.shape == (60, 3) and [len(job.ids) for job in trained] == [24] * 5
    assert all(np.bincount(job.targets).min() >= 7 for job in trained)
