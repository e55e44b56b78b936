"""The training loop: how long, how far, what is noted, and what goes wrong with which words."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from modicum.base.errors import SpecError
from modicum.base.training import FitJob, Training
from modicum.data.dataset import Dataset
from modicum.engine import fit
from modicum.engine.bank import Bank
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.fit import Fitted
from modicum.engine.objectives import base as objectives
from modicum.engine.objectives.cross_entropy import CrossEntropy
from modicum.engine.optimizer import BankOptimizer
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import assert_same, jobs_of, tensors_of

FAST = {"learning_rate": 1e-2, "head_learning_rate": 2e-2}


def engine_of(training: Training, method: str = "lora", data: Dataset | None = None, **options: Any) -> Engine:
    data, backbone = data or toy_dataset(40), fake_backbone()
    outputs = len(data.classes) or 1
    return Engine(backbone, Corpus(backbone, data), METHODS.create(method, **options), training, data.task, outputs)


def train(sizes: tuple[int, ...], training: Training, method: str = "lora", **more: Any) -> list[Fitted]:
    engine = engine_of(training, method, **more)
    return engine.fit(jobs_of(engine.corpus.dataset, sizes))


# -- length ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"epochs": 2, "min_steps": 1}, (2, 6, 8)),
        ({"epochs": 2, "min_steps": 7}, (7, 7, 8)),
        ({"epochs": 50, "min_steps": 100, "steps": 3}, (3, 3, 3)),
        ({"epochs": 1, "min_steps": 1}, (1, 3, 4)),
    ],
)
def test_length_in_steps(settings: dict[str, Any], steps: tuple[int, ...]) -> None:
    fitted = train((5, 20, 29), Training(batch_size=8, **settings), "head")
    assert tuple(f.steps for f in fitted) == steps
    for f, labels in zip(fitted, (5, 20, 29), strict=True):
        epochs = -(-f.steps // -(-labels // 8))
        assert f.dynamics.correct.shape == f.dynamics.confidence.shape == (epochs, labels)
        assert f.dynamics.correct.dtype == bool and f.dynamics.confidence.dtype == np.float16


def test_length_in_seconds() -> None:
    started = time.perf_counter()
    fitted = train((8, 20), Training(seconds=0.3, batch_size=8), "head")
    assert 0.3 < time.perf_counter() - started < 5
    assert all(f.steps > 3 and len(f.dynamics.correct) > 1 for f in fitted)
    assert all(f.seconds == pytest.approx(0.3, abs=0.2) for f in fitted)  # each run's own


def test_hardly_any_time_is_one_step() -> None:
    fitted = train((8,), Training(seconds=1e-9), "head")[0]
    assert fitted.steps == 1 and np.isfinite(fitted.loss)
    assert not torch.equal(fitted.weights.head["weight"], fresh_head(fitted))


def fresh_head(fitted: Fitted) -> torch.Tensor:
    return Bank.fresh(fake_backbone(), fitted.weights.method, 3, [(0, 1)]).unstack()[0].head["weight"]


def test_no_labels_no_run() -> None:
    engine = engine_of(Training(), "head")
    with pytest.raises(SpecError, match="needs labelled examples to train on, got none: label some first"):
        engine.fit([FitJob((), np.zeros(0, np.int64), 0, 0)])
    assert engine.fit([]) == []


def test_rate_warms_up_and_decays() -> None:
    training = Training(steps=20, warmup=0.2, batch_size=8)
    engine = engine_of(training, "head")
    run = fit.Run(jobs_of(engine.corpus.dataset, (8,))[0], np.arange(8), training, "classification", 3)
    bank = Bank.fresh(engine.backbone, engine.method, 3, [(0, 0)])
    trainer = fit.Trainer(bank, engine.corpus.tokens, training, "classification", CrossEntropy())
    factors = [trainer._factor(run, step, 0.0) for step in range(22)]
    np.testing.assert_allclose(factors[:4], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(factors[4:20], np.arange(16, 0, -1) / 16)
    assert factors[20:] == [0.0, 0.0]


def test_every_job_is_answered_and_equal_ones_train_once() -> None:
    engine = engine_of(Training(steps=2, batch_size=8), "head")
    first, second = jobs_of(engine.corpus.dataset, (9, 12))
    done: list[int] = []
    fitted = engine.fit([first, second, first, second, first], done.append)
    assert fitted[0] is fitted[2] is fitted[4] and fitted[1] is fitted[3] is not fitted[0]
    assert sum(done) == 2


def test_banks_are_even_and_bounded() -> None:
    engine = engine_of(Training(steps=1, batch_size=4), "head")
    assert engine.runs_per_bank == 8
    done: list[int] = []
    assert len(engine.fit(jobs_of(engine.corpus.dataset, (4,) * 9), done.append)) == 9
    assert done == [5, 4]
    assert engine_of(Training(), "full").runs_per_bank == 1
    assert engine_of(Training(batch_size=4096), "lora").runs_per_bank == 1


# -- what moves ------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_moved() -> None:
    """Not by its neighbour's gradients, momentum or weight decay."""
    training = Training(epochs=1, min_steps=1, batch_size=4, weight_decay=0.5)
    short, long = train((4, 40), training)
    assert (short.steps, long.steps) == (1, 10)
    alone = train((4,), training)[0]
    for name, tensor in tensors_of(short.weights).items():
        torch.testing.assert_close(tensor, tensors_of(alone.weights)[name], atol=1e-6, rtol=1e-5)


