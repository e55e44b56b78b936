"""A soup: what its parts learn alone, in one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modicum.api.classifier import Classifier
from modicum.base.errors import SpecError
from modicum.base.training import SelfTraining, Training
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset
from modicum.testing.methods import assert_same, jobs_of, tensors_of

BACKBONE, DATA = fake_backbone(), toy_dataset(36, 3)
TRAINING = Training(epochs=2, min_steps=6, batch_size=8)


def engine_of(name: str, training: Training = TRAINING, **options: Any) -> Engine:
    corpus = Corpus(BACKBONE, DATA)
    return Engine(BACKBONE, corpus, METHODS.create(name, **options), training, "classification", 3)


def test_it_is_the_mean_of_what_its_parts_learn_alone() -> None:
    jobs = jobs_of(DATA, (20, 12))  # each alone: what is trained side by side differs by rounding
    of = ["bitfit", {"name": "lora", "rank": 2}, "full"]
    alone = [engine_of(one["name"], rank=2) if isinstance(one, dict) else engine_of(one) for one in of]
    trained = [[engine.fit([job])[0] for job in jobs] for engine in alone]
    for soup, *parts in zip(engine_of("soup", of=of).fit(jobs), *trained, strict=True):
        states = [BACKBONE.merged(part.weights.method, part.weights.adapter) for part in parts]
        mixed = BACKBONE.merged(soup.weights.method, soup.weights.adapter)
        assert mixed.keys() == dict(BACKBONE.model.named_parameters()).keys()
        for name, tensor in mixed.items():
            torch.testing.assert_close(tensor, sum(state[name] for state in states) / 3)
        for name, tensor in soup.weights.head.items():
            torch.testing.assert_close(tensor, sum(part.weights.head[name] for part in parts) / 3)
        assert soup.steps == sum(part.steps for part in parts) and soup.parameters == parts[-1].parameters
        assert soup.loss == pytest.approx(np.mean([part.loss for part in parts]))


def test_what_trains_more_than_once_takes_soups_too() -> None:
    training = TRAINING.model_copy(update={"self_training": SelfTraining(texts=10, passes=2), "calibrate": 2})
    (job,) = jobs_of(DATA, (20,))
    (soup,) = engine_of("soup", training).fit([job])
    assert soup.temperature is not None and soup.steps > 2 * TRAINING.total_steps(20)
    assert_same(tensors_of(soup.weights), tensors_of(engine_of("soup", training).fit([job])[0].weights))


def test_it_is_saved_read_and_exported_as_one_model(tmp_path: Path) -> None:
    texts, labels = DATA.texts(), [DATA.classes[c] for c in DATA.labels]
    method = {"name": "soup", "of": ["bitfit", {"name": "full", "learning_rate": 1e-3}]}
    model = Classifier(BACKBONE, method, training={"steps": 6, "batch_size": 8}).fit(texts, labels)
    model.save(tmp_path / "m")
    again = Classifier.load(tmp_path / "m", backbone=BACKBONE)
    assert again.method == method
    np.testing.assert_array_equal(again.predict_proba(texts), model.predict_proba(texts))
    assert "logits" in model.export(tmp_path / "plain")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": ["full"]}, "at least 2"),
        ({"of": "full"}, "of is a list of methods"),
        ({"of": ["full", "prefix"]}, "what Prefix learns cannot be written as weights"),
        ({"of": ["full", "soup"]}, "a soup of soups is one soup"),
        ({"of": ["full", "bitfot"]}, "unknown method 'bitfot'"),
        ({"of": ["full", {"name": "lora", "rank": 0}]}, "LoRA: setting 'rank'"),
        ({"learning_rate": 0.1}, "learning_rate are the parts' own"),
        ({"adapt_layers": "top:1"}, "adapt_layers are the parts' own"),
    ],
)
def test_what_cannot_be_mixed_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        METHODS.create("soup", **options)


def test_it_begins_from_the_encoder_as_it_is() -> None:
    with pytest.raises(SpecError, match="begin from the encoder as it is: leave tapt out"):
        Classifier(BACKBONE, "soup", tapt="mlm").fit(DATA.texts(), list(DATA.labels))
