"""One pass over a pool: the signals asked for, in the order of the positions, and features kept between passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import random_weights

from modicum.base.rng import stream
from modicum.base.training import Training
from modicum.base.types import Signal
from modicum.data.dataset import Dataset
from modicum.engine import score
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.score import batches, encode_all
from modicum.engine.tokens import Tokens
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import logits_of

EVERY: frozenset[Signal] = frozenset({"proba", "embedding", "gradient_embedding"})
ORDER = np.random.default_rng(0).permutation(50)[:30]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return fake_backbone()


def engine_of(backbone: Backbone, method: str, data: Dataset | None = None, folder: Path | None = None) -> Engine:
    data = data or toy_dataset(50)
    corpus = Corpus(backbone, data, folder)
    return Engine(backbone, corpus, METHODS.create(method), Training(), data.task, len(data.classes) or 1)


@pytest.mark.parametrize("method", ["lora", "prefix", "head", "full"])
def test_signals_by_hand(backbone: Backbone, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of a tile each, results come in the order of the positions."""
    monkeypatch.setitem(score.TOKEN_BUDGET, "cpu", 40)
    engine = engine_of(backbone, method)
    weights = random_weights(backbone, engine.method)
    done: list[int] = []
    found: Any = engine.signals(weights, ORDER, EVERY, on_batch=done.append)
    proba = logits_of(weights, backbone, engine.corpus.tokens).softmax(1).numpy()[ORDER]
    assert found.keys() == EVERY and len(done) > 5 and sum(done) == 30
    np.testing.assert_allclose(found["proba"], proba, atol=1e-5)
    assert found["proba"].dtype == found["embedding"].dtype == np.float32
    head = {name: tensor.numpy() for name, tensor in weights.head.items()}
    logits = found["embedding"] @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), proba, atol=1e-5)


def test_gradient_embedding_is_the_last_layers_gradient(backbone: Backbone) -> None:
    """Of the loss at the predicted label, by autograd (BADGE, Ash et al. 2020, equation 1)."""
    engine = engine_of(backbone, "lora")
    weights = random_weights(backbone, engine.method)
    found: Any = engine.signals(weights, ORDER[:5], EVERY)
    residual, embedding = found["gradient_embedding"]
    for i in range(5):
        weight = weights.head["weight"].clone().requires_grad_()
        logits = torch.from_numpy(found["embedding"][i]) @ weight.T + weights.head["bias"]
        torch.nn.functional.cross_entropy(logits[None], logits.argmax()[None]).backward()
        np.testing.assert_allclose(np.outer(residual[i], embedding[i]), weight.grad.numpy(), atol=1e-5)  # type: ignore[union-attr]


def test_only_what_is_asked_for_is_computed(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(backbone, "lora")
    weights = random_weights(backbone, engine.method)
    passes: list[int] = []
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda *a, **k: passes.append(1) or encode(*a, **k))
    assert engine.signals(weights, ORDER, frozenset({"proba"})).keys() == {"proba"} and len(passes) == 1
    assert engine.signals(weights, ORDER, frozenset({"proba", "embedding"})).keys() == {"proba", "embedding"}
    assert len(passes) == 2
    engine.signals(weights, ORDER, frozenset({"mc_proba"}), mc_passes=3)
    assert len(passes) == 5
    assert engine.signals(None, ORDER, frozenset({"frozen_embedding"})).keys() == {"frozen_embedding"}


@pytest.mark.parametrize("method", ["lora", "head"])
def test_dropout_passes(backbone: Backbone, method: str) -> None:
    """Each pass is another draw; the same seed and round draw the same; their mean is near the model's own word."""
    engine = engine_of(backbone, method)
    weights = random_weights(backbone, engine.method)

    def passes(seed: int, round_: int) -> np.ndarray:
        needs: frozenset[Signal] = frozenset({"mc_proba"})
        return np.asarray(engine.signals(weights, ORDER, needs, mc_passes=20, seed=seed, round_=round_)["mc_proba"])

    first = passes(0, 0)
    assert first.shape == (20, 30, 3) and first.dtype == np.float32
    np.testing.assert_allclose(first.sum(2), 1, atol=1e-5)
    np.testing.assert_array_equal(first, passes(0, 0))
    assert all(np.abs(first - passes(*other)).max() > 0.01 for other in ((1, 0), (0, 1)))
    assert np.abs(first[0] - first[1]).max() > 0.01
    assert np.abs(first.mean(0) - engine.scorer(weights).outputs(ORDER)).mean() < 0.1


