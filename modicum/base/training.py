"""How a model is trained: settings that are part of a trial's identity, and the jobs that loops hand to engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from modicum.base.errors import SpecError
from modicum.base.spec import Choice, Record
from modicum.base.types import ExampleId


class SelfTraining(Record):
    """A second training, on the labels and on those that the first one's model gave to unlabelled texts.

    The teacher looks at ``texts`` random unlabelled texts ``passes`` times under dropout. Of each class it thinks to
    see, the surest and steadiest are taken (by the mean probability and the mutual information of the passes, as in
    uncertainty-aware self-training: Mukherjee & Awadallah 2020; UPET, Wang et al. 2023), together at most ``ratio``
    times as many as there are labels (at least one), each with ``weight`` in the loss.
    """

    texts: int = Field(default=2000, ge=1)
    passes: int = Field(default=5, ge=2)
    ratio: float = Field(default=2.0, gt=0)
    weight: float = Field(default=0.3, gt=0, le=1)


class Training(Record):
    """AdamW with linear warm-up and decay, clipped per run.

    A run takes ``epochs`` passes over its labels, but never fewer than ``min_steps`` steps, so that 50 labels are
    trained as well as 1,000; ``steps`` or ``seconds`` set the length outright.

    batch_size: texts a step. warmup: share of the steps. weight_decay: AdamW's. clip: largest gradient norm.
    seconds: stop after so many seconds of training (the result then depends on the machine).
    balanced: weight each class by 1 / its frequency; and where many labels were sought, and four fifths are of one
    class, let the others beat that one by its log-odds (``majority_margin``). head_dropout: before the head.

    until: what may end a run before that. ``fixed``: nothing. ``loss-plateau``: the loss of an epoch has not fallen by
    a share ``tolerance`` for ``patience`` epochs. ``besov``: the mean Besov index of the layers' representations of the
    labelled texts has not risen for ``patience`` epochs; the model of its peak is kept (BEAST, Jukić & Šnajder 2023b).
    ``oracle-test``: the same with the metric on the test set, a diagnostic that no practice can follow. Under a rule
    the rate does not decay, and no epoch before ``least_epochs`` counts. A method that leaves the encoder as it is has
    no layers to judge, and runs to its end.
    drop_forgotten: train a second time without the examples that the first training forgot so often.

    objective: what is minimised, a name or a table (see ``modicum objectives``); cross-entropy for classes and
    squared error for values where absent. head_start: what the head begins as: ``new`` random numbers; ``probe``, the
    linear probe of the encoder as it is (LP-FT, Kumar et al. 2022); ``prototypes``, distances to the classes' means
    (Snell et al. 2017). prototypes: maps a class in the head; several let a class lie in several places.
    self_training: train a second time, on unlabelled texts too. calibrate: divide the logits by the temperature that
    suits what models of so many folds say of the labels they did not see (Guo et al. 2017); 0 leaves it out.
    """

    epochs: int = Field(default=15, ge=1)
    min_steps: int = Field(default=100, ge=1)
    batch_size: int = Field(default=32, ge=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    steps: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    balanced: bool = False
    head_dropout: float = Field(default=0.1, ge=0, lt=1)
    until: Literal["fixed", "loss-plateau", "besov", "oracle-test"] = "fixed"
    patience: int = Field(default=3, ge=1)
    tolerance: float = Field(default=0.01, ge=0, lt=1)
    least_epochs: int = Field(default=5, ge=1)
    drop_forgotten: int | None = Field(default=None, ge=1)
    objective: Choice | None = None
    head_start: Literal["new", "probe", "prototypes"] = "new"
    prototypes: int = Field(default=1, ge=1)
    self_training: SelfTraining | None = None
    calibrate: int = Field(default=0, ge=0)

    @field_validator("calibrate")
    @classmethod
    def _folds(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("cross-validation needs 2 folds or more, and 0 leaves calibration out")
        return folds

    @field_validator("objective", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Choice | None:
        return None if value is None else Choice.restored(value, "objective")

    @field_validator("self_training", mode="before")
    @classmethod
    def _wanted(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        for name in ("drop_forgotten", "self_training", "calibrate"):
            if self.seconds is not None and getattr(self, name):
                raise ValueError(f"{name} trains more than once, so it cannot go with seconds: leave one of them out")
        if self.calibrate and self.prototypes > 1:
            raise ValueError("a head with several prototypes a class cannot be calibrated: take prototypes = 1")
        if self.head_start == "probe" and self.prototypes > 1:
            raise ValueError("a probe is one map a class: take head_start = 'prototypes', or prototypes = 1")
        return self

    @property
    def recipe(self) -> str:
        """In a few words, what departs from a head of random numbers and the task's usual objective; "" for nothing."""
        parts = [self.objective.label] if self.objective is not None else []
        parts += [f"{self.head_start} head"] if self.head_start != "new" else []
        parts += [f"{self.prototypes} prototypes a class"] if self.prototypes > 1 else []
        parts += ["self-training"] if self.self_training is not None else []
        return " + ".join(parts)

    def total_steps(self, labels: int) -> int:
        """Steps of a run with so many labels."""
        if self.steps is not None:
            return self.steps
        return max(self.min_steps, self.epochs * -(-labels // self.batch_size))


class Pretraining(Record):
    """Task-adaptive pretraining: a method learns from the texts alone before it sees labels (Gururangan et al. 2020).

    objective: ``mlm``, masked language modelling (Devlin et al. 2019: of the chosen tokens 80 % are masked, 10 % become
    random ones, 10 % stay), or ``simcse``, by which two views of a text under dropout find each other in their batch
    (Gao et al. 2021). mask: share of tokens, or of words if ``whole_words``, that is chosen. temperature: of simcse.
    cutoff: share of each view's tokens that the mask stands for (after the token cutoff of Yan et al. 2021, who zero
    them); 0 is simcse as published, which leaves next to nothing to learn to an encoder that was trained contrastively.
    learning_rate: peak rate; the method's own where absent. head_learning_rate: of the masked-language head, which is
    the encoder's own where its files hold one; ``learning_rate`` then, and 1e-3 for a new head. texts: at most so many
    random ones. seed: one pretraining serves all trials.
    """

    objective: Literal["mlm", "simcse"] = "mlm"
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=2)
    mask: float = Field(default=0.15, gt=0, lt=1)
    whole_words: bool = False
    temperature: float = Field(default=0.05, gt=0)
    cutoff: float = Field(default=0.2, ge=0, lt=1)
    learning_rate: float | None = Field(default=None, gt=0)
    head_learning_rate: float | None = Field(default=None, gt=0)
    warmup: float = Field(default=0.06, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    texts: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0)

    @classmethod
    def of(cls, value: Any) -> Pretraining | None:
        """From an objective's name, a table of settings, or None or False for no pretraining.

        Raises:
            SpecError: it is something else.
        """
        if value is None or value is False or isinstance(value, Pretraining):
            return value or None
        if isinstance(value, str | Mapping):
            return cls(**({"objective": value} if isinstance(value, str) else value))
        raise SpecError(f'tapt is false, "mlm", "simcse", or a table such as {{objective = "mlm"}}, got {value!r}')


@dataclass(frozen=True)
class FitJob:
    """What to train: a new model on these labels. targets: (n,) int64 classes or float32 values.

    weights: (n,) of the examples in the loss; None for 1. apart: labelled texts that this training must not see, since
    it is to be tried on them, or since they were left out. sought: whether many of the examples were chosen by what a
    model said of them (``many_sought``), so that they are no random sample.
    """

    ids: tuple[ExampleId, ...]
    targets: np.ndarray
    seed: int
    round: int
    weights: np.ndarray | None = None
    apart: tuple[ExampleId, ...] = ()
    sought: bool = False

    def same_as(self, other: FitJob) -> bool:
        """Whether both would train the very same model."""
        mine, theirs = ((one.ids, one.seed, one.round, frozenset(one.apart), one.sought) for one in (self, other))
        alike = (self.weights is None) == (other.weights is None)
        alike = alike and (self.weights is None or np.array_equal(self.weights, other.weights))  # type: ignore[arg-type]
        return mine == theirs and alike and np.array_equal(self.targets, other.targets)


def many_sought(sought: int, labels: int) -> bool:
    """Whether so many of the labels were chosen by what a model said that training should reckon with it: a third."""
    return sought > 0 and 3 * sought >= labels


def distinct(jobs: Sequence[FitJob]) -> tuple[list[FitJob], list[int]]:
    """The jobs without repeats, and for each of the given ones its place among these."""
    found: list[FitJob] = []
    which = []
    for job in jobs:
        same = next((i for i, known in enumerate(found) if job.same_as(known)), len(found))
        if same == len(found):
            found.append(job)
        which.append(same)
    return found, which
