"""The trainer, by what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_label_store import Ear, label, say, taught

from modicum.analysis.metrics import evaluate
from modicum.annotate.model import rounds, trainer
from modicum.annotate.model.queue import audit_items
from modicum.annotate.model.rounds import read_known
from modicum.annotate.model.trainer import Trainer, train_on_all, work
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import ME, Skipped
from modicum.api.classifier import Classifier
from modicum.auto.recipes import shipped_table
from modicum.base.errors import SpecError
from modicum.base.spec import Choice
from modicum.base.training import FitJob
from modicum.engine.backbone import Backbone
from modicum.strategies.uncertainty import entropy
from modicum.testing.backbone import fake_backbone, toy_dataset

N = 90
DATA = toy_dataset(N)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return fake_backbone()


def rank(store: ProjectStore, model: int) -> list[int]:
    return np.load(store.folder / "ranks" / f"{model}.npy").tolist()


def suggestions(store: ProjectStore, model: int) -> np.ndarray:
    return np.load(store.folder / "models" / str(model) / "suggestions.npy")


# ---- the trainer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", ["random", "kmeans", "typiclust", "zero-shot"])
def test_a_cold_start_orders_what_is_free(make, backbone: Backbone, warm: str) -> None:
    store, ear = make(warm_strategy=warm, audit=20, retrain_every=10), Ear()
    label(store, [3, 4])
    work(Trainer(store.folder, ear, backbone), {"kind": "rank"})
    assert ear.kinds[0] == "started" and ear[-1] == ("ranked", {"model": 0, "strategy": warm})
    order = rank(store, 0)
    assert len(set(order)) == len(order) == 50
    assert not set(order) & {3, 4, *audit_items(N, 20, 0).tolist()}
    again = Ear()
    work(Trainer(store.folder, again, backbone), {"kind": "rank"})
    assert rank(store, 0) == order, "the same seed gives the same order"


def test_a_cold_start_on_part_of_a_large_pool(make, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "COLD", 24)
    store = make()
    label(store, range(10))
    work(Trainer(store.folder, Ear(), backbone), {"kind": "rank"})
    assert len(set(rank(store, 0))) == 24 and not set(rank(store, 0)) & set(range(10))


def test_without_two_classes_it_waits(make, backbone: Backbone) -> None:
    store, ear = make(), Ear()
    child = Trainer(store.folder, ear, backbone)
    work(child, {"kind": "train", "model": 1})
    label(store, [0, 3, 6])
    work(child, {"kind": "train", "model": 1})
    assert ear.kinds == ["waiting", "waiting"]
    assert "none so far" in ear[0][1]["reason"] and "all 3 are 'class-0'" in ear[1][1]["reason"]
    assert not (store.folder / "models").exists()


@pytest.mark.parametrize(
    "method", [Choice(name="auto"), Choice(name="auto", options={"minutes": 0.01, "search": True})]
)
def test_auto_trains(make, backbone: Backbone, method: Choice) -> None:
    store = make(method=method)
    label(store, range(30))
    record = taught(store, backbone, 1)[-1][1]["record"]
    usual = shipped_table().recipes[0]
    assert record["method"] == method.label and record["chosen"] == usual.name
    model = Classifier.load(store.folder / "models" / "1", backbone=backbone)
    assert (model.method, model.recipe_) == (usual.method.name, usual.name)
    facts = train_on_all(store.folder, store.folder / "final", backbone)
    assert facts["labels"] == 30


def test_a_training_leaves_a_model_suggestions_and_a_rank(make, backbone: Backbone) -> None:
    store = make(audit=12, retrain_every=5, method="bitfit")
    audit = audit_items(N, 12, 0)
    label(store, audit[:7])
    label(store, [i for i in range(40) if i not in audit])
    store.write(Skipped(item=50, reason="unclear"), user=ME, client="skip", now=2.0)
    seq = store.last_seq()
    ear = taught(store, backbone, 1)
    told = ear[-1][1]
    model = Classifier.load(store.folder / "models" / "1", backbone=backbone)
    proba = model.predict_proba(DATA.texts())
    assert model.class_names_ == DATA.classes and model.method == "bitfit"
    known = suggestions(store, 1)
    assert known["label"].tolist() == proba.argmax(1).tolist()
    np.testing.assert_allclose(known["confidence"], proba.max(1), atol=2e-3)
    free = {i for i in range(40, N)} - {50, *audit.tolist()}
    order = rank(store, 1)
    assert set(order) == free and len(order) == len(free), "what nobody has touched and nothing is measured on"
    assert order[0] == max(free, key=lambda i: entropy(proba[i]))
    measured = audit[:7]
    for name, value in evaluate("classification", DATA.labels[measured], proba[measured]).items():
        assert told["record"][name] == pytest.approx(value, abs=1e-4)
    assert told["labels"] == len([i for i in range(40) if i not in audit])
    assert told["record"]["audit"] == 7 and told["record"]["seq"] == seq and told["record"]["strategy"] == "entropy"


def test_audit_labels_measure_and_never_train(make, backbone: Backbone) -> None:
    audit = audit_items(N, 15, 0)
    found = []
    for name, wrong in (("right", 0), ("wrong", 1)):
        store = make(name, audit=15)
        label(store, [i for i in range(30) if i not in audit])
        label(store, audit, wrong=wrong)
        ear = taught(store, backbone, 1)
        found.append((suggestions(store, 1), rank(store, 1), ear[-1][1]["record"]["accuracy"]))
    (known, order, accuracy), (other, other_order, worse) = found
    assert np.array_equal(known, other) and order == other_order
    assert accuracy > worse


def test_what_is_measured_is_random_whatever_else_was_labelled(make) -> None:
    store = make(audit=10)
    audit = audit_items(N, 10, 0)
    label(store, audit[[0, 1, 3, 4, 9]])
    store.write(Skipped(item=int(audit[2])), user=ME, client="skip", now=2.0)
    known = rounds.read_known(store)
    assert known.measured.tolist() == audit[[0, 1, 3, 4]].tolist(), "not 9, which someone went for"
    assert not len(known.trainable) and known.seq == store.last_seq()


def test_a_large_pool_is_narrowed(make, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LARGE": 20, "HEAD": 8, "CHECKED": 5, "STOP_SAMPLE": 6}.items():
        monkeypatch.setattr(rounds, name, value)
    monkeypatch.setattr(trainer, "LARGE", 20)
    read: list[int] = []
    texts = ProjectStore.texts
    monkeypatch.setattr(ProjectStore, "texts", lambda self, at: (read.append(len(at)), texts(self, at))[1])
    store = make(retrain_every=1)
    label(store, range(12))
    ear = taught(store, backbone, 1, 2)
    looked = np.flatnonzero(suggestions(store, 2)["label"] >= 0)
    assert max(read) < 60 and ear[-1][1]["record"]["candidates"] == 20
    assert len(looked) <= 20 + 6 + 5 and set(rank(store, 2)) <= set(looked.tolist())
    assert len(rank(store, 2)) == 10
    assert ear[-1][1]["record"]["compared"] == 6, "models are compared on the same random items"


@pytest.mark.parametrize(
    "strategy", ["random", "bald", "badge", "class-balanced", "typiclust", "dal", "subsample:margin"]
)
def test_every_kind_of_strategy_ranks(make, backbone: Backbone, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "HEAD", 9)
    store = make(strategy={"name": strategy, "passes": 2} if strategy == "bald" else strategy, retrain_every=1)
    label(store, range(12))
    taught(store, backbone, 1)
    assert len(set(rank(store, 1))) == 10 and min(rank(store, 1)) >= 12


def test_successive_models_are_compared_and_old_ones_go(make, backbone: Backbone) -> None:
    store = make()
    label(store, range(20))
    ear = taught(store, backbone, 1, 2, 3, 4)
    first, *_, last = [told["record"] for kind, told in ear if kind == "trained"]
    assert "kappa" not in first
    before, now = suggestions(store, 3)["label"], suggestions(store, 4)["label"]
    assert last["changed"] == pytest.approx(np.mean(before != now)) and last["compared"] == N
    assert sorted(p.name for p in (store.folder / "models").iterdir()) == ["2", "3", "4"]
    assert sorted(p.name for p in (store.folder / "ranks").iterdir()) == ["2.npy", "3.npy", "4.npy"]


def test_a_training_that_was_cut_short_is_done_again(make, backbone: Backbone) -> None:
    store = make()
    label(store, range(12))
    for stale in (".1", "1"):
        (store.folder / "models" / stale / "inside").mkdir(parents=True)
    taught(store, backbone, 1)
    assert sorted(p.name for p in (store.folder / "models").iterdir()) == ["1"]
    assert not (store.folder / "models" / "1" / "inside").exists()


def test_failures_are_said_and_survived(make, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ear = make(method="bitfitt"), Ear()
    label(store, range(6))
    child = Trainer(store.folder, ear, backbone)
    work(child, {"kind": "train", "model": 1})
    work(child, {"kind": "dance"})
    monkeypatch.setattr(trainer, "make_plan", lambda *_: 1 / 0)
    work(child, {"kind": "train", "model": 1})
    errors = [told["error"] for kind, told in ear if kind == "failed"]
    assert "did you mean 'bitfit'" in errors[0] and "rank or train" in errors[1] and "trainer.log" in errors[2]


def test_labels_are_sought_that_a_model_ranked(make, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    store, jobs, fit = make(strategy="entropy"), [], Trainer._fit

    def seen(self: Trainer, settings: Any, corpus: Any, job: FitJob, search: bool = True) -> Any:
        jobs.append(job)
        return fit(self, settings, corpus, job, search)

    def ranked(items: range, strategy: str, model: int | None) -> bool:
        for item in items:
            say(store, item, item % 3, strategy=strategy, model=model)
        train_on_all(store.folder, store.folder / "home", backbone)
        return jobs[-1].sought

    monkeypatch.setattr(Trainer, "_fit", seen)
    label(store, range(6))
    assert not ranked(range(6, 12), "typiclust", None)
    assert not ranked(range(12, 24), "random", 1)
    assert not ranked(range(24, 35), "subsample:entropy(size=50)", 2), "11 of 35 are no third"
    assert ranked(range(35, 36), "entropy", 3)
    taught(store, backbone, 1)
    assert jobs[-1].sought and read_known(store).sought.sum() == 12


def test_the_model_to_take_home_has_seen_every_label(make, backbone: Backbone, tmp_path: Path) -> None:
    store = make(audit=30)
    with pytest.raises(SpecError, match="cannot be trained yet"):
        train_on_all(store.folder, tmp_path / "home", backbone)
    label(store, range(N))
    assert train_on_all(store.folder, tmp_path / "home", backbone)["labels"] == N
    model = Classifier.load(tmp_path / "home", backbone=backbone)
    assert model.score(DATA.texts(), np.array(DATA.classes)[DATA.labels]) > 0.8
