"""Every architecture: Modicum's outputs are the plain model's, its sites are named, it trains and is not written to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIGS, peft_twin, pooled_by, random_weights, reference, save_tiny, sentences
from transformers import AutoModel

from modicum.base.errors import BackboneError, SpecError
from modicum.base.training import Training
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank, Weights
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.fit import Fitted
from modicum.methods import METHODS
from modicum.testing.backbone import toy_dataset
from modicum.testing.methods import assert_same, assert_same_model, bytes_of, jobs_of, tensors_of

PADDED = {"mpnet", "deberta", "deberta-v2", "deberta-v3"}
ALONE = {"deberta", "deberta-v2", "deberta-v3"}
POOLERS = {"bert", "roberta", "xlm-roberta", "albert", "mpnet"}
LENGTHS = [1, 2, 3, 4, 6, 9, 14, 14, 20, 31, 38, 39, 60]
every_architecture = pytest.mark.parametrize("architecture", list(CONFIGS))


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folders: dict[str, str] = {}

    def folder(architecture: str) -> str:
        if architecture not in folders:
            folders[architecture] = str(save_tiny(architecture, tmp_path_factory.mktemp(architecture)))
        return folders[architecture]

    return folder


@pytest.fixture
def load(saved: Callable[[str], str]) -> Callable[..., Backbone]:
    def loaded(architecture: str, **settings: Any) -> Backbone:
        return Backbone.load(saved(architecture), **{"precision": "fp32", "max_length": 40, **settings})

    return loaded


def head_of(backbone: Backbone) -> Bank:
    return Bank.stack(backbone, [random_weights(backbone, METHODS.create("head"))])


def engine_of(backbone: Backbone, method: str, steps: int = 3, **options: Any) -> Engine:
    training = Training(steps=steps, batch_size=8)
    return Engine(
        backbone, Corpus(backbone, toy_dataset(24)), METHODS.create(method, **options), training, "classification", 3
    )


def train(backbone: Backbone, method: str, steps: int = 3, **options: Any) -> Fitted:
    engine = engine_of(backbone, method, steps, **options)
    return engine.fit(jobs_of(engine.corpus.dataset, (12,)))[0]


# -- outputs ---------------------------------------------------------------------------------------------------------


@every_architecture
@pytest.mark.parametrize("pooling", ["first", "mean", "pooler"])
def test_outputs_equal_the_padded_model(architecture: str, pooling: str, saved: Any, load: Any) -> None:
    """Texts of many lengths, one of them cut, in rows that are longer than the model has positions."""
    if pooling == "pooler" and architecture not in POOLERS:
        with pytest.raises(BackboneError, match="no pretrained pooler: use pooling 'mean' or 'first'"):
            load(architecture, pooling=pooling)
        return
    backbone, texts = load(architecture, pooling=pooling), sentences(LENGTHS)
    assert backbone.packed == (architecture not in PADDED)
    bank = head_of(backbone)
    out = pooled_by(bank, texts)
    plain = AutoModel.from_pretrained(saved(architecture), attn_implementation="eager").eval()
    expected = reference(plain, backbone, texts)[pooling]
    assert expected.std() > 0.1 and out.pooled.dtype == torch.float32
    torch.testing.assert_close(out.pooled, expected, atol=1e-4, rtol=1e-4)
    head = bank.head
    torch.testing.assert_close(out.logits, expected @ head.weight[0].T + head.bias[0], atol=1e-3, rtol=1e-4)


@every_architecture
def test_pairs_equal_the_padded_model(architecture: str, saved: Any, load: Any) -> None:
    backbone, first, second = load(architecture), sentences(LENGTHS), sentences(LENGTHS[::-1], seed=1)
    assert backbone.segmented == (architecture in {"bert", "electra", "albert"})
    plain = AutoModel.from_pretrained(saved(architecture), attn_implementation="eager").eval()
    expected = reference(plain, backbone, first, second)["first"]
    torch.testing.assert_close(pooled_by(head_of(backbone), first, second).pooled, expected, atol=1e-4, rtol=1e-4)


def test_segments_matter(load: Any) -> None:
    backbone, (one, two) = load("bert"), sentences([4, 5])
    bank = head_of(backbone)
    as_pair, as_one = pooled_by(bank, [one], [two]).pooled, pooled_by(bank, [f"{one} [SEP] {two}"]).pooled
    assert (as_pair - as_one).abs().max() > 0.01


@every_architecture
def test_longest_texts_fit(architecture: str, load: Any) -> None:
    """max_length is cut to the model's positions, whatever number they begin with."""
    backbone = load(architecture, max_length=512)
    assert backbone.max_length == 70
    assert torch.isfinite(pooled_by(head_of(backbone), sentences([200, 3])).pooled).all()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "albert"])
