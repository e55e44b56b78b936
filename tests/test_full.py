"""Full tuning moves the embeddings of the words that come up, and no others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from modicum.base.training import Training
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.fit import Fitted
from modicum.methods.full import Full, FullAdapter
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import as_padded, jobs_of, tensors_of

DATA = toy_dataset(40, 3)
TABLE = "adapter.weight.embeddings/word_embeddings/weight"


def fit(backbone: Backbone, **settings: object) -> tuple[Fitted, Engine]:
    training = Training(**{"epochs": 4, "batch_size": 8, "weight_decay": 0.0} | settings)  # type: ignore[arg-type]
    engine = Engine(backbone, Corpus(backbone, DATA), Full(learning_rate=1e-2), training, "classification", 3)
    return engine.fit(jobs_of(DATA, (12,)))[0], engine


@pytest.mark.parametrize("made", [fake_backbone, lambda: as_padded(fake_backbone())], ids=["packed", "padded"])
@pytest.mark.parametrize("until", ["fixed", "besov"])
def test_words_that_do_not_come_up_change_nothing(
    made: Callable[[], Backbone], until: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (narrowed, engine), (before, _) = fit(made(), until=until), fit(made(), steps=1, until="fixed")
    monkeypatch.setattr(FullAdapter, "narrow", lambda *_: None)
    whole, _ = fit(made(), until=until)
    own, expected = tensors_of(narrowed.weights), tensors_of(whole.weights)
    assert own.keys() == expected.keys() and narrowed.parameters == whole.parameters
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4)
    tokens = engine.corpus.tokens
    used = np.unique(tokens.ids[: tokens.starts[12]])
    others = np.setdiff1d(np.arange(len(own[TABLE])), used)
    frozen = engine.backbone.model.get_input_embeddings().weight  # type: ignore[operator]
    assert len(others) and torch.equal(own[TABLE][others], frozen[others])
    assert not torch.equal(own[TABLE][used], tensors_of(before.weights)[TABLE][used])


def test_words_that_no_label_holds_do_not_decay() -> None:
    fitted, engine = fit(fake_backbone(), weight_decay=0.5)
    others = np.setdiff1d(np.arange(1, engine.backbone.config.vocab_size), engine.corpus.tokens.ids)  # 0 pads
    frozen = engine.backbone.model.get_input_embeddings().weight  # type: ignore[operator]
    assert len(others) and torch.equal(tensors_of(fitted.weights)[TABLE][others], frozen[others])
