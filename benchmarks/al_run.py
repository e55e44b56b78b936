"""Whole active-learning runs on TREC, 100 to 500 labels by 50, entropy: Modicum, small-text, Trainer + PEFT.

    python benchmarks/al_run.py [--data DIR] [--seeds 0 1 2 3 4] [--systems NAME ...] [--resume] [--untimed] [--quick]
    python benchmarks/al_run.py --tune-small-text    # only choose the learning rate of its full tuning

30 epochs in batches of 32, a new model each round, the same first labels by seed. Every run is kept as soon as it is
done, so a long comparison can be taken in pieces, by --systems and --seeds; a last call with all seeds, --resume
and --untimed shows the whole. Modicum's seeds train in one study and share its seconds; ``modicum-single`` runs a study
a seed. The learning rate of small-text's full tuning is chosen on helpdesk's training messages, 200 labels, and kept.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from harness.contest import Contest, Entry
from harness.data import data_for, write
from harness.options import parse, parser
from harness.tables import markdown, middle, ratio, shown, spread

from modicum.analysis.curves import mean_interval, normalised_auc
from modicum.analysis.significance import sign_flip_test
from modicum.data.sources import load
from modicum.loop.learner import Learner, Pace
from modicum.loop.stopping import Stopping
from modicum.strategies import STRATEGIES
from modicum.study.prepare import load_data
from modicum.study.spec import Data

NAMES = {
    "modicum": "Modicum, all seeds in one study: its share",
    "modicum-single": "Modicum, one seed",
    "huggingface": "Trainer + PEFT, the best loop",
    "small-text": "small-text, full tuning",
}
LONGEST = 41
"""Tokens of TREC's longest question."""
RATES = (2e-5, 5e-5, 1e-4, 2e-4)
HOW = {
    "timed": "a whole run in a process of its own, imports aside: from files to the last round's metrics, loading the "
    "encoder and making tokens included",
    "model": "MiniLM; Modicum and PEFT: LoRA, r = 8, all linear maps; small-text: all weights",
    "small-text": "max_length 64, to which it pads all texts. No early stopping, all labels in training; its bf16 is "
    "asked for, and its own code turns that off on a CPU. Runs with --untimed are padded to 41 tokens, the longest "
    "question's, so that the same tokens are learned from in less time; their seconds are not kept",
    "intervals": "95 %, Student's t, of the mean difference over paired seeds",
    "auc": "area under the macro-F1 curve over labels, divided by their range",
}


class Run:
    """What a run is like, for all systems."""

    def __init__(self, data: Path, quick: bool) -> None:
        self.settings: dict[str, Any] = {"dataset": "trec", "epochs": 30, "batch": 32, "max_length": 64}
        self.settings |= {"warm_start": 100, "query": 50, "budget": 500}
        if quick:
            self.settings |= {"epochs": 1, "warm_start": 24, "query": 8, "budget": 40}
        self.given: dict[str, Any] = {"data": str(data)}

    def entry(self, system: str, seeds: list[int], rate: float | None = None, padded_to: int = 64) -> Entry:
        """One system at these seeds; only Modicum takes several. rate, padded_to: small-text's."""
        work, given = "AL run on TREC", self.given | {"first_labels": self.first_labels(seeds)}
        if system.startswith("modicum"):
            settings = self.settings | {"method": "lora", "seeds": seeds}
            return Entry(work, system, "modicum_al.py", settings=settings, given=given)
        settings = self.settings | {"seed": seeds[0]}
        if system == "huggingface":
            settings |= {"learning_rate": 1e-3, "attention": "eager"}
            return Entry(work, system, "huggingface_al.py", "huggingface", settings, given)
        settings |= {"learning_rate": rate, "max_length": padded_to}
        return Entry(work, system, "small_text_al.py", "small-text", settings, given)

    def first_labels(self, seeds: list[int]) -> dict[str, list[int]]:
        """The positions that Modicum's warm start asks for, by seed."""
        data = load(Path(self.given["data"]) / "trec" / "train.parquet", text="text", label="label")
        size, found = self.settings["warm_start"], {}
        for seed in seeds:
            learner = Learner(
                tuple(data.ids),
                STRATEGIES.create("entropy"),
                warm=STRATEGIES.create("random"),
                pace=Pace(warm_start=size, batch=self.settings["query"]),
                stopping=Stopping(budget=self.settings["budget"]),
                seed=seed,
            )
            found[str(seed)] = data.ids.positions_of(learner.ask().ids).tolist()
        return found


