"""Objectives, where heads start, and self-training: against plain loops, scikit-learn and runs that are alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.base.training import FitJob, SelfTraining, Training
from modicum.data.dataset import Dataset
from modicum.engine import heads
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.objectives import OBJECTIVES, objective_of
from modicum.engine.objectives.base import Seen
from modicum.engine.objectives.consistency import Consistency
from modicum.engine.objectives.contrastive import Contrastive, contrast
from modicum.engine.objectives.cross_entropy import CrossEntropy
from modicum.engine.objectives.squared_error import SquaredError
from modicum.engine.self_training import pseudo_labels
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import assert_same, assert_same_model, jobs_of, tensors_of


def seen_of(texts: int = 9, classes: int = 3, runs: int = 2, views: int = 1) -> Seen:
    draw = torch.Generator().manual_seed(0)
    text = torch.arange(texts).repeat_interleave(views)
    return Seen(
        torch.randn(texts * views, 5, generator=draw),
        torch.randn(texts * views, classes, generator=draw),
        torch.randint(0, classes, (texts,), generator=draw).repeat_interleave(views),
        (text % runs),
        text,
    )


def picked(seen: Seen, keep: Tensor) -> Seen:
    return Seen(*(part[keep] for part in (seen.pooled, seen.logits, seen.targets, seen.run, seen.text)))


def engine_of(training: Training, method: str = "lora", data: Dataset | None = None) -> Engine:
    data, backbone = data or toy_dataset(40), fake_backbone()
    made = METHODS.create(method)
    return Engine(backbone, Corpus(backbone, data), made, training, data.task, len(data.classes) or 1)


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    logits, targets = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]]), torch.tensor([0, 0])
    none = torch.zeros(2, dtype=torch.int64)
    seen = Seen(torch.zeros(2, 1), logits, targets, none, none)
    torch.testing.assert_close(CrossEntropy().losses(seen), torch.tensor([math.log(2), math.log(4)]))
    smooth = 0.9 * math.log(4) + 0.1 * (math.log(4) + math.log(4 / 3)) / 2
    assert CrossEntropy(smoothing=0.1).losses(seen)[1].item() == pytest.approx(smooth)
    values = Seen(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]), torch.tensor([1.5, 1.0]), none, none)
    torch.testing.assert_close(SquaredError().losses(values), torch.tensor([0.25, 4.0]))


def test_contrast_is_the_sum_that_the_paper_writes() -> None:
    seen, temperature = seen_of(), 0.3
    unit = torch.nn.functional.normalize(seen.pooled, dim=1).double()
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if j != i and seen.run[j] == seen.run[i]]
        same = [j for j in others if seen.targets[j] == seen.targets[i]]
        whole = sum(math.exp(float(unit[i] @ unit[j]) / temperature) for j in others)
        terms = [-math.log(math.exp(float(unit[i] @ unit[j]) / temperature) / whole) for j in same]
        expected = sum(terms) / len(terms) if terms else 0.0
        assert contrast(seen, temperature)[i].item() == pytest.approx(expected, abs=1e-5)


def test_a_text_without_company_adds_nothing() -> None:
    seen = Seen(
        torch.randn(3, 4, requires_grad=True), torch.zeros(3, 2), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]),
        torch.arange(3),
    )  # fmt: skip
    found = contrast(seen, 0.1)
    assert found.tolist() == [0, 0, 0]
    found.sum().backward()
    assert torch.isfinite(seen.pooled.grad).all()  # type: ignore[arg-type]


def test_consistency_adds_the_divergence_of_the_views() -> None:
    seen = seen_of(views=2)
    logs = seen.logits.log_softmax(1)
    added = Consistency(weight=2.0).losses(seen) - CrossEntropy().losses(seen)
    for first in range(0, len(logs), 2):
        p, q = logs[first], logs[first + 1]
        apart = (((p.exp() * (p - q)).sum() + (q.exp() * (q - p)).sum()) / 2).item()
        assert added[first : first + 2].tolist() == pytest.approx([2 * apart] * 2, abs=1e-5)


@pytest.mark.parametrize("objective", [CrossEntropy(smoothing=0.2), Contrastive(), Consistency()])
def test_texts_feel_no_other_run(objective: Any) -> None:
    seen = seen_of(views=objective.views)
    together = objective.losses(seen)
    for run in (0, 1):
        torch.testing.assert_close(objective.losses(picked(seen, seen.run == run)), together[seen.run == run])


# ---- training --------------------------------------------------------------------------------------------------------

RECIPES: list[dict[str, Any]] = [
    {"objective": "contrastive"},
    {"objective": {"name": "consistency", "weight": 2.0}},
    {"objective": {"name": "cross-entropy", "smoothing": 0.1}, "head_start": "probe"},
    {"head_start": "prototypes", "prototypes": 2},
    {"self_training": {"texts": 8, "passes": 2, "ratio": 0.5}},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: next(iter(recipe)))
def test_runs_in_a_bank_end_where_they_end_alone(recipe: dict[str, Any]) -> None:
    engine = engine_of(Training(epochs=2, min_steps=6, batch_size=8, **recipe))
    jobs = jobs_of(engine.corpus.dataset, (9, 20))
    together, alone = engine.fit(jobs), [engine.fit([job])[0] for job in jobs]
    for one, other in zip(together, alone, strict=True):
        assert_same_model(one.weights, other.weights, engine.backbone, engine.corpus.tokens)
        assert one.steps == other.steps


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: next(iter(recipe)))
def test_every_recipe_learns(recipe: dict[str, Any]) -> None:
    data = toy_dataset(60)
    training = Training(steps=60, batch_size=10, **recipe)
    method = METHODS.create("lora", learning_rate=1e-2, head_learning_rate=2e-2)
    backbone = fake_backbone()
    engine = Engine(backbone, Corpus(backbone, data), method, training, data.task, len(data.classes))
    fitted = engine.fit(jobs_of(data, (30,)))[0]
    right = engine.scorer(fitted.weights).outputs(np.arange(60)).argmax(1) == data.labels
    assert right[:30].mean() > 0.8 and right[30:].mean() > 0.5
    assert fitted.dynamics.correct.shape[1] == 30


def test_weights_of_examples_weigh() -> None:
    data = toy_dataset(40)
    ids, weights = tuple(data.ids.id_of(i) for i in range(20)), np.repeat([1.0, 0.0], 10)
    weighted = [FitJob(ids, data.labels[:20], 0, 0, weights)]
    engine = engine_of(Training(steps=4, batch_size=20), "head", data)
    full, none = engine.fit(weighted), engine.fit([FitJob(ids, data.labels[:20], 0, 0)])
    changed = data.labels[:20].copy()
    changed[10:] = (changed[10:] + 1) % 3
    blind = engine.fit([FitJob(ids, changed, 0, 0, weights)])
    assert_same(tensors_of(full[0].weights), tensors_of(blind[0].weights))
    assert full[0].loss != none[0].loss and not weighted[0].same_as(FitJob(ids, data.labels[:20], 0, 0))


def test_objectives_are_for_their_tasks_and_methods() -> None:
    assert isinstance(objective_of(Training(), "regression"), SquaredError)
    with pytest.raises(SpecError, match="'contrastive' works for classification, not for regression"):
        objective_of(Training(objective="contrastive"), "regression")
    with pytest.raises(SpecError, match="leaves them as they are: choose cross-entropy"):
        engine = engine_of(Training(steps=1, objective="contrastive"), "head")
        engine.fit(jobs_of(engine.corpus.dataset, (8,)))
    with pytest.raises(SpecError, match="did you mean 'contrastive'"):
        objective_of(Training(objective="contrastiv"), "classification")
    with pytest.raises(SpecError, match="unlabelled texts beside the labelled ones"):
        engine = engine_of(Training(steps=1, self_training=True))
        engine.fit(jobs_of(engine.corpus.dataset, (40,)))
    values = toy_dataset(20, classes=0)
    for setting in ({"self_training": True}, {"head_start": "prototypes"}):
        with pytest.raises(SpecError, match="of classes|works on classes, and these labels are values"):
            engine_of(Training(steps=1, **setting), data=values).fit(jobs_of(values, (10,)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objective": 3}, "objective is a name"),
        ({"head_start": "probe", "prototypes": 2}, "a probe is one map a class"),
        ({"seconds": 1, "self_training": True}, "self_training trains more than once"),
        ({"head_start": "warm"}, "head_start"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Training(**wrong)


def test_a_recipe_has_a_short_name() -> None:
    assert Training().recipe == "" and Training(self_training=False).recipe == ""
    every = Training(
        objective={"name": "contrastive", "weight": 2}, head_start="prototypes", prototypes=3, self_training=True
    )
    assert every.recipe == "contrastive(weight=2) + prototypes head + 3 prototypes a class + self-training"
    assert Training(**every.model_dump(mode="json")) == every
    assert all(OBJECTIVES.load(name).__doc__ for name in OBJECTIVES.names())


# ---- heads -----------------------------------------------------------------------------------------------------------


def points(n: int = 60, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.arange(n) % classes
    return (rng.normal(size=(n, 6)) + 2 * np.eye(classes, 6)[targets]).astype(np.float32), targets


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_says_what_logistic_regression_says(classes: int) -> None:
    features, targets = points(classes=classes)
    start = heads.probe(features, targets, "classification", classes, None)
    proba = torch.from_numpy(features @ start.weight.T + start.bias).softmax(1).numpy()
    expected = LogisticRegression(max_iter=1000).fit(features, targets).predict_proba(features)
    np.testing.assert_allclose(proba, expected, atol=1e-4)


def test_a_probe_of_values_is_a_ridge_regression_and_knows_weights() -> None:
    features, _ = points()
    values = features @ np.arange(6) + 3
    start = heads.probe(features, values, "regression", 1, None)
    assert start.weight.shape == (1, 6) and np.corrcoef(features @ start.weight[0], values)[0, 1] > 0.99


def test_a_class_without_labels_is_the_least_likely() -> None:
    features, targets = points(classes=2)
    for start in (
        heads.probe(features, targets, "classification", 3, None),
        heads.prototypes(features, targets, 3, 1, stream(0)),
    ):
        logits = features @ start.weight.T + start.bias
        assert (logits.argmax(1) != 2).mean() > 0.9
    alone = heads.probe(features, np.zeros(60, np.int64), "classification", 2, None)
    assert (features @ alone.weight.T + alone.bias).argmax(1).tolist() == [0] * 60


@pytest.mark.parametrize("each", [1, 3])
def test_prototypes_classify_by_distance(each: int) -> None:
    features, targets = points()
    start = heads.prototypes(features, targets, 3, each, stream(0, "t"))
    head = heads.Head(6, 3, [stream(0)], each)
    head.begin(0, start)
    logits = head(torch.from_numpy(features), torch.zeros(60, dtype=torch.int64)).detach().numpy()
    assert logits.shape == (60, 3)
    if each == 1:
        means = np.stack([features[targets == c].mean(0) for c in range(3)])
        assert (logits.argmax(1) == ((features[:, None] - means) ** 2).sum(2).argmin(1)).all()
    assert (logits.argmax(1) == targets).mean() > 0.7


def test_a_class_with_fewer_texts_than_prototypes() -> None:
    features, targets = points(7)
    start = heads.prototypes(features, targets, 3, 4, stream(0, "t"))
    assert start.weight.shape == (12, 6) and np.isfinite(start.bias).all()
    for each, n in ((3, 6), (1, 3)):  # each text is its own prototype
        start = heads.prototypes(features[:n], np.arange(n) % 3, 3, each, stream(0, "t"))
        assert np.abs(start.weight).max() < 100 and np.abs(start.bias).max() < 1000


# ---- self-training ---------------------------------------------------------------------------------------------------


def test_pseudo_labels_are_the_sure_and_steady_ones_of_each_class() -> None:
    sure, torn, none = [0.9, 0.1], [0.55, 0.45], [0.2, 0.8]
    proba = np.array([[sure, torn, sure, none, none], [sure, torn, [0.1, 0.9], none, none]])
    chosen, labels = pseudo_labels(proba, 2)
    assert chosen.tolist() == [0, 3] and labels.tolist() == [0, 1]
    chosen, labels = pseudo_labels(proba, 4)
    assert chosen.tolist() == [0, 1, 3, 4] and labels.tolist() == [0, 0, 1, 1]  # the text that wavers comes last
    assert pseudo_labels(proba, 1)[0].tolist() == [0], "no more than asked for, where classes are more"


def test_a_student_costs_both_trainings_and_sees_no_gold_label() -> None:
    data = toy_dataset(40)
    training = Training(steps=5, batch_size=8)
    twice = training.model_copy(update={"self_training": SelfTraining(texts=20, passes=2)})
    alone, student = (engine_of(t, data=data).fit(jobs_of(data, (10,)))[0] for t in (training, twice))
    assert student.steps == 2 * alone.steps and student.seconds > 0
    names = [data.classes[c] for c in data.labels[:10]]
    hidden = Dataset.from_lists(
        data.texts(np.arange(40)), [*names, *[None] * 30], ids=list(data.ids), classes=data.classes
    )
    blind = engine_of(twice, data=hidden).fit(jobs_of(data, (10,)))[0]
    assert_same(tensors_of(blind.weights), tensors_of(student.weights))


def test_a_student_does_not_see_the_texts_it_is_tried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = toy_dataset(40), list[FitJob]()
    training = Training(steps=2, batch_size=8, self_training=SelfTraining(texts=40, passes=2, ratio=9))
    engine = engine_of(training, data=data)
    train = engine._train
    monkeypatch.setattr(engine, "_train", lambda jobs: (seen.extend(jobs), train(jobs))[1])
    (job,) = jobs_of(data, (20,))
    engine.out_of_fold([job], 2)
    students = [one for one in seen if len(one.ids) > 10]
    assert len(students) == 2 and all(len(set(one.ids) & set(job.ids)) == 10 for one in students)
