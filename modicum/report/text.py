"""The same report as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modicum.base.spec import canonical_json
from modicum.report.document import Document
from modicum.report.frame import COST_COLUMNS, IDENTITY_COLUMNS, TIMING_COLUMNS, ReportSource
from modicum.report.layout import PROSE, Chapter, Item, Part, Table

HEADING, WIDE = 13, 8
"""Letters in a line of a LaTeX heading, and columns beyond which a LaTeX table is set smaller."""
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "`": r"\textasciigrave{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "−": r"\ensuremath{-}",
    "×": r"\ensuremath{\times}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "±": r"\ensuremath{\pm}",
    "·": r"\ensuremath{\cdot}",
    "α": r"\ensuremath{\alpha}",
    "→": r"\ensuremath{\to}",
    "≈": r"\ensuremath{\approx}",
    "Δ": r"\ensuremath{\Delta}",
    "σ": r"\ensuremath{\sigma}",
    "ρ": r"\ensuremath{\rho}",
    "–": "--",
    "…": r"\dots{}",
    "‘": "`",
    "’": "'",
}
"""Brackets are braced because one that follows a row's end would be read as its optional argument."""

PREAMBLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[utf8]{inputenc}
\usepackage[landscape,margin=15mm]{geometry}
\usepackage{booktabs}
\usepackage{longtable}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\setlength{\tabcolsep}{4pt}
"""


def markdown(document: Document) -> str:
    """The document as GitHub-flavoured Markdown."""
    lines = [f"# {escape_markdown(document.title)}", ""]
    lines += [f"> **{escape_markdown(text)}**\n" for text in document.diagnostics]
    lines += [f"- {escape_markdown(finding)}" for finding in document.findings]
    lines += ["", escape_markdown(document.summary), ""] if document.summary else [""]
    lines += [f"> {escape_markdown(note)}\n" for note in document.notes]
    lines += ["## How to read this", "", escape_markdown(" ".join(document.how_to_read)), ""]
    lines += [line for chapter in document.chapters for line in _markdown_chapter(chapter)]
    for section in document.sections:
        lines += [f"## {escape_markdown(section.block.name)}", "", escape_markdown(section.facts) + ".", ""]
        lines += [f"> {escape_markdown(warning)}\n" for warning in section.block.warnings]
        lines += _markdown_parts(section.parts)
    lines += [line for chapter in document.appendix for line in _markdown_chapter(chapter)]
    if document.manifest:
        lines += ["## Manifest", ""]
        for table in document.manifest:
            lines += [f"### {escape_markdown(table.caption)}", "", *_markdown_table(table, caption=False)]
    return "\n".join(lines).rstrip() + "\n"


def latex(document: Document) -> str:
    """The document as a LaTeX file of booktabs tables, which compiles as it is or can be taken apart."""
    body = [rf"\section*{{{escape_latex(document.title)}}}"]
    body += [rf"\textbf{{{escape_latex(text)}}}\par" for text in document.diagnostics]
    body += [escape_latex(finding) + r"\par" for finding in document.findings]
    texts = (document.summary, *document.notes, *document.how_to_read)
    body += [escape_latex(text) + r"\par" for text in texts if text]
    body += [line for chapter in document.chapters for line in _latex_chapter(chapter)]
    for section in document.sections:
        body += ["", rf"\subsection*{{{escape_latex(section.block.name)}}}", escape_latex(section.facts) + r".\par"]
        body += [escape_latex(warning) + r"\par" for warning in section.block.warnings]
        body += _latex_parts(section.parts)
    body += [line for chapter in document.appendix for line in _latex_chapter(chapter)]
    return "\n".join([PREAMBLE, r"\begin{document}", *body, "", r"\end{document}", ""])


def results_csv(source: ReportSource) -> str:
    """One line for each trial and round, byte for byte the same for the same results; timings come last.

    Lines are sorted by identity, so the order in which trials finished does not show. Floats are written by
    ``repr``, missing values and NaN as nothing.
    """
    known = {*IDENTITY_COLUMNS, *source.metrics, *COST_COLUMNS, *TIMING_COLUMNS}
    others = sorted({name for row in source.rows for name in row} - known)
    present = {name for row in source.rows for name in row}
    columns = [*IDENTITY_COLUMNS, *source.metrics, *COST_COLUMNS, *others, *TIMING_COLUMNS]
    columns = [name for name in columns if name in present]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(row.get(name)) for name in columns] for row in sorted(source.rows, key=_identity))
    return out.getvalue()


def examples_csv(source: ReportSource) -> str:
    """One line for each trial and labelled example, sorted by identity; missing values and NaN are left empty."""
    columns = list(dict.fromkeys(name for example in source.examples for name in example))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    rows = [[_field(example.get(name)) for name in columns] for example in source.examples]
    writer.writerows(sorted(rows))
    return out.getvalue()


def escape_markdown(text: str) -> str:
    """Text as literal Markdown on one line; underscores within words need no escape."""
    text = re.sub(r"([\\`*\[\]<>|~])", r"\\\1", " ".join(text.split())).replace("&", "&amp;")
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def escape_latex(text: str) -> str:
    """Text as literal LaTeX on one line."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _markdown_chapter(chapter: Chapter) -> list[str]:
    return [
        f"## {escape_markdown(chapter.heading)}",
        "",
        escape_markdown(chapter.lead),
        "",
        *_markdown_parts(chapter.parts),
    ]