def test_weight_decay_shrinks_what_has_no_gradient() -> None:
    bank = Bank.fresh(fake_backbone(), METHODS.create("pfeiffer"), 3, [(0, 0), (1, 0)])
    before = [p.detach().clone() for p in bank.parameters()]
    optimizer = BankOptimizer(bank, weight_decay=0.1, clip=1.0)
    optimizer.step([1.0, 0.0])
    rates = [2e-3] * (len(before) - 2) + [5e-3] * 2
    for p, was, rate in zip(bank.parameters(), before, rates, strict=True):
        torch.testing.assert_close(p[0], was[0] * (1 - rate * 0.1))
        assert torch.equal(p[1], was[1])


def test_the_optimizer_is_adamw_clipped_per_run() -> None:
    """Against one torch AdamW a run, with a small and a large gradient and other rates each step."""
    bank = Bank.fresh(fake_backbone(), METHODS.create("pfeiffer"), 3, [(0, 0), (1, 0)])
    names = [name for name, _ in bank.named_parameters()]
    copies = [{n: p.detach()[r].clone().requires_grad_() for n, p in bank.named_parameters()} for r in range(2)]
    plain = []
    for own in copies:
        head = [own[n] for n in names if n.startswith("head")]
        rest = [own[n] for n in names if not n.startswith("head")]
        plain.append(torch.optim.AdamW([{"params": rest}, {"params": head}], lr=0.0, weight_decay=0.05))
    optimizer, rng = BankOptimizer(bank, weight_decay=0.05, clip=1.0), np.random.default_rng(0)
    for factors in ([0.5, 1.0], [1.0, 0.7], [0.3, 0.1]):
        for name, p in bank.named_parameters():
            for r, scale in enumerate((1e-3, 10.0)):
                grad = torch.from_numpy(rng.normal(scale=scale, size=p.shape[1:]).astype(np.float32))
                p.grad[r] += grad  # type: ignore[index]
                copies[r][name].grad = grad.clone()
        norms = [torch.nn.utils.clip_grad_norm_(own.values(), 1.0) for own in copies]
        assert norms[0] < 1 < norms[1]
        optimizer.step(factors)
        for own, factor in zip(plain, factors, strict=True):
            for group, peak in zip(own.param_groups, (2e-3, 5e-3), strict=True):
                group["lr"] = peak * factor
            own.step()
    for name, p in bank.named_parameters():
        assert not p.grad.any()  # type: ignore[union-attr]
        for r in range(2):
            torch.testing.assert_close(p.detach()[r], copies[r][name].detach(), atol=1e-6, rtol=1e-5)


def test_clipping_is_felt() -> None:
    """With AdamW a clip that always bites changes little, one that nearly stops the gradient (1e-9) a lot."""
    clips = (1e3, 1e-2, 1e-9)
    free, tight, tighter = (train((20,), Training(steps=4, clip=c, weight_decay=0), **FAST)[0] for c in clips)
    moved = [(f.weights.head["weight"] - fresh_head(f)).abs().mean() for f in (free, tight, tighter)]
    assert moved[1] > 0.5 * moved[0] and moved[2] < 0.2 * moved[0]


