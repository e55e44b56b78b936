"""What the comparisons on few labels share: options, data sets, and how their results are read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from harness import options
from harness.contest import Contest, Entry

SETS = {"trec": 64, "sst2_sentence": 64, "subj": 64, "ag_news": 128, "cola": 64}
"""max_length of each."""


def parser(doc: str | None, labels: Sequence[int], systems: Sequence[str] = ()) -> argparse.ArgumentParser:
    """A parser with the common options, seeds, numbers of labels and data sets."""
    made = options.parser(doc, systems=systems)
    made.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), metavar="SEED")
    made.add_argument("--labels", type=int, nargs="+", default=list(labels), metavar="N")
    made.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET")
    made.add_argument("--untimed", action="store_true", help="quality only: one thread each, and no seconds are kept")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, checked; see ``harness.options``."""
    chosen = options.parse(made, *SETS)
    if chosen.quick:
        chosen.seeds, chosen.labels = chosen.seeds[:2], [30]
    return chosen


def by_seed(contest: Contest, made: Iterable[Entry], metric: str = "macro_f1") -> dict[int, float]:
    """A metric on the test texts by seed; without the seeds for which it was not measured."""
    found = [run for entry in made for result in contest.results(entry) for run in result["runs"].items()]
    return {int(seed): reached[metric] for seed, reached in found if metric in reached}
