"""Few labels: `auto` beside SetFit, small-text, Trainer + PEFT and logistic regressions, 50 to 500 labels, five sets.

    python benchmarks/few_labels.py [--data DIR] [--seeds 0 1 2 3 4] [--labels 50 100 200 500] [--sets trec ...]
                                    [--systems NAME ...] [--evidence] [--resume] [--untimed] [--quick]

All systems see the same random labels by seed, and are tested on the same texts of the test set, at most 2,000. On each
set `auto` goes by the gains of its recipes on the others alone (SUBJ and SST-2, which share texts, count as one), which
``auto_recipes.py`` measured. Every run is kept as soon as it is done, so a long comparison can be taken in pieces, and
in several processes, with --resume --untimed. Times are then taken of a seed or two: --resume --seeds 0, with nothing
else at work. A last call with --resume --untimed finds all measured, and prints the tables. With --evidence the labels
are also cross-validated as `modicum advise` does it, which takes ten trainings; ``forecasts.py`` reads that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from harness.contest import Contest, Entry
from harness.data import data_for
from harness.environments import OWN
from harness.few import SETS, by_seed, parse, parser
from harness.rules import Incomplete, as_given, rules, settings_of
from harness.tables import markdown, middle

from modicum.analysis.curves import mean_interval
from modicum.auto.recipes import shipped_table
from modicum.base.spec import digest

NAMES = {
    "auto": "Modicum, auto",
    "setfit": "SetFit",
    "small-text": "small-text, full tuning",
    "huggingface": "Trainer + PEFT, LoRA at its defaults",
    "huggingface-long": "Trainer + PEFT, LoRA tuned longer",
    "embeddings": "logistic regression on embeddings",
    "tf-idf": "logistic regression on TF-IDF",
}
FORETOLD = 200
"""Labels up to which the forecast of more is tried."""
MOST_PAIRS = 100
"""Labels beyond which SetFit takes 20 + 20 pairs a text, as in its paper: every pair would take half an hour."""
LEAST_STEPS = 100
"""Steps that small-text and the longer Trainer take at least, as Modicum does."""
BELOW = 0.01
"""Macro-F1 that may be lost to the best peer on a set."""
HOW = {
    "labels": "random ones of the training set, the same for all systems by seed",
    "tested": "at most 2,000 random test texts, the same for all",
    "auto": "at its defaults: it sees the labels given, and no others; what its table says is other sets'",
    "SetFit": f"1.2 at its defaults; beyond {MOST_PAIRS} labels 20 + 20 pairs a text (num_iterations)",
    "small-text": f"30 epochs and at least {LEAST_STEPS} steps, rate 2e-4 (best of four), no early stopping",
    "Trainer + PEFT": "3 epochs, batches of 8, rate 5e-5, LoRA r = 8 on query and value",
    "Trainer + PEFT longer": f"30 epochs and at least {LEAST_STEPS} steps, batches of 32, rate 1e-3, LoRA on all maps",
    "logistic regression": "the penalty by cross-validation within the labels",
    "timed": "choosing and training; encoders are loaded before",
    "untimed": "SetFit and small-text in bf16 where the processor has it; results that tell no precision are of fp32",
    "intervals": "95 %, Student's t, over seeds: of a seed's mean over sets, or of one set",
    "best peer": "of each set, by the mean over the seeds that are compared, which favours it",
}
Plan = Mapping[tuple[str, str], list[Entry]]
"""Entries by system and set."""


def entries(system: str, name: str, labels: int, options: Any, data: str) -> list[Entry]:
    """All runs of one system on one set with so many labels, one a seed."""
    tested = 100 if options.quick else 2000
    common: dict[str, Any] = {"dataset": name, "labels": labels, "max_length": SETS[name], "split": "test"}
    common |= {"tested": tested}
    given, what = {"data": data}, f"{name}, {labels} labels"
    if system in ("embeddings", "tf-idf"):
        common |= {"features": system, "penalty": "cross-validated"}
    epochs = 1 if options.quick else max(30, math.ceil(LEAST_STEPS / math.ceil(labels / 32)))
    more: dict[str, Any] = {
        "setfit": {"pairs": 2 if options.quick else 20 * (labels > MOST_PAIRS)},
        "small-text": {"epochs": epochs, "batch": 32, "learning_rate": 2e-4},
        "huggingface-long": {"epochs": epochs, "batch": 32, "learning_rate": 1e-3},
    }.get(system, {})
    if system == "auto":
        table = as_given(shipped_table() if options.quick else rules(name, labels))
        given, more = given | {"table": table}, {"table": digest(table)}
    script, environment = {
        "auto": ("modicum_few.py", OWN),
        "setfit": ("setfit_few.py", "huggingface"),
        "small-text": ("small_text_few.py", "small-text"),
        "huggingface": ("huggingface_few.py", "huggingface"),
        "huggingface-long": ("huggingface_few.py", "huggingface"),
        "embeddings": ("linear_few.py", "huggingface"),
        "tf-idf": ("linear_few.py", "huggingface"),
    }[system]
    settings = common | more
    return [Entry(what, system, script, environment, settings | {"seed": seed}, given) for seed in options.seeds]


def evidence(made: list[Entry]) -> list[Entry]:
    """What `modicum advise` learns of the labels of these runs of auto, whatever else its table holds."""
    by = {"evidence": settings_of(shipped_table().recipes[0])}
    kept = [{name: value for name, value in one.settings.items() if name != "table"} for one in made]
    return [replace(one, system="advise", settings=own | by) for one, own in zip(made, kept, strict=True)]


# ---- tables ----------------------------------------------------------------------------------------------------------


def over_sets(contest: Contest, labels: int, plan: Plan) -> list[dict[str, Any]]:
    """A row a system: macro-F1 on each set and over them, what auto has more, calibration and time."""
    reached = {key: by_seed(contest, made) for key, made in plan.items()}
    seconds = {key: middle(contest.values(made)) for key, made in plan.items()}
    rows = []
    for system in NAMES:
        own = {name: reached[system, name] for name in SETS if reached.get((system, name))}
        if not own:
            continue
        row: dict[str, Any] = {"labels": labels, "system": NAMES[system]}
        row |= {name: f"{np.mean(list(own[name].values())):.3f}" if name in own else None for name in SETS}
        row["mean"] = f"{np.mean([np.mean(list(of.values())) for of in own.values()]):.3f}" if len(own) > 1 else None
        differences = _by_seed_over_sets(
            {name: _paired(reached.get(("auto", name), {}), own[name]) for name in own} if system != "auto" else {}
        )
        row["auto has more"] = _shown(differences) if differences else None
        for metric in ("brier", "ece"):
            told = [list(by_seed(contest, plan[system, name], metric).values()) for name in own]
            row[metric] = f"{np.mean([np.mean(of) for of in told]):.3f}" if all(told) else None
        both = [n for n in own if seconds.get((system, n)) and seconds.get(("auto", n))]
        row["seconds"] = float(np.mean([seconds[system, n] for n in both])) if both else None  # type: ignore[arg-type]
        ratios = [seconds["auto", n] / seconds[system, n] for n in both] if system != "auto" else []  # type: ignore[operator]
        row["auto takes"] = f"{np.mean(ratios):.2f}×" if ratios else None
        rows.append(row)
    return rows


def set_by_set(contest: Contest, labels: int, plan: Plan) -> list[dict[str, Any]]:
    """A row a set: the best peer by its mean, and how much more auto has."""
    rows = []
    for name in SETS:
        own = by_seed(contest, plan.get(("auto", name), []))
        peers = {s: by_seed(contest, plan.get((s, name), [])) for s in NAMES if s != "auto"}
        paired = {
            s: list(_paired(own, reached).values()) for s, reached in peers.items() if own.keys() & reached.keys()
        }
        if not paired:
            continue
        best = min(paired, key=lambda s: np.mean(paired[s]))
        differences = paired[best]
        rows.append({
            "labels": labels, "data": name, "best peer": NAMES[best],
            "its macro-F1": f"{np.mean(list(peers[best].values())):.3f}", "auto": f"{np.mean(list(own.values())):.3f}",
            "auto has more": _shown(differences), f"more than {BELOW} below": _below(differences),
        })  # fmt: skip
    return rows


def _paired(own: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {seed: own[seed] - other[seed] for seed in own.keys() & other.keys()}


def _by_seed_over_sets(differences: Mapping[str, Mapping[int, float]]) -> list[float]:
    """A value a seed: the mean over sets, of seeds that all sets have."""
    shared = set.intersection(*(set(of) for of in differences.values())) if differences else set()
    return [float(np.mean([of[seed] for of in differences.values()])) for seed in sorted(shared)]


def _below(differences: list[float]) -> str:
    """Whether what is lost exceeds ``BELOW``, as far as the interval tells."""
    if len(differences) < 2:
        return "undecided"
    interval = mean_interval(differences)
    return "yes" if interval.high < -BELOW else "no" if interval.low >= -BELOW else "undecided"


def _shown(differences: list[float]) -> str:
    interval = mean_interval(differences)
    limits = f" ({interval.low:+.3f} to {interval.high:+.3f})" if interval.n > 1 else ""
    return f"{interval.mean:+.3f}{limits}"


def main() -> None:
    made = parser(__doc__, [50, 100, 200, 500], list(NAMES))
    made.add_argument("--evidence", action="store_true", help=f"cross-validate up to {FORETOLD} labels for forecasts")
    options = parse(made)
    sizes = {f"{name}/{part}": rows for name in SETS for part, rows in (("train", 500), ("test", 100))}
    with data_for(options, sizes) as data:
        contest = Contest("few_labels", options, {"data": ", ".join(SETS), "how": HOW}, threads_decide=False)
        # peers can be measured before there are rules for auto
        shown = [system for system in NAMES if system != "auto" or system in options.systems]
        try:
            plans = {
                labels: {(s, name): entries(s, name, labels, options, str(data)) for name in SETS for s in shown}
                for labels in options.labels
            }
        except Incomplete as problem:
            raise SystemExit(f"No rules for auto: {problem}") from None
        for labels, plan in plans.items():
            for name in options.sets:
                for in_turn in zip(*(plan[system, name] for system in options.systems), strict=True):
                    contest.run(in_turn, 1)
                if options.evidence and "auto" in shown and labels <= FORETOLD:
                    contest.run(evidence(plan["auto", name]), 1)
        whole = [row for labels, plan in plans.items() for row in over_sets(contest, labels, plan)]
        by_set = [row for labels, plan in plans.items() for row in set_by_set(contest, labels, plan)]
        print(f"{markdown(whole)}\n\n{markdown(by_set)}")
        contest.finish(few_labels=whole, by_set=by_set)


if __name__ == "__main__":
    main()
