"""The contract that every method keeps, as a test class.

A plug-in's own tests subclass it::

    class TestMine(MethodContract):
        def make(self) -> Method:
            return Mine()

Every test trains a few steps on a backbone of a few thousand random weights: a class takes seconds on one core.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from modicum.base.errors import SpecError
from modicum.base.training import FitJob, Training
from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank, Weights
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.fit import Fitted, Run, Trainer
from modicum.engine.noise import Noise
from modicum.engine.objectives.cross_entropy import CrossEntropy
from modicum.engine.tiles import Batch, pack
from modicum.engine.tokens import Tokens, tokenize
from modicum.methods.base import Method
from modicum.testing.backbone import fake_backbone, toy_dataset

SHORT = Training(epochs=2, min_steps=4, batch_size=8)
CLASSES = 3


def as_padded(backbone: Backbone) -> Backbone:
    """This backbone, from now on as if its architecture could not take packed rows: no attention sites."""
    backbone.model.set_attn_implementation("eager")
    backbone.sites = [site for site in backbone.sites if site.role != "attention"]
    backbone.packed = False
    return backbone


def bytes_of(backbone: Backbone) -> dict[str, bytes]:
    """Every parameter and buffer of the encoder, bit by bit."""
    state = {**dict(backbone.model.named_parameters()), **dict(backbone.model.named_buffers())}
    return {name: t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for name, t in state.items()}


def jobs_of(dataset: Dataset, sizes: Sequence[int]) -> list[FitJob]:
    """One job a size: the first so many examples of the data, and a seed of its own."""
    ids = [dataset.ids.id_of(i) for i in range(max(sizes))]
    return [FitJob(tuple(ids[:size]), dataset.labels[:size], seed, round=1) for seed, size in enumerate(sizes)]


def row(tokens: Tokens, backbone: Backbone, runs: int = 1, repeats: int = 1) -> Batch:
    """All texts of a data set in one batch, ``repeats`` times, the copies going to ``runs`` runs in turn."""
    texts, owners = np.arange(len(tokens.lengths)), np.arange(repeats) % runs
    return pack(
        tokens,
        np.tile(texts, repeats),
        np.repeat(owners, len(texts)),
        first_position=backbone.first_position,
    )


def logits_of(weights: Weights, backbone: Backbone, tokens: Tokens) -> Tensor:
    """(texts, outputs) of a trained run without dropout, in the order of the texts."""
    return logits_in_order(Bank.stack(backbone, [weights]), row(tokens, backbone))


def logits_in_order(bank: Bank, batch: Batch) -> Tensor:
    """(texts, outputs) without dropout, in the order in which the texts were given."""
    with torch.inference_mode():
        return bank(batch).logits[torch.from_numpy(np.argsort(batch.order))]


def tensors_of(weights: Weights) -> dict[str, Tensor]:
    return {f"{part}.{name}": t for part in ("adapter", "head") for name, t in getattr(weights, part).items()}


class MethodContract:
    """What holds for every method. Subclass it, name the subclass ``Test...``, and say what to test in ``make``."""

    @abstractmethod
    def make(self) -> Method:
        """The method under test."""

    def backbone(self) -> Backbone:
        """What it is tested on; loaded anew for each test."""
        return fake_backbone()

    def formula(self, backbone: Backbone) -> int | None:
        """How many parameters the adapter of one run must have on this backbone; None where it is not known."""
        return None

    def engine(self, backbone: Backbone, training: Training = SHORT, method: Method | None = None) -> Engine:
        corpus = Corpus(backbone, self.data())
        return Engine(backbone, corpus, method or self.make(), training, "classification", CLASSES)

    def data(self) -> Dataset:
        return toy_dataset(36, CLASSES)

    def fit(self, sizes: Sequence[int] = (20,)) -> list[Fitted]:
        """Train runs with so many labels each, side by side where the method can."""
        engine = self.engine(self.backbone())
        return engine.fit(jobs_of(engine.corpus.dataset, sizes))

    def test_every_parameter_has_a_runs_axis(self) -> None:
        runs = 3 if self.make().stackable else 1
        bank = Bank.fresh(self.backbone(), self.make(), CLASSES, [(seed, 0) for seed in range(runs)])
        for name, p in bank.named_parameters():
            assert p.shape[0] == runs, f"{name} is {tuple(p.shape)}, but a bank of {runs} runs needs ({runs}, ...)"
            assert p.dtype == torch.float32, f"{name} is {p.dtype}: what is learned is kept in float32"

    def test_runs_start_from_their_own_seeds(self) -> None:
        if not self.make().stackable:
            pytest.skip("runs cannot be stacked")
        backbone = self.backbone()
        stacked = Bank.fresh(backbone, self.make(), CLASSES, [(0, 0), (1, 0)]).unstack()
        for seed, own in enumerate(stacked):
            alone = Bank.fresh(backbone, self.make(), CLASSES, [(seed, 0)]).unstack()[0]
            assert_same(tensors_of(own), tensors_of(alone))
        assert any(not torch.equal(t, tensors_of(stacked[1])[name]) for name, t in tensors_of(stacked[0]).items())

    def test_stacking_what_cannot_be_stacked_is_refused(self) -> None:
        if self.make().stackable:
            pytest.skip("runs can be stacked")
        with pytest.raises(SpecError, match="cannot be stacked"):
            Bank.fresh(self.backbone(), self.make(), CLASSES, [(0, 0), (1, 0)])

    def test_identity_at_the_start(self) -> None:
        if not self.make().identity_at_init:
            pytest.skip("the method does not start as the identity")
        backbone = self.backbone()
        batch = row(tokenize(self.data(), backbone.tokenizer, backbone.max_length), backbone)
        with torch.inference_mode():
            adapted = Bank.fresh(backbone, self.make(), CLASSES, [(0, 0)])(batch).pooled
            torch.testing.assert_close(adapted, backbone.encode(batch), atol=1e-5, rtol=1e-5)

    def test_the_backbone_does_not_change(self) -> None:
        backbone = self.backbone()
        before, engine = bytes_of(backbone), self.engine(backbone)
        fitted = engine.fit(jobs_of(engine.corpus.dataset, (12, 20)))[0]
        engine.signals(fitted.weights, np.arange(10), frozenset({"proba", "mc_proba", "embedding"}), mc_passes=2)
        after = bytes_of(backbone)
        changed = [name for name, was in before.items() if after[name] != was]
        assert not changed, f"training wrote to the frozen {', '.join(changed)}"

    def test_stacked_runs_equal_single_runs(self) -> None:
        """Trained with dropout, on other numbers of labels and so for other numbers of steps."""
        sizes = (9, 20, 34)
        stacked, backbone = self.fit(sizes), self.backbone()
        engine = self.engine(backbone)
        trainings = max(1, len(self.make().parts))
        assert [f.steps for f in stacked] == [4 * trainings, 6 * trainings, 10 * trainings]
        for job, together in zip(jobs_of(engine.corpus.dataset, sizes), stacked, strict=True):
            alone = engine.fit([job])[0]
            assert_same_model(together.weights, alone.weights, backbone, engine.corpus.tokens)
            np.testing.assert_allclose(together.dynamics.confidence, alone.dynamics.confidence, atol=1e-2)

    def test_saving_and_loading_gives_the_same_logits(self) -> None:
        backbone, other = self.backbone(), self.backbone()
        tokens, (job,) = tokenize(self.data(), backbone.tokenizer, backbone.max_length), jobs_of(self.data(), (20,))
        bank = Bank.fresh(backbone, self.make(), CLASSES, [(7, 7)])
        run = Run(job, np.arange(20), SHORT, "classification", CLASSES)
        weights = Trainer(bank, tokens, SHORT, "classification", CrossEntropy()).fit([run])[0].weights
        read = Weights(weights.method, weights.outputs, reread(weights.adapter), reread(weights.head))
        same = torch.equal(logits_in_order(bank, row(tokens, backbone)), logits_of(read, other, tokens))
        assert same, "the logits changed: something that was learned is not among the parameters"
        assert_same(tensors_of(Bank.stack(other, [read]).unstack()[0]), tensors_of(weights))

    def test_runs_keep_apart_in_one_pass(self) -> None:
        """Every text through every run of a bank is what that run alone makes of it."""
        if not self.make().stackable:
            pytest.skip("runs cannot be stacked")
        backbone = self.backbone()
        trained = [fitted.weights for fitted in self.fit((9, 20))]
        tokens = tokenize(self.data(), backbone.tokenizer, backbone.max_length)
        batch = row(tokens, backbone, runs=2, repeats=2)
        logits = logits_in_order(Bank.stack(backbone, trained), batch)
        for own, weights in zip(logits.split(len(tokens.lengths)), trained, strict=True):
            torch.testing.assert_close(own, logits_of(weights, backbone, tokens), atol=1e-5, rtol=1e-4)

    def test_gradients_reach_every_parameter(self) -> None:
        """After a few steps, for some tensors start at zero and hide others."""
        backbone = self.backbone()
        engine = self.engine(backbone)
        bank = Bank.stack(backbone, [engine.fit(jobs_of(engine.corpus.dataset, (20,)))[0].weights])
        batch = row(engine.corpus.tokens, backbone)
        targets = torch.from_numpy(engine.corpus.dataset.labels[batch.order])
        torch.nn.functional.cross_entropy(bank(batch).logits, targets).backward()
        without = [name for name, p in bank.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without, f"no gradient reaches {', '.join(without)}"

    def test_parameters_follow_the_formula(self) -> None:
        backbone = self.backbone()
        expected = self.formula(backbone)
        if expected is None:
            pytest.skip("no formula is given")
        for runs in (1, 2) if self.make().stackable else (1,):
            bank = Bank.fresh(backbone, self.make(), CLASSES, [(seed, 0) for seed in range(runs)])
            assert bank.trainable == expected + CLASSES * (backbone.width + 1)

    def test_it_learns(self) -> None:
        fast = self.make().model_copy(update={"learning_rate": 1e-2, "head_learning_rate": 1e-2})
        engine = self.engine(self.backbone(), Training(steps=60, batch_size=12), fast)
        fitted = engine.fit(jobs_of(engine.corpus.dataset, (36,)))[0]
        seen = fitted.dynamics.confidence.astype(np.float32)
        first, last = np.nanmean(seen[:2]), np.nanmean(seen[-4:])
        assert last > first + 0.05, f"the probability of the right class went from {first:.3f} to {last:.3f}"

    def test_the_same_job_gives_the_same_bits(self) -> None:
        assert_same(*(tensors_of(self.fit()[0].weights) for _ in range(2)))

    def test_leaves_global_random_state_alone(self) -> None:
        python, numpy, own = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
        backbone = self.backbone()
        engine = self.engine(backbone)
        fitted = engine.fit(jobs_of(engine.corpus.dataset, (20,)))[0]
        engine.signals(fitted.weights, np.arange(10), frozenset({"mc_proba"}), mc_passes=2)
        assert random.getstate() == python, "the state of `random` moved; draw from rngs"
        np.testing.assert_equal(np.random.get_state(legacy=False), numpy)
        assert torch.equal(torch.get_rng_state(), own), "torch's global generator moved; draw from rngs"

    def test_padded_batches_give_the_same_or_are_refused(self) -> None:
        backbone, padded = self.backbone(), as_padded(self.backbone())
        if self.make().needs_packed:
            with pytest.raises(SpecError, match="stands around attention"):
                Bank.fresh(padded, self.make(), CLASSES, [(0, 0)])
            return
        tokens = tokenize(self.data(), backbone.tokenizer, backbone.max_length)
        weights = self.fit()[0].weights
        expected = logits_of(weights, backbone, tokens)
        torch.testing.assert_close(logits_of(weights, padded, tokens), expected, atol=1e-4, rtol=1e-4)

    def test_padded_runs_do_not_depend_on_their_neighbours(self) -> None:
        """Their dropout, too: other runs' texts make the padding longer."""
        if self.make().needs_packed or not self.make().stackable:
            pytest.skip("the method works on packed rows or alone")
        engine = self.engine(as_padded(self.backbone()))
        jobs = jobs_of(engine.corpus.dataset, (9, 20))
        for job, together in zip(jobs, engine.fit(jobs), strict=True):
            alone = engine.fit([job])[0]
            assert_same_model(together.weights, alone.weights, engine.backbone, engine.corpus.tokens)

    def test_dropout_is_the_runs_own(self) -> None:
        """Without dropout two passes are the same; with it they differ, and repeat from the same generator."""
        backbone = self.backbone()
        tokens = tokenize(self.data(), backbone.tokenizer, backbone.max_length)
        bank, batch = Bank.fresh(backbone, self.make(), CLASSES, [(0, 0)]), row(tokens, backbone)

        def once(seed: int | None) -> Tensor:
            noise = None if seed is None else Noise(batch, [np.random.default_rng(seed)], backbone.device)
            with torch.inference_mode():
                return bank(batch, noise, 0.1).logits

        assert torch.equal(once(None), once(None)) and torch.equal(once(1), once(1))
        assert not torch.allclose(once(None), once(1)) and not torch.allclose(once(1), once(2))

    def test_settings_survive_json(self) -> None:
        method = self.make()
        again = type(method).parse(method.model_dump(mode="json"))
        assert again == method and again.canonical() == method.canonical()


