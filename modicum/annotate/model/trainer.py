"""The child that trains: ``python -m modicum.annotate.model.trainer PROJECT``, started and watched by the supervisor.

It is told what to do by JSON lines on its standard input ({"kind": "rank"} or {"kind": "train", "model": 3}), says what
it did in JSON lines on its standard output, and ends with its input, so that it never outlives the server. It reads the
database and never writes it; models and ranks are files that appear whole.

Audit items are never trained on. The curve is then about the very model that people see, at the price of a fifth of the
labels; training again without them for each measurement would cost every training twice. ``train_on_all`` makes the
model to take home, and for that one ``auto`` searches.
"""

from __future__ import annotations

import functools
import json
import math
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modicum.analysis.metrics import evaluate, kappa
from modicum.annotate.model.queue import keep_apart
from modicum.annotate.model.rounds import (
    CHECKED,
    COLD,
    FIRST,
    LARGE,
    UNKNOWN,
    Known,
    Plan,
    drawn,
    make_plan,
    read_known,
    too_few,
)
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Settings
from modicum.api.classifier import Classifier
from modicum.auto.recipes import AUTO
from modicum.base.errors import ModicumError, SpecError
from modicum.base.files import atomic_write
from modicum.base.rng import stream
from modicum.base.training import FitJob, many_sought
from modicum.base.types import Signal
from modicum.data.dataset import Dataset
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.fit import Fitted
from modicum.engine.memory import peak_memory_mb
from modicum.strategies import make_warm
from modicum.strategies.base import View

KEPT = 3
"""Models whose files are kept."""
SUGGESTION = np.dtype([("label", "<i2"), ("confidence", "<f2")])
SHOWN: frozenset[Signal] = frozenset({"proba", "embedding"})
"""What is always asked of a model, for suggestions and to keep near-duplicates apart; one pass gives both."""

Say = Callable[..., None]
"""Called with the kind of a message and its values."""


