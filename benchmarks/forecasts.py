"""How far `modicum advise` may be trusted: its forecasts of the next number of labels against what came.

    python benchmarks/forecasts.py

Reads what ``few_labels.py`` measured: cross-validation of each seed's labels, and the test set's macro-F1 with these
labels and with more. The curves of ``modicum/auto/known.toml`` are fitted on all data sets but one, and tried on that
one; the table says how many of its 90 % intervals held. To ship are the last lines, from all data sets.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from harness.environments import ROOT
from harness.rules import TAUGHT, Incomplete, as_given, rules, settings_of
from harness.tables import markdown
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm, t

from modicum.auto.advice import COVERED, Curves, Evidence, forecast, log_error, shipped_knowledge
from modicum.auto.recipes import shipped_table
from modicum.base.spec import digest

LEAST_SD = 0.02
"""Below which no deviation is believed."""
RESULTS = ROOT / "benchmarks" / "results" / "few_labels.json"


class NoCurves(Exception):
    """Too little is measured to fit curves on."""


class Case(NamedTuple):
    """A forecast to make: from a seed's evidence to the macro-F1 that so many labels reached."""

    data: str
    seed: int
    evidence: Evidence
    labels: int
    reached: float


def cases() -> list[Case]:
    """From each number of labels to itself and to the next larger one that was measured, all under today's rules.

    Raises:
        Incomplete: there are no rules for a data set.
    """
    kept: dict[str, dict[tuple[str, int, int], dict[str, Any]]] = {"auto": {}, "advise": {}}
    if not RESULTS.is_file():
        return []
    for one in json.loads(RESULTS.read_text(encoding="utf-8"))["measurements"]:
        if one["system"] not in kept or "result" not in one:
            continue
        told = one["settings"]
        todays = (
            told["table"] == digest(as_given(rules(told["dataset"], told["labels"])))
            if one["system"] == "auto"
            else told["evidence"] == settings_of(shipped_table().recipes[0])
        )
        if todays:
            kept[one["system"]][told["dataset"], told["seed"], told["labels"]] = one["result"]
    found, runs = [], kept["auto"]
    for (data, seed, labels), result in kept["advise"].items():
        later = sorted(n for name, s, n in runs if (name, s) == (data, seed) and n >= labels)[:2]
        for n in later:
            reached = runs[data, seed, n]["runs"][str(seed)]["macro_f1"]
            found.append(Case(data, seed, Evidence(**result["evidence"]), n, reached))
    return found


def fitted(seen: list[Case]) -> Curves:
    """The numbers under which what came is most likely, all logarithms of errors being normal.

    Slopes are those of the data sets' curves: cross-validation says too little of one for a likelihood to find their
    spread. The cases of a data set share one draw of the offset, so that for it they count as one data set and not as
    many; each case has a deviation of its own besides. What so few draws leave unknown widens both deviations between
    data sets, as Student's t does for one more draw. Data sets on which labels teach nothing have no curve; how often
    that is follows from their number by Laplace's rule.

    Raises:
        NoCurves: no data set has a curve.
    """
    every = [[case for case in seen if case.data == data] for data in sorted({case.data for case in seen})]
    of_sets = [of_set for of_set in every if teaches(of_set)]
    noise, flat = shipped_knowledge().curves.noise, (len(every) - len(of_sets) + 1) / (len(every) + 2)
    slopes = [slope for of_set in of_sets if (slope := slope_of(of_set)) is not None]
    if not slopes:
        raise NoCurves("no data set whose labels teach something is measured with two numbers of labels")
    slope = max(0.0, float(np.mean(slopes)))
    slope_sd = max(LEAST_SD, float(np.std(slopes)) * widening(len(slopes)))

    def curves(offset: float, offset_sd: float) -> Curves:
        return Curves(slope=slope, slope_sd=slope_sd, offset=offset, offset_sd=offset_sd, noise=noise, flat=flat)

    def loss(values: np.ndarray) -> float:
        between, within = np.exp(values[1:])
        known, total = curves(values[0], within), 0.0
        for of_set in of_sets:
            told = np.array([log_error(case.evidence, case.labels, known) for case in of_set])
            errors = np.log([max(1e-3, 1 - case.reached) for case in of_set]) - told[:, 0]
            shared = np.full((len(of_set), len(of_set)), between**2)
            total -= multivariate_normal.logpdf(errors, cov=shared + np.diag(told[:, 1] ** 2))
        return float(total)

    bounds = [(-0.5, 0.5), (np.log(LEAST_SD), 0.0), (np.log(LEAST_SD), 0.0)]
    offset, *deviations = minimize(loss, np.array([0.0, -2.0, -2.0]), bounds=bounds).x
    between, within = np.exp(deviations)
    return curves(offset, float(np.hypot(between * widening(len(of_sets)), within)))


