"""Every registered strategy keeps the contract; a new plug-in is covered as soon as it is registered."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from modicum.base.types import Signal
from modicum.strategies import STRATEGIES
from modicum.strategies.base import Selection, Strategy, View, check_k, unscored
from modicum.testing.strategies import StrategyContract


def every_name() -> list[str]:
    """All names, with the members that a family names in place of the family."""
    names = []
    for name in STRATEGIES.names():
        members = STRATEGIES.load(name).family_members() if name.endswith(":") else [""]
        names += [name + member for member in members]
    return names


class TestEveryStrategy(StrategyContract):
    @pytest.fixture(autouse=True, params=every_name())
    def _name(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param

    def make(self) -> Strategy:
        strategy: Strategy = STRATEGIES.create(self.name)
        return strategy


def test_families_are_expanded() -> None:
    assert {"random", "badge", "subsample:badge"} <= set(every_name())


class Broken(Strategy):
    """Breaks one clause of the contract, whichever ``fault`` names."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"embedding"})
    deterministic: ClassVar[bool] = True
    fault: str

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        if self.fault != "size":
            check_k(view, k)
        positions = np.argsort(view.signals["embedding"][:, 0])[:k]
        if self.fault == "repeat":
            positions[-1] = positions[0]
        elif self.fault == "undeclared":
            view.signals.get("proba")
        elif self.fault == "write":
            view.signals["embedding"][0] = 0
        elif self.fault == "global":
            positions = np.random.permutation(view.n)[:k]
        elif self.fault == "draw":
            positions = rng.permutation(view.n)[:k]
        elif self.fault == "order":
            positions = np.arange(k)
        return unscored(positions)


@pytest.mark.parametrize(
    ("fault", "test", "message"),
    [
        ("size", "test_refuses_impossible_sizes", "DID NOT RAISE"),
        ("undeclared", "test_same_stream_same_picks", "read signal 'proba', but declared only"),
        ("write", "test_same_stream_same_picks", "read-only"),
        ("global", "test_leaves_global_random_state_alone", "not equal"),
        ("global", "test_ignores_global_seeds", "not equal"),
        ("draw", "test_deterministic_means_no_draw", "not equal"),
        ("order", "test_permuting_the_candidates_permutes_the_picks", "not equal"),
    ],
)
def test_the_contract_catches_faults(fault: str, test: str, message: str) -> None:
    with pytest.raises(BaseException, match=message) as caught:
        getattr(contract_of(Broken(fault=fault)), test)()
    assert caught.type in (AssertionError, ValueError, pytest.fail.Exception)


def test_the_contract_catches_repeated_picks() -> None:
    with pytest.raises(AssertionError, match="positions repeat"):
        contract_of(Broken(fault="repeat")).test_picks_k_distinct_positions(7, 0)


def contract_of(strategy: Strategy) -> StrategyContract:
    class Contract(StrategyContract):
        def make(self) -> Strategy:
            return strategy

    return Contract()
