"""The recipes that ``auto`` chooses among, and how far it searches: read from a table."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from modicum.base.spec import Choice, Record
from modicum.base.training import Training

NEVER = -1.0
"""The gain of a recipe that is not to be taken at so many labels per class."""
AUTO = "auto"
"""The method that chooses among the recipes."""
SHIPPED = Path(__file__).parent / "recipes.toml"


class Recipe(Record):
    """A method, and what departs from the training asked for.

    gain: (labels per class, macro-F1 over the first recipe's) pairs, rising; the first whose labels are not exceeded
    counts, or the last. others: labels of all classes but the largest, so many at least. cooling: over the number
    of classes it is the temperature at which probabilities suit unseen texts of other data; without, they stay as they
    are.
    """

    name: str
    method: Choice
    training: dict[str, Any] = {}
    gain: tuple[tuple[float, float], ...] = ()
    others: int | None = Field(default=None, ge=0)
    cooling: float | None = Field(default=None, gt=0)

    @field_validator("method", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Choice:
        return Choice.restored(value, "method")

    @field_validator("training")
    @classmethod
    def _known(cls, values: dict[str, Any]) -> dict[str, Any]:
        Training(**values)
        return values

    def over(self, training: Training) -> Training:
        """The training of this recipe: what it does not say is as asked for, but for the number of steps, which is a
        length for other methods."""
        return Training(**{**training.model_dump(exclude={"steps"}), **self.training})

    def expected(self, per_class: float) -> float:
        """The gain that the table holds at so many labels per class, a harmonic mean over the classes there are."""
        return next((gain for most, gain in self.gain if per_class <= most), self.gain[-1][1] if self.gain else 0.0)

    def temperature(self, classes: int) -> float:
        """What to divide logits by where the labels themselves do not say."""
        return 1.0 if self.cooling is None else max(1.0, self.cooling / classes)


class Effort(Record):
    """How far to search from so many labels on."""

    labels: int = Field(ge=0)
    recipes: int = Field(ge=1)
    rungs: int = Field(ge=0)
    folds: int = Field(ge=2)


class Table(Record):
    """All recipes, the first being the one to take where nothing is known, and the efforts by rising labels."""

    recipes: Annotated[tuple[Recipe, ...], Field(min_length=1)]
    efforts: Annotated[tuple[Effort, ...], Field(min_length=1)]

    def effort(self, labels: int) -> Effort:
        """How far to search with so many labels."""
        return [e for e in self.efforts if e.labels <= labels or e is self.efforts[0]][-1]

    def best(self, per_class: float, others: float) -> list[Recipe]:
        """The recipes that may be taken, the best expected gains first.

        per_class: labels per class, a harmonic mean over the classes there are. others: those of all but the largest.
        """
        allowed = [r for r in self.recipes if r.expected(per_class) > NEVER and others >= (r.others or 0)]
        return sorted(allowed or self.recipes[:1], key=lambda recipe: -recipe.expected(per_class))

    def without_search(self) -> Table:
        """The same recipes, of which the one to take where nothing else is known is taken."""
        return Table(recipes=self.recipes, efforts=(Effort(labels=0, recipes=1, rungs=0, folds=2),))


@cache
def shipped_table() -> Table:
    """The table that comes with Modicum."""
    raw = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    return Table(recipes=[Recipe(**r) for r in raw["recipes"]], efforts=[Effort(**e) for e in raw["efforts"]])
