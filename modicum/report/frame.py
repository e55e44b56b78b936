"""From rows to curves: what a report is made of, before anything is worded or drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from modicum.analysis.claims import Claim
from modicum.analysis.curves import mean_interval, normalised_auc
from modicum.analysis.metrics import LOWER_IS_BETTER
from modicum.analysis.selections import is_number, value_of, without_options
from modicum.analysis.selections import number as as_number
from modicum.base.errors import DataError, UnknownName
from modicum.report.trials import Trial, by_schedule, common_rounds, listed

IDENTITY_COLUMNS = ("trial", "dataset", "backbone", "method", "strategy", "seed", "round", "labels")
COST_COLUMNS = ("parameters", "steps", "train_loss")
TIMING_COLUMNS = ("fit_seconds", "score_seconds", "select_seconds", "peak_memory_mb")
"""What differs from run to run of the same trial; the last columns of ``results.csv``."""
FORGETTING_COLUMNS = ("unforgettable", "forgettable", "often_forgotten", "never_learned")
TRAINING_COLUMNS = ("share", "allowed_seconds", "kept_epoch", "dropped", "temperature", *FORGETTING_COLUMNS)
"""Numbers that say how a model was trained and what that did to the labelled examples, not how good it is."""
EXAMPLE_COLUMNS = ("confidence", "variability", "correctness", "forgetting_events", "first_learned")
"""Numbers on a labelled example; it is shown where it has all of them."""

METRIC_NAMES = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "f1": "F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "matthews": "Matthews correlation",
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "rarest_recall": "recall of the rarest class",
    "loss": "loss",
}

Key = tuple[str, str]
"""A method and a strategy, by their display labels."""


@dataclass(frozen=True)
class ReportSource:
    """All that a report is made of.

    title: the page's title.
    metric: the main metric's column, such as ``macro_f1``; it alone is tested.
    rows: one mapping for each trial and round: ``IDENTITY_COLUMNS``, then metric columns, ``COST_COLUMNS`` and
        ``TIMING_COLUMNS``; a missing or NaN value is allowed outside the identity. ``method`` and ``strategy`` are
        display labels; those called ``random`` and ``full`` are the baselines. Parts of the report stand on these where
        they are there: ``TRAINING_COLUMNS``; ``cka``, a list with a number for the embeddings and one for each layer;
        ``diagnostic``, words on what makes a trial's results no results that a practice could have; ``unfinished``,
        true for a trial that is to go on; ``stopped``, why one ended before its budget.
    manifest: nested plain values: versions, machine, precision, fingerprints, settings, grid.
    notes: sentences for the reader, shown near the top.
    claims: what the rows are to bear out.
    pretraining: a mapping for each task-adaptive pretraining: ``dataset``, ``method``, ``objective``, ``losses`` (one
        an epoch) and ``seconds``.
    examples: a mapping for each trial and labelled example, of what training did to it: ``dataset``, ``method``,
        ``strategy``, ``seed``, ``id`` and what else is known, of which the report shows ``label`` and
        ``EXAMPLE_COLUMNS``.

    Raises:
        DataError: there are no rows, or one lacks an identity column.
        UnknownName: no row has the metric.
    """

    title: str
    metric: str
    rows: Sequence[Mapping[str, Any]]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    claims: Sequence[Claim] = ()
    pretraining: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError("a report needs at least one finished round, got no rows; run the study first")
        for position, row in enumerate(self.rows):
            missing = [name for name in IDENTITY_COLUMNS if row.get(name) is None]
            if missing:
                raise DataError(f"row {position} of the report lacks {', '.join(missing)}; every row must have them")
        if self.metric not in self.metrics:
            raise UnknownName("metric", self.metric, self.metrics)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The numeric columns on quality: none of those named above; the main metric first, then by name."""
        known = {*IDENTITY_COLUMNS, *COST_COLUMNS, *TIMING_COLUMNS, *TRAINING_COLUMNS}
        found = {name for row in self.rows for name, value in row.items() if name not in known and is_number(value)}
        return tuple(sorted(found, key=lambda name: (name != self.metric, name)))

    @property
    def greater_is_better(self) -> bool:
        """False for errors such as RMSE."""
        return self.metric not in LOWER_IS_BETTER