def tuned_rate(contest: Contest, measure: bool) -> float | None:
    """small-text's best learning rate on helpdesk: 200 labels, one seed, macro-F1 on the other training messages.

    measure: measure what is missing; otherwise the answer may be None.
    """
    messages, _ = load_data(Data(train="helpdesk"))
    size, tested, epochs = (40, 40, 1) if contest.options.quick else (200, len(messages) - 200, 30)
    order = np.random.default_rng(0).permutation(len(messages))
    parts = {"train": order[:size], "test": order[size : size + tested]}
    with tempfile.TemporaryDirectory() as folder:
        for name, at in parts.items():
            table = pa.table({"text": messages.texts(at), "label": messages.labels[at]})
            write(table, Path(folder) / "helpdesk" / f"{name}.parquet")
        given = {"data": folder, "first_labels": {"0": list(range(size))}}
        settings = {"dataset": "helpdesk", "epochs": epochs, "batch": 32, "max_length": 64, "seed": 0}
        settings |= {"warm_start": size, "query": 0, "budget": size}
        work = f"tuning on helpdesk, {size} labels"
        made = [
            Entry(work, "small-text", "small_text_al.py", "small-text", settings | {"learning_rate": rate}, given)
            for rate in RATES
        ]
        for entry in made:
            if measure and (not contest.results(entry) or contest.options.tune_small_text):
                contest.measure(entry)
    reached = {e.settings["learning_rate"]: [r["runs"]["0"]["macro_f1"][-1] for r in contest.results(e)] for e in made}
    rows = [{"learning rate": f"{rate:.0e}", "macro-F1": f[0]} for rate, f in reached.items() if f]
    if not rows:
        return None
    contest.data["tables"] = contest.data.get("tables", {}) | {"tuning": rows}
    print(markdown(rows) + "\n")
    return max((rate for rate in RATES if reached[rate]), key=lambda rate: reached[rate][0])


# ---- tables ----------------------------------------------------------------------------------------------------------


def curves(contest: Contest, entries: list[Entry]) -> dict[int, dict[str, list[float]]]:
    """Each seed's curve, of the first measurement that has it."""
    found: dict[int, dict[str, list[float]]] = {}
    for entry in entries:
        for result in contest.results(entry):
            for seed, curve in result["runs"].items():
                found.setdefault(int(seed), curve)
    return found


def row(contest: Contest, system: str, entries: list[Entry], own: float | None) -> dict[str, Any]:
    """Time and quality of one system."""
    seconds = shares(contest, entries)
    found = curves(contest, entries).values()
    final = [curve["macro_f1"][-1] for curve in found]
    areas = [float(normalised_auc(curve["labels"], curve["macro_f1"])) for curve in found]
    steps = {int(sum(curve["steps"])) for curve in found}
    return {
        "work": "AL run on TREC",
        "system": NAMES[system],
        "median seconds": middle(seconds),
        "spread": spread(seconds),
        "ratio to Modicum": ratio(middle(seconds), own),
        "steps a run": " or ".join(map(str, sorted(steps))),
        "seeds": len(final),
        "macro-F1 at the end": f"{np.mean(final):.4f}" if final else None,
        "AUC": f"{np.mean(areas):.4f}" if areas else None,
        "peak memory, MB": middle(contest.values(entries, "peak_memory_mb")),
    }


