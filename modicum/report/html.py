"""The page: one file that needs no network and no script."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from modicum.report.document import Document

TEMPLATES = Path(__file__).parent / "templates"


def html(document: Document) -> str:
    """The document as a self-contained page."""
    # matplotlib takes half a second to import, which nobody should pay who only asks for a table.
    from modicum.report import drawing, figures

    numbers = count(1)

    def chart(svg: str) -> Markup:
        return Markup(drawing.with_own_ids(svg, f"g{next(numbers)}-"))

    metric, found = document.frame.metric_name, document.found
    sheets = {section.block.name: figures.sheets(section.block, metric, found) for section in document.sections}
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pictures = {"sheets": sheets, "chapter_sheets": figures.chapter_sheets(document.frame)}
    return environment.get_template("report.html.j2").render(document=document, chart=chart, **pictures)
