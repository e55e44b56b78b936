"""What `auto` should know: gains of its recipes from measured ones, on all data sets or on all but one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.environments import ROOT
from modicum.auto.recipes import NEVER, Recipe, Table, shipped_table

EDGES = (20.0, 60.0, 1e6)
"""Labels per class up to which a gain holds; the same for all data sets, fixed before recipes were compared on them."""
LABELS = (20, 50, 100, 200, 500)
"""Numbers of labels that recipes are compared at."""
CLASSES = {"trec": 6, "sst2_sentence": 2, "subj": 2, "ag_news": 4, "cola": 2}
TAUGHT = 0.05
"""Macro-F1 above guessing by the classes' frequencies, which reaches 1 / classes, from which labels have taught
something. Below, what sets recipes apart is how often they guess which class."""
MEASURED = ROOT / "benchmarks" / "results" / "auto_recipes.json"
TEMPERATURES = ROOT / "benchmarks" / "results" / "auto_temperatures.json"
ALIKE = ({"subj", "sst2_sentence"},)
"""Data sets that share texts: what was measured on one of them does not count as unseen by the other."""


class Cell(NamedTuple):
    """One recipe on one data set with so many labels: macro-F1, or another metric, by seed."""

    data: str
    labels: int
    recipe: str
    reached: Mapping[int, float]


class Incomplete(Exception):
    """Recipes were compared on some data sets and not on others."""


@cache
def rules(without: str, labels: int) -> Table:
    """The shipped recipes, with the gains that they have on the other data sets, and not on those that share its texts.

    Of the shipped efforts it holds the one for so many labels, of the recipes those that it may try with these, and of
    the coolings none where these labels tell their own temperature: what cannot matter makes no other table.

    Raises:
        Incomplete: these are not all measured.
    """
    table = shipped_table()
    known = table_of(gains(cells(kept(MEASURED), table), table, without, whole=True), table)
    effort = table.effort(labels)
    found = {} if effort.rungs else coolings(cells(kept(TEMPERATURES), table, "temperature"), without)
    # with two classes or more a class has at most half of the labels, by the harmonic mean
    reached = [most for least, most in zip((0.0, *EDGES), EDGES, strict=False) if least < labels / 2]
    bounds = [(most, least) for most in reached for least in (0.0, others(without, labels))]
    tried = {recipe.name for bound in bounds for recipe in known.best(*bound)[: effort.recipes]}
    recipes = [r.model_copy(update={"cooling": found.get(r.name)}) for r in known.recipes if r.name in tried]
    return Table(recipes=recipes, efforts=[effort])


def as_given(table: Table) -> dict[str, Any]:
    """A table as a contestant is told it, and as it is identified."""
    return table.model_dump(mode="json", exclude_none=True)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a contestant is told it: without what is known of where it pays, and of its certainty."""
    return recipe.model_dump(mode="json", exclude={"gain", "others", "cooling"})


def cells(measurements: Iterable[Mapping[str, Any]], table: Table, metric: str = "macro_f1") -> list[Cell]:
    """The cells of a table's recipes, as they stand in the table now, among a contest's measurements on training texts.

    What was measured of one cell in several runs is one cell.
    """
    told = {recipe.name: settings_of(recipe) for recipe in table.recipes}
    found: dict[tuple[str, int, str], dict[int, float]] = defaultdict(dict)
    for one in measurements:
        settings = one["settings"]
        recipe = settings.get("recipe", {})
        if "result" in one and settings["split"] == "held-out" and recipe == told.get(recipe.get("name")):
            runs = {int(seed): reached[metric] for seed, reached in one["result"]["runs"].items()}
            found[settings["dataset"], settings["labels"], recipe["name"]] |= runs
    return [Cell(*key, reached) for key, reached in found.items()]