@dataclass(frozen=True)
class Cell:
    """One method with one strategy, over s seeds and the m rounds that all trials of the data set share.

    rounds: for each seed, its m rows. values: (s, m) the main metric. auc: (s,) its normalised area. finals: metric ->
        (s,) last shared round.
    costs: column -> mean over trials of the sum over rounds (parameters: the last; peak memory: the maximum of all),
        NaN where unknown; ``seconds`` is the sum of fitting, scoring and selecting.
    """

    method: str
    strategy: str
    seeds: tuple[Any, ...]
    labels: np.ndarray
    rounds: tuple[tuple[Mapping[str, Any], ...], ...]
    values: np.ndarray
    finals: Mapping[str, np.ndarray]
    costs: Mapping[str, float]

    def table(self, column: str) -> np.ndarray:
        """(s, m) any column's numbers, NaN where there is none."""
        return number_table(self.rounds, column)

    @cached_property
    def auc(self) -> np.ndarray:
        """(s,) the area under each seed's curve; NaN where a round has no value."""
        return normalised_auc(self.labels, self.values)

    @cached_property
    def mean(self) -> np.ndarray:
        """(m,) the mean curve."""
        return np.asarray(self.band[0])

    @cached_property
    def band(self) -> np.ndarray:
        """(3, m) the mean curve and the limits of its 95 % t-interval, NaN where fewer than two seeds have a value."""
        return band_over_seeds(self.values)


@dataclass(frozen=True)
class Block:
    """One data set under one backbone: the cells that may be compared with one another.

    seconds: the time that its trials were allowed to train for; None where it was not given.
    examples: those of the source that came up in its trials' training; none of a method and strategy that other blocks
        of the data set have too, since examples do not name the block.
    """

    name: str
    dataset: str
    backbone: str
    seconds: float | None
    labels: np.ndarray
    methods: tuple[str, ...]
    strategies: tuple[str, ...]
    cells: Mapping[Key, Cell]
    warnings: tuple[str, ...]
    examples: tuple[Mapping[str, Any], ...] = ()

    @property
    def random(self) -> str | None:
        """The label of the strategy that the others must beat."""
        return next((s for s in self.strategies if _is_called(s, "random")), None)

    @property
    def full(self) -> str:
        """The method that the others are compared with: full fine-tuning, or else the first."""
        return self.methods[0]

    def reference(self, method: str) -> str:
        """What a method is compared with: full fine-tuning with the same pretraining, recipe and part if there is such
        a one, and else without."""
        plain = _plain_names(self.cells)
        alike = plain[self.full] + method.removeprefix(plain[method])  # "full" + " + mlm"
        return alike if alike in self.methods and alike != method else self.full

    @property
    def has_full(self) -> bool:
        """Whether full fine-tuning is among the methods."""
        return _is_called(_plain_names(self.cells)[self.full], "full")

    @cached_property
    def ordered(self) -> tuple[Cell, ...]:
        """The cells in the order of methods, then strategies."""
        keys = [(method, strategy) for method in self.methods for strategy in self.strategies]
        return tuple(self.cells[key] for key in keys if key in self.cells)

    @property
    def most_seeds(self) -> int:
        """The number of seeds of the best-covered cell."""
        return max(len(cell.seeds) for cell in self.cells.values())


@dataclass(frozen=True)
class Frame:
    """A source, sorted into blocks."""

    source: ReportSource
    blocks: tuple[Block, ...]

    @property
    def metric_name(self) -> str:
        """The main metric as people write it."""
        return metric_name(self.source.metric)


def build_frame(source: ReportSource) -> Frame:
    """Sort rows into data sets, methods, strategies and seeds, on the rounds that all trials of a data set share.

    Trials that were allowed to train for different times are data sets of their own, and so are parts of a study with
    other numbers of labels.

    Raises:
        DataError: two trials of a data set have the same labels and seed, so that a seed would count twice.
    """
    groups: dict[tuple[str, str], dict[float | None, dict[str, Trial]]] = {}
    for row in source.rows:
        seconds = as_number(row.get("allowed_seconds"))
        timed = groups.setdefault((str(row["dataset"]), str(row["backbone"])), {})
        group = timed.setdefault(seconds if math.isfinite(seconds) else None, {})
        identity = str(row["method"]), str(row["strategy"]), row["seed"]
        fresh = Trial(str(row["trial"]), *identity, str(row.get("part", "")), bool(row.get("unfinished")))
        trial = group.setdefault(fresh.key, fresh)
        trial.rounds[int(row["labels"])] = row
    several = len({backbone for _, backbone in groups}) > 1
    blocks: list[Block] = []
    for (dataset, backbone), timed in groups.items():
        for allowed in sorted(timed, key=lambda time: time or 0.0):
            name = f"{dataset} · {backbone}" if several else dataset
            name += f" · {allowed:g} s" if allowed is not None and len(timed) > 1 else ""
            for parts, trials in by_schedule(timed[allowed].values()):
                own = f"{name} · {' and '.join(parts)}" if all(parts) else name
                blocks.append(_block(source, own, (dataset, backbone, allowed), trials))
    sharing = Counter((block.dataset, key) for block in blocks for key in block.cells)
    return Frame(source, tuple(replace(block, examples=_examples(source, block, sharing)) for block in blocks))


def number_table(trials: Iterable[Sequence[Mapping[str, Any]]], column: str) -> np.ndarray:
    """(trials, rounds) a column's numbers, NaN where there is none."""
    return np.array([[as_number(row.get(column)) for row in rows] for rows in trials])


