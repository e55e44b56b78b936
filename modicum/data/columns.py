"""Which column is the text, the pair, the label, the id: as the user says, else by name, else the longest text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modicum.base.errors import DataError, SpecError, did_you_mean
from modicum.data.findings import Column, Role

NAMES: dict[Role, tuple[str, ...]] = {
    "text": (
        "text", "sentence", "sentence1", "text1", "text_a", "content", "message", "body", "review", "comment", "tweet",
        "document", "utterance", "query", "premise", "question", "question1", "headline", "description", "title",
    ),
    "label": ("label", "labels", "class", "category", "target", "intent", "topic", "sentiment", "gold", "gold_label"),
    "pair": ("text_pair", "sentence2", "text2", "text_b", "hypothesis", "question2", "pair"),
    "id": ("id", "example_id", "guid", "uuid", "uid", "sentence_id", "idx"),
    "split": (),
}  # fmt: skip
"""Names that a column of each role usually bears, the likeliest first; the split is never guessed."""


@dataclass(frozen=True)
class Sample:
    """A source's columns in order and, for those that hold text, their mean length over the first rows."""

    names: tuple[str, ...]
    mean_length: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns:
    """The columns chosen, the text first."""

    chosen: tuple[Column, ...]

    def of(self, role: Role) -> Column | None:
        """The column that plays a role, if one does."""
        return next((column for column in self.chosen if column.role == role), None)

    @property
    def names(self) -> list[str]:
        """The chosen columns' names."""
        return [column.name for column in self.chosen]

    @property
    def roles(self) -> list[Role]:
        """The chosen columns' roles."""
        return [column.role for column in self.chosen]


def choose(sample: Sample, named: Mapping[Role, str | None], source: str) -> Columns:
    """Settle the columns; ``named`` maps a role to a column, to None (guess) or to "" (there is none).

    Raises:
        DataError: a named column is missing or there twice, or no column looks like a text.
        SpecError: one column is named for two roles, or the text is named as "".
    """
    if named.get("text") == "":
        raise SpecError("a data set needs a text column; name it, or leave it out and let it be guessed")
    taken: dict[Role, Column] = {}
    for role, name in named.items():
        if name:
            taken[role] = Column(role, _named(role, name, sample, taken.values(), source), False)
    for role in NAMES:
        if named.get(role) is None:
            free = [name for name in sample.names if name not in {column.name for column in taken.values()}]
            guess = _usual(role, free if role in ("label", "id") else [n for n in free if n in sample.mean_length])
            if guess is not None:
                taken[role] = Column(role, guess, True)
    if "text" not in taken:
        taken["text"] = Column("text", _longest(sample, taken.values(), source), True)
    for column in taken.values():
        if sample.names.count(column.name) > 1:
            raise DataError(f"{source}: there are two columns {column.name!r}; rename one of them")
    return Columns(tuple(taken[role] for role in NAMES if role in taken))


def looks_like(role: Role, name: str) -> bool:
    """Whether a column of this name would be guessed to play the role."""
    return _plain(name) in NAMES[role]


def missing(role: Role, name: str, names: Iterable[str], source: str) -> DataError:
    """The error for a named column that a source does not have."""
    names = list(names)
    there = ", ".join(map(repr, names)) or "none"
    return DataError(f"{source} has no {role} column {name!r}{did_you_mean(name, names)}; its columns are {there}")


def _named(role: Role, name: str, sample: Sample, taken: Iterable[Column], source: str) -> str:
    if name not in sample.names:
        raise missing(role, name, sample.names, source)
    for column in taken:
        if column.name == name:
            raise SpecError(f"column {name!r} is named both as the {column.role} and as the {role}; name two columns")
    return name


def _usual(role: Role, names: list[str]) -> str | None:
    by_plain = {_plain(name): name for name in reversed(names)}
    return next((by_plain[usual] for usual in NAMES[role] if usual in by_plain), None)


def _longest(sample: Sample, taken: Iterable[Column], source: str) -> str:
    used = {column.name for column in taken}
    free = {name: length for name, length in sample.mean_length.items() if name not in used and length > 0}
    if not free:
        names = ", ".join(map(repr, sample.names))
        raise DataError(f"{source}: none of the columns {names} looks like a text; name the text column")
    return max(free, key=free.__getitem__)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
