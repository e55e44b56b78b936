"""The recipes that `auto` chooses among, each on held-out training texts: what its table of gains is made of.

    python benchmarks/auto_recipes.py [--data DIR] [--seeds 0 1 2 3 4] [--labels 20 50 100 200 500] [--sets trec ...]
                                      [--recipes NAME ...] [--resume] [--untimed] [--quick]

No test set is read. All recipes see the same random labels by seed and are tested on the same 1,000 other texts of the
training set. The last table holds what belongs into modicum/auto/recipes.toml.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from harness.contest import Contest, Entry
from harness.data import data_for
from harness.few import SETS, by_seed, parse, parser
from harness.rules import EDGES, LABELS, cells, gains, others, settings_of
from harness.tables import markdown, middle

from modicum.analysis.curves import mean_interval
from modicum.auto.recipes import Recipe, shipped_table

HOW = {
    "labels": "random ones of the training set, the same for all recipes by seed; the seeds are one bank's runs",
    "tested": "1,000 other random texts of the training set",
    "intervals": "95 %, Student's t, over seeds",
}


def entry(name: str, labels: int, recipe: Recipe, options: Any, data: str) -> Entry:
    """All seeds of one recipe on one set with so many labels."""
    settings = {
        "dataset": name,
        "labels": labels,
        "max_length": SETS[name],
        "split": "held-out",
        "seeds": options.seeds,
    }
    settings |= {"tested": 100 if options.quick else 1000, "recipe": settings_of(recipe)}
    return Entry(f"{name}, {labels} labels", recipe.name, "modicum_few.py", settings=settings, given={"data": data})


def main() -> None:
    table = shipped_table()
    made = parser(__doc__, LABELS)
    names = [recipe.name for recipe in table.recipes]
    made.add_argument("--recipes", nargs="+", choices=names, default=names, metavar="NAME")
    options = parse(made)
    rows = []
    with data_for(options, {f"{name}/train": 500 for name in SETS}) as data:
        contest = Contest("auto_recipes", options, {"data": ", ".join(SETS), "how": HOW}, threads_decide=False)
        for name in options.sets:
            for labels in options.labels:
                for recipe in table.recipes:
                    if recipe.name in options.recipes and others(name, labels) >= (recipe.others or 0):
                        contest.measure(entry(name, labels, recipe, options, str(data)))
        for name in SETS:
            for labels in options.labels:
                for recipe in table.recipes:
                    one = entry(name, labels, recipe, options, str(data))
                    if reached := list(by_seed(contest, [one]).values()):
                        seconds = middle(contest.values(one))
                        rows.append({
                            "data": name, "labels": labels, "recipe": recipe.name,
                            "macro-F1": f"{np.mean(reached):.3f}", "95 %": _limits(reached),
                            "seconds a seed": seconds and seconds / len(options.seeds),
                        })  # fmt: skip
        found = gains(cells(contest.data["measurements"], table), table)
    known = [
        {"recipe": name} | {_edge(i): None if g is None else f"{g:+.4f}" for i, g in enumerate(of_edges)}
        for name, of_edges in found.items()
    ]
    print(f"{markdown(rows)}\n\nGains over {names[0]}, by labels per class:\n\n{markdown(known)}")
    contest.finish(recipes=rows, gains=known)


def _limits(reached: list[float]) -> str:
    if len(reached) < 2:
        return ""
    interval = mean_interval(reached)
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _edge(number: int) -> str:
    return "more" if number == len(EDGES) - 1 else f"to {EDGES[number]:.0f}"


if __name__ == "__main__":
    main()
