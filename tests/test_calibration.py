"""Cross-validation within the labels, and temperatures that come of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.base.training import FitJob, Training
from modicum.engine.cache import Corpus
from modicum.engine.calibration import cooled, temperature
from modicum.engine.engine import Engine
from modicum.engine.folds import deal, part
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import assert_same_model, jobs_of

BACKBONE, DATA = fake_backbone(), toy_dataset(40)


def engine_of(**training: object) -> Engine:
    settings = Training(**{"steps": 12, "batch_size": 8, **training})  # type: ignore[arg-type]
    method = METHODS.create("lora", learning_rate=1e-2, head_learning_rate=2e-2)
    return Engine(BACKBONE, Corpus(BACKBONE, DATA), method, settings, "classification", 3)


def test_folds_are_even_in_every_class() -> None:
    targets = np.array([0] * 10 + [1] * 5 + [2])
    dealt = deal(targets, 5, stream(0, "t"))
    assert np.bincount(dealt).tolist() in (
        [4, 3, 3, 3, 3],
        [3, 4, 3, 3, 3],
        [3, 3, 4, 3, 3],
        [3, 3, 3, 4, 3],
        [3, 3, 3, 3, 4],
    )
    assert np.bincount(dealt[targets == 0], minlength=5).tolist() == [2] * 5
    assert np.bincount(dealt[targets == 1], minlength=5).tolist() == [1] * 5
    assert not np.array_equal(dealt, deal(targets, 5, stream(1, "t")))
    with pytest.raises(SpecError, match="2 folds or more and as many labels, got 5 and 3"):
        deal(targets[:3], 5, stream(0))


def test_nobody_is_judged_by_a_model_that_knew_the_answer() -> None:
    engine = engine_of()
    job = jobs_of(DATA, (20,))[0]
    said, seconds = engine.out_of_fold([job], 4)
    dealt = deal(job.targets, 4, stream(job.seed, "folds", job.round, 0))
    for fold in range(4):
        model = engine.fit([part(job, dealt != fold)])[0]
        held = np.flatnonzero(dealt == fold)
        expected = engine.scorer(model.weights).outputs(engine.positions([job.ids[i] for i in held]))
        np.testing.assert_allclose(said[0][held], expected, atol=1e-3)
    assert said[0].shape == (20, 3) and seconds[0] > 0


def test_a_part_of_a_job_keeps_its_weights() -> None:
    job = FitJob(("a", "b", "c"), np.array([0, 1, 0]), 0, 0, np.array([1.0, 2.0, 3.0]))
    kept = part(job, np.array([True, False, True]))
    assert (kept.ids, kept.targets.tolist(), kept.weights.tolist()) == (("a", "c"), [0, 0], [1.0, 3.0])  # type: ignore[union-attr]


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    targets = (softmax(logits, 1).cumsum(1) > rng.random((4000, 1))).argmax(1)
    assert temperature(softmax(logits * true, 1), targets) == pytest.approx(true, rel=0.1)


def test_a_calibrated_model_is_the_same_but_for_its_temperature() -> None:
    jobs = jobs_of(DATA, (12, 20))
    plain, warm = engine_of().fit(jobs), engine_of(calibrate=4).fit(jobs)
    tokens = Corpus(BACKBONE, DATA).tokens
    for before, after in zip(plain, warm, strict=True):
        assert before.temperature is None and after.temperature is not None and after.steps == before.steps
        assert_same_model(cooled(before.weights, after.temperature), after.weights, BACKBONE, tokens)
        logits = torch.log(torch.from_numpy(engine_of().scorer(before.weights).outputs(np.arange(40))))
        expected = (logits / after.temperature).softmax(1)
        got = engine_of().scorer(after.weights).outputs(np.arange(40))
        np.testing.assert_allclose(got, expected, atol=5e-3)


def test_what_cannot_be_calibrated() -> None:
    with pytest.raises(SpecError, match="2 folds or more, and 0 leaves calibration out"):
        Training(calibrate=1)
    with pytest.raises(SpecError, match="calibrate trains more than once"):
        Training(calibrate=3, seconds=1)
    with pytest.raises(SpecError, match="take prototypes = 1"):
        Training(calibrate=3, prototypes=2)
    values = toy_dataset(20, classes=0)
    corpus, settings = Corpus(BACKBONE, values), Training(steps=1, calibrate=2)
    with pytest.raises(SpecError, match="calibrate works on classes"):
        Engine(BACKBONE, corpus, METHODS.create("head"), settings, "regression", 1).fit(jobs_of(values, (10,)))
