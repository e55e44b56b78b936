"""The report in a browser: it fits the window, however wide its tables are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_browser import a_browser  # noqa: F401
from toy_report import page, rows


@pytest.mark.parametrize("width", [400, 1200])
def test_wide_tables_scroll_and_the_page_does_not(width: int, browser: Any, tmp_path: Path) -> None:
    page(rows(), tmp_path)
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto((tmp_path / "report.html").as_uri())
    widths = opened.evaluate("[...document.querySelectorAll('table')].map(table => table.scrollWidth)")
    assert max(widths) > width / 2
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.close()
