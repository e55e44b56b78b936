"""What bf16 costs: LoRA on TREC, SUBJ and AG News in bf16 and in fp32, ten paired seeds.

    python benchmarks/precision.py [--data DIR] [--seeds 10] [--resume] [--quick]

Both precisions see the same labels, first weights, batches and dropout; 200 labels a seed, 10 epochs.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from harness.contest import Contest, Entry
from harness.data import data_for
from harness.options import parse, parser
from harness.tables import markdown, middle, ratio, shown

from modicum.analysis.curves import mean_interval
from modicum.analysis.significance import sign_flip_test

SETS = {"trec": 64, "subj": 64, "ag_news": 128}
"""max_length of each."""
HOW = {
    "labels": "200 a seed, at random, other ones for each seed; tested on at most 2,000 random test texts",
    "interval": "95 %, Student's t, of the mean difference over paired seeds; p by flipping signs",
    "other answers": "share of test texts that get another class: of the same seed in the other precision, and, for "
    "scale, of two seeds in fp32",
}


def entry(name: str, precision: str, data: str, seeds: int, quick: bool) -> Entry:
    """All seeds of one set in one precision."""
    settings: dict[str, Any] = {"dataset": name, "max_length": SETS[name], "precision": precision, "seeds": seeds}
    settings |= {"labels": 200, "epochs": 10, "batch": 32, "tested": 2000}
    if quick:
        settings |= {"labels": 64, "epochs": 1}
    return Entry(f"LoRA on {name}", precision, "modicum_precision.py", settings=settings, given={"data": data})


def row(contest: Contest, low: Entry, full: Entry) -> dict[str, Any]:
    """One set: macro-F1 in both, their paired difference, and how many answers differ."""
    found = [contest.results(e)[0] for e in (low, full)]
    reached = [np.array(result["macro_f1"]) for result in found]
    answers = [np.array([list(text) for text in result["predicted"]]) for result in found]
    difference = reached[0] - reached[1]
    interval = mean_interval(difference.tolist())
    seeds = [float((a != b).mean()) for a, b in combinations(answers[1], 2)]
    return {
        "data": low.settings["dataset"],
        "bf16": f"{reached[0].mean():.4f}",
        "fp32": f"{reached[1].mean():.4f}",
        "bf16 minus fp32": f"{interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f}, {interval.n} pairs)",
        "p": shown(sign_flip_test(difference.tolist())),
        "sd over seeds": f"{reached[1].std(ddof=1):.4f}",
        "other answers": f"{(answers[0] != answers[1]).mean():.3f}",
        "of two seeds": f"{np.mean(seeds):.3f}",
        "fp32 takes": ratio(middle(contest.values(full)), middle(contest.values(low))),
    }


def main() -> None:
    made = parser(__doc__, repeats=1)
    made.add_argument("--seeds", type=int, default=10, metavar="N", help="default 10")
    options = parse(made, *SETS)
    seeds = 2 if options.quick else options.seeds
    sizes = {f"{name}/{part}": rows for name in SETS for part, rows in (("train", 300), ("test", 100))}
    with data_for(options, sizes) as data:
        contest = Contest("precision", options, {"data": ", ".join(SETS), "how": HOW})
        pairs = [[entry(name, p, str(data), seeds, options.quick) for p in ("bf16", "fp32")] for name in SETS]
        contest.run([e for pair in pairs for e in pair], repeats=1)
        rows = [row(contest, low, full) for low, full in pairs if contest.results(low) and contest.results(full)]
        print(markdown(rows))
        contest.finish(precision=rows)


if __name__ == "__main__":
    main()