def reread(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a safetensors file of these tensors holds."""
    return dict(load(save({name: tensor.contiguous() for name, tensor in tensors.items()})))


def assert_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Equal bit by bit."""
    assert first.keys() == second.keys()
    different = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    assert not different, f"{', '.join(different)} differ"


def assert_same_model(first: Weights, second: Weights, backbone: Backbone, tokens: Tokens) -> None:
    """Equal but for rounding, in their logits and in every tensor that has a say in them.

    Some have none: all keys of a text moved alike attract alike, so the gradient of a key's bias is nothing but
    rounding, of which AdamW makes whole steps. Such a tensor may differ if exchanging it leaves the logits alone.
    """
    logits, mine, theirs = logits_of(first, backbone, tokens), tensors_of(first), tensors_of(second)
    torch.testing.assert_close(logits, logits_of(second, backbone, tokens), atol=1e-4, rtol=1e-4)
    assert mine.keys() == theirs.keys()
    for name in first.adapter:
        if not torch.allclose(first.adapter[name], second.adapter[name], atol=2e-4, rtol=1e-3):
            mixed = replace(first, adapter={**first.adapter, name: second.adapter[name]})
            unmoved = torch.allclose(logits_of(mixed, backbone, tokens), logits, atol=1e-6, rtol=1e-5)
            assert unmoved, f"{name} differs by {(first.adapter[name] - second.adapter[name]).abs().max():.2g}"
    torch.testing.assert_close(dict(first.head), dict(second.head), atol=2e-4, rtol=1e-3)
