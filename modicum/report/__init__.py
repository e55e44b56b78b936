"""A study's rows as one self-contained page, Markdown, LaTeX and CSV."""

from __future__ import annotations

from pathlib import Path

from modicum.base.files import atomic_write
from modicum.report import tables
from modicum.report.document import build_document
from modicum.report.frame import TIMING_COLUMNS, ReportSource, build_frame
from modicum.report.html import html
from modicum.report.text import examples_csv, latex, markdown, results_csv

__all__ = ["TIMING_COLUMNS", "ReportSource", "curve_table", "write_report"]


def write_report(source: ReportSource, out_dir: Path) -> Path:
    """Write ``report.html``, ``summary.md``, ``summary.tex`` and ``results.csv`` into a folder, made if need be.

    Also ``examples.csv``, if the source has examples.

    Returns:
        The path of the page.

    Raises:
        DataError: two trials are the same method, strategy and seed on one data set.
    """
    document = build_document(source)
    pages = {
        "results.csv": results_csv(source),
        "summary.md": markdown(document),
        "summary.tex": latex(document),
        "report.html": html(document),
    }
    if source.examples:
        pages["examples.csv"] = examples_csv(source)
    for name, text in pages.items():
        with atomic_write(Path(out_dir) / name) as file:
            file.write(text)
    return Path(out_dir) / "report.html"


def curve_table(source: ReportSource) -> tuple[list[str], list[list[str]]]:
    """Header and rows for a terminal: the mean metric at each number of labels, and the normalised AUC."""
    return tables.curve_table(build_frame(source))
