"""Only the upper layers are tuned, and what lies below them is computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modicum.base.errors import SpecError
from modicum.base.training import FitJob, Training
from modicum.engine import cache
from modicum.engine.bank import Bank
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset

METHODS_AT_SITES = ["lora", "adapter", "bitfit", "ia3", "prefix", "unipelt", "full"]


def engine(method: str, folder: Path | None = None, **options: object) -> Engine:
    backbone, data = fake_backbone(layers=3), toy_dataset(40)
    corpus = Corpus(backbone, data, folder)
    made = METHODS.create(method, **options)
    return Engine(backbone, corpus, made, Training(steps=4, batch_size=8), data.task, len(data.classes))


def job(of: Engine, seed: int = 0) -> FitJob:
    data = of.corpus.dataset
    return FitJob(tuple(data.ids[i] for i in range(12)), data.labels[:12], seed, 0)


@pytest.mark.parametrize("method", METHODS_AT_SITES)
def test_a_pass_from_the_middle_ends_as_the_whole_pass(method: str) -> None:
    of = engine(method, adapt_layers="top:1")
    weights = of.fit([job(of)])[0].weights
    bank = Bank.stack(of.backbone, [weights])
    assert bank.lowest == 2
    scorer = of.scorer(weights)
    assert scorer.lower is not None
    short = scorer.outputs(np.arange(40))
    scorer.lower = None
    np.testing.assert_allclose(short, scorer.outputs(np.arange(40)), atol=1e-5)


def test_only_the_upper_layers_have_weights() -> None:
    every, top = (engine("lora", adapt_layers=name) for name in ("all", "top:1"))
    names = list(Bank.fresh(top.backbone, top.method, 3, [(0, 0)]).unstack()[0].adapter)
    assert names and all("/2/" in name for name in names)
    assert 3 * len(names) == len(Bank.fresh(every.backbone, every.method, 3, [(0, 0)]).unstack()[0].adapter)


def test_stacked_runs_equal_single_ones() -> None:
    of = engine("lora", adapt_layers="top:2")
    alone = [of.fit([job(of, seed)])[0].weights for seed in (0, 1)]
    for one, other in zip(alone, of.fit([job(of, 0), job(of, 1)]), strict=True):
        for name, tensor in one.adapter.items():
            torch.testing.assert_close(tensor, other.weights.adapter[name], atol=1e-5, rtol=1e-4)


def test_lower_layers_are_kept_on_disk_by_content(tmp_path: Path) -> None:
    of = engine("lora", tmp_path, adapt_layers="top:1")
    first = np.array(of.corpus.lower(2).states)
    again = engine("lora", tmp_path, adapt_layers="top:1").corpus.lower(2).states
    assert isinstance(again, np.memmap) and np.array_equal(first, again)
    assert first.shape == (len(of.corpus.tokens.ids), of.backbone.width)
    assert not np.array_equal(first, engine("lora", tmp_path, adapt_layers="top:2").corpus.lower(1).states)


def test_lower_layers_are_walked_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same end, in training and under dropout: what lies below has none."""
    of = engine("lora", adapt_layers="top:1")
    kept = of.fit([job(of, 0)])[0].weights
    wanted = frozenset({"mc_proba"})
    passes = of.signals(kept, np.arange(8), wanted, mc_passes=2)["mc_proba"]
    monkeypatch.setattr(cache, "ROOM", 0)
    again = engine("lora", adapt_layers="top:1")
    assert isinstance(again.corpus.lower(2), cache.Walk)
    for name, tensor in again.fit([job(again, 0)])[0].weights.adapter.items():
        torch.testing.assert_close(tensor, kept.adapter[name], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(again.signals(kept, np.arange(8), wanted, mc_passes=2)["mc_proba"], passes, atol=1e-5)


def test_tokens_are_memory_mapped(tmp_path: Path) -> None:
    fresh, kept = (engine("lora", tmp_path).corpus.tokens for _ in range(2))
    assert isinstance(kept.ids, np.memmap) and kept.types is None
    assert np.array_equal(fresh.ids, kept.ids) and np.array_equal(fresh.starts, kept.starts)


@pytest.mark.parametrize("name", ["top:0", "top", "bottom:2", "top:-1", "3"])
def test_a_wrong_setting_is_named(name: str) -> None:
    with pytest.raises(SpecError, match="adapt_layers"):
        METHODS.create("lora", adapt_layers=name)


def test_more_layers_than_there_are() -> None:
    of = engine("lora", adapt_layers="top:3")
    with pytest.raises(SpecError, match="more layers than 3"):
        of.fit([job(of)])
