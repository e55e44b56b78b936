"""``Classifier`` and ``ActiveLearner``, as their users call them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from modicum import ActiveLearner, Classifier
from modicum.base.errors import DataError, SpecError, StateError, UnknownName
from modicum.testing.backbone import fake_backbone, toy_dataset

BACKBONE = fake_backbone()
DATA = toy_dataset(90)
TEXTS, LABELS = DATA.texts(), [DATA.classes[i] for i in DATA.labels]
QUICK = {"steps": 60, "batch_size": 16}
FAST = {"name": "lora", "learning_rate": 2e-2}


def classifier(**settings: object) -> Classifier:
    return Classifier(BACKBONE, **{"method": FAST, "training": QUICK, **settings})  # type: ignore[arg-type]


def test_it_learns_and_speaks_scikit_learn() -> None:
    model = classifier(seed=3).fit(TEXTS[:60], LABELS[:60])
    proba = model.predict_proba(TEXTS[60:])
    assert proba.shape == (30, 3)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-5)
    assert list(model.classes_) == ["class-0", "class-1", "class-2"]
    assert list(model.predict(TEXTS[60:])) == [model.classes_[i] for i in proba.argmax(1)]
    assert model.score(TEXTS[60:], LABELS[60:]) > 0.8


def test_clone_and_parameters() -> None:
    model = classifier(seed=3).fit(TEXTS[:30], LABELS[:30])
    twin = clone(Classifier("minilm", method="lora", seed=3))
    assert twin.get_params()["seed"] == 3
    assert twin.set_params(method="bitfit").method == "bitfit"
    assert not hasattr(clone(Classifier("minilm")), "weights_")
    again = classifier(seed=3).fit(TEXTS[:30], LABELS[:30])
    np.testing.assert_array_equal(model.predict_proba(TEXTS), again.predict_proba(TEXTS))


@pytest.mark.parametrize("names", [(False, True), (0.0, 1.0), (3, 7), ("no", "yes")])
def test_labels_keep_their_type(names: tuple[object, object], tmp_path: Path) -> None:
    labels: list[object] = [names[label == LABELS[0]] for label in LABELS]
    labels[5] = None  # not labelled
    model = classifier(method="head").fit(TEXTS, labels)
    assert model.classes_.tolist() == list(names)
    assert set(model.predict(TEXTS).tolist()) <= set(names)
    model.save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m", backbone=BACKBONE)
    assert loaded.predict(TEXTS).tolist() == model.predict(TEXTS).tolist()


def test_integer_labels_come_back_as_integers(tmp_path: Path) -> None:
    numbers = [int(name[-1]) * 10 for name in LABELS]
    model = classifier(method="head").fit(TEXTS, numbers)
    assert model.classes_.tolist() == [0, 10, 20]
    assert model.predict(TEXTS[:1]).dtype.kind == "i"
    model.save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m", backbone=BACKBONE)
    assert loaded.predict(TEXTS[:5]).tolist() == model.predict(TEXTS[:5]).tolist()


def test_pairs_and_values() -> None:
    values = toy_dataset(60, classes=0)
    pairs = [(text, "ba de") for text in values.texts()]
    model = classifier(training={"steps": 150, "batch_size": 16}).fit(pairs, values.labels * 10)
    assert model.score(pairs, values.labels * 10) > 0.3
    with pytest.raises(SpecError, match="predicts values, not classes: call predict"):
        model.predict_proba(pairs)


@pytest.mark.parametrize(
    ("settings", "texts", "error", "message"),
    [
        ({"method": "lorra"}, TEXTS, UnknownName, "did you mean 'lora'"),
        ({"method": {"name": "lora", "rank": 0}}, TEXTS, SpecError, "rank"),
        ({"training": {"epoch": 3}}, TEXTS, SpecError, "unknown setting 'epoch' .*did you mean 'epochs'"),
        ({"method": {"rank": 3}}, TEXTS, SpecError, "a table such as"),
        ({}, [("a", "b"), *TEXTS[1:]], SpecError, "all be pairs of two strings; these are mixed"),
        ({}, "one text", SpecError, "got one string: put it in a list"),
        ({}, TEXTS[:5], DataError, "5"),
        ({}, ["", *TEXTS[1:]], DataError, "item 0 .*the text is empty"),
    ],
)
def test_mistakes_are_told(settings: dict[str, object], texts: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        classifier(**settings).fit(texts, LABELS)  # type: ignore[arg-type]


def test_a_class_may_have_a_single_example() -> None:
    one = LABELS.index("class-2")
    at = [i for i, label in enumerate(LABELS) if label != "class-2" or i == one][:40]
    for settings in (
        {},
        {"training": {**QUICK, "calibrate": 3, "head_start": "probe"}},
        {"method": "auto", "training": None},
    ):
        model = classifier(**settings).fit([TEXTS[i] for i in at], [LABELS[i] for i in at])
        assert list(model.classes_) == ["class-0", "class-1", "class-2"]
        assert model.score([TEXTS[i] for i in at], [LABELS[i] for i in at]) > 0.8


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 4, "^the texts given: training needs two classes or more, but all 4 labelled rows are 'a'"),
        (["a", "b", "c", "d"], "^the texts given: training needs a class with two examples or more, but each of 4 "),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        classifier().fit(TEXTS[:4], labels)


@pytest.mark.parametrize(
    "strategy", ["random", "entropy", "coreset", "dal", "badge", "typiclust", {"name": "bald", "passes": 3}]
)
def test_ask_and_tell(strategy: object) -> None:
    gold = dict(zip(DATA.ids, LABELS, strict=True))
    learner = ActiveLearner(
        TEXTS,
        classes=DATA.classes,
        ids=list(DATA.ids),
        strategy=strategy,  # type: ignore[arg-type]
        warm_strategy="typiclust" if strategy == "typiclust" else "random",
        backbone=BACKBONE,
        method=FAST,
        training={"steps": 40, "batch_size": 8},
    )
    seen: set[str] = set()
    for _ in range(3):
        ids = learner.ask(10)
        assert learner.ask(10) == ids, "asking twice gives the same query"
        assert not seen & set(ids)
        seen |= set(ids)
        learner.tell({i: gold[i] for i in ids})
    assert learner.classifier.score(TEXTS, LABELS) > 0.5
    assert learner.classifier is learner.classifier, "nothing new was told, so nothing is trained again"


def test_partial_answers_skips_and_corrections() -> None:
    learner = ActiveLearner(TEXTS, classes=["a", "b"], backbone=BACKBONE, method="head", training={"steps": 5})
    first, second, third, fourth = learner.ask(4)
    with pytest.raises(SpecError, match="there is no model yet"):
        _ = learner.classifier
    learner.tell({first: "a", second: None})
    assert learner.ask(4) == [third, fourth]
    learner.tell({third: "b", fourth: "b"})
    learner.tell({first: "b", fourth: "a"})
    assert dict(learner.learner.pool.labelled) == {first: 1, third: 1, fourth: 0}
    before = learner.classifier
    learner.tell({first: "a"})
    assert learner.classifier is not before, "a correction is learned"
    assert learner.text(first) in TEXTS
    with pytest.raises(UnknownName, match="unknown class 'c'"):
        learner.tell({first: "c"})
    with pytest.raises(StateError):
        learner.tell({"nobody": "a"})
    for wrong in ({"strategy": "entropy", "task": "regression"}, {"classes": "ab", "warm_strategy": "entropy"}):
        with pytest.raises(SpecError, match="not for regression|needs a trained model"):
            ActiveLearner(TEXTS, **wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="at least 2 different classes"):
        ActiveLearner(TEXTS, classes=["a"])


def test_unlabelled_texts_teach_too() -> None:
    data = toy_dataset(60)
    texts, labels = data.texts(), [data.classes[c] for c in data.labels]
    training = {"steps": 40, "batch_size": 10, "self_training": {"texts": 30, "passes": 2}, "objective": "contrastive"}
    model = classifier(training=training).fit(texts[:20], labels[:20], unlabelled=texts[20:])
    assert model.n_steps_ == 80 and model.score(texts[20:], labels[20:]) > 0.5
    with pytest.raises(SpecError, match="unlabelled texts beside the labelled ones"):
        classifier(training=training).fit(texts[:20], labels[:20])
    with pytest.raises(SpecError, match="both be single texts, or both pairs"):
        classifier(training=training).fit(texts[:20], labels[:20], unlabelled=[("a", "b")])


def test_a_first_batch_by_the_names_of_the_classes() -> None:
    learner = ActiveLearner(TEXTS, DATA.classes, warm_strategy="zero-shot", backbone=BACKBONE, method="head")
    assert len(set(learner.ask(5))) == 5
    part = {"name": "subsample:kmeans", "size": 5}
    learner = ActiveLearner(TEXTS, DATA.classes, warm_strategy=part, backbone=BACKBONE, method="head")
    assert len(set(learner.ask(5))) == 5
    with pytest.raises(SpecError, match="warm_strategy = 'zero-shot' works for classification, not for regression"):
        ActiveLearner(TEXTS, task="regression", warm_strategy="zero-shot", backbone=BACKBONE)
    model = classifier(method="head").fit(TEXTS[:30], LABELS[:30])
    bare = model._plain(TEXTS)
    found = model.signals(bare, np.arange(4), frozenset({"name_similarity"}), 0)
    assert found["name_similarity"].shape == (4, 3)


def test_unsigned_labels_come_back_as_numbers(tmp_path: Path) -> None:
    model = classifier(method="head").fit(TEXTS, DATA.labels.astype(np.uint8))
    model.save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m", backbone=BACKBONE)
    assert loaded.predict(TEXTS).tolist() == model.predict(TEXTS).tolist()


def test_pairs_are_not_taken_for_single_texts(tmp_path: Path) -> None:
    pairs = [(text, "ba de") for text in TEXTS]
    model, single = classifier(method="head").fit(pairs, LABELS), classifier(method="head").fit(TEXTS, LABELS)
    with pytest.raises(SpecError, match="trained on pairs of texts, and these are single texts"):
        model.predict(TEXTS)
    single.save(tmp_path / "m")
    with pytest.raises(SpecError, match="trained on single texts, and these are pairs of texts"):
        Classifier.load(tmp_path / "m", backbone=BACKBONE).predict(pairs)


def test_several_prototypes_are_no_linear_map(tmp_path: Path) -> None:
    training = {"steps": 2, "prototypes": 2, "head_start": "prototypes"}
    model = classifier(training=training).fit(TEXTS[:30], LABELS[:30])
    with pytest.raises(SpecError, match="several prototypes a class is no linear map"):
        model.export(tmp_path / "e")
    model.save(tmp_path / "m")
    assert not (tmp_path / "m" / "adapter_model.safetensors").exists(), "PEFT could not read it"
    loaded = Classifier.load(tmp_path / "m", backbone=BACKBONE)
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS), atol=1e-6)
    with pytest.raises(SpecError, match="prototypes are of classes"):
        classifier(training={"prototypes": 2}).fit(TEXTS, np.linspace(0, 1, 90))


def test_auto_is_not_told_what_it_chooses() -> None:
    for training in ({"epochs": 50}, {"objective": "contrastive"}, {"head_start": "probe", "steps": 3}):
        with pytest.raises(SpecError, match=f"auto chooses {' and '.join(training)} itself: leave"):
            Classifier(BACKBONE, "auto", training=training).fit(TEXTS, LABELS)
    with pytest.raises(SpecError, match="auto chooses seconds itself"):
        ActiveLearner(TEXTS, DATA.classes, method="auto", training={"seconds": 5})
    learner = ActiveLearner(TEXTS, DATA.classes, backbone=BACKBONE, method={"name": "auto", "search": False})
    learner.tell(dict(zip(learner.ask(12), LABELS[:12], strict=True)))
    assert learner.classifier.chosen_ is not None and learner.classifier.chosen_.recipe.name
