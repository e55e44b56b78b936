"""Picks 50 of 1,000,000 candidates of width 384: Modicum's strategies, and small-text's core-set as far as it goes.

    python benchmarks/selection.py [--repeats 3] [--threads N] [--systems NAME ...] [--resume] [--quick]

Core-set has 1,000 labelled examples. small-text's ``greedy_coreset`` is measured on 2,000, 4,000, 8,000 ... candidates
until it takes more than 60 s or memory ends, and its time at 1,000,000 follows from a line through the logarithms of
the last points. Its batch size is the fastest of several at 8,000 candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from harness.contest import Contest, Entry
from harness.options import parse, parser
from harness.tables import markdown, middle, ratio, shown, spread

STRATEGIES = ("coreset", "kmeans", "badge", "typiclust")
BATCH_SIZES = (100, 1000, 4000)
FITTED = 4
"""Points that the line goes through: the largest, where fixed costs no longer flatter it."""
HOW = {
    "candidates": "fp32, 100 Gaussian clouds, the same for all systems; made before, not timed. badge: 4 classes",
    "extra memory": "peak resident memory of the call beyond what was resident before it",
    "small-text": "Euclidean distance, its default; the last point may take longer than the limit",
}


class Sizes:
    """How large everything is."""

    def __init__(self, quick: bool) -> None:
        self.n, self.labelled, self.k = (20_000, 100, 10) if quick else (1_000_000, 1000, 50)
        self.first, self.tuning, self.limit = (500, 1000, 2.0) if quick else (2000, 8000, 60.0)
        self.work = f"core-set, k = {self.k}, {self.labelled:,} labelled"


def own(sizes: Sizes, strategy: str) -> Entry:
    """One of Modicum's strategies at the full size."""
    settings = {"strategy": strategy, "n": sizes.n, "width": 384, "k": sizes.k, "classes": 4}
    settings["labelled"] = sizes.labelled if strategy in ("coreset", "typiclust") else 0
    return Entry(f"{strategy}, k = {sizes.k}", "modicum", "modicum_select.py", settings=settings)


def rival(sizes: Sizes, n: int, batch_size: int) -> Entry:
    """small-text's core-set at some size."""
    settings = {"n": n, "width": 384, "k": sizes.k, "labelled": sizes.labelled, "batch_size": batch_size}
    return Entry(sizes.work, "small-text", "small_text_select.py", "small-text", settings)


def best_batch_size(contest: Contest, sizes: Sizes) -> int:
    """The batch size that is fastest at a middling size."""
    made = {size: rival(sizes, sizes.tuning, size) for size in BATCH_SIZES}
    contest.run(list(made.values()), repeats=1)
    taken = {size: middle(contest.values(entry)) for size, entry in made.items()}
    return min(BATCH_SIZES, key=lambda size: taken[size] or float("inf"))


def ladder(contest: Contest, sizes: Sizes, batch_size: int, number: int) -> list[Entry]:
    """Sizes twice as large each time, as far as time and memory go."""
    climbed, n = [], sizes.first
    while n <= sizes.n:
        entry = rival(sizes, n, batch_size)
        result = contest.measure(entry, number, timeout=10 * sizes.limit)
        if result is None:
            if climbed:  # the end of the ladder is a finding, not a fault
                contest.errors.pop()
            break
        climbed.append(entry)
        if result["seconds"] > sizes.limit:
            break
        n *= 2
    return climbed


def projection(points: list[tuple[int, float]], n: int) -> tuple[float, float]:
    """The exponent of the time in the number of candidates, and the seconds at n: least squares in logarithms."""
    x, y = np.log(np.array(points[-FITTED:], dtype=np.float64)).T
    slope, offset = np.polyfit(x, y, 1)
    return float(slope), float(np.exp(offset + slope * np.log(n)))


def own_row(contest: Contest, sizes: Sizes, strategy: str) -> dict[str, Any]:
    entry = own(sizes, strategy)
    seconds = contest.values(entry)
    return {
        "work": entry.work,
        "system": "Modicum",
        "candidates": f"{sizes.n:,}",
        "median seconds": middle(seconds),
        "spread": spread(seconds),
        "ratio to Modicum": ratio(middle(seconds), middle(seconds)),
        "extra memory, MB": middle(contest.values(entry, "extra_memory_mb")),
    }


def rival_rows(contest: Contest, sizes: Sizes, climbed: list[Entry]) -> list[dict[str, Any]]:
    """A row a rung, and one for the projection."""
    rows, points = [], []
    for entry in climbed:
        seconds, n = contest.values(entry), entry.settings["n"]
        points.append((n, middle(seconds) or float("nan")))
        row: dict[str, Any] = {"work": entry.work, "system": f"small-text, batches of {entry.settings['batch_size']}"}
        row |= {"candidates": f"{n:,}", "median seconds": points[-1][1], "spread": spread(seconds)}
        row |= {"ratio to Modicum": None, "extra memory, MB": middle(contest.values(entry, "extra_memory_mb"))}
        rows.append(row)
    if len(points) > 1:
        slope, seconds = projection(points, sizes.n)
        mine = middle(contest.values(own(sizes, "coreset")))
        told = f"time grows as candidates^{shown(slope)} over the last {min(FITTED, len(points))} points"
        row = {"work": sizes.work, "system": "small-text, projected", "candidates": f"{sizes.n:,}"}
        row |= {"median seconds": seconds, "spread": told, "ratio to Modicum": ratio(seconds, mine)}
        rows.append(row | {"extra memory, MB": None})
    return rows


def main() -> None:
    options = parse(parser(__doc__, repeats=3, systems=[*STRATEGIES, "small-text"]))
    sizes = Sizes(options.quick)
    contest = Contest("selection", options, {"how": HOW})
    batch_size = best_batch_size(contest, sizes) if "small-text" in options.systems else BATCH_SIZES[0]
    climbed: dict[int, Entry] = {}
    for number in range(options.repeats):
        for strategy in STRATEGIES:
            if strategy in options.systems:
                contest.measure(own(sizes, strategy), number)
        if "small-text" in options.systems:
            climbed |= {e.settings["n"]: e for e in ladder(contest, sizes, batch_size, number)}
    rows = [own_row(contest, sizes, strategy) for strategy in STRATEGIES]
    rows[1:1] = rival_rows(contest, sizes, [climbed[n] for n in sorted(climbed)])
    print(markdown(rows))
    contest.finish(selection=rows)


if __name__ == "__main__":
    main()
