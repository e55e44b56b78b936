"""Rows and verdicts for tests of claims."""

from __future__ import annotations

from modicum.analysis.claims import Claim, judge

GAINS = (0.08, 0.09, 0.10, 0.11, 0.12, 0.10)
"""Six differences with mean 0.1 and standard deviation sqrt(0.001 / 5)."""


def row(seed, value, method="full", labels=100, strategy="random", dataset="a", **more):
    plain = more.pop("plain_method", method)
    trial = "-".join(map(str, (dataset, method, strategy, seed, more.get("allowed_seconds", ""))))
    return {
        "trial": trial, "dataset": dataset, "backbone": "b", "method": method, "plain_method": plain, "tapt": "",
        "strategy": strategy, "seed": seed, "round": labels // 50 - 2, "labels": labels, "f1": value, **more,
    }  # fmt: skip


def claim(**fields):
    given = {"id": "c", "text": "It is so.", "measure": "auc", "expect": "greater"}
    return Claim(**(given | {"of": {"method": "lora"}, "against": {"method": "full"}} | fields))


def verdict(rows, metric="f1", **fields):
    return judge([claim(**fields)], rows, metric)[0]


def two_methods(gains=GAINS, **more):
    """Full at 0.5 and 0.7 with 100 and 200 labels, an area of 0.6; lora above by each seed's gain."""
    made = []
    for seed, gain in enumerate(gains):
        for labels, base in ((100, 0.5), (200, 0.7)):
            made += [row(seed, base, labels=labels, **more), row(seed, base + gain, "lora", labels, **more)]
    return made
