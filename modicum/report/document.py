"""The report's content in reading order, before it is set as HTML, Markdown or LaTeX."""

from __future__ import annotations

from dataclasses import dataclass

from modicum.report.findings import ALPHA, Contrast, contrasts, headline, seed_warnings, tally
from modicum.report.frame import Block, Frame, ReportSource, build_frame
from modicum.report.tables import Part, Table, manifest_tables, parts


@dataclass(frozen=True)
class Section:
    """All that is said about one data set."""

    block: Block
    facts: str
    finding: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Document:
    """summary: the tally of all comparisons, empty where there are none. found: the comparisons themselves."""

    frame: Frame
    found: tuple[Contrast, ...]
    sections: tuple[Section, ...]
    summary: str
    notes: tuple[str, ...]
    how_to_read: tuple[str, ...]
    manifest: tuple[Table, ...]

    @property
    def title(self) -> str:
        """The report's title."""
        return self.frame.source.title


def build_document(source: ReportSource) -> Document:
    """Everything that the report says."""
    frame = build_frame(source)
    found = contrasts(frame)
    sections = tuple(
        Section(block, _facts(block), headline(frame, block, found), tuple(parts(frame, block, found)))
        for block in frame.blocks
    )
    return Document(
        frame=frame,
        found=found,
        sections=sections,
        summary=tally(found),
        notes=(*source.notes, *seed_warnings(frame, found)),
        how_to_read=_how_to_read(frame, found),
        manifest=tuple(manifest_tables(source.manifest)),
    )


def _facts(block: Block) -> str:
    seeds = sorted({len(cell.seeds) for cell in block.cells.values()})
    labels = f"{block.labels[0]:,} to {block.labels[-1]:,} labels in {len(block.labels)} rounds"
    if len(block.labels) == 1:
        labels = f"{block.labels[0]:,} labels in one round"
    return ", ".join(
        [
            f"Backbone {block.backbone}",
            _count(len(block.methods), "method"),
            _count(len(block.strategies), "strategy", "strategies"),
            _count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds",
            labels,
        ]
    )


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _how_to_read(frame: Frame, found: tuple[Contrast, ...]) -> tuple[str, ...]:
    lower = "" if frame.source.greater_is_better else " (here lower is better)"
    first = (
        f"A curve is the mean of {frame.metric_name}{lower} over seeds as labels are added, with its 95\u00a0% "
        "t-interval as the shade; its normalised area (AUC) is the curve's mean height, one number for a whole run."
    )
    second = (
        "Comparisons pair seeds, which start from the same labels, and test the differences of AUC with Holm's "
        f"correction over all {len(found)} of them: ‘better’ and ‘worse’ need a corrected sign-flip p of at most "
        f"{ALPHA:g}, and ‘undecided’ does not mean ‘equal’."
    )
    if not found:
        second = "Nothing on this page is tested: it has neither a random baseline nor a second method to compare with."
    third = (
        "A saving of 30\u00a0% means that a strategy gets with 30\u00a0% fewer labels to where random ends; the best "
        "of many combinations is partly the luckiest, so read its interval before its mean."
    )
    return first, second, third
