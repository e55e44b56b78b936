"""How far too sure the recipes of `auto` are: the temperature that suits held-out training texts, 20 to 200 labels.

    python benchmarks/auto_temperatures.py [--data DIR] [--seeds 0 1 2 3 4] [--labels 20 50 100 200]
                                           [--sets trec ...] [--resume] [--untimed] [--quick]

No test set is read. With each number of labels the recipe is trained that the shipped table takes there, tested on
1,000 other texts of the training set; with --resume what ``auto_recipes.py`` measured of it is taken over. The last
table holds what belongs into modicum/auto/recipes.toml, ``cooling``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from auto_recipes import HOW, entry
from harness.contest import Contest
from harness.data import data_for
from harness.few import SETS, by_seed, parse, parser
from harness.rules import CLASSES, MEASURED, cells, coolings, kept, others
from harness.tables import markdown

from modicum.auto.recipes import shipped_table


def main() -> None:
    table = shipped_table()
    options = parse(parser(__doc__, [20, 50, 100, 200]))
    rows, elsewhere = [], [m for m in kept(MEASURED) if _tells_temperature(m)]
    with data_for(options, {f"{name}/train": 500 for name in SETS}) as data:
        contest = Contest("auto_temperatures", options, {"data": ", ".join(SETS), "how": HOW}, threads_decide=False)
        for labels in options.labels:
            for name in options.sets:
                recipe = table.best(labels / CLASSES[name], others(name, labels))[0]
                one = entry(name, labels, recipe, options, str(data))
                contest.adopt(one, elsewhere)
                contest.measure(one)
                if suits := list(by_seed(contest, [one], "temperature").values()):
                    mean = float(np.exp(np.mean(np.log(suits))))
                    rows.append({
                        "labels": labels, "data": name, "recipe": recipe.name, "temperature": f"{mean:.1f}",
                        "of seeds": f"{min(suits):.1f} to {max(suits):.1f}", "× classes": f"{mean * CLASSES[name]:.1f}",
                    })  # fmt: skip
        found = coolings(cells(contest.data["measurements"], table, "temperature"))
    known = [{"recipe": name, "cooling": f"{value:.1f}"} for name, value in found.items()]
    print(f"{markdown(rows)}\n\n{markdown(known)}")
    contest.finish(temperatures=rows, coolings=known)


def _tells_temperature(measurement: dict[str, Any]) -> bool:
    """The first measurements of recipes did not."""
    runs = measurement.get("result", {}).get("runs", {})
    return bool(runs) and all("temperature" in run for run in runs.values())


if __name__ == "__main__":
    main()
