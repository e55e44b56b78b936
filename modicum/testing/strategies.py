"""The contract that every query strategy keeps, as a test class, and toy candidates to try one on.

A plug-in's own tests subclass it::

    class TestMine(StrategyContract):
        def make(self) -> Strategy:
            return Mine()
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
import pytest
from scipy.special import softmax

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.base.types import Signal, Task
from modicum.strategies.base import Selection, Strategy, View

Mood = Literal["mixed", "alike", "certain"]
"""Toy candidates in general position, all the same, or each with probability 1 for a class."""


class Declared(Mapping[Signal, Any]):
    """Read-only signals; asking for one that the strategy does not declare is an error, even through ``get``."""

    def __init__(self, signals: Mapping[Signal, Any]) -> None:
        self._signals = dict(signals)

    def __getitem__(self, signal: Signal) -> Any:
        if signal not in self._signals:
            raise AssertionError(f"read signal {signal!r}, but declared only {sorted(self._signals)}")
        return self._signals[signal]

    def __contains__(self, signal: object) -> bool:
        return signal in self._signals

    def __iter__(self) -> Iterator[Signal]:
        return iter(self._signals)

    def __len__(self) -> int:
        return len(self._signals)


def toy_signals(n: int, *, mood: Mood = "mixed", passes: int = 4, seed: int = 0) -> dict[Signal, Any]:
    """Every signal for n toy candidates: 3 classes, width 8, float32, not writable."""
    rng = stream(seed, "toy", mood, n)
    embedding = rng.normal(size=(1 if mood == "alike" else n, 8))
    logits = embedding @ rng.normal(size=(8, 3))
    mc_logits = logits + rng.normal(scale=0.3, size=(passes, len(logits), 3))
    if mood == "certain":
        logits, mc_logits = (np.where(z == z.max(-1, keepdims=True), 1e4, -1e4) for z in (logits, mc_logits))
    proba = softmax(logits, axis=1)
    residual = proba - (proba == proba.max(axis=1, keepdims=True))
    frozen = embedding[:, ::-1] + 0.1 * rng.normal(size=embedding.shape)

    def fixed(array: np.ndarray, axis: int = 0) -> np.ndarray:
        full = np.repeat(array, n, axis=axis) if mood == "alike" else array
        full = np.ascontiguousarray(full, dtype=np.float32)
        full.flags.writeable = False
        return full

    return {
        "proba": fixed(proba),
        "mc_proba": fixed(softmax(mc_logits, axis=2), axis=1),
        "embedding": fixed(embedding),
        "frozen_embedding": fixed(frozen),
        "name_similarity": fixed(np.tanh(0.1 * embedding[:, :3])),
        "gradient_embedding": (fixed(residual), fixed(embedding)),
    }


def toy_view(strategy: Strategy, n: int = 40, *, n_labelled: int = 12, mood: Mood = "mixed", seed: int = 0) -> View:
    """n toy candidates and some labelled examples, with the signals that the strategy declares and no others."""
    signals = toy_signals(n, mood=mood, passes=strategy.mc_passes or 4, seed=seed)
    labelled = toy_signals(n_labelled, mood=mood, passes=strategy.mc_passes or 4, seed=seed + 1)
    return View(
        n=n,
        signals=Declared({s: signals[s] for s in strategy.needs}),
        labelled=Declared({s: labelled[s] for s in strategy.needs_labelled}),
        n_labelled=n_labelled,
    )


def permuted(view: View, order: np.ndarray) -> View:
    """The same candidates in another order: the new position i holds what was at ``order[i]``."""

    def take(signal: Signal) -> Any:
        value = view.signals[signal]
        if isinstance(value, tuple):
            return tuple(factor[order] for factor in value)
        return value[:, order] if signal == "mc_proba" else value[order]

    return View(view.n, Declared({s: take(s) for s in view.signals}), view.labelled, view.n_labelled)


def check_selection(selection: Selection, n: int, k: int) -> None:
    """k distinct int64 positions in 0..n-1, and as many float64 scores."""
    positions, scores = selection.positions, selection.scores
    assert positions.shape == scores.shape == (k,), f"asked {k}, got {positions.shape} and {scores.shape}"
    assert positions.dtype == np.int64 and scores.dtype == np.float64, (positions.dtype, scores.dtype)
    assert len(np.unique(positions)) == k, f"positions repeat: {positions}"
    assert positions.min() >= 0 and positions.max() < n, f"positions outside 0..{n - 1}: {positions}"


class StrategyContract:
    """What holds for every strategy. Subclass it, name the subclass ``Test...``, and say what to test in ``make``."""

    @abstractmethod
    def make(self) -> Strategy:
        """The strategy under test."""

    def pick(self, view: View, k: int, seed: int = 0) -> Selection:
        return self.make().select(view, k, rng=stream(seed, "select", 0))

    @pytest.mark.parametrize("k", [1, 7, 40])
    @pytest.mark.parametrize("n_labelled", [0, 12])
    def test_picks_k_distinct_positions(self, k: int, n_labelled: int) -> None:
        check_selection(self.pick(toy_view(self.make(), n_labelled=n_labelled), k), 40, k)

    def test_one_candidate(self) -> None:
        assert self.pick(toy_view(self.make(), 1), 1).positions.tolist() == [0]

    @pytest.mark.parametrize("mood", ["alike", "certain"])
    @pytest.mark.parametrize("n_labelled", [0, 12])
    def test_duplicates_and_constant_probabilities(self, mood: Mood, n_labelled: int) -> None:
        view = toy_view(self.make(), mood=mood, n_labelled=n_labelled)
        for k in (1, 7, 40):
            check_selection(self.pick(view, k), 40, k)

    def test_refuses_impossible_sizes(self) -> None:
        for k in (0, 41):
            with pytest.raises(SpecError, match=f"1 to 40 examples.*got {k}"):
                self.pick(toy_view(self.make()), k)

    def test_same_stream_same_picks(self) -> None:
        view = toy_view(self.make())
        first, second = self.pick(view, 7), self.pick(view, 7)
        np.testing.assert_array_equal(first.positions, second.positions)
        np.testing.assert_array_equal(first.scores, second.scores)

    def test_leaves_global_random_state_alone(self) -> None:
        view = toy_view(self.make())
        before, numpy_before = random.getstate(), np.random.get_state(legacy=False)
        self.pick(view, 7)
        assert random.getstate() == before, "the state of `random` moved; draw from rng"
        np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)

    def test_ignores_global_seeds(self) -> None:
        view, numpy_before = toy_view(self.make()), np.random.get_state()
        picks = []
        for seed in (1, 2):
            np.random.seed(seed)
            picks.append(self.pick(view, 7).positions)
        np.random.set_state(numpy_before)
        np.testing.assert_array_equal(picks[0], picks[1])

    def test_permuting_the_candidates_permutes_the_picks(self) -> None:
        if not self.make().deterministic:
            pytest.skip("the strategy uses its generator")
        view, order = toy_view(self.make()), stream(0, "order").permutation(40)
        moved = order[self.pick(permuted(view, order), 7).positions]
        np.testing.assert_array_equal(moved, self.pick(view, 7).positions)

    def test_deterministic_means_no_draw(self) -> None:
        if not self.make().deterministic:
            pytest.skip("the strategy uses its generator")
        picks = [self.pick(toy_view(self.make()), 7, seed).positions for seed in (0, 1)]
        np.testing.assert_array_equal(picks[0], picks[1])

    def test_narrow_keeps_enough_candidates(self) -> None:
        strategy = self.make()
        for n, n_labelled, k in [(1, 0, 1), (40, 0, 7), (40, 12, 40), (30_000, 100, 50)]:
            kept, again = (strategy.narrow(n, n_labelled, k, rng=stream(0, "narrow", 0)) for _ in range(2))
            if kept is None:
                assert again is None
                continue
            assert len(np.unique(kept)) == len(kept) >= k, f"narrow kept {len(kept)} for a query of {k}"
            assert kept.min() >= 0 and kept.max() < n, f"narrow left 0..{n - 1}"
            np.testing.assert_array_equal(kept, again)

    def test_declares_what_exists(self) -> None:
        strategy = self.make()
        assert strategy.needs | strategy.needs_labelled <= set(get_args(Signal))
        assert strategy.tasks and strategy.tasks <= set(get_args(Task))
        assert (strategy.mc_passes > 0) == ("mc_proba" in strategy.needs), "mc_proba and mc_passes go together"

    def test_settings_survive_json(self) -> None:
        strategy = self.make()
        again = type(strategy).parse(strategy.model_dump(mode="json"))
        assert again == strategy and again.canonical() == strategy.canonical()
