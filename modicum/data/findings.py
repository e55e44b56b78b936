"""What loading found: the rows that cannot be used, and the report of a load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from modicum.base.errors import DataError
from modicum.base.types import Task

Role = Literal["text", "pair", "label", "id", "split"]
Unit = Literal["line", "row", "item"]

WAY_OUT = ", or leave such rows out with --skip-bad-rows (skip_bad_rows=True)"
SHOWN = 5
"""How many of the rows left out a report spells out."""


@dataclass
class BadRows:
    """The first bad row is an error, or all are left out and counted.

    A place is a 1-based line or row of the source, or a 0-based item of a list.
    """

    source: str
    unit: Unit
    skip: bool = False
    count: int = 0
    first: list[str] = field(default_factory=list)

    def at(self, place: int) -> str:
        """``train.csv, line 12``."""
        return ", ".join(filter(None, [self.source, self.nearby(place)]))

    def nearby(self, place: int) -> str:
        """``line 12``, for a message that has named the source."""
        return f"item {place} (counting from 0)" if self.unit == "item" else f"{self.unit} {place}"

    def add(self, place: int, why: str, remedy: str) -> None:
        """Note a row that cannot be used.

        Raises:
            DataError: bad rows are not to be skipped.
        """
        self.count += 1
        if not self.skip:
            raise DataError(f"{self.at(place)}: {why}; {remedy}{'' if self.unit == 'item' else WAY_OUT}")
        if len(self.first) < SHOWN:
            self.first.append(f"{self.at(place)}: {why}; {remedy}")


@dataclass(frozen=True)
class Column:
    """A column of the source and the part it plays."""

    role: Role
    name: str
    guessed: bool

    def __str__(self) -> str:
        return f"{self.role} = {self.name!r}{' (guessed)' if self.guessed else ''}"


@dataclass(frozen=True)
class LoadReport:
    """How a data set came about; for a subset, how the set it was taken from did, with the subset's own labels."""

    source: str = ""
    columns: tuple[Column, ...] = ()
    notes: tuple[str, ...] = ()
    rows_read: int = 0
    rows_skipped: int = 0
    reasons: tuple[str, ...] = ()  # for the first few rows skipped
    task: Task = "classification"
    labels_per_class: Mapping[str, int] = field(default_factory=dict)  # empty for regression
    labelled: int = 0
    unlabelled: int = 0

    def lines(self) -> list[str]:
        """The report in words, a finding a line."""
        said = [str(column) for column in self.columns] + list(self.notes)
        said.append(f"{self.rows_read:,} rows read, {self.rows_skipped:,} left out")
        said += [f"  {reason}" for reason in self.reasons]
        if self.rows_skipped > len(self.reasons):
            said.append(f"  and {self.rows_skipped - len(self.reasons):,} more")
        classes = ", ".join(f"{name} {count:,}" for name, count in self.labels_per_class.items())
        what = f"{self.task}, {len(self.labels_per_class)} classes ({classes})" if classes else self.task
        return [*said, f"{what}; {self.labelled:,} labelled, {self.unlabelled:,} unlabelled"]