def teaches(of_set: list[Case]) -> bool:
    """Whether the labels of a data set teach something, by the mean over seeds of some number of labels."""
    reached = defaultdict(list)
    for case in of_set:
        reached[case.labels].append(case.reached - 1 / case.evidence.classes)
    return any(np.mean(above) >= TAUGHT for above in reached.values())


def slope_of(of_set: list[Case]) -> float | None:
    """How the logarithm of a data set's mean error falls with that of the labels; None with one number of labels.

    Numbers of labels at which some seeds are still missing do not count.
    """
    reached: dict[int, dict[int, float]] = defaultdict(dict)
    for case in of_set:
        reached[case.labels][case.seed] = case.reached
    most = max(map(len, reached.values()))
    errors = {n: 1 - np.mean(list(of.values())) for n, of in reached.items() if len(of) == most}
    if len(errors) < 2:
        return None
    return -float(np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)[0])


def widening(sets: int) -> float:
    """How much wider an interval for one more data set is than the likeliest deviation between so many says by itself.

    Student's quantile for the normal one, the doubt about their mean, and the likeliest deviation's being too small.
    """
    if sets < 2:
        return 1.0
    quantile = t.ppf((1 + COVERED) / 2, sets - 1)
    usual = norm.ppf((1 + COVERED) / 2)
    return float(quantile / usual * np.sqrt((1 + 1 / sets) * sets / (sets - 1)))


def main() -> None:
    rows, inside, foretold = [], list[bool](), list[int]()
    try:
        every = cases()
    except Incomplete as problem:
        raise SystemExit(f"No rules for auto: {problem}") from None
    if not every:
        print(f"Nothing to do: {RESULTS.relative_to(ROOT)} holds no evidence; few_labels.py --evidence makes it.")
        return
    for data in sorted({case.data for case in every}):
        own = [case for case in every if case.data == data and case.labels > case.evidence.labels[0] * 1.5]
        if not own:
            continue
        try:
            curves = fitted([case for case in every if case.data != data])
        except NoCurves as problem:
            print(f"Nothing is foretold on {data}: of the others {problem}.")
            continue
        made = [forecast(case.evidence, case.labels, curves) for case in own]
        held = [one.low <= case.reached <= one.high for one, case in zip(made, own, strict=True)]
        errors = [one.value - case.reached for one, case in zip(made, own, strict=True)]
        inside += held
        foretold += [case.labels for case in own]
        rows.append({
            "data": data, "forecasts": len(own), "held, of 90 %": f"{np.mean(held):.2f}",
            "mean error": f"{np.mean(errors):+.3f}", "mean absolute error": f"{np.mean(np.abs(errors)):.3f}",
            "mean width": f"{np.mean([one.high - one.low for one in made]):.3f}",
        })  # fmt: skip
    if not rows:
        return
    print(markdown(rows))
    print("\nFor modicum/auto/known.toml, the curves of all sets:\n\n[curves]")
    for name, value in fitted(every).model_dump().items():
        print(f"{name} = {value:.4f}")
    print(f"\n[checked]\ndata_sets = {len(rows)}\nforecasts = {len(inside)}\nheld = {np.mean(inside):.3f}")
    print(f"labels = [{min(foretold)}, {max(foretold)}]")


if __name__ == "__main__":
    main()
