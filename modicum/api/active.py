"""Active learning from Python: ask for ids, tell labels, and a model is trained in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modicum.api.classifier import Classifier
from modicum.api.texts import Texts, split_pairs
from modicum.base.errors import SpecError, UnknownName
from modicum.base.spec import Choice
from modicum.base.types import ExampleId, Task
from modicum.data.dataset import Dataset
from modicum.engine.engine import Engine
from modicum.loop.learner import Learner, Pace
from modicum.loop.stopping import Stopping
from modicum.strategies import USUAL, make_warm
from modicum.study.prepare import make_strategy


class ActiveLearner:
    """Asks for the labels that help most.

    classes: the class names (not needed for regression, ``task="regression"``). strategy, warm_strategy: names, see
    ``modicum strategies``, or mappings with a name and its options; the warm one picks until there is a model. ids: the
    texts' own ids; made up where absent. Other options go to ``Classifier``.

    Once there are labels of two classes, ``ask`` trains on all labels told so far before it chooses;
    ``classifier`` is the model of the last training.
    """

    def __init__(
        self,
        texts: Texts,
        classes: Sequence[str] = (),
        *,
        ids: Sequence[ExampleId] | None = None,
        strategy: str | Mapping[str, Any] | None = None,
        warm_strategy: str | Mapping[str, Any] = "random",
        task: Task = "classification",
        seed: int = 0,
        **options: Any,
    ) -> None:
        if task == "classification" and len(set(classes)) < 2:
            raise SpecError(f"classes must name at least 2 different classes, got {list(classes)!r}")
        firsts, pairs = split_pairs(texts)
        self.dataset = Dataset.from_lists(firsts, pairs=pairs, ids=ids, name="the texts given", for_training=False)
        self.classes = tuple(map(str, classes))
        self._task: Task = task
        self._template = Classifier(seed=seed, **options)
        self._template.checked()
        self._engine: Engine | None = None
        choice = Choice.of(strategy or USUAL[task], "strategy")
        self.learner = Learner(
            list(self.dataset.ids),
            make_strategy(choice, task),
            warm=make_warm(warm_strategy, task),
            pace=Pace(warm_start=2, batch=1),
            stopping=Stopping(budget=len(self.dataset) + 2),  # ends when the pool is empty, not before
            seed=seed,
            name=choice.name,
        )
        self._model: Classifier | None = None
        self._trained_on: dict[ExampleId, Any] = {}

    @property
    def classifier(self) -> Classifier:
        """A classifier trained on all labels told so far; trained now, if labels came in since the last training."""
        self._train()
        if self._model is None:
            raise SpecError("there is no model yet: tell labels of at least two classes first")
        return self._model

    def ask(self, k: int) -> list[ExampleId]:
        """Ids of the k texts to label next; the same ones until they are answered."""
        if self.learner.open:
            return list(self.learner.open)
        self._train()
        wanted = self.learner.plan(k)
        if wanted.needs or wanted.needs_labelled:
            self.learner.see(
                self._signals(wanted.candidates, wanted), self._signals(wanted.labelled, wanted, labelled=True)
            )
        return list(self.learner.ask(k).ids)

    def tell(self, answers: Mapping[ExampleId, Any]) -> None:
        """Labels by id, of some or all ids asked for; None skips one; a labelled id is corrected.

        Raises:
            UnknownName: a label is none of the classes.
        """
        self.learner.tell({i: self._code(label) for i, label in answers.items()})

    def text(self, example: ExampleId) -> str:
        """The text behind an id."""
        return self.dataset.texts([self.dataset.ids.position_of(example)])[0]

    def _code(self, label: Any) -> int | float | None:
        if label is None or self._task == "regression":
            return None if label is None else float(label)
        if str(label) not in self.classes:
            raise UnknownName("class", str(label), self.classes)
        return self.classes.index(str(label))

    def _train(self) -> None:
        told = dict(self.learner.pool.labelled)
        if told == self._trained_on or len(set(told.values())) < 2:
            return
        engine = self._engine_for()
        fitted = engine.fit([self.learner.job()])[0]
        self._model = Classifier(**self._template.get_params()).adopt(engine, fitted, self.classes)
        self.learner.accept({"steps": fitted.steps, "train_loss": fitted.loss})
        self._trained_on = told

    def _engine_for(self) -> Engine:
        if self._engine is None:
            self._engine = self._template.engine(self.dataset, self._task, len(self.classes) or 1)
            self._engine.classes = self.classes
            self._template.begin(self._engine)
        return self._engine

    def _signals(self, ids: Sequence[ExampleId], wanted: Any, labelled: bool = False) -> Mapping[Any, Any]:
        needs = wanted.needs_labelled if labelled else wanted.needs
        if not needs:
            return {}
        engine = self._engine_for()
        weights = self._model.weights_ if self._model is not None else None
        positions = engine.positions(ids) if len(ids) else np.zeros(0, np.int64)
        return engine.signals(
            weights, positions, needs, mc_passes=wanted.mc_passes, seed=self.learner.seed, round_=wanted.round
        )