def test_the_same_jobs_give_the_same_bits() -> None:
    first, second = (train((9, 20, 33), Training(epochs=2, min_steps=1, batch_size=8), "unipelt") for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert_same(tensors_of(one.weights), tensors_of(two.weights))
        np.testing.assert_array_equal(one.dynamics.confidence, two.dynamics.confidence)


@pytest.mark.parametrize("change", [{"seed": 1}, {"round": 2}])
def test_seed_and_round_change_the_run(change: dict[str, int]) -> None:
    engine = engine_of(Training(steps=2, batch_size=8), "head")
    own = jobs_of(engine.corpus.dataset, (20,))[0]
    other = FitJob(**{**vars(own), **change})
    first, second = engine.fit([own, other])
    assert (first.weights.head["weight"] - second.weights.head["weight"]).abs().max() > 1e-3


# -- what is noted ---------------------------------------------------------------------------------------------------


def test_dynamics_of_a_cut_epoch() -> None:
    dynamics = train((20,), Training(steps=4, batch_size=8), "head")[0].dynamics
    seen = ~np.isnan(dynamics.confidence)
    assert seen[0].all() and seen[1].sum() == 8 and len(seen) == 2
    assert not dynamics.correct[~seen].any()


def test_dynamics_are_the_models_own() -> None:
    """With no dropout and one batch an epoch, the row of an epoch is what the model said before that step."""
    training = Training(steps=1, batch_size=20, head_dropout=0.0)
    engine = engine_of(training, "head")
    own = jobs_of(engine.corpus.dataset, (20,))[0]
    dynamics = engine.fit([own])[0].dynamics
    fresh = Bank.fresh(engine.backbone, engine.method, 3, [(own.seed, own.round)]).unstack()[0]
    proba = engine.scorer(fresh).outputs(np.arange(20))
    np.testing.assert_allclose(dynamics.confidence[0], proba[np.arange(20), own.targets], atol=1e-3)
    np.testing.assert_array_equal(dynamics.correct[0], proba.argmax(1) == own.targets)


def test_loss_is_the_last_epochs_mean() -> None:
    """Full batches, so that the mean over batches is the mean over examples."""
    fitted = train((16,), Training(steps=6, batch_size=8), **FAST)[0]
    confidence = fitted.dynamics.confidence[-1].astype(np.float64)
    assert fitted.loss == pytest.approx(-np.log(confidence).mean(), rel=2e-3)
    assert fitted.parameters == sum(t.numel() for t in tensors_of(fitted.weights).values())


def test_a_frozen_backbone_is_encoded_once() -> None:
    engine = engine_of(Training(steps=30, batch_size=8), "head")
    engine.corpus.features()
    calls: list[int] = []
    encode = engine.backbone.encode
    engine.backbone.encode = lambda *a, **k: calls.append(1) or encode(*a, **k)  # type: ignore[method-assign]
    engine.fit(jobs_of(engine.corpus.dataset, (20, 30)))
    assert calls == []


# -- objectives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(10, 4, 1), (5, 0, 5), (7, 0, 0)])
def test_balanced_weights_are_those_of_scikit_learn(counts: tuple[int, ...]) -> None:
    targets = np.repeat(np.arange(3), counts)
    weights = objectives.balanced_weights(torch.from_numpy(targets), 3).numpy()
    seen = np.unique(targets)
    np.testing.assert_allclose(weights[seen], compute_class_weight("balanced", classes=seen, y=targets), rtol=1e-6)
    assert weights[targets].mean() == pytest.approx(1)


def test_balancing_helps_the_rare_class() -> None:
    data = toy_dataset(60, classes=2)
    where = np.concatenate([np.flatnonzero(data.labels == 0)[:27], np.flatnonzero(data.labels == 1)[:3]])
    own = FitJob(tuple(data.ids.id_of(int(i)) for i in where), data.labels[where], 0, 0)
    said = []
    for balanced in (False, True):
        engine = engine_of(Training(steps=40, batch_size=30, balanced=balanced), "head", data)
        said.append(engine.scorer(engine.fit([own])[0].weights).outputs(np.arange(60))[:, 1].mean())
    assert said[0] < 0.3 < said[1]


@pytest.mark.parametrize(
    ("counts", "margin"),
    [((9, 1), (math.log(9), 0)), ((1, 1, 8), (0, 0, math.log(4))), ((1, 3, 8), (0, 0, 0)), ((0, 7), (0, 0))],
)
def test_only_a_large_majority_has_a_margin(counts: tuple[int, ...], margin: tuple[float, ...]) -> None:
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    found = objectives.majority_margin(targets, len(counts))
    assert found.tolist() == pytest.approx(margin, abs=1e-6)


def test_with_two_classes_the_margin_is_the_logit_adjusted_loss() -> None:
    targets, logits = torch.tensor([0] * 9 + [1]), torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    prior = torch.tensor([0.9, 0.1])
    adjusted = torch.nn.functional.cross_entropy(logits + prior.log(), targets)
    margin = objectives.majority_margin(targets, 2)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits + margin, targets), adjusted)


