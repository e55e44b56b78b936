"""Rows of a made-up study, their report, and a parser that fails on tags that do not nest."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from modicum.report import ReportSource, write_report

GAIN = {"random": 0.0, "entropy": 0.03, "badge": -0.03}


def rows(methods=("full", "lora"), strategies=("random", "entropy", "badge"), seeds=3, rounds=4, datasets=("trec",)):
    rng = np.random.default_rng(0)
    made = []
    for dataset in datasets:
        for m, method in enumerate(methods):
            for strategy in strategies:
                for seed in range(seeds):
                    luck = rng.normal(0, 0.002)
                    for r in range(rounds):
                        f1 = 0.5 + 0.1 * r + 0.02 * m + GAIN.get(strategy, 0.01) * (r > 0) + luck + rng.normal(0, 0.002)
                        made.append({
                            "trial": f"{dataset}-{method}-{strategy}-{seed}", "dataset": dataset, "backbone": "minilm",
                            "method": method, "strategy": strategy, "seed": seed, "round": r, "labels": 100 + 50 * r,
                            "macro_f1": f1, "accuracy": f1 + 0.05, "parameters": 1000 * (m + 1), "steps": 10,
                            "train_loss": 0.1, "fit_seconds": 2.0, "score_seconds": 0.5 if r < rounds - 1 else None,
                            "select_seconds": 0.25, "peak_memory_mb": 100.0 + r,
                        })  # fmt: skip
    return made


def source(made=None, **options):
    return ReportSource("A study", options.pop("metric", "macro_f1"), rows() if made is None else made, **options)


class Checker(HTMLParser):
    """Collects what tests ask about, and fails on tags that do not nest."""

    VOID = {"meta", "link", "br", "hr", "img"}

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.tags, self.attributes, self.text = [], [], [], [], []
        self.feed(page)
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page(made, tmp_path, **options):
    path = write_report(source(made, **options), tmp_path)
    text = path.read_text(encoding="utf-8")
    return text, Checker(text)


def table(document, key):
    return next(part.table for part in document.sections[0].parts if part.key == key)


SHARES = {"full": (0.5, 0.3, 0.1, 0.2), "lora": (0.7, 0.2, 0.05, 0.1)}
"""Unforgettable, forgettable, often forgotten, never learned."""


def trained(made=None, layers=6):
    """Rows with all that is known of training: shares of forgetting, CKA that falls with layers and labels."""
    names = ("unforgettable", "forgettable", "often_forgotten", "never_learned")
    for row in rows() if made is None else made:
        shift = 0.01 * row["seed"]
        slope = {"full": 0.1, "lora": 0.04}.get(row["method"], 0.08) * (1 + row["round"] / 10)
        kinds = SHARES.get(row["method"], SHARES["full"])
        kinds = (kinds[0] + shift, kinds[1] - shift, *kinds[2:])
        cka = [1.0, *(1 - slope * layer + shift / 10 for layer in range(1, layers + 1))]
        yield row | dict(zip(names, kinds, strict=True)) | {"cka": cka, "share": row["labels"] / 1000, "tapt": ""}


def timed(times=(5.0, 20.0, 60.0), **options):
    """One round of each trial after several times of training; the metric grows with the time."""
    made = []
    for i, seconds in enumerate(times):
        for row in rows(rounds=1, **options):
            trial = f"{row['trial']}-{seconds:g}"
            made.append(row | {"trial": trial, "allowed_seconds": seconds, "macro_f1": row["macro_f1"] + 0.1 * i})
    return made


AWKWARD = '<b>&"|_%'
"""The id of the example of the lowest confidence."""


def examples(count=20, methods=("full", "lora"), strategies=("random", "entropy"), seeds=3):
    """Labelled examples that are the surer the later they come; lora with seed 0 alone learns the first one."""
    for method in methods:
        for strategy in strategies:
            for seed in range(seeds):
                for i in range(count):
                    learned = i > 0 or (method, seed) == ("lora", 0)
                    yield {
                        "dataset": "trec", "method": method, "strategy": strategy, "seed": seed,
                        "id": f"e{i}" if i else AWKWARD, "label": "A_[x] & B" if i % 2 == 0 else "C",
                        "forgetting_events": i % 6 if strategy == "random" else 0, "first_learned": learned - 1,
                        "confidence": (i + 1) / (count + 1) + 0.001 * seed, "variability": 0.01 * seed + 0.1,
                        "correctness": i / (count - 1),
                    }  # fmt: skip


def chapter(document, key):
    """A chapter of a document, by its key."""
    return next(c for c in (*document.chapters, *document.appendix) if c.key == key)


def items(found):
    """A table's cells as text, by group and head."""
    return {(line.group, line.head): [item.text for item in line.items] for line in found.lines}
