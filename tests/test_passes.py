"""What a pass computes depends neither on tiles nor on neighbours, nor on whether a run's change is in the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from tiny import CONFIGS, pooled_by, random_weights, save_tiny, sentences
from transformers import AutoModel

from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank, Output
from modicum.engine.noise import Noise
from modicum.engine.tiles import Batch, pack
from modicum.engine.tokens import tokenize
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone
from modicum.testing.methods import as_padded, bytes_of

WRITTEN = ("lora", "ia3", "bitfit", "full")
STANDING = ("prefix", "adapter", "pfeiffer", "unipelt")
STACKABLE = [name for name in METHODS.names() if not name.endswith(":") and METHODS.load(name).stackable]
TEXTS = sentences([1, 2, 5, 9, 14, 20, 31, 38])


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Backbone]]:
    def loaded(architecture: str, pooling: str) -> Backbone:
        folder = tmp_path_factory.mktemp(architecture)
        save_tiny(architecture, folder)
        return Backbone.load(str(folder), precision="fp32", max_length=40, pooling=pooling)  # type: ignore[arg-type]

    yield loaded


def row(backbone: Backbone, pairs: bool = False) -> Batch:
    data = Dataset.from_lists(TEXTS, pairs=TEXTS[::-1] if pairs else None, for_training=False)
    tokens = tokenize(data, backbone.tokenizer, backbone.max_length)
    return pack(tokens, np.arange(8), np.zeros(8, np.int64), first_position=backbone.first_position)


def bank_of(backbone: Backbone, method: str) -> Bank:
    return Bank.stack(backbone, [random_weights(backbone, METHODS.create(method), scale=0.1)])


def outputs(bank: Bank, batch: Batch, seed: int | None = None) -> Output:
    noise = None if seed is None else Noise(batch, [np.random.default_rng(seed)], bank.backbone.device)
    with torch.inference_mode():
        return bank(batch, noise, 0.1)


# -- settled -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra", "distilbert", "albert", "modernbert"])
@pytest.mark.parametrize("method", WRITTEN)
def test_settled_equals_unsettled(method: str, architecture: str, pooling: str, load: Callable[..., Backbone]) -> None:
    if (
        (method, architecture) == ("bitfit", "modernbert")
        or pooling == "pooler"
        and architecture
        not in (
            "bert",
            "roberta",
            "albert",
        )
    ):
        pytest.skip("it has no biases, or no pooler")
    backbone = load(architecture, pooling)
    bank, batch, before = bank_of(backbone, method), row(backbone, pairs=True), bytes_of(backbone)
    untouched = backbone.encode(batch)
    unsettled, dropped = outputs(bank, batch), outputs(bank, batch, seed=3)
    assert (unsettled.pooled - untouched).abs().max() > 0.01
    assert bank.settle() is bank
    for mine, expected in ((outputs(bank, batch), unsettled), (outputs(bank, batch, seed=3), dropped)):
        torch.testing.assert_close(mine.pooled, expected.pooled, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(mine.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert (dropped.pooled - unsettled.pooled).abs().max() > 0.01
    assert bytes_of(backbone) == before and torch.equal(backbone.encode(batch), untouched)


@pytest.mark.parametrize("method", WRITTEN)
def test_nothing_of_the_method_is_computed_when_settled(method: str) -> None:
    bank = bank_of(fake_backbone(), method).settle()
    batch = row(bank.backbone)
    before = outputs(bank, batch)
    with torch.no_grad():
        for p in bank.adapter.parameters():
            p.fill_(float("nan"))
    assert torch.equal(outputs(bank, batch).logits, before.logits)


@pytest.mark.parametrize("method", STANDING)
def test_what_is_no_weight_stays_where_it_stands(method: str) -> None:
    bank = bank_of(fake_backbone(), method)
    batch = row(bank.backbone)
    before, untouched = outputs(bank, batch), bank.backbone.encode(batch)
    assert bank.backbone.change(bank.method, bank.adapter.exported()) is None
    assert torch.equal(outputs(bank.settle(), batch).logits, before.logits)
    assert (before.pooled - untouched).abs().max() > 0.01


def test_what_cannot_be_settled_is_left_as_it_is() -> None:
    """Several runs have no weights in common; a padded backbone sees its maps otherwise; a head changes nothing."""
    backbone = fake_backbone()
    several = Bank.stack(backbone, [random_weights(backbone, METHODS.create("lora"), scale=s) for s in (0.1, 0.2)])
    padded = bank_of(as_padded(fake_backbone()), "lora")
    for bank in (several, padded, bank_of(backbone, "head")):
        batch = row(bank.backbone)
        before = outputs(bank, batch)
        assert torch.equal(outputs(bank.settle(), batch).logits, before.logits)


def test_settled_in_bf16_is_close() -> None:
    exact = bank_of(fake_backbone(), "lora")
    batch = row(exact.backbone)
    coarse = fake_backbone()
    coarse.model.to(torch.bfloat16)
    bank = bank_of(Backbone(coarse.model, coarse.tokenizer, name="bf16", fingerprint="", pooling="mean"), "lora")
    unsettled, settled = outputs(bank, batch).pooled, outputs(bank.settle(), batch).pooled
    expected = outputs(exact, batch).pooled
    assert (unsettled - expected).abs().max() < 0.1 and (settled - expected).abs().max() < 0.1
    assert settled.dtype == torch.float32 and not torch.equal(settled, expected)


# -- one pass ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", STACKABLE)
def test_a_runs_outputs_do_not_depend_on_tiles_and_neighbours(method: str, load: Callable[..., Backbone]) -> None:
    backbone, texts = load("bert", "first"), TEXTS
    both = [random_weights(backbone, METHODS.create(method), scale=scale) for scale in (0.1, 0.2)]
    alone = [pooled_by(Bank.stack(backbone, [weights]), texts).logits for weights in both]
    data = Dataset.from_lists(texts, for_training=False)
    tokens = tokenize(data, backbone.tokenizer, backbone.max_length)
    positions, owners = np.tile(np.arange(len(texts)), 2), np.repeat([0, 1], len(texts))
    for size, kinds in ((32, 2), (64, 1)):
        batch = pack(tokens, positions, owners, size=size, first_position=backbone.first_position)
        assert len(batch.sizes) == kinds
        with torch.inference_mode():
            logits = Bank.stack(backbone, both)(batch).logits[torch.from_numpy(np.argsort(batch.order))]
        torch.testing.assert_close(logits, torch.cat(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [None, "lora", "ia3", "bitfit"])
def test_maps_of_one_input_may_see_another(method: str | None, load: Callable[..., Backbone]) -> None:
    """Query, key and value are computed together; DeBERTa sends positions through some of them in between."""
    backbone = load("bert", "first")
    weights = random_weights(backbone, METHODS.create(method or "head"))
    adapter = Bank.stack(backbone, [weights]).adapter if method else None
    tokens = tokenize(Dataset.from_lists(sentences([5, 9]), for_training=False), backbone.tokenizer, 40)
    batch = pack(tokens, np.arange(2), np.zeros(2, np.int64))
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=(1, 32, 16)).astype(np.float32)).requires_grad_() for _ in "xy")
    maps = {n: backbone.model.get_submodule(f"encoder.layer.0.attention.self.{n}") for n in ("query", "key", "value")}
    asked = [("query", x), ("key", x), ("key", y), ("query", y), ("value", x), ("value", x), ("key", x)]

    def ask(name: str, given: torch.Tensor) -> torch.Tensor:
        with backbone._steps.during(backbone._pass_over(batch, 1, adapter, None)):
            return maps[name](given)

    alone = [ask(name, given) for name, given in asked]
    with backbone._steps.during(backbone._pass_over(batch, 1, adapter, None)):
        found = [maps[name](given) for name, given in asked]
    for mine, expected, (_, given) in zip(found, alone, asked, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
        gradients = [torch.autograd.grad(t.square().sum(), given, retain_graph=True)[0] for t in (mine, expected)]
        torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    if method is None:
        for mine, (name, given) in zip(found, asked, strict=True):
            plain = torch.nn.functional.linear(given, maps[name].weight, maps[name].bias)
            torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5)
    else:
        plain = torch.nn.functional.linear(y, maps["key"].weight, maps["key"].bias)
        assert (found[2] - plain).abs().max() > 0.01


# -- layer by layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_layers_are_those_of_each_text_alone(architecture: str, pooling: str, load: Callable[..., Backbone]) -> None:
    backbone = load(architecture, pooling)
    batch = row(backbone)
    plain = AutoModel.from_pretrained(backbone.folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        found, states = backbone.by_layer(batch), backbone.states(batch)
        for i, text in enumerate(batch.order):
            inputs = backbone.tokenizer(TEXTS[text], truncation=True, max_length=40, return_token_type_ids=False)
            ids = torch.tensor([inputs["input_ids"]])
            alone = plain(input_ids=ids, output_hidden_states=True).hidden_states
            expected = torch.stack([h[0].mean(0) if pooling == "mean" else h[0, 0] for h in alone])
            torch.testing.assert_close(found[:, i], expected, atol=2e-4, rtol=1e-3)
            own = states[torch.from_numpy(batch.text_of_token) == i]
            torch.testing.assert_close(own, alone[-1][0], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("method", [*WRITTEN, *STANDING, "peft:loha", "peft:prompt_tuning"])
def test_the_last_layer_is_what_the_run_encodes(method: str) -> None:
    backbone = fake_backbone()
    bank, batch = bank_of(backbone, method), row(backbone)
    with torch.inference_mode():
        every, pooled = bank.by_layer(batch), bank(batch).pooled
        assert every.shape == (3, 8, 16)
        torch.testing.assert_close(every[-1], pooled, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(bank.settle().by_layer(batch), every, atol=1e-4, rtol=1e-3)