def test_prefix_beyond_the_positions_is_refused(architecture: str, load: Any) -> None:
    room = 59 if architecture == "roberta" else 61
    long, short = load(architecture, max_length=512), load(architecture, max_length=room)
    message = f"11 learned positions and a text of 70 tokens must fit into the 72 positions.*max_length {room} or less"
    prefix = METHODS.create("prefix", length=11)
    with pytest.raises(SpecError, match=message):
        pooled_by(Bank.fresh(long, prefix, 3, [(0, 0)]), sentences([200]))
    assert torch.isfinite(pooled_by(Bank.fresh(short, prefix, 3, [(0, 0)]), sentences([200])).pooled).all()


# -- sites -----------------------------------------------------------------------------------------------------------

BERT_LIKE = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "attention_output": "attention.output.dense", "ffn_in": "intermediate.dense", "ffn_out": "output.dense",
    "attention": "attention.self",
}  # fmt: skip
DEBERTA_LIKE = {
    role: f"{name}_proj" if role in ("query", "key", "value") else name
    for role, name in BERT_LIKE.items()
    if role != "attention"
}
NAMES: dict[str, tuple[str, dict[str, str]]] = {
    "bert": ("encoder.layer.1.", BERT_LIKE),
    "roberta": ("encoder.layer.1.", BERT_LIKE),
    "xlm-roberta": ("encoder.layer.1.", BERT_LIKE),
    "electra": ("encoder.layer.1.", BERT_LIKE),
    "distilbert": ("transformer.layer.1.", {
        "query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin",
        "attention_output": "attention.out_lin", "ffn_in": "ffn.lin1", "ffn_out": "ffn.lin2", "attention": "attention",
    }),
    "modernbert": ("layers.1.", {
        "qkv": "attn.Wqkv", "attention_output": "attn.Wo", "ffn_in": "mlp.Wi", "ffn_out": "mlp.Wo", "attention": "attn",
    }),
    "albert": ("encoder.albert_layer_groups.0.albert_layers.0.", {
        "query": "attention.query", "key": "attention.key", "value": "attention.value",
        "attention_output": "attention.dense", "ffn_in": "ffn", "ffn_out": "ffn_output", "attention": "attention",
    }),
    "mpnet": ("encoder.layer.1.", {
        "query": "attention.attn.q", "key": "attention.attn.k", "value": "attention.attn.v",
        "attention_output": "attention.attn.o", "ffn_in": "intermediate.dense", "ffn_out": "output.dense",
    }),
    "deberta": ("encoder.layer.1.", {
        "qkv": "attention.self.in_proj", "attention_output": "attention.output.dense", "ffn_in": "intermediate.dense",
        "ffn_out": "output.dense",
    }),
    "deberta-v2": ("encoder.layer.1.", DEBERTA_LIKE),
    "deberta-v3": ("encoder.layer.1.", DEBERTA_LIKE),
}  # fmt: skip
NORMS = {"modernbert": 5, "albert": 3, "deberta-v2": 6, "deberta-v3": 6}


@every_architecture
def test_sites_have_their_roles(architecture: str, load: Any) -> None:
    backbone = load(architecture)
    prefix, names = NAMES[architecture]
    last = 0 if architecture == "albert" else 1
    found = {s.role: s.name for s in backbone.sites if s.layer == last and s.role not in ("norm", "other")}
    assert found == {role: prefix + name for role, name in names.items()}
    for role in names:
        layers = [site.layer for site in backbone.sites if site.role == role]
        assert layers == list(range(last + 1)), f"{role} is at layers {layers}"
    assert sum(site.role == "norm" for site in backbone.sites) == NORMS.get(architecture, 5)
    assert all(site.layer == -1 for site in backbone.sites if site.name.startswith("embeddings"))


@every_architecture
def test_sites_have_their_sizes(architecture: str, load: Any) -> None:
    backbone = load(architecture)
    for site in backbone.sites:
        module: Any = backbone.model.get_submodule(site.name)
        if isinstance(module, torch.nn.Linear):
            assert (site.outputs, site.inputs) == tuple(module.weight.shape)
            assert site.bias == (module.bias is not None)
        else:
            narrow = site.name == "embeddings.LayerNorm" and architecture in ("electra", "albert")
            assert site.inputs == site.outputs == (8 if narrow else 16)
            assert site.heads == (2 if site.role == "attention" else 0)


