"""The fake backbone and the toy data that plug-in authors test with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modicum.base.errors import SpecError
from modicum.engine.cache import Corpus
from modicum.testing.backbone import OWN, WORDS, fake_backbone, toy_dataset


def test_a_fake_backbone_is_a_real_one() -> None:
    backbone = fake_backbone()
    assert backbone.packed and backbone.dtype == torch.float32 and backbone.width == 16
    assert sum(p.requires_grad for p in backbone.model.parameters()) == 0
    assert {site.role for site in backbone.sites} >= {"query", "key", "value", "attention", "ffn_in", "ffn_out", "norm"}
    features = Corpus(backbone, toy_dataset(30)).features()
    assert features.shape == (30, 16) and len(np.unique(features.round(4), axis=0)) == 30


def test_its_weights_follow_from_its_arguments_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        made = []
        for seed in (5, 6):
            torch.manual_seed(seed)
            before = torch.random.get_rng_state()
            made.append(fake_backbone().fingerprint)
            assert torch.equal(before, torch.random.get_rng_state())
    assert made[0] == made[1]
    assert len({made[0], fake_backbone(seed=1).fingerprint, fake_backbone(layers=1).fingerprint}) == 3


def test_its_tokenizer_frames_texts_and_pairs() -> None:
    tokenizer = fake_backbone().tokenizer
    assert tokenizer("baba zozo nonsense")["input_ids"] == [2, 5, 200, 1, 3]
    pair = tokenizer("baba", "bade", return_token_type_ids=True)
    assert pair["input_ids"] == [2, 5, 3, 6, 3] and pair["token_type_ids"] == [0, 0, 0, 1, 1]


def test_toy_data_are_told_by_their_words() -> None:
    data = toy_dataset(60, classes=4, seed=2)
    assert data.classes == ("class-0", "class-1", "class-2", "class-3") and data.labels.tolist() == [0, 1, 2, 3] * 15
    for text, label in zip(data.texts(), data.labels.tolist(), strict=True):
        classes = {WORDS.index(word) // OWN for word in text.split()}
        assert label in classes and not classes & ({0, 1, 2, 3} - {label})
    assert toy_dataset(60, classes=4, seed=2).fingerprint == data.fingerprint != toy_dataset(60, classes=4).fingerprint


def test_toy_values_are_a_share_of_words() -> None:
    data = toy_dataset(60, classes=0)
    assert data.task == "regression" and data.labels.std() > 0.2
    for text, value in zip(data.texts(), data.labels.tolist(), strict=True):
        assert np.mean([WORDS.index(word) < OWN for word in text.split()]) == pytest.approx(value)


@pytest.mark.parametrize("classes", [1, 9, -1])
def test_impossible_toy_data_are_refused(classes: int) -> None:
    with pytest.raises(SpecError, match=f"toy data has 2 to 8 classes, or 0 for regression, got {classes}"):
        toy_dataset(10, classes)
