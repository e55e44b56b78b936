"""The report's content in reading order, before it is set as HTML, Markdown or LaTeX."""

from __future__ import annotations

from dataclasses import dataclass

from modicum.report.chapters import against_time, claims, pretraining, timed_finding, timed_sets
from modicum.report.findings import ALPHA, Contrast, contrasts, headline, seed_warnings, tally
from modicum.report.frame import Block, Frame, ReportSource, build_frame
from modicum.report.layout import Chapter, Part, Table
from modicum.report.tables import manifest_tables, parts


@dataclass(frozen=True)
class Section:
    """All that is said about one data set."""

    block: Block
    facts: str
    finding: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Document:
    """found: all comparisons with a baseline. summary: their tally, empty where there are none.

    findings: a sentence for each data set. diagnostics: why results are none that a practice could have.
    chapters: before the sections. appendix: after them.
    """

    frame: Frame
    found: tuple[Contrast, ...]
    findings: tuple[str, ...]
    diagnostics: tuple[str, ...]
    chapters: tuple[Chapter, ...]
    sections: tuple[Section, ...]
    appendix: tuple[Chapter, ...]
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
        findings=_findings(frame, sections),
        diagnostics=_diagnostics(source),
        chapters=tuple(chapter for chapter in (claims(source), against_time(frame)) if chapter),
        sections=sections,
        appendix=tuple(chapter for chapter in (pretraining(source),) if chapter),
        summary=tally(found),
        notes=(*source.notes, *seed_warnings(frame, found)),
        how_to_read=_how_to_read(frame, found),
        manifest=tuple(manifest_tables(source.manifest)),
    )


def _findings(frame: Frame, sections: tuple[Section, ...]) -> tuple[str, ...]:
    """Those of the sections, except that a data set's times are summed up in one."""
    timed = timed_sets(frame)
    told = {name for one in timed for name in one.blocks}
    own = (section.finding for section in sections if section.block.name not in told)
    return (*own, *(timed_finding(frame, one) for one in timed))


def _diagnostics(source: ReportSource) -> tuple[str, ...]:
    trials = {str(row["trial"]) for row in source.rows}
    concerned: dict[str, set[str]] = {}
    for row in source.rows:
        if row.get("diagnostic"):
            concerned.setdefault(str(row["diagnostic"]), set()).add(str(row["trial"]))
    return tuple(
        f"{text[:1].upper()}{text[1:].rstrip('.')}. This concerns {_of(len(found), len(trials))}: their numbers are no "
        "result, but a bound on what results could be."
        for text, found in concerned.items()
    )


def _of(n: int, total: int) -> str:
    return f"all {_count(total, 'trial')}" if n == total > 1 else f"{n} of {_count(total, 'trial')}"


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
