"""How many labels `auto` needs for what the usual way reaches at 500: random labels, full tuning.

    modicum study benchmarks/studies/active-learning.toml --data-dir DATA --out DIR
    python benchmarks/labels_needed.py DIR

The target of a set is the mean over seeds of the usual way's macro-F1. Each seed's curve is made monotone and read
between its rounds; a curve that never arrives counts as the last number of labels and is said to need more.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness.tables import markdown

from modicum.analysis.curves import labels_to_target, mean_interval
from modicum.analysis.significance import sign_flip_test
from modicum.base.errors import ModicumError
from modicum.study.results import load_results

USUAL = "full"
HALF = 0.5


class Needed(NamedTuple):
    """Labels that the seeds of one strategy needed, and how many seeds never arrived."""

    labels: np.ndarray
    short: int


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], dict[int, dict[int, float]]]:
    """Macro-F1 by number of labels, of each seed, by data set, method and strategy."""
    found: dict[tuple[str, str, str], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["dataset"], row["plain_method"], row["strategy"]][row["seed"]][row["labels"]] = row["macro_f1"]
    return found


def needed(seeds: Mapping[int, Mapping[int, float]], target: float) -> Needed:
    """What each seed's curve needs for the target."""
    reached = [labels_to_target(sorted(curve), [curve[n] for n in sorted(curve)], target) for curve in seeds.values()]
    last = [float(max(curve)) for curve in seeds.values()]
    labels = [end if at is None else at for at, end in zip(reached, last, strict=True)]
    return Needed(np.array(labels), sum(at is None for at in reached))


def row_of(data: str, strategy: str, target: float, of: Needed, usual: int) -> dict[str, Any]:
    """A line of the table. The test: whether the labels, on a logarithmic scale, differ from half of the usual."""
    shares = np.log2(of.labels / usual)
    interval = mean_interval(shares)
    verdict = "undecided"
    if interval.high <= np.log2(HALF):
        verdict = "at most half"
    elif interval.low > np.log2(HALF):
        verdict = "more than half"
    return {
        "data": data, "strategy": strategy, "target": f"{target:.3f}", "labels": f"{np.mean(of.labels):.0f}",
        "share of the usual": f"{2**interval.mean:.2f} ({2**interval.low:.2f} to {2**interval.high:.2f})",
        "never arrived": f"{of.short} of {len(of.labels)}", "against half": verdict,
        "p": f"{sign_flip_test(shares - np.log2(HALF)):.3f}",
    }  # fmt: skip


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("folder", type=Path, metavar="DIR", help="of the study")
    try:
        found = curves(load_results(made.parse_args().folder).rows)
    except ModicumError as problem:
        made.error(str(problem))
    table, of_strategy = [], defaultdict[str, list[float]](list)
    for (data, method, strategy), seeds in sorted(found.items()):
        usual = found.get((data, USUAL, "random"))
        if method == USUAL or not usual:
            continue
        at = max(max(curve) for curve in usual.values())
        target = float(np.mean([curve[at] for curve in usual.values() if at in curve]))
        of = needed(seeds, target)
        table.append(row_of(data, strategy, target, of, at))
        of_strategy[strategy].append(float(np.mean(of.labels)) / at)
    print(markdown(table))
    for strategy, shares in of_strategy.items():
        print(f"\n{strategy}: {np.mean(shares):.2f} of the usual labels, mean over {len(shares)} data sets.")


if __name__ == "__main__":
    main()