class Trainer:
    """Trains, scores and ranks for one project. say: hears of it. backbone: in place of the settings' (for tests)."""

    def __init__(self, folder: Path, say: Say, backbone: Backbone | None = None) -> None:
        self.folder, self.say, self.backbone = folder, say, backbone
        self._whole: Corpus | None = None

    # ---- before there is a model ---------------------------------------------------------------------------------

    def rank(self) -> None:
        """Write ``ranks/0.npy``, a cold start's order."""
        with closing(ProjectStore(self.folder, read_only=True)) as store:
            known = read_known(store)
            seed, warm = known.settings.seed, make_warm(known.settings.warm_strategy)
            free = drawn(known.free, COLD, stream(seed, "cold"))
            if not len(free):
                self.say("waiting", reason="every item has an answer")
                return
            self.say("started", stage="features", model=0)
            near = drawn(known.trainable, CHECKED, stream(seed, "cold-labelled")) if warm.needs_labelled else free[:0]
            corpus, rows = self._corpus(store, known, np.concatenate([free, near]), COLD)
        view, features = View(len(free), n_labelled=len(near)), None
        if warm.needs:
            features = np.asarray(corpus.features(self._progress("features", len(corpus))))[rows]
            ours: dict[Signal, Any] = {"frozen_embedding": features[: len(free)]}
            if "name_similarity" in warm.needs:
                ours["name_similarity"] = corpus.name_similarity(rows[: len(free)], known.settings.classes)
            view = View(len(free), ours, {"frozen_embedding": features[len(free) :]}, len(near))
        k = min(len(free), max(FIRST, 2 * known.settings.retrain_every))
        picked = warm.select(view, k, rng=stream(seed, "warm", 0)).positions
        order = keep_apart(_joined(corpus, rows[picked]), None if features is None else features[picked])
        self._write_rank(0, free[picked[order]])
        self.say("ranked", model=0, strategy=known.settings.warm_strategy)

    # ---- a model -------------------------------------------------------------------------------------------------

    def train(self, model: int) -> None:
        """Train on the labels as they are now; write ``models/<model>`` and ``ranks/<model>.npy``."""
        began = time.perf_counter()
        with closing(ProjectStore(self.folder, read_only=True)) as store:
            known = read_known(store)
            if (reason := too_few(known.labels[known.trainable], known.settings.classes)) is not None:
                self.say("waiting", reason=reason)
                return
            self.say("started", stage="training", model=model, labels=len(known.trainable))
            plan = make_plan(known, model - 1)
            corpus, rows = self._corpus(store, known, plan.texts, LARGE)
        job = self._job(known, corpus, rows[np.searchsorted(plan.texts, known.trainable)], plan.round)
        engine, classifier, fitted = self._fit(known.settings, corpus, job, search=False)
        scoring = time.perf_counter()
        proba, picks = self._look(engine, fitted, known, plan, rows)
        record = self._measured(known, plan, proba, model) | {
            "parameters": fitted.parameters,
            "steps": fitted.steps,
            "train_loss": fitted.loss,
            "fit_seconds": fitted.seconds,
            "score_seconds": time.perf_counter() - scoring,
            "seconds": time.perf_counter() - began,
            "peak_memory_mb": peak_memory_mb(engine.backbone.device),
            "candidates": len(plan.candidates),
            "seq": known.seq,
        }
        suggestions = np.zeros(len(known.labels), SUGGESTION)
        suggestions["label"] = UNKNOWN
        suggestions["label"][plan.looked], suggestions["confidence"][plan.looked] = proba.argmax(1), proba.max(1)
        self._write(model, classifier, suggestions, picks)
        plain = {k: v for k, v in record.items() if not isinstance(v, float) or math.isfinite(v)}
        plain |= {"method": known.settings.method.label, "strategy": known.settings.strategy.label}
        plain |= {"chosen": fitted.recipe} if fitted.recipe else {}
        self.say("trained", model=model, labels=len(job.ids), record=plain)

    def _fit(
        self, settings: Settings, corpus: Corpus, job: FitJob, search: bool = True
    ) -> tuple[Engine, Classifier, Fitted]:
        """search: whether ``auto`` looks for the best way to train, where the settings do not say."""
        options = settings.method.options
        if settings.method.name == AUTO:
            options = {"search": search, **options}
        backbone = settings.backbone if self.backbone is None else self.backbone
        classifier = Classifier(backbone, {"name": settings.method.name, **options}, seed=settings.seed)
        engine = classifier.engine(corpus.dataset, "classification", len(settings.classes))
        engine.corpus = corpus  # it has the tokens of trainings before
        fitted = engine.fit([job])[0]
        return engine, classifier.adopt(engine, fitted, settings.classes), fitted

    @staticmethod
    def _job(known: Known, corpus: Corpus, rows: np.ndarray, round_: int) -> FitJob:
        ids = tuple(corpus.dataset.ids[int(row)] for row in rows)
        sought = many_sought(int(known.sought[known.trainable].sum()), len(ids))
        return FitJob(ids, known.labels[known.trainable], known.settings.seed, round_, sought=sought)

    def _look(
        self, engine: Engine, fitted: Fitted, known: Known, plan: Plan, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(looked, classes) probabilities, and the items to label next, best first."""
        strategy, items, seed = plan.strategy, plan.candidates, known.settings.seed

        def at(chosen: np.ndarray) -> np.ndarray:
            return rows[np.searchsorted(plan.texts, chosen)]

        others = np.setdiff1d(plan.looked, items)
        told = self._progress("scoring", len(items) * (1 + strategy.mc_passes) + len(others), model=plan.round + 1)
        proba = np.zeros((len(plan.looked), engine.outputs), np.float32)
        proba[np.searchsorted(plan.looked, others)] = engine.scorer(fitted.weights).outputs(at(others), told)
        if not len(items):
            return proba, items
        signals_at = functools.partial(
            engine.signals, fitted.weights, mc_passes=strategy.mc_passes, seed=seed, round_=plan.round
        )
        signals = signals_at(at(items), strategy.needs | SHOWN, on_batch=told)
        labelled = signals_at(at(known.trainable), strategy.needs_labelled)
        proba[np.searchsorted(plan.looked, items)] = signals["proba"]
        view = View(len(items), signals, labelled, len(known.trainable))
        picked = strategy.select(view, plan.size, rng=stream(seed, "select", plan.round)).positions
        near = _joined(engine.corpus, at(known.trainable))
        order = keep_apart(_joined(engine.corpus, at(items[picked])), signals["embedding"][picked], near)
        return proba, items[picked[order]]

    def _measured(self, known: Known, plan: Plan, proba: np.ndarray, model: int) -> dict[str, Any]:
        """Quality on the audit items, and how far predictions have moved since the model before."""
        found: dict[str, Any] = {"audit": len(known.measured)}
        if len(known.measured):
            truth = known.labels[known.measured]
            found |= evaluate("classification", truth, proba[np.searchsorted(plan.looked, known.measured)])
        before = self.folder / "models" / str(model - 1) / "suggestions.npy"
        if before.is_file():
            earlier = np.load(before, allow_pickle=False)["label"][plan.sample].astype(np.int64)
            now = proba[np.searchsorted(plan.looked, plan.sample)].argmax(1)
            found |= {"changed": float(np.mean(earlier != now)), "kappa": kappa(earlier, now), "compared": len(now)}
        return found

    # ---- files ---------------------------------------------------------------------------------------------------

    def _corpus(self, store: ProjectStore, known: Known, items: np.ndarray, most: int) -> tuple[Corpus, np.ndarray]:
        """The texts of these items, and the row of each: all items where they are at most so many, and remembered."""
        backbone = self.backbone or self._backbone(known.settings)
        if len(known.labels) <= most:
            if self._whole is None:
                every = np.arange(len(known.labels))
                self._whole = Corpus(backbone, _dataset(store, every), self.folder / "cache")
            return self._whole, items
        return Corpus(backbone, _dataset(store, items)), np.arange(len(items))

    @staticmethod
    def _backbone(settings: Settings) -> Backbone:
        backbone: Backbone = Classifier(settings.backbone).loaded_backbone()
        return backbone

    def _write(self, model: int, classifier: Classifier, suggestions: np.ndarray, rank: np.ndarray) -> None:
        """The model's folder and its rank, each whole or not at all; old ones go."""
        models = self.folder / "models"
        new, final = models / f".{model}", models / str(model)
        for stale in (new, final):  # of a training that was cut short
            shutil.rmtree(stale, ignore_errors=True)
        classifier.save(new)
        with atomic_write(new / "suggestions.npy", "wb") as file:
            np.save(file, suggestions, allow_pickle=False)
        os.replace(new, final)
        self._write_rank(model, rank)
        for old in models.iterdir():
            if old.name.isdecimal() and int(old.name) <= model - KEPT:
                shutil.rmtree(old, ignore_errors=True)
                (self.folder / "ranks" / f"{old.name}.npy").unlink(missing_ok=True)

    def _write_rank(self, model: int, items: np.ndarray) -> None:
        with atomic_write(self.folder / "ranks" / f"{model}.npy", "wb") as file:
            np.save(file, items.astype(np.int32), allow_pickle=False)

    def _progress(self, stage: str, total: int, **values: Any) -> Callable[[int], None]:
        """A function to call with texts done; tells of it twice a second at most."""
        done, last = 0, time.monotonic()

        def advance(more: int) -> None:
            nonlocal done, last
            done += more
            if time.monotonic() - last >= 0.5:
                last = time.monotonic()
                self.say("progress", stage=stage, done=min(done, total), total=total, **values)

        return advance


def train_on_all(folder: Path, out: Path, backbone: Backbone | None = None) -> dict[str, Any]:
    """Train on all labels of a project, audit items too, and write the model; returns how many labels it has seen.

    Raises:
        SpecError: there are too few labels.
    """
    with closing(ProjectStore(folder, read_only=True)) as store:
        known = read_known(store)
        known = replace(known, audit=known.audit[:0])
        if (reason := too_few(known.labels[known.trainable], known.settings.classes)) is not None:
            raise SpecError(f"a model cannot be trained yet: {reason}")
        trainer = Trainer(folder, lambda kind, **values: None, backbone)
        corpus, rows = trainer._corpus(store, known, known.trainable, 0)
    _, classifier, fitted = trainer._fit(known.settings, corpus, trainer._job(known, corpus, rows, 0))
    classifier.save(out)
    return {"labels": len(rows), "steps": fitted.steps, "parameters": fitted.parameters}


def _dataset(store: ProjectStore, items: np.ndarray) -> Dataset:
    texts, pairs = store.texts(items.tolist())
    return Dataset.from_lists(texts, pairs=pairs, ids=items.tolist(), name="items", for_training=False)


def _joined(corpus: Corpus, rows: np.ndarray) -> list[str]:
    """Texts, each with its pair, to be compared."""
    texts, pairs = corpus.dataset.texts(rows), corpus.dataset.pairs(rows)
    return texts if pairs is None else [f"{text} {pair}" for text, pair in zip(texts, pairs, strict=True)]


# ---- the process -----------------------------------------------------------------------------------------------------


def work(trainer: Trainer, message: Mapping[str, Any]) -> None:
    """Do what a message asks for; whatever goes wrong is said, and the trainer stays."""
    deeds: dict[str, Callable[[], None]] = {"rank": trainer.rank, "train": lambda: trainer.train(int(message["model"]))}
    try:
        if message.get("kind") not in deeds:
            raise SpecError(f"the trainer takes {' or '.join(deeds)}, got {message!r}")
        deeds[message["kind"]]()
    except ModicumError as error:
        trainer.say("failed", error=str(error))
    except Exception as error:
        traceback.print_exc()
        trainer.say("failed", error=f"{type(error).__name__}: {error}; more in trainer.log")


def main(folder: str) -> None:
    """Serve the supervisor until it closes the input."""
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the server's, which then closes the input
    os.nice(10)  # and one thread fewer than there are cores, by the environment that the supervisor makes
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print goes to the log

    def say(kind: str, **values: Any) -> None:
        told.write(json.dumps({"kind": kind, **values}) + "\n")
        told.flush()

    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            wanted.put(line)
        os._exit(0)  # at once, also in the midst of a training: every file is whole or absent

    threading.Thread(target=listen, daemon=True).start()
    say("ready")
    trainer = Trainer(Path(folder), say)
    while True:
        work(trainer, json.loads(wanted.get()))


if __name__ == "__main__":
    main(sys.argv[1])
