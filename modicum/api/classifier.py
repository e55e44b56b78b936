"""A text classifier with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from modicum.analysis.metrics import evaluate
from modicum.api.backbones import shared_backbone
from modicum.api.texts import Texts, split_pairs
from modicum.auto.engine import (
    CHOSEN,
    LENGTH,
    Auto,
    AutoEngine,
    check_left_open,
    make_engine,
    make_method,
    make_one_method,
    trained_method,
)
from modicum.base.errors import DataError, SpecError
from modicum.base.spec import Choice
from modicum.base.training import FitJob, Pretraining, Training
from modicum.base.types import Signal, Task
from modicum.data.dataset import Dataset
from modicum.data.labels import check_present
from modicum.engine.backbone import Backbone, Pooling
from modicum.engine.cache import Corpus
from modicum.engine.engine import Engine
from modicum.engine.fit import Fitted
from modicum.engine.precision import Precision
from modicum.engine.pretraining import pretrain
from modicum.export.checkpoint import check_backbone, load_checkpoint, save_checkpoint
from modicum.export.peft import write_merged
from modicum.methods.base import Method

OnBatch = Callable[[int], None]
OnEpoch = Callable[[int, float], None]


class Classifier(ClassifierMixin, BaseEstimator):
    """Fine-tunes a pretrained encoder on few labels.

    backbone: ``minilm``, a folder, a name on the Hugging Face hub, or a loaded ``Backbone``.
    method: a name (see ``modicum methods``) or a table such as ``{"name": "lora", "rank": 4}``; ``auto`` chooses
    method, objective and length by the labels (``{"name": "auto", "minutes": 2}`` within so much time).
    training: settings of ``modicum.base.training.Training``, such as ``{"epochs": 30}``.
    tapt: task-adaptive pretraining on the texts before labels are looked at: ``mlm``, ``simcse``, or settings of
    ``modicum.base.training.Pretraining`` such as ``{"objective": "mlm", "epochs": 5}``.

    After ``fit``: ``classes_`` (k,) in sorted order (empty for regression), ``n_parameters_`` trained parameters, and
    ``chosen_``, what ``auto`` tried and why it chose what it chose (None for other methods).
    Labels that are floats with fractions make a regressor: ``predict`` then gives values.
    """

    def __init__(
        self,
        backbone: str | Backbone = "minilm",
        method: str | Mapping[str, Any] = "lora",
        *,
        seed: int = 0,
        training: Mapping[str, Any] | Training | None = None,
        tapt: str | Mapping[str, Any] | Pretraining | None = None,
        pooling: Pooling = "auto",
        max_length: int = 256,
        precision: Precision = "auto",
        device: str | None = None,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.seed = seed
        self.training = training
        self.tapt = tapt
        self.pooling = pooling
        self.max_length = max_length
        self.precision = precision
        self.device = device

    # ---- training ------------------------------------------------------------------------------------------------

    def fit(
        self,
        texts: Texts,
        labels: Sequence[Any] | np.ndarray,
        unlabelled: Texts | None = None,
        *,
        sought: bool = False,
    ) -> Self:
        """Train on n texts (or pairs of texts) and their labels, of which some classes may have one example only.

        unlabelled: more texts, which ``tapt`` and ``self_training`` learn from, too. sought: a third of the texts or
        more were chosen by what a model said of them, so that they are no random sample (matters where ``balanced``).

        Raises:
            DataError: texts or labels cannot be used; the message names the item.
            SpecError: wrong settings.
        """
        firsts, pairs = split_pairs(texts)
        # a file's class of one row is taken for a slip; here, among few labels drawn at random, it is none
        dataset = Dataset.from_lists(firsts, labels, pairs=pairs, name="the texts given", for_training=False)
        if dataset.task == "classification":
            counts = np.bincount(dataset.labels[dataset.is_labelled], minlength=len(dataset.classes))
            check_present(dataset.classes, counts, dataset.name)
        given = list(labels)
        more = None if unlabelled is None else self._with_more(dataset, firsts, pairs, unlabelled)
        self.fit_dataset(dataset, more, sought=sought)
        if dataset.task == "classification":
            firsts_of = [int(np.flatnonzero(dataset.labels == c)[0]) for c in range(len(dataset.classes))]
            self.classes_ = np.array([given[i] for i in firsts_of])
        return self

    def fit_dataset(
        self,
        dataset: Dataset,
        texts: Dataset | None = None,
        on_epoch: OnEpoch | None = None,
        *,
        sought: bool = False,
    ) -> Self:
        """Train on the labelled rows of a data set; sought: see ``fit``.

        texts: what ``tapt`` and ``self_training`` learn from, by default all rows of the data set, and with all of its
        labelled ones among them. on_epoch: called with the number of its epochs that are done and the last one's mean
        loss.
        """
        chosen = dataset.labelled_positions()
        if not len(chosen):
            raise SpecError(f"{dataset.name!r} has no labelled row to train on")
        self_training = self._training().self_training is not None
        shown = texts if texts is not None and self_training else dataset
        if not self_training and Pretraining.of(self.tapt) is None:
            shown = dataset.subset(chosen)  # nothing else is looked at, however many rows there are
        engine = self.engine(shown, dataset.task, len(dataset.classes) or 1)
        self.begin(engine, texts, on_epoch)
        ids = tuple(dataset.ids[int(i)] for i in chosen)
        fitted = engine.fit([FitJob(ids, dataset.labels[chosen], self.seed, 0, sought=sought)])[0]
        return self.adopt(engine, fitted, dataset.classes)

    def begin(self, engine: Engine, texts: Dataset | None = None, on_epoch: OnEpoch | None = None) -> None:
        """Let an engine's runs begin from what ``tapt`` makes of the texts, by default the engine's own."""
        if (settings := Pretraining.of(self.tapt)) is not None:
            make_one_method(self._method_choice())
            corpus = engine.corpus if texts is None else Corpus(engine.backbone, texts)
            engine.start = pretrain(engine.backbone, corpus, engine.method, settings, on_epoch).adapter

    def adopt(self, engine: Engine, fitted: Fitted, classes: Sequence[str]) -> Self:
        """Become the classifier that an engine has trained, alone, on this backbone with this method."""
        self.task_: Task = engine.task
        self.class_names_ = tuple(classes)
        self.classes_ = np.array(self.class_names_)
        self.weights_, self.n_parameters_, self.n_steps_ = fitted.weights, fitted.parameters, fitted.steps
        self.recipe_, self.paired_ = fitted.recipe, engine.corpus.dataset.paired
        self.chosen_ = engine.chosen[0] if isinstance(engine, AutoEngine) else None
        return self

    # ---- using ---------------------------------------------------------------------------------------------------

    def predict_proba(self, texts: Texts) -> np.ndarray:
        """(n, k) class probabilities, columns as in ``classes_``."""
        check_is_fitted(self, "weights_")
        if self.task_ == "regression":
            raise SpecError("this model predicts values, not classes: call predict")
        return self.outputs(self._plain(texts))

    def predict(self, texts: Texts) -> np.ndarray:
        """(n,) classes, or values for regression."""
        check_is_fitted(self, "weights_")
        outputs = self.outputs(self._plain(texts))
        return outputs if self.task_ == "regression" else self.classes_[outputs.argmax(1)]

    def score(self, texts: Texts, labels: Sequence[Any] | np.ndarray) -> float:
        """Accuracy, or the coefficient of determination for regression, as in scikit-learn."""
        predicted, truth = self.predict(texts), np.asarray(labels)
        if self.task_ == "classification":
            return float(np.mean(predicted == truth))
        return float(1 - np.sum((truth - predicted) ** 2) / np.sum((truth - truth.mean()) ** 2))

    def outputs(self, dataset: Dataset, on_batch: OnBatch | None = None) -> np.ndarray:
        """(n, k) probabilities or (n,) values of a data set's texts.

        Raises:
            SpecError: the model was trained on pairs of texts, and these are single ones, or the reverse.
        """
        self._check_kind(dataset)
        engine = self.engine(dataset, self.task_, self.weights_.outputs)
        return engine.scorer(self.weights_).outputs(np.arange(len(dataset)), on_batch)

    def signals(
        self, dataset: Dataset, positions: np.ndarray, needs: frozenset[Signal], mc_passes: int, round_: int = 0
    ) -> Mapping[Signal, Any]:
        """What a strategy needs to know about texts of a data set."""
        self._check_kind(dataset)
        engine = self.engine(dataset, self.task_, self.weights_.outputs)
        engine.classes = self.class_names_
        return engine.signals(self.weights_, positions, needs, mc_passes=mc_passes, seed=self.seed, round_=round_)

    def evaluate(self, dataset: Dataset, on_batch: OnBatch | None = None) -> dict[str, float]:
        """All metrics on the labelled rows of a data set."""
        known = dataset.subset(dataset.labelled_positions())
        if not len(known):
            raise DataError(f"{dataset.name!r} has no labelled row to evaluate on: name its label column")
        known = known.with_classes(self.class_names_) if self.task_ == "classification" else known
        return evaluate(self.task_, known.labels, self.outputs(known, on_batch))

    # ---- keeping -------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint: safetensors and JSON, and PEFT's format beside them where PEFT has the method."""
        check_is_fitted(self, "weights_")
        training, tapt = self._training().model_dump(mode="json"), Pretraining.of(self.tapt)
        method = trained_method(self._method_choice(), self.recipe_)
        save_checkpoint(
            Path(folder),
            self.loaded_backbone(),
            self.weights_,
            task=self.task_,
            classes=self.class_names_,
            method=(method.name, method.options),
            settings={
                "seed": self.seed,
                "training": training,
                "tapt": tapt and tapt.model_dump(mode="json"),
                "recipe": self.recipe_,
                "label_type": self.classes_.dtype.kind,
                "paired": self.paired_,
            },
        )

    def export(self, folder: str | Path) -> str:
        """Write a plain merged transformers model; returns the line of Python that reads its class logits."""
        check_is_fitted(self, "weights_")
        return write_merged(Path(folder), self.loaded_backbone(), self.weights_, self.class_names_)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        precision: Precision = "auto",
        device: str | None = None,
        backbone: Backbone | None = None,
    ) -> Self:
        """Read a checkpoint; the backbone's weights must be the ones that it was trained on.

        backbone: used in place of the one that the checkpoint names, if its weights are the same.
        """
        found = load_checkpoint(Path(folder))
        name, options = found.method
        model = cls(
            backbone if backbone is not None else found.backbone["name"],
            method={"name": name, **options} if options else name,
            seed=found.settings["seed"],
            training=found.settings["training"],
            tapt=found.settings.get("tapt"),
            pooling=found.backbone["pooling"],
            max_length=found.backbone["max_length"],
            precision=precision,
            device=device,
        )
        check_backbone(model.loaded_backbone(), found.backbone)
        model.task_, model.class_names_, model.weights_ = found.task, found.classes, found.weights
        model.recipe_, model.chosen_ = found.settings.get("recipe", ""), None
        model.paired_ = found.settings.get("paired")  # older checkpoints do not tell
        model.classes_ = _typed(found.classes, found.settings.get("label_type", "U"))
        model.n_parameters_ = sum(
            t.numel() for part in (found.weights.adapter, found.weights.head) for t in part.values()
        )
        return model

    # ---- parts ---------------------------------------------------------------------------------------------------

    def loaded_backbone(self) -> Backbone:
        """The backbone itself, loaded once per process."""
        if isinstance(self.backbone, Backbone):
            return self.backbone
        return shared_backbone(self.backbone, self.pooling, self.max_length, self.precision, self.device)

    def _method_choice(self) -> Choice:
        return Choice.of(self.method, "method")

    def checked(self) -> tuple[Method | Auto, Training]:
        """Method and training by these settings; wrong ones are told here, before a backbone is loaded."""
        method, training = make_method(self._method_choice()), self._training()
        Pretraining.of(self.tapt)
        if isinstance(method, Auto):
            check_left_open(training, (*CHOSEN, *LENGTH))
        return method, training

    def _training(self) -> Training:
        return self.training if isinstance(self.training, Training) else Training(**(self.training or {}))

    def engine(self, dataset: Dataset, task: Task, outputs: int) -> Engine:
        """What trains and scores on a data set with these settings; outputs: classes, or 1 for regression."""
        method, training = self.checked()
        backbone = self.loaded_backbone()
        return make_engine(backbone, Corpus(backbone, dataset), method, training, task, outputs)

    @staticmethod
    def _with_more(dataset: Dataset, firsts: list[str], pairs: list[str] | None, unlabelled: Texts) -> Dataset:
        """The data set's texts under its ids, and after them texts without a label."""
        more, more_pairs = split_pairs(unlabelled)
        if more and (pairs is None) != (more_pairs is None):
            raise SpecError("labelled and unlabelled texts must both be single texts, or both pairs")
        both = None if pairs is None else pairs + (more_pairs or [])
        return Dataset.from_lists(firsts + more, pairs=both, name="the texts given", for_training=False)

    def _check_kind(self, dataset: Dataset) -> None:
        if self.paired_ is not None and dataset.paired != self.paired_:
            kinds = ("single texts", "pairs of texts")
            wrong = f"this model was trained on {kinds[self.paired_]}, and these are {kinds[dataset.paired]}"
            raise SpecError(f"{wrong}: give it texts of its kind, with the columns named where they come from a file")

    @staticmethod
    def _plain(texts: Texts) -> Dataset:
        firsts, pairs = split_pairs(texts)
        return Dataset.from_lists(firsts, pairs=pairs, name="the texts given", for_training=False)


def _typed(names: Sequence[str], kind: str) -> np.ndarray:
    """Class names in the type of the labels that they were made from (a NumPy kind)."""
    if kind == "b":
        return np.array([name == "True" for name in names])
    return np.array(names).astype({"i": int, "u": int, "f": float}.get(kind, str))
