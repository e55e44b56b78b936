"""Fits on 500 labels of TREC: Modicum, alone and in a bank of 5, and Trainer + PEFT; SetFit for information.

    python benchmarks/training.py [--data DIR] [--repeats 3] [--threads N] [--systems NAME ...] [--resume] [--quick]
    python benchmarks/training.py --setfit      # SetFit at its defaults too: about 12,500 steps
    python benchmarks/training.py --methods     # only Modicum: its methods, each in banks of 1, 2, 4 and 8

LoRA (r = 8, alpha = 8, all linear maps), 10 epochs in batches of 32 texts: 160 steps a run, for all but SetFit.
"""

from __future__ import annotations

from typing import Any

from harness.contest import Contest, Entry
from harness.data import data_for
from harness.options import parse, parser
from harness.tables import markdown, middle, ratio, spread

ONE, FIVE = "fit LoRA on TREC, one run", "fit LoRA on TREC, 5 seeds"
SETFIT = "fit on the same labels"
NAMES = {"modicum": "Modicum", "trainer": "Trainer + PEFT, bf16, grouped by length", "setfit": "SetFit at its defaults"}
METHODS = ("lora", "full", "bitfit", "adapter", "prefix")
BANKS = (1, 2, 4, 8)
HOW = {
    "timed": "Modicum: Engine.fit, from making the bank to the runs' weights. Trainer: train() alone, with models made "
    "before; several runs one after another in one process. Each after a warm-up of one epoch",
    "Trainer": "frozen weights bf16, trained ones fp32, autocast to bf16, eager attention (each faster here than its "
    "alternative), batches grouped by length, learning rate and schedule as Modicum's",
    "macro-F1": "on TREC's test set, for information: mean over runs",
}


def entry(data: str, quick: bool, work: str, **changes: Any) -> Entry:
    """Modicum at one piece of work."""
    settings: dict[str, Any] = {"dataset": "trec", "labels": 500, "epochs": 10, "batch": 32, "max_length": 64}
    settings |= {"method": "lora", "options": {}, "runs": 1, "forced": False}
    if quick:
        settings |= {"labels": 64, "epochs": 2}
    return Entry(work, "modicum", "modicum_train.py", settings=settings | changes, given={"data": data})


def rival(data: str, quick: bool, work: str, runs: int) -> Entry:
    """Trainer + PEFT at the same."""
    settings: dict[str, Any] = {"dataset": "trec", "labels": 500, "epochs": 10, "batch": 32, "max_length": 64}
    settings |= {"learning_rate": 1e-3, "attention": "eager", "runs": runs}
    if quick:
        settings |= {"labels": 64, "epochs": 2}
    return Entry(work, "trainer", "huggingface_train.py", "huggingface", settings, {"data": data})


def setfit(data: str, quick: bool, max_steps: int) -> Entry:
    """SetFit on the same labels."""
    settings = {"dataset": "trec", "labels": 64 if quick else 500, "max_steps": 4 if quick else max_steps}
    return Entry(SETFIT, "setfit", "setfit_train.py", "huggingface", settings, {"data": data})


def row(contest: Contest, entry: Entry, own: float | None) -> dict[str, Any]:
    """A line of the table. own: Modicum's median seconds."""
    results, seconds = contest.results(entry), contest.values(entry)
    steps = results[0]["steps"] if results else None
    median = middle(seconds)
    reached = [value for result in results for value in result["macro_f1"]]
    projected = " (projected)" if any(result.get("projected") for result in results) else ""
    return {
        "work": entry.work,
        "system": NAMES[entry.system] + projected,
        "median seconds": median,
        "spread": spread(seconds),
        "ratio to Modicum": ratio(median, own),
        "steps": steps,
        "ms per step and run": 1e3 * median / results[0].get("all_steps", steps) if median else None,
        "macro-F1": f"{sum(reached) / len(reached):.3f}" if reached else None,
    }


def against_peers(contest: Contest, data: str) -> list[dict[str, Any]]:
    """One run and five, by each system."""
    options = contest.options
    made = [
        entry(data, options.quick, ONE),
        rival(data, options.quick, ONE, 1),
        entry(data, options.quick, FIVE, runs=2 if options.quick else 5),
        rival(data, options.quick, FIVE, 2 if options.quick else 5),
    ]
    contest.run([e for e in made if e.system in options.systems])
    slow = setfit(data, options.quick, options.setfit_steps)
    if options.setfit:
        contest.run([slow], repeats=1)
    own = {e.work: middle(contest.values(e)) for e in made if e.system == "modicum"}
    rows = [row(contest, e, own[e.work]) for e in made]
    return rows + ([row(contest, slow, own[ONE])] if contest.results(slow) else [])


def methods(contest: Contest, data: str) -> list[dict[str, Any]]:
    """Modicum's methods and bank sizes."""
    quick = contest.options.quick
    made = [
        entry(data, quick, f"fit {method} on TREC, {runs} a bank", method=method, runs=runs, forced=True)
        for method in METHODS
        for runs in (BANKS if method != "full" else BANKS[:1])
        if not quick or runs <= 2
    ]
    contest.run(made)
    rows = []
    for e in made:
        line = row(contest, e, None)
        alone = next(o for o in made if o.settings["method"] == e.settings["method"] and o.settings["runs"] == 1)
        base, seconds = middle(contest.values(alone)), line["median seconds"]
        rows.append(
            {"method": e.settings["method"], "runs in the bank": e.settings["runs"]}
            | {k: line[k] for k in ("median seconds", "spread", "ms per step and run", "macro-F1")}
            | {"gain per run": ratio(base, seconds / e.settings["runs"]) if seconds else None}
        )
    return rows


def main() -> None:
    made = parser(__doc__, repeats=3, systems=["modicum", "trainer"])
    made.add_argument("--setfit", action="store_true", help="measure SetFit, too, once; it is slow")
    made.add_argument("--setfit-steps", type=int, default=0, metavar="N", help="stop it early and project the rest")
    made.add_argument("--methods", action="store_true", help="only Modicum: its methods, and the size of banks")
    options = parse(made, "trec")
    with data_for(options, {"trec/train": 300, "trec/test": 100}) as data:
        contest = Contest("training", options, {"data": "trec", "how": HOW})
        rows = (methods if options.methods else against_peers)(contest, str(data))
        print(markdown(rows))
        contest.finish(**{"methods" if options.methods else "training": rows})


if __name__ == "__main__":
    main()
