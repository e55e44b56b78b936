"""Task-adaptive pretraining: an adapter learns from a data set's texts alone, once, for all trials that begin there."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from modicum.base.errors import SpecError
from modicum.base.files import atomic_write
from modicum.base.rng import stream
from modicum.base.training import Pretraining
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank
from modicum.engine.cache import Corpus
from modicum.engine.masking import Masking
from modicum.engine.noise import Noise
from modicum.engine.optimizer import BankOptimizer, rate_factor
from modicum.engine.tiles import Batch, pack
from modicum.engine.vocabulary import VocabularyHead
from modicum.methods.base import Method

NEW_HEAD_RATE = 1e-3
"""Peak rate of a masked-language head that the encoder's files do not hold."""


@dataclass(frozen=True)
class Pretrained:
    """What a method learned from texts. adapter: its tensors, without the runs axis. losses: the mean of each epoch."""

    adapter: Mapping[str, Tensor]
    losses: tuple[float, ...]
    seconds: float


class Objective(ABC):
    """What pretraining minimises.

    head: parameters of its own, with a runs axis of one, that are not kept. head_known: whether they are pretrained.
    """

    head: nn.Module
    head_known = False

    @abstractmethod
    def loss(self, bank: Bank, positions: np.ndarray, rng: np.random.Generator) -> Tensor | None:
        """The mean loss of the texts at (n,) positions; None where there is nothing to learn."""


class MaskedLanguage(Objective):
    """Tells hidden tokens from what stands around them."""

    def __init__(self, bank: Bank, corpus: Corpus, settings: Pretraining) -> None:
        self.corpus, self.backbone = corpus, bank.backbone
        self.head = VocabularyHead(bank.backbone, stream(settings.seed, "tapt-head"))
        self.head_known = self.head.known
        self.masking = _masking(bank.backbone, settings)

    def loss(self, bank: Bank, positions: np.ndarray, rng: np.random.Generator) -> Tensor | None:
        batch = _packed(self.backbone, self.corpus, positions)
        device = self.backbone.device
        places = torch.from_numpy(batch.places)
        truth = batch.ids[0, places]
        shown, told = self.masking.hide(truth.numpy(), rng)
        if not told.any():
            return None
        batch.ids[0, places] = torch.from_numpy(shown)
        states = self.backbone.states(batch, adapter=bank.adapter, noise=Noise(batch, [rng], device))
        chosen = torch.from_numpy(told)
        logits = self.head(states[chosen.to(device)], bank.adapter.weights(self.backbone.dtype))
        return nn.functional.cross_entropy(logits.float(), truth[chosen].to(device))


class Contrastive(Objective):
    """Finds a text's other view, under other dropout and with other tokens hidden, among those of its batch (Gao et al.
    2021, equation 4)."""

    def __init__(self, bank: Bank, corpus: Corpus, settings: Pretraining) -> None:
        self.corpus, self.backbone, self.temperature = corpus, bank.backbone, settings.temperature
        self.head = nn.Module()
        self.masking = _masking(bank.backbone, settings) if settings.cutoff else None

    def loss(self, bank: Bank, positions: np.ndarray, rng: np.random.Generator) -> Tensor | None:
        if len(positions) < 2:
            return None
        batch = _packed(self.backbone, self.corpus, np.concatenate([positions, positions]))
        if self.masking is not None:
            places = torch.from_numpy(batch.places)
            ids = batch.ids[0, places].numpy()
            batch.ids[0, places] = torch.from_numpy(np.where(self.masking.choose(ids, rng), self.masking.mask, ids))
        noise = Noise(batch, [rng], self.backbone.device)
        pooled = self.backbone.encode(batch, adapter=bank.adapter, noise=noise)
        views = nn.functional.normalize(pooled[torch.from_numpy(np.argsort(batch.order)).to(pooled.device)], dim=1)
        one, other = views.chunk(2)
        return nn.functional.cross_entropy(one @ other.T / self.temperature, torch.arange(len(one)).to(one.device))


OBJECTIVES: dict[str, Callable[[Bank, Corpus, Pretraining], Objective]] = {
    "mlm": MaskedLanguage,
    "simcse": Contrastive,
}


