"""Forecasts of learning curves: what they make of exact, of noisy and of real evidence."""

from __future__ import annotations

import numpy as np
import pytest

from modicum.auto.advice import FOLDS, Curves, Evidence, forecast, gather, log_error
from modicum.base.errors import SpecError
from modicum.base.training import FitJob, Training
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset

USUAL = Curves(slope=0.3, slope_sd=0.1, offset=0.0, offset_sd=0.1, noise=0.001)


def evidence(slope: float, noise: float, of_half: float | None = None, at: int = 80, error: float = 0.4) -> Evidence:
    first = float(np.log(error))
    second = float(first + slope * np.log(2))
    independent = ((noise**2, 0.0), (0.0, (of_half or noise) ** 2))
    return Evidence(labels=(at, at // 2), log_errors=(first, second), covariance=independent)


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
    rng, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        slope, offset = rng.normal(USUAL.slope, USUAL.slope_sd), rng.normal(0, USUAL.offset_sd)
        true = np.log(0.4)
        told = np.array([true, true + slope * np.log(2)]) + rng.normal(0, 0.1, 2)
        seen = evidence(0, 0.1).model_copy(update={"log_errors": tuple(told.tolist())})
        found = forecast(seen, 320, USUAL)
        inside += found.low <= 1 - np.exp(true - slope * np.log(4) + offset) <= found.high
    assert 870 <= inside <= 930


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
    with pytest.raises(SpecError, match="5 folds|2 folds or more"):
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
