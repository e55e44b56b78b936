"""Scores the test set of AG News with a LoRA model: Modicum, a plain Hugging Face loop, and Trainer.predict.

    python benchmarks/scoring.py [--data DIR] [--repeats 3] [--threads N] [--systems NAME ...] [--resume] [--quick]

Every system takes the same 7,600 texts, cut to 128 tokens, through MiniLM with LoRA (r = 8, all linear maps, random
weights that are nowhere zero) and a head of 4 classes. Tokens are made before, and are not timed.
"""

from __future__ import annotations

from typing import Any

from harness.contest import Contest, Entry
from harness.data import data_for
from harness.options import parse, parser
from harness.tables import markdown, middle, ratio, spread

WORK = "score AG News test, LoRA"
NAMES = {
    "modicum": "Modicum",
    "loop": "Hugging Face loop, fp32, batch 32, dynamic padding, random order",
    "trainer": "Trainer.predict, bf16, batch 64, random order",
    "trainer-sorted": "Trainer.predict, bf16, batch 64, sorted by length",
    "trainer-merged": "Trainer.predict, bf16, batch 64, sorted by length, adapters merged before",
    "peak": "matrix products alone",
}
WAYS: dict[str, dict[str, Any]] = {
    "loop": {"way": "loop", "batch": 32, "sorted": False, "merged": False},
    "trainer": {"way": "trainer", "batch": 64, "sorted": False, "merged": False},
    "trainer-sorted": {"way": "trainer", "batch": 64, "sorted": True, "merged": False},
    "trainer-merged": {"way": "trainer", "batch": 64, "sorted": True, "merged": True},
}
HOW = {
    "timed": "one pass over all texts, from tokens to probabilities; each measurement in a process of its own, after a "
    "warm-up on 1,024 random texts. Modicum: making the scorer included",
    "bf16 of Trainer": "bf16_full_eval=True, faster here than autocast (bf16=True); sdpa attention, faster than eager",
    "useful GFLOP": "per token 2 x parameters of the frozen linear maps, plus per token and layer 4 x length x width "
    "for attention; no padding, no adapters (they can be merged), no embeddings, norms, softmax or head",
    "share of bf16 peak": "useful GFLOP/s of the median pass over the median of the bf16 peaks measured in turn with "
    "it; a peak is the best of several shapes, each for half a second",
}


def entries(file: str, quick: bool) -> dict[str, Entry]:
    """What each system is told."""
    common = {"max_length": 128, "classes": 4, "warm_up": 64 if quick else 1024}
    given = {"file": file}
    made = {
        "modicum": Entry(WORK, "modicum", "modicum_score.py", settings=common | {"labelled": True}, given=given),
        "peak": Entry(WORK, "peak", "peak.py", settings={"seconds": 0.05 if quick else 0.5}),
    }
    for name, way in WAYS.items():
        settings = common | way | {"attention": "sdpa"}
        made[name] = Entry(WORK, name, "huggingface_score.py", "huggingface", settings, given)
    return {name: made[name] for name in NAMES}


def table(contest: Contest, made: dict[str, Entry]) -> list[dict[str, Any]]:
    """A row a system."""
    peaks = [peak["gflops"] for peak in contest.values(made["peak"], "bf16")]
    own = middle(contest.values(made["modicum"]))
    rows = []
    for name, entry in made.items():
        results = contest.results(entry, timed=True)
        seconds = middle([r["seconds"] for r in results]) if name != "peak" else None
        gflops = results[0]["gflop"] / seconds if seconds else None
        row: dict[str, Any] = {"work": WORK, "system": NAMES[name], "median seconds": seconds}
        row["spread"] = spread(peaks if name == "peak" else [r["seconds"] for r in results])
        row |= {"ratio to Modicum": ratio(seconds, own), "texts/s": results[0]["texts"] / seconds if seconds else None}
        row["useful GFLOP/s"] = middle(peaks) if name == "peak" else gflops
        row["share of bf16 peak"] = gflops / middle(peaks) if gflops and peaks else None
        rows.append(row)
    return rows


def main() -> None:
    options = parse(parser(__doc__, repeats=3, systems=list(NAMES)), "ag_news")
    with data_for(options, {"ag_news/test": 256}) as data:
        contest = Contest("scoring", options, {"data": "ag_news/test", "how": HOW})
        made = entries(str(data / "ag_news" / "test.parquet"), options.quick)
        contest.run([entry for name, entry in made.items() if name in options.systems])
        rows = table(contest, made)
        print(markdown(rows))
        contest.finish(scoring=rows)


if __name__ == "__main__":
    main()
