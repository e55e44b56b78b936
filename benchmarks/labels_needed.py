"""How many labels `auto` needs for what the usual way reaches at 500: random labels, full tuning.

    modicum study benchmarks/studies/active-learning.toml --data-dir DATA --out DIR
    python benchmarks/labels_needed.py DIR...

The target of a set is the mean over seeds of the usual way's macro-F1; the mean curve of a strategy is made monotone
and read between its rounds. Intervals are percentiles over resampled seeds, target and curve together. A curve that
never arrives needs more labels than it has.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness.tables import markdown

from modicum.analysis.curves import labels_to_target
from modicum.base.errors import ModicumError, StoreError
from modicum.base.rng import stream
from modicum.study.results import load_results

USUAL = "full"
HALF = 0.5
RESAMPLES = 5000

Seeds = Mapping[int, Mapping[int, float]]
"""Macro-F1 by number of labels, of each seed."""


def apart(studies: Sequence[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The rows of all studies.

    Raises:
        StoreError: two of them have rounds of the same data set, whose precision may differ.
    """
    sets = [{row["dataset"] for row in rows} for rows in studies]
    twice = {name for i, names in enumerate(sets) for other in sets[:i] for name in names & other}
    if twice:
        raise StoreError(
            f"a data set is measured in one study, and {', '.join(sorted(twice))} is in two: leave one out"
        )
    return [row for rows in studies for row in rows]


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], dict[int, dict[int, float]]]:
    """The seeds of each data set, method and strategy, of finished trials; of two trials the longer counts."""
    found: dict[tuple[str, str, str], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    rounds = Counter(row["trial"] for row in rows)
    for row in sorted(rows, key=lambda row: rounds[row["trial"]]):
        if not row.get("unfinished"):
            key = row["dataset"], row["plain_method"], row["strategy"]
            found[key][row["seed"]][row["labels"]] = row["macro_f1"]
    return found


def needed(ours: Seeds, usual: Seeds, rng: np.random.Generator) -> tuple[float, float, float]:
    """Labels for the usual way's last macro-F1, and the limits of their 95 % interval; infinite where never reached.

    Seeds that both have are resampled together.
    """
    shared = sorted(ours.keys() & usual.keys())
    at = sorted(set.intersection(*(set(ours[seed]) for seed in shared)))
    heights = np.array([[ours[seed][n] for n in at] for seed in shared])
    targets = np.array([usual[seed][max(usual[seed])] for seed in shared])

    def read(picked: np.ndarray) -> float:
        reached = labels_to_target(at, heights[picked].mean(0), float(targets[picked].mean()))
        return math.inf if reached is None else reached

    draws = [read(picked) for picked in rng.integers(0, len(shared), (RESAMPLES, len(shared)))]
    low, high = np.quantile(draws, [0.025, 0.975], method="nearest")
    return read(np.arange(len(shared))), float(low), float(high)


def against_half(low: float, high: float, usual: int) -> str:
    """Whether at most half of the usual labels are needed, as far as the interval tells."""
    if high <= HALF * usual:
        return "at most half"
    return "more than half" if low > HALF * usual else "undecided"


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="of the study, or of its profiles")
    folders = made.parse_args().folders
    if not folders:
        print("Nothing to do: give the folder of a study by benchmarks/studies/active-learning.toml.")
        return
    try:
        found = curves(apart([load_results(folder).rows for folder in folders]))
    except ModicumError as problem:
        made.error(str(problem))
    table, shares = [], defaultdict[str, list[tuple[float, bool]]](list)
    for (data, method, strategy), ours in sorted(found.items()):
        usual = found.get((data, USUAL, "random"), {})
        if method == USUAL or not ours.keys() & usual.keys():
            continue
        most, ends = max(max(curve) for curve in usual.values()), max(max(curve) for curve in ours.values())
        labels, low, high = needed(ours, usual, stream(0, "labels needed", data, strategy))
        table.append({
            "data": data, "strategy": strategy, "seeds": len(ours.keys() & usual.keys()),
            "labels": _shown(labels, ends), "95 %": f"{_shown(low, ends)} to {_shown(high, ends)}",
            f"against half of {most}": against_half(low, high, most),
        })  # fmt: skip
        shares[strategy].append((min(labels, ends) / most, math.isinf(labels)))
    print(markdown(table))
    for strategy, of_sets in shares.items():
        reached, short = np.mean([share for share, _ in of_sets]), sum(never for _, never in of_sets)
        beyond = f"more than {reached:.2f}: on {short} it never arrived" if short else f"{reached:.2f}"
        print(f"\n{strategy}, share of the usual labels in the mean over {len(of_sets)} data sets: {beyond}.")


def _shown(labels: float, ends: int) -> str:
    return f"more than {ends}" if math.isinf(labels) else f"{labels:.0f}"


if __name__ == "__main__":
    main()