# -- training --------------------------------------------------------------------------------------------------------


@every_architecture
def test_no_method_writes_to_the_backbone(architecture: str, load: Any) -> None:
    backbone = load(architecture)
    before = bytes_of(backbone)
    for name in METHODS.names():
        if name.endswith(":"):
            continue
        if METHODS.load(name).needs_packed and architecture in PADDED:
            with pytest.raises(SpecError, match=r"stands around attention, which .* use lora, adapter or bitfit"):
                train(backbone, name)
        elif name in ("bitfit", "soup") and architecture == "modernbert":
            with pytest.raises(SpecError, match="bitfit trains bias terms, and this backbone has none; choose lora"):
                train(backbone, name)
        else:
            assert np.isfinite(train(backbone, name).loss)
            assert bytes_of(backbone) == before, f"{name} wrote to the backbone"


@every_architecture
@pytest.mark.parametrize("method", ["lora", "bitfit"])
def test_loss_falls(architecture: str, method: str, load: Any) -> None:
    if (method, architecture) == ("bitfit", "modernbert"):
        pytest.skip("it has no biases")
    engine = engine_of(load(architecture), method, steps=120, learning_rate=2e-2, head_learning_rate=2e-2)
    own = jobs_of(engine.corpus.dataset, (12,))[0]
    fresh = Bank.fresh(engine.backbone, engine.method, 3, [(own.seed, own.round)]).unstack()[0]
    before, after = (
        -np.log(engine.scorer(weights).outputs(np.arange(12))[np.arange(12), own.targets]).mean()
        for weights in (fresh, engine.fit([own])[0].weights)
    )
    assert after < 0.8 * before, (before, after)


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "electra", "modernbert", "albert", "mpnet"])
@pytest.mark.parametrize("method", ["lora", "ia3", "adapter"])
def test_stacked_equals_single(architecture: str, method: str, load: Any) -> None:
    """With dropout, on packed and on padded rows."""
    check_stacked(load(architecture), method)


def check_stacked(backbone: Backbone, method: str) -> None:
    assert backbone.stackable
    engine = engine_of(backbone, method, steps=5)
    jobs = jobs_of(engine.corpus.dataset, (5, 12, 9))
    for own, together in zip(jobs, engine.fit(jobs), strict=True):
        assert_same_model(together.weights, engine.fit([own])[0].weights, backbone, engine.corpus.tokens)


@pytest.mark.parametrize("architecture", sorted(ALONE))
def test_backbones_that_share_maps_train_one_run_at_a_time(architecture: str, load: Any) -> None:
    """DeBERTa's maps also see embeddings of relative positions, which belong to no run."""
    backbone = load(architecture)
    assert not backbone.stackable
    with pytest.raises(SpecError, match="sends more than texts through its maps: build banks of one run"):
        Bank.fresh(backbone, METHODS.create("lora"), 3, [(0, 0), (1, 0)])
    engine = engine_of(backbone, "bitfit")
    jobs = jobs_of(engine.corpus.dataset, (5, 12))
    together, alone = engine.fit(jobs), [engine.fit([own])[0] for own in jobs]
    for first, second in zip(together, alone, strict=True):
        assert_same(tensors_of(first.weights), tensors_of(second.weights))


@pytest.mark.parametrize("method", ["full", "bitfit"])
@pytest.mark.parametrize("architecture", ["bert", "albert"])
def test_the_pooler_learns_with_the_rest(method: str, architecture: str, load: Any) -> None:
    backbone = load(architecture, pooling="pooler")
    fresh = Bank.fresh(backbone, METHODS.create(method), 3, [(0, 0)]).unstack()[0]
    options = {"learning_rate": 1e-2}
    trained = train(backbone, method, **options).weights
    name = next(n for n in trained.adapter if "pooler" in n and ("bias" in n or "offset" in n))
    assert (trained.adapter[name] - fresh.adapter[name]).abs().max() > 5e-3
    moved = Weights(trained.method, 3, {**trained.adapter, name: trained.adapter[name] + 1}, trained.head)
    texts = sentences([3, 5])
    outputs = [pooled_by(Bank.stack(backbone, [weights]), texts).pooled for weights in (trained, moved)]
    assert (outputs[1] - outputs[0]).abs().max() > 0.1


def test_stacked_runs_have_poolers_of_their_own(load: Any) -> None:
    check_stacked(load("bert", pooling="pooler"), "bitfit")


