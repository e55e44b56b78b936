"""What the comparisons on few labels share: data sets, and how their results are read."""

from __future__ import annotations

from collections.abc import Iterable

from harness.contest import Contest, Entry

SETS = {"trec": 64, "sst2_sentence": 64, "subj": 64, "ag_news": 128, "cola": 64}
"""max_length of each."""


def by_seed(contest: Contest, made: Iterable[Entry], metric: str = "macro_f1") -> dict[int, float]:
    """A metric on the test texts by seed; without the seeds for which it was not measured."""
    found = [run for entry in made for result in contest.results(entry) for run in result["runs"].items()]
    return {int(seed): reached[metric] for seed, reached in found if metric in reached}
