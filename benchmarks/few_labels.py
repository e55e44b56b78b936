"""Few labels: `auto` beside SetFit, small-text, Trainer + PEFT and logistic regressions, 50 to 500 labels, five sets.

    python benchmarks/few_labels.py [--data DIR] [--seeds 0 1 2 3 4] [--labels 50 100 200 500] [--sets trec ...]
                                    [--systems NAME ...] [--resume] [--untimed] [--quick]
    python benchmarks/few_labels.py --recipes            # every recipe of `auto` on held-out training texts: its table

All systems see the same random labels by seed, and are tested on the same texts of the test set, at most 2,000. Every
run is kept as soon as it is done, so a long comparison can be taken in pieces with --resume.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from harness.contest import Contest, Entry
from harness.data import data_for
from harness.environments import OWN
from harness.options import parse, parser
from harness.tables import markdown, middle

from modicum.analysis.curves import mean_interval
from modicum.analysis.significance import sign_flip_test
from modicum.auto.engine import Auto
from modicum.auto.recipes import shipped_table

SETS = {"trec": 64, "sst2_sentence": 64, "subj": 64, "ag_news": 128, "cola": 64}
"""max_length of each."""
NAMES = {
    "auto": "Modicum, auto",
    "setfit": "SetFit",
    "small-text": "small-text, full tuning",
    "huggingface": "Trainer + PEFT, LoRA at its defaults",
    "embeddings": "logistic regression on embeddings",
    "tf-idf": "logistic regression on TF-IDF",
}
FORETOLD = 200
"""Labels up to which the forecast of more is tried, too."""
MOST_PAIRS = 200
"""Labels beyond which SetFit takes 20 pairs a text, as in its paper, and not every pair, which takes half an hour."""
HOW = {
    "labels": "random ones of the training set, the same for all systems by seed",
    "tested": "at most 2,000 random test texts, the same for all",
    "auto": "at its defaults: it sees the labels given, and no others",
    "SetFit": f"1.2 at its defaults; beyond {MOST_PAIRS} labels 20 pairs a text (num_iterations)",
    "small-text": "30 epochs, rate 2e-4 (best of four on helpdesk), no early stopping",
    "Trainer + PEFT": "3 epochs, batches of 8, rate 5e-5, LoRA r = 8 on query and value",
    "logistic regression": "the penalty by cross-validation within the labels",
    "timed": "choosing and training; encoders are loaded before",
    "intervals": "95 %, Student's t, of the mean difference over paired seeds",
}


def entries(system: str, name: str, labels: int, options: Any, data: str) -> list[Entry]:
    """All runs of one system on one set with so many labels: one a seed, or one for all seeds."""
    tested = 100 if options.quick else 2000
    common: dict[str, Any] = {"dataset": name, "labels": labels, "max_length": SETS[name], "split": "test"}
    common |= {"tested": tested}
    given, what = {"data": data}, f"{name}, {labels} labels"
    if system in ("embeddings", "tf-idf"):
        settings = common | {"features": system, "seeds": options.seeds, "penalty": "cross-validated"}
        return [Entry(what, system, "linear_few.py", "huggingface", settings=settings, given=given)]
    more: dict[str, dict[str, Any]] = {
        "auto": {"evidence": labels <= FORETOLD, "table": Auto().table},
        "setfit": {"pairs": 2 if options.quick else 20 * (labels > MOST_PAIRS)},
        "small-text": {"epochs": 1 if options.quick else 30, "batch": 32, "learning_rate": 2e-4},
        "huggingface": {},
    }
    script, environment = {
        "auto": ("modicum_few.py", OWN),
        "setfit": ("setfit_few.py", "huggingface"),
        "small-text": ("small_text_few.py", "small-text"),
        "huggingface": ("huggingface_few.py", "huggingface"),
    }[system]
    settings = common | more[system]
    return [Entry(what, system, script, environment, settings | {"seed": seed}, given) for seed in options.seeds]


def by_seed(contest: Contest, made: list[Entry]) -> dict[int, float]:
    """Macro-F1 by seed."""
    found = [run for entry in made for result in contest.results(entry) for run in result["runs"].items()]
    return {int(seed): reached["macro_f1"] for seed, reached in found}


def rows_of(contest: Contest, labels: int, plan: dict[tuple[str, str], list[Entry]]) -> list[dict[str, Any]]:
    """A row a system: its mean on each set, over the sets, what auto has more, and its time."""
    reached = {key: by_seed(contest, made) for key, made in plan.items()}
    rows = []
    for system in NAMES:
        own = {name: reached[system, name] for name in SETS if reached.get((system, name))}
        if not own:
            continue
        row: dict[str, Any] = {"labels": labels, "system": NAMES[system]}
        row |= {name: f"{np.mean(list(own[name].values())):.3f}" if name in own else "" for name in SETS}
        row["mean"] = f"{np.mean([np.mean(list(of.values())) for of in own.values()]):.3f}" if len(own) > 1 else ""
        differences = [
            reached["auto", name][seed] - own[name][seed]
            for name in own
            for seed in own[name].keys() & reached.get(("auto", name), {}).keys()
        ]
        if system != "auto" and len(differences) > 1:
            interval = mean_interval(differences)
            row["auto has more"] = f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
            row["p"] = f"{sign_flip_test(differences):.3f}"
        seconds = [middle(contest.values(plan[system, name])) for name in own]
        timed = [s for s in seconds if s is not None]
        row["median seconds"] = f"{np.mean(timed):.1f}" if timed else ""
        rows.append(row)
    return rows


def recipes(contest: Contest, options: Any, data: str) -> list[dict[str, Any]]:
    """Every recipe on held-out training texts."""
    rows = []
    for name in options.sets:
        for labels in options.labels:
            for recipe in shipped_table().recipes:
                told = recipe.model_dump(mode="json", exclude={"gain"})
                settings = {"dataset": name, "labels": labels, "max_length": SETS[name], "split": "held-out"}
                settings |= {"tested": 100 if options.quick else 1000, "recipe": told, "seeds": options.seeds}
                made = Entry(f"{name}, {labels} labels", recipe.name, "modicum_few.py", settings=settings,
                             given={"data": data})  # fmt: skip
                contest.measure(made)
                reached = list(by_seed(contest, [made]).values())
                if reached:
                    interval = mean_interval(reached) if len(reached) > 1 else None
                    shown = f"{np.mean(reached):.3f}" + (
                        f" ({interval.low:.3f} to {interval.high:.3f})" if interval else ""
                    )
                    rows.append({"data": name, "labels": labels, "recipe": recipe.name, "macro-F1": shown})
    return rows


def main() -> None:
    made = parser(__doc__, repeats=1, systems=list(NAMES))
    made.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), metavar="SEED")
    made.add_argument("--labels", type=int, nargs="+", default=[50, 100, 200, 500], metavar="N")
    made.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET")
    made.add_argument("--recipes", action="store_true", help="only measure the recipes that auto chooses among")
    made.add_argument("--untimed", action="store_true", help="quality only: one thread each, and no seconds are kept")
    options = parse(made, *SETS)
    if options.quick:
        options.seeds, options.labels = options.seeds[:2], [30]
    sizes = {f"{name}/{part}": rows for name in SETS for part, rows in (("train", 500), ("test", 100))}
    with data_for(options, sizes) as data:
        contest = Contest("few_labels", options, {"data": ", ".join(options.sets), "how": HOW})
        if options.recipes:
            rows = recipes(contest, options, str(data))
            print(markdown(rows))
            contest.finish(recipes=rows)
            return
        table: list[dict[str, Any]] = []
        for labels in options.labels:
            plan = {(s, name): entries(s, name, labels, options, str(data)) for name in SETS for s in NAMES}
            for name in options.sets:
                for system in options.systems:
                    for entry in plan[system, name]:
                        contest.measure(entry)
            table += rows_of(contest, labels, plan)
        print(markdown(table))
        contest.finish(few_labels=table)


if __name__ == "__main__":
    main()