# -- parity with PEFT ------------------------------------------------------------------------------------------------


@every_architecture
@pytest.mark.parametrize(("method", "options"), [("lora", {"rank": 4, "alpha": 6}), ("ia3", {})])
def test_equal_to_peft(architecture: str, method: str, options: dict[str, int], saved: Any, load: Any) -> None:
    backbone, texts = load(architecture), sentences([1, 3, 8, 13, 21, 36])
    weights = random_weights(backbone, METHODS.create(method, **options))
    twin = peft_twin(saved(architecture), backbone, weights)
    mine = pooled_by(Bank.stack(backbone, [weights]), texts).pooled
    plain = pooled_by(head_of(backbone), texts).pooled
    assert (mine - plain).abs().max() > 0.1
    torch.testing.assert_close(mine, reference(twin, backbone, texts)["first"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta", "electra"])
def test_prefix_equal_to_peft(architecture: str, saved: Any, load: Any) -> None:
    """Positions are counted on from the prefix, as transformers does with keys and values of the past."""
    backbone, texts = load(architecture), sentences([1, 3, 8, 13, 21, 36])
    weights = random_weights(backbone, METHODS.create("prefix", length=5))
    twin = peft_twin(saved(architecture), backbone, weights)
    mine = pooled_by(Bank.stack(backbone, [weights]), texts).pooled
    assert (mine - pooled_by(head_of(backbone), texts).pooled).abs().max() > 0.1
    torch.testing.assert_close(mine, reference(twin, backbone, texts)["first"], atol=1e-4, rtol=1e-4)


# -- loading ---------------------------------------------------------------------------------------------------------


def damaged(folder: Path, harm: str) -> str:
    """A saved BERT with one thing wrong."""
    save_tiny("bert", folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif harm == "incomplete":
        save_file({n: t for n, t in load_file(weights).items() if "layer.1.output" not in n}, weights, {"format": "pt"})
    elif harm == "no config":
        config.unlink()
    elif harm == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    else:
        changes = {"shapes": {"hidden_size": 32}, "unknown": {"model_type": "bort"}, "no pooler": {}}[harm]
        config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    return str(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("cut", "cannot be loaded as an encoder: .*header"),
        ("incomplete", r"lacks the weights of encoder\.layer\.1\.output.*: its file is incomplete"),
        ("no config", "cannot be loaded as an encoder: Unrecognized model"),
        ("shapes", "cannot be loaded as an encoder"),
        ("unknown", "cannot be loaded as an encoder: .*`bort`"),
        ("no tokenizer", "has no tokenizer: .* needs one of tokenizer.json, vocab.txt"),
    ],
)
def test_damaged_folders_are_refused(harm: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=f"(?s)backbone .*{message}"):
        Backbone.load(damaged(tmp_path, harm), precision="fp32")


def test_a_random_pooler_is_not_used(tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path)
    weights = folder / "model.safetensors"
    save_file({n: t for n, t in load_file(weights).items() if "pooler" not in n}, weights, {"format": "pt"})
    with pytest.raises(BackboneError, match="has no pretrained pooler: use pooling 'mean' or 'first'"):
        Backbone.load(str(folder), precision="fp32", pooling="pooler")
    assert Backbone.load(str(folder), precision="fp32").pooling == "first"


def test_bf16_is_close_to_fp32(load: Any) -> None:
    texts = sentences(LENGTHS)
    exact, coarse = (pooled_by(head_of(load("bert", precision=p)), texts) for p in ("fp32", "bf16"))
    assert coarse.pooled.dtype == coarse.logits.dtype == torch.float32
    difference = (exact.pooled - coarse.pooled).abs().max()
    assert 1e-4 < difference < 0.15


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "deberta-v3"])
def test_plain_copy_shares_weights_and_is_plain(architecture: str, saved: Any, load: Any) -> None:
    backbone, texts = load(architecture), sentences([2, 7])
    twin: Any = backbone.plain_copy()
    assert {id(p) for p in twin.parameters()} == {id(p) for p in backbone.model.parameters()}
    twin.set_attn_implementation("eager")
    plain = AutoModel.from_pretrained(saved(architecture), attn_implementation="eager").eval()
    torch.testing.assert_close(
        reference(twin, backbone, texts)["mean"], reference(plain, backbone, texts)["mean"], atol=1e-5, rtol=1e-5
    )
    assert pooled_by(head_of(backbone), texts).pooled.shape == (2, 16)