def pretrain(
    backbone: Backbone,
    corpus: Corpus,
    method: Method,
    settings: Pretraining,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Pretrained:
    """Pretrain a method on a data set's texts, or load what was pretrained before.

    The corpus' folder keeps the result, and after each epoch all that is needed to go on from there, so that a run that
    was stopped ends as it would have. on_epoch: called with the number of epochs done and the last one's mean loss.

    Raises:
        SpecError: the method has nothing to learn inside the encoder, or it diverged.
        BackboneError: the backbone's tokenizer or architecture does not suit the objective.
    """
    kind = f"{type(method).__module__}.{type(method).__qualname__}"
    path = corpus.path("tapt", "safetensors", kind, method.canonical(), settings.canonical(), backbone.pooling)
    with FileLock(path.with_suffix(".lock")) if path else nullcontext():
        return _pretrained(path, backbone, corpus, method, settings, on_epoch)


def _pretrained(
    path: Path | None,
    backbone: Backbone,
    corpus: Corpus,
    method: Method,
    settings: Pretraining,
    on_epoch: Callable[[int, float], None] | None,
) -> Pretrained:
    if path is not None and (known := _read(path)) is not None:
        return Pretrained(known[0], tuple(known[1]["losses"]), known[1]["seconds"])
    bank = check_pretrainable(backbone, method, settings)
    objective = OBJECTIVES[settings.objective](bank, corpus, settings)
    rate = settings.learning_rate or method.learning_rate
    own = settings.head_learning_rate or (rate if objective.head_known else NEW_HEAD_RATE)
    bank.method = method.model_copy(update={"learning_rate": rate, "head_learning_rate": own})
    bank.head = objective.head.to(backbone.device)  # type: ignore[assignment]
    work = _Work(bank, objective, settings, len(corpus), path.with_suffix(".partial") if path else None)
    work.run(on_epoch)
    done = Pretrained(bank.adapter.exported(), tuple(work.losses), work.seconds)
    if path is not None:
        _write(path, done.adapter, {"losses": done.losses, "seconds": done.seconds})
        work.forget()
    return done


def check_pretrainable(backbone: Backbone, method: Method, settings: Pretraining) -> Bank:
    """A new run of the method.

    Raises:
        SpecError: it has nothing to learn inside the encoder, or is the mean of several that begin from it as it is.
        BackboneError: the tokenizer does not suit the objective.
    """
    name = type(method).__name__
    if method.parts:
        raise SpecError(f"the parts of {name} begin from the encoder as it is: leave tapt out, or name one method")
    bank = Bank.fresh(backbone, method, 1, [(settings.seed, 0)])
    if bank.frozen:
        raise SpecError(f"{name} learns nothing inside the encoder, so it cannot be pretrained: leave tapt out for it")
    if settings.objective == "mlm" or settings.cutoff:
        _masking(backbone, settings)
    return bank


def _masking(backbone: Backbone, settings: Pretraining) -> Masking:
    """What hides tokens for an objective."""
    vocabulary = len(backbone.model.get_input_embeddings().weight)  # type: ignore[operator]
    if settings.objective == "mlm":
        whole = settings.whole_words
        return Masking.of(backbone.tokenizer, vocabulary, rate=settings.mask, whole_words=whole)
    return Masking.of(backbone.tokenizer, vocabulary, rate=settings.cutoff, whole_words=False)


class _Work:
    """Epochs of pretraining. Each draws from streams of its own, so that it can begin after any other."""

    def __init__(self, bank: Bank, objective: Objective, settings: Pretraining, texts: int, path: Path | None) -> None:
        self.bank, self.objective, self.settings, self.path = bank, objective, settings, path
        self.optimizer = BankOptimizer(bank, weight_decay=settings.weight_decay, clip=settings.clip)
        self.texts = np.arange(texts)
        if settings.texts is not None and settings.texts < texts:
            self.texts = np.sort(stream(settings.seed, "tapt-texts").choice(texts, settings.texts, replace=False))
        self.losses: list[float] = []
        self.seconds = 0.0
        if path is not None and (known := _read(path)) is not None:
            self.optimizer.restore(known[0])
            self.losses, self.seconds = list(known[1]["losses"]), known[1]["seconds"]

    def run(self, on_epoch: Callable[[int, float], None] | None) -> None:
        """Take the epochs that are left."""
        for epoch in range(len(self.losses), self.settings.epochs):
            started = time.perf_counter()
            self.losses.append(self._epoch(epoch))
            self.seconds += time.perf_counter() - started
            if self.path is not None:
                _write(self.path, self.optimizer.state(), {"losses": self.losses, "seconds": self.seconds})
            if on_epoch is not None:
                on_epoch(epoch + 1, self.losses[-1])

    def forget(self) -> None:
        """What was kept on the way is not needed any more."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _epoch(self, epoch: int) -> float:
        settings, rng = self.settings, stream(self.settings.seed, "tapt", epoch)
        order = rng.permutation(self.texts)
        batches = [order[i : i + settings.batch_size] for i in range(0, len(order), settings.batch_size)]
        total, losses = len(batches) * settings.epochs, []
        for step, positions in enumerate(batches, epoch * len(batches)):
            loss = self.objective.loss(self.bank, positions, rng)
            if loss is None:
                continue
            loss.backward()
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                rate = self.bank.method.learning_rate
                raise SpecError(f"pretraining diverged (loss is not finite): lower tapt's learning_rate (now {rate:g})")
            self.optimizer.step([rate_factor(step / total, 1 / total, settings.warmup)])
        return float(np.mean(losses)) if losses else float("nan")


def _packed(backbone: Backbone, corpus: Corpus, positions: np.ndarray) -> Batch:
    runs = np.zeros(len(positions), np.int64)
    return pack(corpus.tokens, positions, runs, first_position=backbone.first_position)


def _write(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path, "wb") as file:
        file.write(save(held, {"modicum": json.dumps(told)}))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and what is told beside them; None where there is no such file, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["modicum"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
