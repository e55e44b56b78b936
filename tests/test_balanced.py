"""Class-balanced acquisition, and a first batch from names."""

from __future__ import annotations

import numpy as np
import pytest

from modicum.base.rng import stream
from modicum.base.training import Training
from modicum.data.dataset import Dataset
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.strategies.balanced import Balanced, evened, merged, shortfall
from modicum.strategies.base import View
from modicum.strategies.clustering import TypiClust
from modicum.strategies.uncertainty import Margin
from modicum.strategies.zero_shot import ZeroShot
from modicum.testing.backbone import fake_backbone, toy_dataset


def view_of(rare: int = 12, n: int = 200, labelled: tuple[int, int] = (18, 2)) -> View:
    """Two classes, the second rare: its candidates have 0.4 or more of the probability, the others 0.2 or less."""
    rng = np.random.default_rng(0)
    of_rare = np.r_[rng.uniform(0.4, 0.9, rare), rng.uniform(0, 0.2, n - rare)]
    known = np.repeat([[0.9, 0.1], [0.1, 0.9]], labelled, axis=0)
    frozen = rng.normal(size=(n, 4)).astype(np.float32)
    signals = {"proba": np.c_[1 - of_rare, of_rare], "frozen_embedding": frozen}
    return View(n, signals, {"proba": known, "frozen_embedding": frozen[: len(known)]}, len(known))  # type: ignore[arg-type]


def test_labels_are_evened_out_one_by_one() -> None:
    assert evened(np.array([18, 2]), 10).tolist() == [1] * 10
    assert evened(np.array([5, 4, 0]), 6).tolist() == [2, 2, 2, 2, 1, 2]
    assert evened(np.array([3, 3]), 3).tolist() == [0, 1, 0]


def test_a_shortfall_is_measured_by_the_mean_class() -> None:
    assert shortfall(np.array([18, 2])).tolist() == pytest.approx([0, 0.8])
    assert shortfall(np.array([4, 4, 4])).tolist() == [0, 0, 0]
    assert shortfall(np.array([6, 0])).tolist() == [0, 1] and shortfall(np.array([0, 0])).tolist() == [1, 1]


def test_where_two_classes_are_even_it_is_margin_sampling() -> None:
    view = view_of(rare=40, labelled=(10, 10))
    picked = Balanced().select(view, 20, rng=stream(0)).positions
    assert set(picked.tolist()) == set(Margin().select(view, 20, rng=stream(0)).positions.tolist())


def test_lists_are_merged_evenly() -> None:
    assert merged([1, 2], [10, 20, 30, 40, 50, 60]) == [10, 1, 20, 30, 40, 2, 50, 60]
    assert merged([], [3, 4]) == [3, 4] and merged([], []) == []


def test_the_rare_class_is_asked_for() -> None:
    picked = Balanced(explore=0.0).select(view_of(), 10, rng=stream(0)).positions
    assert len(set(picked.tolist())) == 10 and (picked < 12).all()


def test_some_of_the_query_explores() -> None:
    view = view_of()
    picked = Balanced(explore=0.5).select(view, 10, rng=stream(0)).positions
    explored = TypiClust().select(view, 4, rng=stream(0)).positions
    assert len(set(picked.tolist())) == 10 and set(explored) <= set(picked), "a half of 10, times a shortfall of 0.8"
    assert (np.setdiff1d(picked, explored) < 12).all()


def test_of_a_class_without_labels_half_are_sure_and_half_on_the_border() -> None:
    view = view_of(rare=40, labelled=(20, 0))
    picked = Balanced(explore=0.0, surest=0.5).select(view, 10, rng=stream(0)).positions
    of_rare = view.signals["proba"][picked, 1]
    assert (of_rare[::2] == np.sort(view.signals["proba"][:, 1])[::-1][:5]).all()
    assert np.abs(of_rare[1::2] - 0.5).max() < 0.1


def test_the_first_of_a_query_are_as_the_whole() -> None:
    view = view_of(rare=40, labelled=(20, 0))
    picked = Balanced(explore=0.2).select(view, 100, rng=stream(0)).positions
    explored = set(TypiClust().select(view, 20, rng=stream(0)).positions.tolist())
    of = ["explored" if p in explored else "rare" if p < 40 else "other" for p in picked.tolist()]
    assert [of[:10].count(what) for what in ("explored", "rare", "other")] == [2, 8, 0], "20 rare ones, then in turn"
    assert of[:50].count("explored") == 10 and of[:50].count("other") > 10


def test_without_labels_all_classes_count_the_same() -> None:
    view = view_of()
    bare = View(view.n, view.signals, {}, 0)
    assert len(set(Balanced().select(bare, 20, rng=stream(0)).positions.tolist())) == 20


# ---- zero-shot -------------------------------------------------------------------------------------------------------


def test_each_name_gets_the_texts_nearest_to_it() -> None:
    near = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7], [0.5, 0.5], [0.2, 0.9], [0.85, 0.8]])
    picked = ZeroShot().select(View(6, {"name_similarity": near}), 4, rng=stream(0))
    assert picked.positions.tolist() == [0, 4, 1, 2]
    assert (picked.scores > 0.99).all()


def test_names_are_compared_with_texts() -> None:
    data, backbone = toy_dataset(30), fake_backbone()
    engine = Engine(backbone, Corpus(backbone, data), METHODS.create("head"), Training(), "classification", 3)
    found = engine.signals(None, np.arange(5), frozenset({"name_similarity"}))["name_similarity"]
    names = Corpus(backbone, Dataset.from_lists(list(data.classes), for_training=False)).features()
    text = engine.corpus.features()[2]
    assert found.shape == (5, 3)
    expected = text @ names[1] / np.linalg.norm(text) / np.linalg.norm(names[1])
    assert found[2, 1] == pytest.approx(expected, abs=1e-5)