def shares(contest: Contest, entries: list[Entry]) -> list[float]:
    """Seconds a run: a study's seconds are shared among its seeds."""
    return [seconds for entry in entries for seconds in per_run(contest.results(entry, timed=True))]


def per_run(results: list[dict[str, Any]]) -> list[float]:
    """Of each result that was timed."""
    return [result["seconds"] / len(result["runs"]) for result in results if "seconds" in result]


def paired(contest: Contest, entries: dict[str, list[Entry]]) -> list[dict[str, Any]]:
    """Modicum minus each other system, over the seeds that both have."""
    own, rows = curves(contest, entries["modicum"]) or curves(contest, entries["modicum-single"]), []
    for system in ("huggingface", "small-text"):
        other = curves(contest, entries[system])
        seeds = sorted(own.keys() & other.keys())
        for name in ("macro-F1 at the end", "AUC"):
            both = [(quality_of(own[seed], name), quality_of(other[seed], name)) for seed in seeds]
            differences = [a - b for a, b in both]
            if not differences:
                continue
            interval = mean_interval(differences)
            limits = f"{interval.low:+.4f} to {interval.high:+.4f}" if interval.n > 1 else "–"
            rows.append(
                {"Modicum minus": NAMES[system], "measure": name, "mean difference": f"{interval.mean:+.4f}"}
                | {"95 % interval": limits, "pairs": interval.n}
                | {"p (sign flips)": shown(sign_flip_test(differences))}
            )
    return rows


def quality_of(curve: dict[str, list[float]], name: str) -> float:
    """The last value, or the area."""
    return float(normalised_auc(curve["labels"], curve["macro_f1"])) if name == "AUC" else curve["macro_f1"][-1]


# ---- the whole -------------------------------------------------------------------------------------------------------


def compare(contest: Contest, run: Run, seeds: list[int], systems: list[str], rate: float | None) -> None:
    """Measure what is asked for, the systems in turn, and show all that the results hold."""
    made = {name: [run.entry(name, [seed], rate) for seed in seeds] for name in NAMES}
    made["modicum"] = [run.entry("modicum", seeds)]
    shorter = [run.entry("small-text", [seed], rate, LONGEST) for seed in seeds]
    to_measure = made | ({"small-text": shorter} if contest.untimed else {})
    made["small-text"] += shorter
    for i in range(max(len(seeds), contest.options.repeats)):
        if "modicum" in systems and i < contest.options.repeats:
            contest.measure(made["modicum"][0], i)
        for name in systems:
            if name != "modicum" and i < len(seeds):
                contest.measure(to_measure[name][i])
    own = middle(shares(contest, made["modicum"])) or middle(shares(contest, made["modicum-single"]))
    rows = [row(contest, name, entries, own) for name, entries in made.items() if curves(contest, entries)]
    differences = paired(contest, made)
    print(markdown(rows) + "\n\n" + markdown(differences))
    contest.finish(al_run=rows, differences=differences)


def main() -> None:
    made = parser(__doc__, repeats=3, systems=list(NAMES))
    made.set_defaults(systems=["modicum", "huggingface", "small-text"])
    made.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), metavar="SEED")
    made.add_argument("--tune-small-text", action="store_true", help="only choose its learning rate, on helpdesk")
    made.add_argument("--untimed", action="store_true", help="quality only: one thread each, and no seconds are kept")
    options = parse(made, "trec")
    if options.quick:
        options.seeds = options.seeds[:2]
    with data_for(options, {"trec/train": 300, "trec/test": 100}) as data:
        contest = Contest("al_run", options, {"data": "trec", "how": HOW})
        rate = tuned_rate(contest, options.tune_small_text or "small-text" in options.systems)
        contest.data["settings"]["small-text's learning rate"] = rate
        if rate is None and "small-text" in options.systems:
            options.systems.remove("small-text")  # the errors of its tuning are told at the end
        if options.tune_small_text:
            contest.finish()
        else:
            compare(contest, Run(data, options.quick), options.seeds, options.systems, rate)


if __name__ == "__main__":
    main()
