"""What `auto` should know: gains of its recipes from measured ones, on all data sets or on all but one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from modicum.auto.recipes import Table

EDGES = (20.0, 60.0, 1e6)
"""Labels per class up to which a gain holds; the same for all data sets, fixed before anything was measured."""
CLASSES = {"trec": 6, "sst2_sentence": 2, "subj": 2, "ag_news": 4, "cola": 2}


class Cell(NamedTuple):
    """One recipe on one data set with so many labels: macro-F1 by seed."""

    data: str
    labels: int
    recipe: str
    reached: Mapping[int, float]


def cells(measurements: Iterable[Mapping[str, Any]], table: Table) -> list[Cell]:
    """The cells of a table's recipes, as they stand in the table now, among a contest's measurements."""
    told = {recipe.name: settings_of(recipe) for recipe in table.recipes}
    found = []
    for one in measurements:
        settings = one["settings"]
        name = settings.get("recipe", {}).get("name")
        if "result" in one and name in told and settings["recipe"] == told[name]:
            runs = {int(seed): reached["macro_f1"] for seed, reached in one["result"]["runs"].items()}
            found.append(Cell(settings["dataset"], settings["labels"], name, runs))
    return found


def settings_of(recipe: Any) -> dict[str, Any]:
    """A recipe as a contestant is told it: without what is known of its gain."""
    return recipe.model_dump(mode="json", exclude={"gain"})


def gains(measured: Iterable[Cell], table: Table, without: str | None = None) -> dict[str, tuple[float | None, ...]]:
    """By recipe, and for each of ``EDGES``, how much its macro-F1 exceeds the first recipe's.

    The mean over data sets, each the mean over its numbers of labels and over seeds, in pairs; None where nothing was
    measured. without: a data set that is left out, for which the rules are to be tried.
    """
    kept = [cell for cell in measured if cell.data != without]
    base = {(c.data, c.labels): c.reached for c in kept if c.recipe == table.recipes[0].name}
    differences: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in kept:
        first = base.get((cell.data, cell.labels), {})
        per_class = cell.labels / CLASSES[cell.data]
        edge = next(i for i, most in enumerate(EDGES) if per_class <= most)
        differences[cell.recipe, edge][cell.data] += [
            reached - first[seed] for seed, reached in cell.reached.items() if seed in first
        ]
    found: dict[str, tuple[float | None, ...]] = {}
    for recipe in table.recipes:
        of_sets = [differences.get((recipe.name, edge), {}) for edge in range(len(EDGES))]
        found[recipe.name] = tuple(
            float(np.mean([np.mean(d) for d in sets.values() if d])) if any(sets.values()) else None for sets in of_sets
        )
    return found


def table_of(found: Mapping[str, tuple[float | None, ...]], table: Table) -> Table:
    """A table with these gains; a recipe that was not measured at some numbers of labels is not taken there."""
    never = -1.0
    recipes = [
        recipe.model_copy(
            update={
                "gain": tuple(
                    (most, never if gain is None else round(gain, 4))
                    for most, gain in zip(EDGES, found[recipe.name], strict=True)
                )
            }
        )
        for recipe in table.recipes
    ]
    return Table(recipes=recipes, efforts=table.efforts)