def gains(
    measured: Iterable[Cell], table: Table, without: str | None = None, *, whole: bool = False
) -> dict[str, tuple[float | None, ...]]:
    """By recipe, and for each of ``EDGES``, how much its macro-F1 exceeds the first recipe's.

    The mean over data sets, each the mean over its numbers of labels and over seeds, in pairs; None where nothing was
    measured. Numbers of labels that teach no recipe anything do not count (``TAUGHT``). Where there is nothing to
    measure, as where one data set alone has so few labels per class, the nearest of ``EDGES`` counts. without: a data
    set that is left out, for which the rules are to be tried, with those that are ``ALIKE``.

    Raises:
        Incomplete: ``whole`` is asked for, and a recipe was compared on a part of the data sets or of ``LABELS`` only,
            or the first recipe is not measured everywhere.
    """
    left_out = _not_to_know(without)
    known = {(c.data, c.labels, c.recipe): c.reached for c in measured if c.data not in left_out}
    first, found = table.recipes[0].name, dict[str, tuple[float | None, ...]]()
    for recipe in table.recipes:
        places = _by_edge(known, recipe, left_out)
        of_edges = []
        for edge in range(len(EDGES)):
            there = places[min(places, key=lambda other: abs(other - edge))] if places else []
            seen = [place for place in there if (*place, recipe.name) in known]
            if whole and len(seen) != len(there) and (seen or recipe.name == first):
                lacking = ", ".join(f"{data} with {labels}" for data, labels in there if (data, labels) not in seen)
                raise Incomplete(f"{recipe.name} is not measured on {lacking}: run benchmarks/auto_recipes.py --resume")
            of_edges.append(_over_first(known, recipe.name, first, seen))
        found[recipe.name] = tuple(of_edges)
    return found


def _by_edge(
    known: Mapping[tuple[str, int, str], Mapping[int, float]], recipe: Recipe, left_out: set[str | None]
) -> dict[int, list[tuple[str, int]]]:
    """The data sets and numbers of labels that a recipe may be compared at, by the position of their edge."""
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for data, labels in ((d, n) for d in CLASSES for n in LABELS if d not in left_out):
        if others(data, labels) >= (recipe.others or 0) and _teach(known, data, labels):
            found[_edge(data, labels)].append((data, labels))
    return found


def _over_first(
    known: Mapping[tuple[str, int, str], Mapping[int, float]], recipe: str, first: str, places: list[tuple[str, int]]
) -> float | None:
    """How much more a recipe reaches than the first: the mean over data sets, each over numbers of labels and seeds."""
    of_sets: dict[str, list[float]] = defaultdict(list)
    for data, labels in places:
        reached, base = known[data, labels, recipe], known.get((data, labels, first), {})
        of_sets[data] += [reached[seed] - base[seed] for seed in reached.keys() & base.keys()]
    means = [float(np.mean(differences)) for differences in of_sets.values() if differences]
    return float(np.mean(means)) if means else None


def _teach(known: Mapping[tuple[str, int, str], Mapping[int, float]], data: str, labels: int) -> bool:
    """Whether so many labels of a data set teach some recipe anything, or are not measured yet."""
    means = [np.mean(list(reached.values())) for (d, n, _), reached in known.items() if (d, n) == (data, labels)]
    return not means or max(means) >= 1 / CLASSES[data] + TAUGHT


def coolings(suits: Iterable[Cell], without: str | None = None) -> dict[str, float]:
    """By recipe, the temperature that suits unseen texts times the number of classes, where it was measured.

    The mean of its logarithm over data sets, each over its numbers of labels and seeds. without: as for ``gains``.
    """
    left_out, found = _not_to_know(without), defaultdict[str, dict[str, list[float]]](lambda: defaultdict(list))
    for cell in suits:
        if cell.data not in left_out:
            logs = np.log(list(cell.reached.values())) + np.log(CLASSES[cell.data])
            found[cell.recipe][cell.data].append(float(np.mean(logs)))
    means = {name: np.mean([np.mean(of_labels) for of_labels in of_sets.values()]) for name, of_sets in found.items()}
    return {name: round(float(np.exp(mean)), 1) for name, mean in means.items()}


def table_of(found: Mapping[str, tuple[float | None, ...]], table: Table) -> Table:
    """A table with these gains; a recipe that was not measured at some numbers of labels is not taken there."""

    def known(recipe: Recipe) -> Recipe:
        pairs = zip(EDGES, found[recipe.name], strict=True)
        return recipe.model_copy(
            update={"gain": tuple((most, NEVER if gain is None else round(gain, 4)) for most, gain in pairs)}
        )

    return Table(recipes=[known(recipe) for recipe in table.recipes], efforts=table.efforts)


def _not_to_know(data: str | None) -> set[str | None]:
    """A data set, and those that share its texts."""
    return {data}.union(*(some for some in ALIKE if data in some))


def others(data: str, labels: int) -> float:
    """Of so many labels those that are not of the largest class, were the classes even."""
    return labels * (1 - 1 / CLASSES[data])


def kept(path: Path) -> list[dict[str, Any]]:
    """The measurements of a benchmark's results file, if there is one."""
    return json.loads(path.read_text(encoding="utf-8"))["measurements"] if path.is_file() else []


def _edge(data: str, labels: int) -> int:
    """Into which of ``EDGES`` so many labels of a data set fall."""
    return next(i for i, most in enumerate(EDGES) if labels / CLASSES[data] <= most)
