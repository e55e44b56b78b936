"""Task-adaptive pretraining: what is hidden, what is learned, and that a stopped one ends as it would have."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import CONFIGS, ROOM, save_tiny, tokenizer
from transformers import BertConfig, BertForMaskedLM

from modicum.base.errors import BackboneError, SpecError
from modicum.base.training import FitJob, Pretraining, Training
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.masking import Masking
from modicum.engine.pretraining import MaskedLanguage, Pretrained, pretrain
from modicum.methods import METHODS
from modicum.testing.backbone import fake_backbone, toy_dataset

SPECIAL, MASK = 5, 4


def masking(rate: float = 0.15, whole_words: bool = False, size: int = 1000) -> Masking:
    special, continues = np.arange(size) < SPECIAL, np.arange(size) >= size // 2
    return Masking(special, continues, MASK, rate, whole_words)


# ---- what is hidden --------------------------------------------------------------------------------------------------


def test_rates_are_those_of_bert() -> None:
    ids = np.random.default_rng(0).integers(SPECIAL, 1000, 200_000)
    shown, told = masking().hide(ids, np.random.default_rng(1))
    assert told.mean() == pytest.approx(0.15, abs=0.004)
    assert (shown[told] == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (shown[told] == ids[told]).mean() == pytest.approx(0.1, abs=0.01)  # and 1 in 995 of the random ones
    changed = told & (shown != MASK) & (shown != ids)
    assert changed[told].mean() == pytest.approx(0.1, abs=0.01)
    assert shown[changed].min() >= SPECIAL and len(np.unique(shown[changed])) > 900
    assert np.array_equal(shown[~told], ids[~told])


def test_special_tokens_are_never_chosen() -> None:
    ids = np.tile(np.arange(10), 2000)
    _, told = masking(0.5).hide(ids, np.random.default_rng(0))
    assert not told[ids < SPECIAL].any() and told[ids >= SPECIAL].mean() == pytest.approx(0.5, abs=0.02)


def test_whole_words_go_together() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(SPECIAL, 1000, 100_000)
    ids[::50] = 2  # a special token parts words, even from a piece that would go on
    _, told = masking(whole_words=True).hide(ids, rng)
    goes_on = (ids >= 500) & (np.concatenate([[0], ids[:-1]]) >= SPECIAL)
    pairs = np.flatnonzero(goes_on)
    assert np.array_equal(told[pairs], told[pairs - 1])
    assert told[ids >= SPECIAL].mean() == pytest.approx(0.15, abs=0.01)


def test_pieces_are_known_by_their_marks() -> None:
    def tokenizer(*tokens: str) -> SimpleNamespace:
        known = {token: i for i, token in enumerate(("[PAD]", "[MASK]", *tokens))}
        return SimpleNamespace(mask_token_id=1, all_special_ids=[0, 1], get_vocab=lambda: known)

    def continues(*tokens: str) -> list[bool]:
        return Masking.of(tokenizer(*tokens), 2 + len(tokens), rate=0.1, whole_words=True).continues.tolist()[2:]

    assert continues("play", "##ing", "a") == [False, True, False]
    assert continues("Ġplay", "ing", "Ġa") == [False, True, False]
    assert continues("▁play", "ing") == [False, True]
    assert continues("Ġplay", "Ġa", "##", "ing") == [False, False, True, True]  # a byte-level token of two hashes
    with pytest.raises(BackboneError, match="where words begin"):
        continues("play", "ing")
    without = SimpleNamespace(mask_token_id=None)
    with pytest.raises(BackboneError, match="mask token"):
        Masking.of(without, 3, rate=0.1, whole_words=False)


# ---- what is learned -------------------------------------------------------------------------------------------------


def settings(objective: str = "mlm", **changes: object) -> Pretraining:
    return Pretraining(**{"objective": objective, "epochs": 3, "batch_size": 16, **changes})


def made(
    method: str = "lora", folder: Path | None = None, backbone: Backbone | None = None, **changes: object
) -> Pretrained:
    corpus = Corpus(backbone or fake_backbone(), toy_dataset(64), folder)
    return pretrain(corpus.backbone, corpus, METHODS.create(method), settings(**changes))


@pytest.mark.parametrize("objective", ["mlm", "simcse"])
@pytest.mark.parametrize("method", ["lora", "adapter", "prefix", "unipelt", "bitfit", "full", "peft:loha"])
def test_a_method_learns_from_texts_alone(method: str, objective: str) -> None:
    backbone = fake_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    done = made(method, backbone=backbone, objective=objective, epochs=8, learning_rate=5e-3, head_learning_rate=2e-2)
    assert len(done.losses) == 8 and done.losses[-1] < 0.97 * done.losses[0]
    fresh = Bank.fresh(backbone, METHODS.create(method), 1, [(0, 0)]).row(0).adapter
    assert done.adapter.keys() == fresh.keys()
    assert any(not torch.equal(done.adapter[name], fresh[name]) for name in fresh)
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_loss_is_that_of_transformers(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = BertForMaskedLM(BertConfig(**ROOM, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    with torch.no_grad():
        for p in plain.parameters():
            p.mul_(8)  # spread out, so that a token in the wrong place shows
    plain.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    backbone = Backbone.load(str(tmp_path), max_length=64, precision="fp32")
    corpus = Corpus(backbone, toy_dataset(24))
    bank = Bank.fresh(backbone, METHODS.create("lora"), 1, [(0, 0)])
    objective = MaskedLanguage(bank, corpus, settings(mask=0.5))
    assert objective.head_known
    shown: list[np.ndarray] = []
    told: list[np.ndarray] = []
    hide = objective.masking.hide

    def watched(ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        found = hide(ids, rng)
        shown.append(found[0])
        told.append(found[1])
        truth.append(ids)
        return found

    truth: list[np.ndarray] = []
    objective.masking = SimpleNamespace(hide=watched)  # type: ignore[assignment]
    loss = objective.loss(bank, np.arange(24), np.random.default_rng(0))
    # the row parts where a text begins: cut it there, and pad
    starts = np.flatnonzero(truth[0] == backbone.tokenizer.cls_token_id)
    assert len(starts) == 24 and 0 < told[0].sum() < len(told[0])
    inputs, labels = (
        torch.nn.utils.rnn.pad_sequence([torch.from_numpy(part) for part in np.split(row, starts[1:])], True, filler)
        for row, filler in ((shown[0].astype(np.int64), 0), (np.where(told[0], truth[0], -100).astype(np.int64), -100))
    )
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(part)) for part in np.split(shown[0], starts[1:])], True)
    expected = plain.eval()(input_ids=inputs, attention_mask=mask, labels=labels).loss
    assert loss is not None and loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_architecture_has_a_language_head(name: str, tmp_path: Path) -> None:
    backbone = Backbone.load(str(save_tiny(name, tmp_path)), max_length=64, precision="fp32")
    corpus = Corpus(backbone, toy_dataset(16))
    done = pretrain(backbone, corpus, METHODS.create("lora"), settings(epochs=1))
    assert np.isfinite(done.losses).all() and abs(done.losses[0] - np.log(backbone.config.vocab_size)) < 2


def test_the_head_is_tied_to_the_embeddings_that_the_method_moved() -> None:
    from modicum.base.rng import stream
    from modicum.engine.vocabulary import VocabularyHead

    backbone = fake_backbone()
    head = VocabularyHead(backbone, stream(0, "head"))
    table = backbone.model.get_input_embeddings().weight
    states = torch.randn(5, backbone.width)
    frozen, moved = head(states, {}), head(states, {"embeddings.word_embeddings.weight": 2 * table})
    bias = next(p for name, p in head.named_parameters() if p.shape == (1, len(table)))
    torch.testing.assert_close(moved - bias, 2 * (frozen - bias))
    assert not any(p.shape[1:] == table.shape for p in head.parameters())


def test_runs_begin_from_what_was_pretrained() -> None:
    backbone, data = fake_backbone(), toy_dataset(64)
    corpus, method = Corpus(backbone, data), METHODS.create("adapter")
    done = pretrain(backbone, corpus, method, settings(learning_rate=1e-2))
    job = FitJob(tuple(data.ids[i] for i in range(12)), data.labels[:12], 0, 0)
    frozen = METHODS.create("adapter", learning_rate=1e-12)  # nothing moves but the head
    engine = Engine(backbone, corpus, frozen, Training(steps=1), data.task, 3, start=done.adapter)
    for name, tensor in engine.fit([job])[0].weights.adapter.items():
        torch.testing.assert_close(tensor, done.adapter[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_stopped_pretraining_ends_as_it_would_have(method: str, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(epoch: int, loss: float) -> None:
        if epoch == 2:
            raise Stopped

    whole = made(method)
    corpus = Corpus(fake_backbone(), toy_dataset(64), tmp_path)
    with pytest.raises(Stopped):
        pretrain(corpus.backbone, corpus, METHODS.create(method), settings(), stop)
    told: list[int] = []
    again = pretrain(corpus.backbone, corpus, METHODS.create(method), settings(), lambda epoch, _: told.append(epoch))
    assert told == [3] and again.losses == whole.losses
    for name, tensor in whole.adapter.items():
        assert torch.equal(tensor, again.adapter[name])
    assert {path.suffix for path in tmp_path.glob("tapt-*")} == {".safetensors", ".lock"}


def test_methods_with_the_same_settings_are_kept_apart(tmp_path: Path) -> None:
    corpus = Corpus(fake_backbone(), toy_dataset(32), tmp_path)
    for name in ("adapter", "pfeiffer"):
        done = pretrain(corpus.backbone, corpus, METHODS.create(name, learning_rate=1e-3), settings(epochs=1))
        Bank.fresh(corpus.backbone, METHODS.create(name), 1, [(0, 0)]).begin_from(done.adapter)


def test_it_is_kept_by_content(tmp_path: Path) -> None:
    def forbidden(epoch: int, loss: float) -> None:
        raise AssertionError

    first = made(folder=tmp_path)
    corpus = Corpus(fake_backbone(), toy_dataset(64), tmp_path)
    again = pretrain(corpus.backbone, corpus, METHODS.create("lora"), settings(), forbidden)
    assert again.losses == first.losses and again.seconds == first.seconds
    for other in ({"mask": 0.3}, {"objective": "simcse"}, {"seed": 1}):
        with pytest.raises(AssertionError):
            pretrain(corpus.backbone, corpus, METHODS.create("lora"), settings(**other), forbidden)
    next(tmp_path.glob("tapt-*.safetensors")).write_bytes(b"damaged")
    with pytest.raises(AssertionError):
        pretrain(corpus.backbone, corpus, METHODS.create("lora"), settings(), forbidden)


def test_wrong_settings() -> None:
    with pytest.raises(SpecError, match="learns nothing inside the encoder"):
        made("head")
    with pytest.raises(SpecError, match="lower tapt's learning_rate"):
        made(learning_rate=1e30)
    with pytest.raises(SpecError, match="'mlm' or 'simcse'"):
        settings("cloze")