def band_over_seeds(values: np.ndarray) -> np.ndarray:
    """(3, m) mean and limits of the 95 % t-interval of each of m columns of (s, m) values."""
    spans = [mean_interval(column) for column in values.T]
    return np.array([[s.mean for s in spans], [s.low for s in spans], [s.high for s in spans]])


def metric_name(column: str) -> str:
    """A metric's column as people write it."""
    return METRIC_NAMES.get(column, column.replace("_", " "))


def _block(source: ReportSource, name: str, identity: tuple[str, str, float | None], trials: list[Trial]) -> Block:
    seen: dict[tuple[str, str, str], str] = {}
    for trial in trials:
        other = seen.setdefault((trial.method, trial.strategy, str(trial.seed)), trial.key)
        if other != trial.key:
            raise DataError(
                f"trials {other} and {trial.key} are both {trial} on {name}, so that the seed would count twice; "
                "give their methods or strategies different labels"
            )
    kept, labels, warnings = common_rounds(trials)
    cells: dict[Key, Cell] = {}
    for key in dict.fromkeys((t.method, t.strategy) for t in kept):
        cells[key] = _cell(source, key, [t for t in kept if (t.method, t.strategy) == key], labels)
    most = max(len(cell.seeds) for cell in cells.values())
    warnings += listed(
        f"of {len(cells)} combinations have fewer than {most} seeds",
        [f"{c.method} × {c.strategy} ({len(c.seeds)})" for c in cells.values() if len(c.seeds) < most],
    )
    empty = sum(int(np.isnan(cell.values).sum()) for cell in cells.values())
    if empty:
        rounds = f"{empty} round{'s' * (empty != 1)}"
        warnings.append(f"{metric_name(source.metric)} is missing in {rounds}; seeds with a gap have no area.")
    return Block(
        name=name,
        dataset=identity[0],
        backbone=identity[1],
        seconds=identity[2],
        labels=np.array(labels),
        methods=_full_first(cells),
        strategies=tuple(sorted(dict.fromkeys(s for _, s in cells), key=lambda name: not _is_called(name, "random"))),
        cells=cells,
        warnings=tuple(warnings),
    )


def _examples(
    source: ReportSource, block: Block, sharing: Mapping[tuple[str, Key], int]
) -> tuple[Mapping[str, Any], ...]:
    """The source's examples of the block's cells that no other block shares; one that never came up in training has
    NaN."""
    return tuple(
        example
        for example in source.examples
        if example.get("dataset") == block.dataset
        and (key := (example.get("method"), example.get("strategy"))) in block.cells
        and sharing[block.dataset, key] == 1  # type: ignore[index]
        and all(math.isfinite(as_number(example.get(name))) for name in EXAMPLE_COLUMNS)
    )


def _cell(source: ReportSource, key: Key, trials: list[Trial], labels: list[int]) -> Cell:
    trials = sorted(trials, key=lambda trial: (str(type(trial.seed)), trial.seed))
    rounds = tuple(tuple(trial.rounds[n] for n in labels) for trial in trials)
    costs = {"parameters": mean_interval(number_table(rounds, "parameters")[:, -1]).mean}
    for column in ("steps", "fit_seconds", "score_seconds", "select_seconds"):
        costs[column] = mean_interval([_total(values) for values in number_table(rounds, column)]).mean
    costs["seconds"] = _total(np.array([costs[c] for c in ("fit_seconds", "score_seconds", "select_seconds")]))
    costs["peak_memory_mb"] = max(filter(math.isfinite, number_table(rounds, "peak_memory_mb").flat), default=math.nan)
    return Cell(
        method=key[0],
        strategy=key[1],
        seeds=tuple(trial.seed for trial in trials),
        labels=np.array(labels),
        rounds=rounds,
        values=number_table(rounds, source.metric),
        finals={metric: number_table(rounds, metric)[:, -1] for metric in source.metrics},
        costs=costs,
    )


def _total(values: np.ndarray) -> float:
    """The sum of what is known: the last round, for one, scores nothing. NaN where nothing is known."""
    return math.nan if np.isnan(values).all() else float(np.nansum(values))


def _plain_names(cells: Mapping[Key, Cell]) -> dict[str, str]:
    """Method -> its name without pretraining, recipe and part: ``full`` of ``full + mlm, dynamics``."""
    return {method: str(value_of(cell.rounds[0][0], "plain_method")) for (method, _), cell in cells.items()}


def _full_first(cells: Mapping[Key, Cell]) -> tuple[str, ...]:
    """The methods, and before all others full fine-tuning: of several kinds, that with the least added to its name."""
    plain = _plain_names(cells)
    full = [method for method, name in plain.items() if _is_called(name, "full")]
    first = min(full, key=lambda method: len(method) - len(plain[method]), default=None)
    return tuple(sorted(plain, key=lambda method: method != first))


def _is_called(label: str, name: str) -> bool:
    """True for ``random`` and ``random(batch=5)`` alike, and not for ``full(clip=1) + mlm``."""
    return without_options(label) == name