@pytest.mark.parametrize("budget", [1, 100, 2048])
def test_batches_cover_all_within_the_budget(backbone: Backbone, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One size of tiles a batch, and what is in it does not depend on the budget."""
    lengths = np.random.default_rng(1).integers(1, 300, 200)
    ids = np.repeat(np.arange(200), lengths).astype(np.int32)
    tokens = Tokens(ids, None, np.concatenate([[0], np.cumsum(lengths)]))
    monkeypatch.setitem(score.TOKEN_BUDGET, "cpu", budget)
    positions = np.random.default_rng(2).permutation(200)[:150]
    found = list(batches(backbone, tokens, positions))
    assert sorted(np.concatenate([where for where, _ in found]).tolist()) == list(range(150))
    for where, batch in found:
        ((_, tiles, _),) = batch.sizes
        assert batch.ids.shape[1] <= budget or tiles == 1
        np.testing.assert_array_equal(batch.ids[0, torch.from_numpy(batch.starts)], positions[where])
        np.testing.assert_array_equal(batch.lengths, lengths[positions[where]])


def test_nothing_to_score(backbone: Backbone) -> None:
    engine = engine_of(backbone, "lora")
    found: Any = engine.signals(random_weights(backbone, engine.method), np.zeros(0, np.int64), EVERY)
    assert found["proba"].shape == (0, 3) and found["embedding"].shape == (0, 16)


def test_regression_gives_values(backbone: Backbone) -> None:
    engine = engine_of(backbone, "lora", toy_dataset(50, classes=0))
    weights = random_weights(backbone, engine.method, outputs=1)
    values = engine.scorer(weights).outputs(ORDER)
    expected = logits_of(weights, backbone, engine.corpus.tokens)[:, 0].numpy()
    np.testing.assert_allclose(values, expected[ORDER], atol=1e-5)


def test_another_corpus_with_the_same_run(backbone: Backbone) -> None:
    """A test set: scored with its own texts, also by methods that work from features."""
    for method in ("lora", "head"):
        engine, other = engine_of(backbone, method), Corpus(backbone, toy_dataset(20, seed=1))
        weights = random_weights(backbone, engine.method)
        expected = logits_of(weights, backbone, other.tokens).softmax(1).numpy()
        np.testing.assert_allclose(engine.scorer(weights, other).outputs(np.arange(20)), expected, atol=1e-5)


# -- features --------------------------------------------------------------------------------------------------------


def test_features_are_the_untouched_backbones(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(score.TOKEN_BUDGET, "cpu", 40)
    engine, done = engine_of(backbone, "head"), list[int]()
    features = engine.corpus.features(done.append)
    assert features.shape == (50, 16) and features.dtype == np.float32 and sum(done) == 50 and len(done) > 5
    weights = random_weights(backbone, engine.method)
    pooled: Any = engine.signals(weights, ORDER, EVERY)["embedding"]
    np.testing.assert_array_equal(pooled, features[ORDER])
    found: Any = engine.signals(None, ORDER, frozenset({"frozen_embedding"}))["frozen_embedding"]
    np.testing.assert_array_equal(found, features[ORDER])


def test_features_are_remembered_on_disk(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Corpus(backbone, toy_dataset(50), tmp_path).features()
    monkeypatch.setattr("modicum.engine.cache.encode_all", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(Corpus(backbone, toy_dataset(50), tmp_path).features(), first)
    assert len(list(tmp_path.glob("features-*.npy"))) == 1 and {path.suffix for path in tmp_path.iterdir()} == {".npy"}


@pytest.mark.parametrize("other", ["data", "weights", "pooling", "length"])
def test_other_content_has_other_features(other: str, tmp_path: Path) -> None:
    Corpus(fake_backbone(), toy_dataset(50), tmp_path).features()
    backbone, data = fake_backbone(), toy_dataset(50)
    if other == "data":
        data = toy_dataset(50, seed=1)
    elif other == "weights":
        backbone = fake_backbone(seed=1)
    elif other == "pooling":
        backbone = fake_backbone(pooling="first")
    else:
        backbone.max_length = 5
    fresh = Corpus(backbone, data)
    np.testing.assert_array_equal(Corpus(backbone, data, tmp_path).features(), encode_all(backbone, fresh.tokens))
    assert len(list(tmp_path.glob("features-*"))) == 2


def test_a_damaged_cache_is_computed_again(backbone: Backbone, tmp_path: Path) -> None:
    first = np.array(Corpus(backbone, toy_dataset(50), tmp_path).features())
    (file,) = tmp_path.glob("features-*")
    for damage in (b"", b"nonsense", file.read_bytes()[:200]):
        file.write_bytes(damage)
        np.testing.assert_array_equal(Corpus(backbone, toy_dataset(50), tmp_path).features(), first)


def test_scoring_leaves_no_trace(backbone: Backbone) -> None:
    """Two scorers over one backbone, in turn, do not feel each other."""
    engine = engine_of(backbone, "lora")
    one, two = (random_weights(backbone, METHODS.create(name)) for name in ("lora", "prefix"))
    before = engine.scorer(one).outputs(ORDER)
    second = engine.scorer(two)
    second.signals(ORDER, frozenset({"mc_proba"}), mc_passes=1, rng=stream(0, "x"))
    np.testing.assert_array_equal(engine.scorer(one).outputs(ORDER), before)
