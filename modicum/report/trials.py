"""Trials of a study, and which of them and of their rounds can stand in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Trial:
    """One trial's rows by their number of labels. unfinished: it is to go on."""

    key: str
    method: str
    strategy: str
    seed: Any
    part: str = ""
    unfinished: bool = False
    rounds: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} × {self.strategy}, seed {self.seed}"

    @property
    def stopped_early(self) -> bool:
        """Whether something else than its budget ended it."""
        return any(row.get("stopped") for row in self.rounds.values())


def by_schedule(trials: Iterable[Trial]) -> list[tuple[list[str], list[Trial]]]:
    """Names and trials of the parts of a study, together where they have the same numbers of labels.

    Those of a part of which no trial was run to the end may be the first ones of another's.
    """
    parts: dict[str, list[Trial]] = {}
    for trial in trials:
        parts.setdefault(trial.part, []).append(trial)
    found: list[tuple[list[str], list[Trial]]] = []
    for part, own in parts.items():
        alike = next((one for one in found if _same_schedule(one[1], own)), None)
        if alike is None:
            found.append(([part], own))
        else:
            alike[0].append(part)
            alike[1].extend(own)
    return found


def _same_schedule(some: Sequence[Trial], others: Sequence[Trial]) -> bool:
    one, other = (sorted({n for trial in trials for n in trial.rounds}) for trials in (some, others))
    if one == other:
        return True
    shorter = some if len(one) < len(other) else others
    cut_short = all(trial.unfinished or trial.stopped_early for trial in shorter)
    return cut_short and all(a == b for a, b in zip(one, other, strict=False))


def common_rounds(trials: list[Trial]) -> tuple[list[Trial], list[int], list[str]]:
    """The trials that can be compared, the numbers of labels that all of them have, and what to tell the reader."""
    warnings: list[str] = []
    finished = [trial for trial in trials if not trial.unfinished]
    if finished and len(finished) < len(trials):
        warnings += listed(
            f"of {len(trials)} trials are unfinished and left out", [str(trial) for trial in trials if trial.unfinished]
        )
        trials = finished
    counts = Counter(n for trial in trials for n in trial.rounds)
    anchor = max(counts, key=lambda n: (counts[n], -n))
    kept = [trial for trial in trials if anchor in trial.rounds]
    warnings += listed(
        f"of {len(trials)} trials share no number of labels with the others and are left out",
        [str(trial) for trial in trials if anchor not in trial.rounds],
    )
    labels = sorted(set.intersection(*(set(trial.rounds) for trial in kept)))
    longest = max(len(trial.rounds) for trial in kept)
    warnings += listed(
        f"of {len(trials)} trials have fewer rounds than the longest (unfinished, or stopped early)",
        [f"{t} ({len(t.rounds)} of {longest} rounds)" for t in kept if len(t.rounds) < longest],
    )
    every = {n for trial in kept for n in trial.rounds}
    if len(every) > len(labels):
        warnings.append(
            f"Curves, tables and tests use only the {len(labels)} of {len(every)} numbers of labels that all trials "
            f"share ({_span(labels)}); results.csv has every round."
        )
    return kept, labels, warnings


def listed(what: str, names: Sequence[str], show: int = 5) -> list[str]:
    """One sentence that counts and names, or none."""
    if not names:
        return []
    more = f" and {len(names) - show} more" if len(names) > show else ""
    return [f"{len(names)} {what}: {'; '.join(names[:show])}{more}."]


def _span(labels: Sequence[int]) -> str:
    return f"{labels[0]} to {labels[-1]}" if len(labels) > 1 else f"{labels[0]}"
