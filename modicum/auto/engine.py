"""``method = "auto"``: an engine that first chooses how to train, and then does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field
from torch import Tensor

from modicum.auto.recipes import AUTO, Recipe, Table, shipped_table
from modicum.auto.search import Chosen, choose
from modicum.base.errors import SpecError
from modicum.base.spec import Choice, Record, digest
from modicum.base.training import FitJob, Training, distinct
from modicum.base.types import Task
from modicum.engine.backbone import Backbone
from modicum.engine.cache import Corpus
from modicum.engine.calibration import at_temperature, calibrated
from modicum.engine.engine import Engine
from modicum.engine.fit import Fitted
from modicum.engine.objectives.base import majority
from modicum.methods import METHODS
from modicum.methods.base import Method

CHOSEN = ("objective", "head_start", "prototypes", "seconds")
"""What ``auto`` chooses beside the method, for which nothing else can be set."""
LENGTH = ("epochs", "min_steps", "steps")
"""What it chooses, too, and a study may set for other methods beside it."""
TIMED = 3
"""Steps by which the length of a training is told before it is done."""


class Auto(Record):
    """Chooses method, objective and length by cross-validation within the labels, weighed against the table's gains.

    minutes: the most that choosing and training may take; without, the number of labels says how far the search goes,
    and the choice is the same on every machine. search: off, what is known of other data decides alone. table: which
    recipes there are, as a hash; part of a trial's identity.
    """

    minutes: float | None = Field(default=None, gt=0)
    search: bool = True
    table: str = Field(default_factory=lambda: digest(shipped_table().model_dump(mode="json")))


def make_method(choice: Choice) -> Method | Auto:
    """The method that a choice names, ``auto`` being one."""
    if choice.name == AUTO:
        return Auto(**choice.options)
    method: Method = METHODS.create(choice.name, **choice.options)
    return method


def check_left_open(training: Training, names: Sequence[str]) -> None:
    """Refuse settings that ``auto`` chooses itself.

    Raises:
        SpecError: one of these names has another value than where nobody sets it.
    """
    usual = Training()
    if given := [name for name in names if getattr(training, name) != getattr(usual, name)]:
        raise SpecError(
            f"auto chooses {' and '.join(given)} itself: leave {'them' if given[1:] else 'it'} out, or name a method"
        )


def make_one_method(choice: Choice) -> Method:
    """As ``make_method``, for what must know its method beforehand.

    Raises:
        SpecError: the choice is ``auto``.
    """
    made = make_method(choice)
    if isinstance(made, Auto):
        raise SpecError("pretraining on texts is for one method, and 'auto' chooses it only then: name a method")
    return made


def trained_method(choice: Choice, recipe: str) -> Choice:
    """The method that a model was trained with: the choice itself, or that of the recipe that ``auto`` chose."""
    return next((known.method for known in shipped_table().recipes if recipe in (known.name, _plain(known))), choice)


def _plain(recipe: Recipe) -> str:
    """What a recipe is called where labels are values, and its objective is the usual one."""
    return recipe.method.label


def make_engine(
    backbone: Backbone,
    corpus: Corpus,
    method: Method | Auto,
    training: Training,
    task: Task,
    outputs: int,
    *,
    start: Mapping[str, Tensor] | None = None,
    test: Corpus | None = None,
) -> Engine:
    """What trains with a method, or with what ``auto`` chooses, which has no start; see ``Engine``."""
    if isinstance(method, Auto):
        return AutoEngine(backbone, corpus, method, training, task, outputs, test=test)
    return Engine(backbone, corpus, method, training, task, outputs, start=start, test=test)


class AutoEngine(Engine):
    """An engine that chooses a recipe for each job. chosen: what the last ``fit`` chose, a job each, in their order.

    training: what recipes do not say; the length of training, which they do, is for other methods beside this one.
    """

    def __init__(
        self,
        backbone: Backbone,
        corpus: Corpus,
        auto: Auto,
        training: Training,
        task: Task,
        outputs: int,
        *,
        test: Corpus | None = None,
        table: Table | None = None,
    ) -> None:
        check_left_open(training, CHOSEN)
        self.auto, self.table = auto, _for_task(table or shipped_table(), task)
        if not auto.search:
            self.table = self.table.without_search()
        first = self.table.recipes[0]
        super().__init__(
            backbone, corpus, make_one_method(first.method), first.over(training), task, outputs, test=test
        )
        self.asked = training
        self.chosen: list[Chosen] = []
        self._engines: dict[str, Engine] = {}

    def fit(self, jobs: Sequence[FitJob], on_fit: Callable[[int], None] | None = None) -> list[Fitted]:
        """Choose for each job, then train the jobs of one recipe side by side; results in the order of the jobs."""
        different, which = distinct(jobs)
        choices = [self.choose(job, 1 / len(different)) for job in different]
        found: dict[int, Fitted] = {}
        for name in dict.fromkeys(chosen.recipe.name for chosen in choices):
            mine = [i for i, chosen in enumerate(choices) if chosen.recipe.name == name]
            trained = self.by(choices[mine[0]].recipe).fit([different[i] for i in mine], on_fit)
            found |= dict(zip(mine, trained, strict=True))
        done = [
            _finished(found[i], job, chosen) for i, (job, chosen) in enumerate(zip(different, choices, strict=True))
        ]
        self.chosen = [choices[i] for i in which]
        return [done[i] for i in which]

    def choose(self, job: FitJob, share: float = 1.0) -> Chosen:
        """The recipe for these labels, within a share of the time that the settings allow."""
        if self.task == "regression":
            return Chosen(self.table.recipes[0], "the one for values", (), None)

        def cross_validate(recipe: Recipe, folds: int, repeat: int) -> tuple[np.ndarray, float]:
            said, seconds = self.by(recipe).out_of_fold([job], folds, repeat)
            return said[0], seconds[0]

        def cost(recipe: Recipe) -> float:
            return self.seconds_of_step(recipe, job) * self.by(recipe).training.total_steps(len(job.ids))

        limit = None if self.auto.minutes is None else 60 * self.auto.minutes * share
        return choose(job, self.table, cross_validate, limit, cost)

    def seconds_of_step(self, recipe: Recipe, job: FitJob) -> float:
        """What a step of training by a recipe takes, by a few of them."""
        whole = self.by(recipe)
        steps = min(TIMED, whole.training.total_steps(len(job.ids)))
        short = whole.training.model_copy(update={"steps": steps})
        (fitted,) = Engine(self.backbone, self.corpus, whole.method, short, self.task, self.outputs).fit([job])
        return fitted.seconds / steps

    def by(self, recipe: Recipe) -> Engine:
        """What trains by a recipe of the table."""
        if recipe.name not in self._engines:
            method, training = make_one_method(recipe.method), recipe.over(self.asked)
            self._engines[recipe.name] = Engine(
                self.backbone, self.corpus, method, training, self.task, self.outputs, test=self.test
            )
        return self._engines[recipe.name]


def _finished(fitted: Fitted, job: FitJob, chosen: Chosen) -> Fitted:
    """With the name and the cost of its recipe, and calibrated: by what cross-validation said, or as is usual."""
    spent = sum(tried.seconds for tried in chosen.tried)
    done = replace(fitted, recipe=chosen.recipe.name, seconds=fitted.seconds + spent)
    if fitted.temperature is not None or fitted.weights.prototypes > 1:
        return done
    if chosen.said is not None:
        return calibrated(done, chosen.said, job.targets)
    usual = chosen.recipe.temperature(fitted.weights.outputs)
    # the usual one is that of evener labels, where fewer texts are clear
    if usual == 1.0 or majority(job.targets, fitted.weights.outputs).any():
        return done
    return at_temperature(done, usual)


def _for_task(table: Table, task: Task) -> Table:
    """Recipes without what is for classes alone, where labels are values."""
    if task == "classification":
        return table
    of_classes = {"objective", "prototypes", "self_training", "calibrate", "balanced"}
    kept = [
        recipe.model_copy(
            update={
                "name": _plain(recipe),
                "cooling": None,
                "training": {k: v for k, v in recipe.training.items() if k not in of_classes},
            }
        )
        for recipe in table.recipes
        if recipe.training.get("head_start") != "prototypes"
    ]
    return Table(recipes=kept[:1], efforts=table.efforts)
