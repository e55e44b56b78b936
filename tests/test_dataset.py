"""Data sets made from lists: ids, labels, fingerprints, subsets, and the refusal of what cannot be used."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np
import pytest

from modicum.base.errors import DataError, ModicumError, SpecError, StateError
from modicum.data.dataset import Dataset

TEXTS = ["one fish", "two fish", "red fish", "blue fish"]


def make(texts: Any = TEXTS, labels: Any = ("n", "n", "c", "c"), **options: Any) -> Dataset:
    return Dataset.from_lists(texts, labels, **options)


def test_texts_classes_and_labels() -> None:
    data = make(name="fish")
    assert (data.name, data.task, data.classes, len(data)) == ("fish", "classification", ("c", "n"), 4)
    assert data.labels.tolist() == [1, 1, 0, 0] and data.labels.dtype == np.int64
    assert data.texts() == TEXTS
    assert data.texts([2, 0]) == ["red fish", "one fish"]
    assert data.texts(np.array([], np.int64)) == []
    assert data.pairs() is None
    assert repr(data) == "Dataset('fish': 4 texts, 2 classes, 4 labelled)"


def test_pairs() -> None:
    data = make(pairs=["a", "b", "c", "d"])
    assert data.pairs() == ["a", "b", "c", "d"]
    assert data.pairs([3]) == ["d"]
    assert data.subset([1, 3]).pairs() == ["b", "d"]


@pytest.mark.parametrize(
    ("labels", "classes", "positions"),
    [
        ([10, 9, 10, 9], ("9", "10"), [1, 0, 1, 0]),
        ([1.0, 2.0, 1.0, 2.0], ("1", "2"), [0, 1, 0, 1]),
        (["10", "9", " 9 ", "10"], ("9", "10"), [1, 0, 0, 1]),
        ([-1, 1, "1", -1.0], ("-1", "1"), [0, 1, 1, 0]),
        (["007", "7", "007", "7"], ("007", "7"), [0, 1, 0, 1]),
        ([1, "a", "a", 1], ("1", "a"), [0, 1, 1, 0]),
        ([True, False, True, False], ("False", "True"), [1, 0, 1, 0]),
        (np.array([3, 2, 2, 3], np.int8), ("2", "3"), [1, 0, 0, 1]),
        (["a", None, "", "a", "b", "  ", "b"], ("a", "b"), [0, -1, -1, 0, 1, -1, 1]),
    ],
)
def test_labels_become_positions(labels: Any, classes: tuple[str, ...], positions: list[int]) -> None:
    data = make([f"text {i}" for i in range(len(labels))], labels)
    assert data.classes == classes
    assert data.labels.tolist() == positions


def test_labelled_and_unlabelled_positions() -> None:
    data = make([*TEXTS, "old fish"], ["a", None, "a", "b", "b"])
    assert data.labelled_positions().tolist() == [0, 2, 3, 4]
    assert data.unlabelled_positions().tolist() == [1]
    assert data.report.labels_per_class == {"a": 2, "b": 2}
    assert data.report.unlabelled == 1


def test_numbers_that_are_not_whole_make_a_regression() -> None:
    data = make(labels=[0.5, None, np.float32(3.8), 2])
    assert (data.task, data.classes) == ("regression", ())
    np.testing.assert_array_equal(data.labels, [0.5, np.nan, 3.8, 2.0])
    assert data.unlabelled_positions().tolist() == [1]
    assert data.subset([1, 0]).report.labelled == 1


def test_the_task_can_be_said() -> None:
    assert make(labels=[1, 2, 1, 2], task="regression").labels.tolist() == [1.0, 2.0, 1.0, 2.0]
    assert make(labels=[1.5, 2, 1.5, 2], task="classification").classes == ("1.5", "2")


def test_no_labels_at_all() -> None:
    data = make(labels=None)
    assert (data.task, data.classes, data.labels.tolist()) == ("classification", (), [-1] * 4)
    assert np.isnan(make(labels=None, task="regression").labels).all()


def test_given_classes_name_integers_by_position_and_keep_their_order() -> None:
    assert make(labels=[0, 1, 0, 1], classes=["world", "art"]).classes == ("world", "art")
    assert make(labels=[0, 1, 0, 1], classes=["world", "art"]).labels.tolist() == [0, 1, 0, 1]
    assert make(labels=["art", 0, "art", 0], classes=["world", "art"]).labels.tolist() == [1, 0, 1, 0]
    assert make(labels=[2, 1, 2, 1], classes=["1", "2", "3"]).labels.tolist() == [1, 0, 1, 0]
    assert make(labels=None, classes=["yes", "no"]).classes == ("yes", "no")


def test_labels_cannot_be_written_over() -> None:
    with pytest.raises(ValueError, match="read-only"):
        make().labels[0] = 1


def test_ids_are_made_from_row_and_content() -> None:
    ids = list(make().ids)
    assert [id.split("-")[0] for id in ids] == ["r1", "r2", "r3", "r4"]
    assert all(re.fullmatch(r"r\d-[0-9a-f]{8}", id) for id in ids)
    assert make(["one fish!", *TEXTS[1:]]).ids[0] != ids[0]
    assert make(["one fish!", *TEXTS[1:]]).ids[1] == ids[1]
    assert make(pairs=TEXTS).ids[0] != ids[0]


def test_ids_find_their_positions() -> None:
    names = [f"é{i}" for i in range(1000)]
    data = Dataset.from_lists(names, ids=names)
    assert [data.ids.position_of(id) for id in names] == list(range(1000))
    assert data.ids.positions_of(["é7", "é3", "é999"]).tolist() == [7, 3, 999]
    assert data.ids.positions_of(data.ids).tolist() == list(range(1000))
    assert data.ids.positions_of([]).tolist() == []
    assert (data.ids.id_of(5), data.ids[-1], list(data.ids[2:4])) == ("é5", "é999", ["é2", "é3"])
    assert "é5" in data.ids and "é1000" not in data.ids
    assert data.ids.index("é5") == 5
    assert repr(data.ids) == "Ids('é0', 'é1', 'é2', …; 1,000 in all)"
    with pytest.raises(DataError, match=r"no example has the id 'é5x' \(did you mean 'é5'"):
        data.ids.position_of("é5x")
    with pytest.raises(DataError, match="no example has the id 'nobody'"):
        data.ids.positions_of(["é5", "nobody"])


def test_integer_ids_become_text() -> None:
    assert list(make(ids=[4, 3, 2, np.int64(1)]).ids) == ["4", "3", "2", "1"]


def test_the_pool_holds_all_ids_and_is_shared() -> None:
    data = make(ids="abcd")
    assert data.pool.free() == ("a", "b", "c", "d")
    assert data.pool is data.pool


def test_fingerprint_is_pinned() -> None:
    """A change here changes the key of every trial: it must come with a new schema version."""
    assert make(ids="abcd").fingerprint == "00ed2943a06337fd78586167b5a73beb6bad0f6af4c55bd87f15ee26173cc081"


@pytest.mark.parametrize(
    "other",
    [
        {"texts": ["one fish", "two fish", "red fish", "blue fish "]},
        {"texts": ["one fis", "htwo fish", "red fish", "blue fish"]},
        {"labels": ["c", "n", "c", "n"]},
        {"labels": ["n", "n", "d", "d"]},
        {"labels": ["n", "n", "c", None], "for_training": False},
        {"labels": [1, 1, 2, 2], "task": "regression"},
        {"classes": ["n", "c"]},
        {"pairs": TEXTS},
        {"ids": "abce"},
    ],
)
def test_any_change_of_content_changes_the_fingerprint(other: dict[str, Any]) -> None:
    base = make(ids="abcd", name="one")
    assert base.fingerprint == make(ids="abcd", name="two").fingerprint
    assert make(**{"ids": "abcd", **other}).fingerprint != base.fingerprint


def test_an_unlabelled_target_differs_from_any_target() -> None:
    one, other = make(labels=[0.5, 1, 2, None]), make(labels=[0.5, 1, 2, -1])
    assert one.fingerprint != other.fingerprint


def test_fingerprint_does_not_depend_on_how_the_strings_are_held() -> None:
    data = make(ids="abcd")
    assert data.subset([0, 1, 2, 3]).fingerprint == data.fingerprint
    assert data.subset([1, 0, 2, 3]).fingerprint != data.fingerprint
    half = Dataset.from_lists(TEXTS[2:], ["c", "c"], ids="cd", classes=["c", "n"], for_training=False)
    assert data.subset([2, 3]).fingerprint == half.fingerprint


def test_fingerprint_survives_pickling() -> None:
    data = make()
    assert pickle.loads(pickle.dumps(data)).fingerprint == data.fingerprint


def test_subset_keeps_ids_and_classes() -> None:
    data = make(ids="abcd")
    part = data.subset(np.array([3, 1]))
    assert list(part.ids) == ["d", "b"]
    assert part.ids.position_of("b") == 1
    assert part.texts() == ["blue fish", "two fish"]
    assert (part.classes, part.labels.tolist()) == (("c", "n"), [0, 1])
    assert part.report.labels_per_class == {"c": 1, "n": 1}
    assert len(data.subset([])) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: data.subset([0, 4]), "positions must lie in 0..3, got 4"),
        (lambda data: data.texts([-1]), "positions must lie in 0..3, got -1"),
        (lambda data: data.subset([1, 1]), "a position was given twice"),
        (lambda data: data.texts([True, False]), "positions must be one row of integers, got bool"),
    ],
)
def test_wrong_positions_are_refused(call: Any, message: str) -> None:
    with pytest.raises(StateError, match=re.escape(message)):
        call(make())


def test_with_classes_maps_by_name() -> None:
    data = make(labels=["b", "b", None, "d"], for_training=False).with_classes(["d", "c", "b"])
    assert (data.classes, data.labels.tolist()) == (("d", "c", "b"), [2, 2, -1, 0])
    assert data.report.labels_per_class == {"d": 1, "c": 0, "b": 2}
    numbered = make(labels=[1, 1, 0, 0]).with_classes(["world", "art"])
    assert (numbered.classes, numbered.labels.tolist()) == (("world", "art"), [1, 1, 0, 0])


def test_with_classes_refuses_an_unseen_label() -> None:
    data = make(labels=["sport", "sport", "art", "art"], ids="wxyz", name="test")
    message = "test: label 'sport' is not one of the classes 'art', 'sports' (did you mean 'sports'?) (2 rows, "
    with pytest.raises(DataError, match=re.escape(message)):
        data.with_classes(["art", "sports"])
    with pytest.raises(DataError, match="a regression data set has no classes"):
        make(labels=[0.5, 1, 1, 1]).with_classes(["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, "a data set needs a list of texts, got []"),
        ({"texts": "one text"}, "a data set needs a list of texts, got 'one text'"),
        ({"labels": ["a"]}, "there are 4 texts, but 1 labels"),
        ({"pairs": ["a"] * 5}, "there are 4 texts, but 5 pairs"),
        ({"texts": ["a", " \t\n", "c", "d"]}, "item 1 (counting from 0): the text is empty"),
        ({"texts": ["a", "b", 3, "d"]}, "item 2 (counting from 0): the text must be a string, not int"),
        ({"texts": ["a", "b", None, "d"]}, "item 2 (counting from 0): the text must be a string, not NoneType"),
        ({"texts": ["a", "b", "\ud800", "d"]}, "item 2 (counting from 0): the text holds '\\ud800', half of a surroga"),
        ({"texts": ["a", "b", "c\0", "d"]}, "item 2 (counting from 0): the text holds a NUL character"),
        ({"texts": ["a", "é" * 500_001, "c", "d"]}, "item 1 (counting from 0): the text has 1,000,002 bytes, more tha"),
        ({"pairs": ["a", "b", "c", ""]}, "item 3 (counting from 0): the second text is empty"),
        ({"ids": ["a", "b", "c", "b"]}, "item 3 (counting from 0): id 'b' already names item 1 (counting from 0)"),
        ({"ids": ["a", "b", " ", "d"]}, "item 2 (counting from 0): the id is empty"),
        ({"labels": ["a", "a", ["b"], "b"]}, "item 2 (counting from 0): a label must be a string or a number, not ['b"),
        ({"labels": ["a", "a", "a", "b"]}, "item 3 (counting from 0): class 'b' occurs only once among the labelled r"),
        ({"labels": [1.5, 2.5, 3.5, "x"]}, "(and 3 more classes do); are the labels numbers to predict"),
        ({"labels": ["a", "a", "a", None]}, "needs two classes or more, but all 3 labelled rows are 'a'"),
        ({"labels": [0.5, 1.0, math.nan, 2]}, "item 2 (counting from 0): the target 'nan' is not finite"),
        ({"labels": [0.5, 1.0, -math.inf, 2]}, "item 2 (counting from 0): the target '-inf' is not finite"),
        ({"labels": [1, 1, math.nan, 2]}, "item 2 (counting from 0): the label reads 'nan', which is no class; leave"),
        ({"labels": ["a", "a", "NaN", "b"]}, "item 2 (counting from 0): the label reads 'NaN'"),
        ({"labels": [1, 2, "x", 3], "task": "regression"}, "item 2 (counting from 0): the label 'x' is not a number"),
        ({"labels": ["x", "x", "z", "z"], "classes": ["x", "y"]}, "item 2 (counting from 0): label 'z' is not one of"),
        ({"labels": [0, 1, 2, 0], "classes": ["x", "y"]}, "item 2 (counting from 0): label '2' is not one of the clas"),
    ],
)
def test_bad_items_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["a"]}, "classes must be two or more distinct names without spaces around them, got ['a']"),
        ({"classes": ["a", "a"]}, "classes must be two or more distinct names"),
        ({"classes": "ab"}, "classes must be two or more distinct names"),
        ({"classes": ["a", " b"]}, "without spaces around them"),
        ({"classes": ["a", "b"], "task": "regression"}, "a regression has no classes, but got classes 'a', 'b'"),
        ({"task": "regresion"}, "unknown task 'regresion' (did you mean 'regression'?)"),
    ],
)
def test_contradictory_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        make(**arguments)


def test_messages_for_lists_do_not_offer_to_skip() -> None:
    with pytest.raises(ModicumError) as refusal:
        make(["a", "", "c", "d"])
    assert "skip" not in str(refusal.value)


def test_what_is_not_trained_on_may_have_lone_classes() -> None:
    assert make(labels=["a", "a", "a", "b"], for_training=False).classes == ("a", "b")
    assert make(labels=["a", "a", "a", "a"], for_training=False).classes == ("a",)


def test_words_that_are_numbers_elsewhere_stay_words() -> None:
    assert make(labels=["inf", "inf", "1_0", "1_0"]).classes == ("1_0", "inf")