def test_a_majority_among_sought_labels_must_be_beaten_by_more() -> None:
    data = toy_dataset(60, classes=2)
    where = np.concatenate([np.flatnonzero(data.labels == 0)[:27], np.flatnonzero(data.labels == 1)[:3]])
    own = FitJob(tuple(data.ids.id_of(int(i)) for i in where), data.labels[where], 0, 0)
    even = jobs_of(data, (30,))[0]
    jobs = [own, replace(own, sought=True), even, replace(even, sought=True)]

    def said(training: Training) -> list[np.ndarray]:
        engine = engine_of(training, "head", data)
        together, alone = engine.fit(jobs), [engine.fit([job])[0] for job in jobs]
        found = [engine.scorer(fitted.weights).outputs(np.arange(60))[:, 1] for fitted in together]
        for one, fitted in zip(found, alone, strict=True):  # a run's margin is its own
            np.testing.assert_allclose(one, engine.scorer(fitted.weights).outputs(np.arange(60))[:, 1], atol=1e-5)
        return found

    usual, sought, even_usual, even_sought = said(Training(steps=40, batch_size=30, balanced=True))
    assert usual.mean() + 0.1 < sought.mean()
    np.testing.assert_allclose(even_usual, even_sought, atol=1e-6)
    plain, plain_sought = said(Training(steps=40, batch_size=30))[:2]
    np.testing.assert_allclose(plain, plain_sought, atol=1e-6)


def test_runs_weigh_the_same_whatever_their_batches() -> None:
    loss, owners = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2])
    total, means = objectives.sum_of_run_means(loss, owners, 3)
    assert means.tolist() == [2.0, 0.0, 5.0] and total.item() == 7.0


# -- regression ------------------------------------------------------------------------------------------------------


def regression(scale: float = 1.0, shift: float = 0.0) -> Dataset:
    data = toy_dataset(60, classes=0)
    return Dataset.from_lists(data.texts(), (data.labels * scale + shift).tolist(), task="regression")


def test_regression_learns_in_the_users_units() -> None:
    data = regression(scale=50, shift=1000)
    engine = engine_of(Training(steps=150, batch_size=20), "lora", data, **FAST)
    fitted = engine.fit(jobs_of(data, (60,)))[0]
    values = engine.scorer(fitted.weights).outputs(np.arange(60))
    assert values.shape == (60,) and fitted.weights.outputs == 1
    assert np.corrcoef(values, data.labels)[0, 1] > 0.8
    assert abs(values.mean() - data.labels.mean()) < 0.3 * data.labels.std()
    assert 0.5 < values.std() / data.labels.std() < 1.3


def test_units_do_not_change_what_is_learned() -> None:
    """Two runs of other units side by side, too: each has its own scale."""
    training, values = Training(steps=20, batch_size=20), []
    for scale, shift in ((1, 0), (1000, -5e4)):
        engine = engine_of(training, "lora", regression(scale, shift))
        fitted = engine.fit(jobs_of(engine.corpus.dataset, (30, 60)))
        values.append([(engine.scorer(f.weights).outputs(np.arange(60)) - shift) / scale for f in fitted])
        assert not fitted[0].dynamics.correct.any() and fitted[0].dynamics.correct.shape[1] == 30
        assert (fitted[0].dynamics.confidence[~np.isnan(fitted[0].dynamics.confidence)] >= 0).all()
    np.testing.assert_allclose(values[0], values[1], atol=5e-3)


def test_equal_targets_are_no_division_by_zero() -> None:
    data = regression(scale=0, shift=7)
    engine = engine_of(Training(steps=40, batch_size=20), "head", data)
    values = engine.scorer(engine.fit(jobs_of(data, (30,)))[0].weights).outputs(np.arange(60))
    np.testing.assert_allclose(values, 7, atol=0.5)


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_divergence_names_the_run_and_the_remedy() -> None:
    engine = engine_of(Training(steps=30, batch_size=8, clip=1e30), learning_rate=1e30)
    message = r"training diverged \(loss is not finite\) for seed 0: lower learning_rate \(now 1e\+30\)"
    with pytest.raises(SpecError, match=message):
        engine.fit(jobs_of(engine.corpus.dataset, (20,)))


def test_stacking_other_kinds_is_refused() -> None:
    backbone = fake_backbone()
    lora, ia3 = (Bank.fresh(backbone, METHODS.create(n), 3, [(0, 0)]).unstack()[0] for n in ("lora", "ia3"))
    two = Bank.fresh(backbone, METHODS.create("lora"), 2, [(0, 0)]).unstack()[0]
    for other in (ia3, two):
        with pytest.raises(SpecError, match="only runs of one method with the same number of outputs"):
            Bank.stack(backbone, [lora, other])


def test_foreign_tensors_are_refused() -> None:
    lora = Bank.fresh(fake_backbone(), METHODS.create("lora"), 3, [(0, 0)]).unstack()[0]
    with pytest.raises(SpecError, match=r"do not belong to this method and backbone: .*layer/2"):
        Bank.stack(fake_backbone(layers=3), [lora])
    with pytest.raises(SpecError, match=r"tensor 'down.encoder/layer/0/.*' must be \(8, 32\), got \(8, 16\)"):
        Bank.stack(fake_backbone(width=32), [lora])
