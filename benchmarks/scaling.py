"""How Modicum scales: with the pool, with the layers that are tuned, with the runs in a bank.

    python benchmarks/scaling.py [--part wiki top banks] [--data DIR] [--repeats 3] [--resume] [--quick]

wiki   scores 400,000 real sentences with a LoRA model: peak memory, and time per text against 7,600 of them
top    AG News with ``adapt_layers = "top:3"`` against all layers: seconds of a round, and macro-F1 over 5 seeds
banks  seconds per step and run with 1, 2, 4 and 8 runs in a bank, on TREC and AG News
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness.contest import Contest, Entry
from harness.data import data_for, write
from harness.options import parse, parser
from harness.tables import markdown, middle, ratio, shown, spread

from modicum.analysis.curves import mean_interval

BOUNDARY = re.compile(r'(?<=[.!?])["”)]?\s+(?=["“(]?[A-Z0-9])')
MANY, FEW = 400_000, 7_600
SEEDS = range(5)
HOW = {
    "sentences": "lines of wiki_en cut where a full stop, question or exclamation mark is followed by space and a "
    "capital or digit; those of 5 to 60 words; each once; a random 400,000, of which the first 7,600",
    "wiki": "scoring alone is timed, tokens are made before; peak memory is that of the process's whole life",
    "top": "a round is fitting 500 labels for 10 epochs, scoring the pool, scoring the test set, with all that can be "
    "kept for a data set kept already; filling it is timed apart. Interval: 95 %, Student's t, paired seeds",
    "banks": "500 labels, 3 epochs in batches of 32 texts a run, LoRA, after a warm-up of one epoch",
}


# ---- wiki ------------------------------------------------------------------------------------------------------------


def sentences(folder: Path) -> list[str]:
    """All distinct sentences of wiki_en, in random order."""
    texts = pq.read_table(folder / "wiki_en" / "train.parquet")["text"].to_pylist()
    cut = (part.strip() for text in texts for line in text.split("\n") for part in BOUNDARY.split(line))
    kept = list(dict.fromkeys(part for part in cut if 5 <= len(part.split()) <= 60))
    return [kept[i] for i in np.random.default_rng(0).permutation(len(kept))]


def wiki(contest: Contest, data: Path) -> list[dict[str, Any]]:
    """Memory and time per text, of few and of many."""
    found, entries = sentences(data), []
    with tempfile.TemporaryDirectory() as folder:
        for n in sorted({min(FEW, len(found) // 4), min(MANY, len(found))}):
            path = Path(folder) / f"{n}.parquet"
            write(pa.table({"text": found[:n]}), path)
            settings = {"max_length": 128, "classes": 4, "warm_up": min(1024, n), "labelled": False, "texts": n}
            work = f"score {n:,} sentences of wiki_en"
            entries.append(Entry(work, "modicum", "modicum_score.py", settings=settings, given={"file": str(path)}))
        contest.run(entries)
    base = middle(contest.values(entries[0]))
    rows = []
    for entry in entries:
        results, seconds, n = contest.results(entry), middle(contest.values(entry)), entry.settings["texts"]
        each, least = (1e3 * s / m if s else None for s, m in ((seconds, n), (base, entries[0].settings["texts"])))
        row: dict[str, Any] = {"work": entry.work, "median seconds": seconds, "spread": spread(contest.values(entry))}
        row |= {"ms per text": each, "of the time per text at few": ratio(each, least)}
        row |= {"tokens per text": results[0]["tokens"] / n if results else None}
        row |= {"seconds for tokens": middle(contest.values(entry, "tokenise_seconds"))}
        row |= {"peak memory, MB": max(contest.values(entry, "peak_memory_mb"), default=None)}
        rows.append(row)
    return rows


# ---- top -------------------------------------------------------------------------------------------------------------


def top(contest: Contest, data: Path) -> list[dict[str, Any]]:
    """The upper layers alone against all layers."""
    quick = contest.options.quick
    settings: dict[str, Any] = {"dataset": "ag_news", "max_length": 128, "batch": 32}
    settings |= {"labels": 64, "epochs": 1} if quick else {"labels": 500, "epochs": 10}
    with tempfile.TemporaryDirectory() as cache:
        given = {"data": str(data), "cache": cache}
        made = {
            layers: [
                Entry(f"AL round, {layers}", "modicum", "modicum_round.py", settings=settings | own, given=given)
                for own in ({"adapt_layers": layers, "seed": seed} for seed in (SEEDS[:2] if quick else SEEDS))
            ]
            for layers in ("all", "top:3")
        }
        for pair in zip(*made.values(), strict=True):
            contest.run(pair, repeats=1)
    base = middle(contest.values(made["all"]))
    rows = [top_row(contest, layers, entries, base) for layers, entries in made.items()]
    pairs = [
        (contest.values(a, "macro_f1"), contest.values(b, "macro_f1")) for a, b in zip(*made.values(), strict=True)
    ]
    lost = mean_interval([b[0] - a[0] for a, b in pairs if a and b])
    if lost.n:
        rows[1]["macro-F1 against all"] = f"{lost.mean:+.4f} ({lost.low:+.4f} to {lost.high:+.4f}, {lost.n} pairs)"
    return rows


def top_row(contest: Contest, layers: str, entries: list[Entry], base: float | None) -> dict[str, Any]:
    seconds, reached = contest.values(entries), contest.values(entries, "macro_f1")
    parts = {name: middle(contest.values(entries, f"{name}_seconds")) for name in ("fit", "pool", "test")}
    fill = contest.values(entries, "fill_seconds")
    return {
        "layers tuned": layers,
        "median seconds a round": middle(seconds),
        "spread": spread(seconds),
        "of the time of all": shown(middle(seconds) / base) if seconds and base else None,
        **parts,
        "filling what is kept": max(fill) if fill and layers != "all" else None,
        "macro-F1": f"{np.mean(reached):.4f}" if reached else None,
        "macro-F1 against all": None,
    }


# ---- banks -----------------------------------------------------------------------------------------------------------


def banks(contest: Contest, data: Path) -> list[dict[str, Any]]:
    """Seconds per step and run by the number of runs that train side by side."""
    quick, sizes = contest.options.quick, contest.options.bank_sizes
    common: dict[str, Any] = {"labels": 500, "epochs": 3, "batch": 32, "method": "lora", "options": {}, "forced": True}
    if quick:
        common, sizes = common | {"labels": 64, "epochs": 1}, sizes[:2]
    made = []
    for name, max_length in (("trec", 64), ("ag_news", 128)):
        for runs in sizes:
            settings = common | {"dataset": name, "max_length": max_length, "runs": runs}
            work = f"fit LoRA on {name}, {runs} a bank"
            made.append(Entry(work, "modicum", "modicum_train.py", settings=settings, given={"data": str(data)}))
    contest.run(made)
    rows, each = [], dict[tuple[str, int], float | None]()
    for entry in made:
        results, seconds = contest.results(entry), contest.values(entry)
        name, runs = entry.settings["dataset"], entry.settings["runs"]
        each[name, runs] = 1e3 * (middle(seconds) or 0) / results[0]["steps"] if results else None
        row: dict[str, Any] = {"data": name, "runs in the bank": runs, "median seconds": middle(seconds)}
        row |= {"spread": spread(seconds), "ms per step and run": each[name, runs]}
        row |= {"gain per run": ratio(each[name, sizes[0]], each[name, runs])}
        rows.append(row | {"peak memory, MB": middle(contest.values(entry, "peak_memory_mb"))})
    return rows


PARTS: dict[str, Callable[[Contest, Path], list[dict[str, Any]]]] = {"wiki": wiki, "top": top, "banks": banks}


def main() -> None:
    made = parser(__doc__, repeats=3)
    made.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    made.add_argument("--bank-sizes", type=int, nargs="+", default=[1, 2, 4, 8], metavar="R")
    options = parse(made, "wiki_en", "ag_news", "trec")
    sizes = {"wiki_en/train": 60, "ag_news/train": 300, "ag_news/test": 200, "trec/train": 300, "trec/test": 100}
    with data_for(options, sizes) as data:
        contest = Contest("scaling", options, {"how": HOW})
        tables = {}
        for part in options.part:
            tables[part] = PARTS[part](contest, data)
            print(markdown(tables[part]) + "\n")
        contest.finish(**{part: rows for part, rows in tables.items() if rows})


if __name__ == "__main__":
    main()