def _markdown_parts(parts: Sequence[Part]) -> list[str]:
    lines = []
    for part in parts:
        lines += [f"### {escape_markdown(part.heading)}", ""] if part.heading else []
        lines += [escape_markdown(part.lead), ""] if part.lead else []
        lines += _markdown_table(part.table)
    return lines


def _markdown_table(table: Table, *, caption: bool = True) -> list[str]:
    rules = [":---" if align == "l" else "---:" for align in _aligns(table)]
    lines = [f"**{escape_markdown(table.caption)}**", ""] if caption else []
    lines += [_markdown_row([escape_markdown(name) for name in table.header]), _markdown_row(rules)]
    lines += [_markdown_row([_markdown_item(item) for item in table.row(line)]) for line in table.lines]
    return [*lines, "", *[f"{escape_markdown(note)}\n" for note in table.notes]]


def _aligns(table: Table) -> list[str]:
    return [align for name, align in zip(table.columns, table.aligns, strict=True) if name]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_item(item: Item) -> str:
    text = escape_markdown(item.text)
    if item.mark == "best":
        text = f"**{text}**"
    return f"{text} {escape_markdown(item.note)}".strip()


def _latex_chapter(chapter: Chapter) -> list[str]:
    heading = rf"\subsection*{{{escape_latex(chapter.heading)}}}"
    return ["", heading, escape_latex(chapter.lead) + r"\par", *_latex_parts(chapter.parts)]


def _latex_parts(parts: Sequence[Part]) -> list[str]:
    return [line for part in parts for line in ("", *_latex_table(part.table))]


def _latex_table(table: Table) -> list[str]:
    aligned = zip(table.header, _aligns(table), strict=True)
    spec = "".join(rf"p{{{PROSE[name]}mm}}" if name in PROSE else align for name, align in aligned)
    header = " & ".join(map(_latex_heading, table.header, _aligns(table))) + r" \\"
    lines = [
        r"{\scriptsize" if len(table.header) > WIDE else r"{\footnotesize",
        rf"\begin{{longtable}}{{{spec}}}",
        rf"\caption{{{escape_latex(table.caption)}}}\\",
        rf"\toprule {header} \midrule",
        r"\endfirsthead",
        rf"\toprule {header} \midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endlastfoot",
    ]
    previous = None
    for line in table.lines:
        if previous is not None and line.group != previous:
            lines.append(r"\addlinespace")
        previous = line.group
        lines.append(" & ".join(_latex_item(item) for item in table.row(line)) + r" \\")
    lines += [r"\end{longtable}"]
    return [*lines, *[escape_latex(note) + r"\par" for note in table.notes], "}"]


def _latex_heading(name: str, align: str) -> str:
    """A column's name, in lines of so few letters that numbers decide how wide the column is."""
    lines = textwrap.wrap(name, HEADING, break_long_words=False, break_on_hyphens=False)
    if len(lines) < 2:
        return escape_latex(name)
    return rf"\shortstack[{align}]{{{(chr(92) * 2).join(escape_latex(line) for line in lines)}}}"


def _latex_item(item: Item) -> str:
    text = escape_latex(item.text)
    if item.mark == "best":
        text = rf"\textbf{{{text}}}"
    return f"{text} {escape_latex(item.note)}".strip()


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = [str(row[name]) for name in ("dataset", "backbone", "method", "strategy")]
    seed = row["seed"]
    return (*names, isinstance(seed, str), seed, int(row["labels"]), int(row["round"]), str(row["trial"]))


def _field(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        value = [None if isinstance(one, float) and math.isnan(one) else one for one in value]
    return canonical_json(value) if isinstance(value, (dict, list)) else str(value)
