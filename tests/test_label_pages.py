"""The labelling pages: what they show, and that no string from outside can become markup."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from modicum.annotate.web import charts, pages

EVIL = """</textarea></script><script>alert(1)</script><img src=x onerror=alert(2)>" ' onmouseover='a' {{ 7*7 }} &lt;"""
PATHS = ("/", "/items?query=QUERY&flagged=true&label=1", "/review?kind=model", "/review?kind=annotators")
PATHS += ("/review?kind=flagged", "/progress", "/project")
HERE = Path(pages.__file__).parent


class Outline(HTMLParser):
    """The elements of a page with the names of their attributes, and all text and values."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[tuple[str, ...]] = Counter()
        self.words: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[(tag, *(name for name, _ in attrs))] += 1
        self.words += [value for _, value in attrs if value]
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


class Some:
    """A source whose every string is the given one, with numbers to tell the names apart."""

    def __init__(self, text: str = "plain", role: str = "lead", **settings: Any) -> None:
        self.text, self.role, self.asked = text, role, dict[str, Any]()
        self.classes = tuple(f"{i}{text}" for i in range(3))
        self.changed = settings

    def settings(self) -> Any:
        text = self.text
        plain = {"title": text, "data_name": text, "classes": self.classes, "keys": {}, "text_direction": "auto"}
        plain |= {"guidelines": text, "suggest": "shown", "per_item": 2, "blind": False, "retrain_every": 25}
        return SimpleNamespace(**(plain | {"audit": 50, "lease_seconds": 300.0} | self.changed))

    def identity(self) -> str:
        return self.text

    def accounts(self) -> bool:
        return True

    async def user(self, request: Any) -> Any:
        return SimpleNamespace(name=self.text, role=self.role) if self.role else None

    async def progress(self, user: Any) -> dict[str, Any]:
        one = {"name": self.text, "labelled": 1200, "skipped": 1, "flagged": 2, "today": 3, "seconds": 2.25}
        counts = {"items": 5000, "labelled": 1200, "skipped": 1, "flagged": 2, "open": 3799, "unresolved": 4}
        return counts | {"per_item": 2, "today": 3, "classes": [700, 500, 0], "users": [one, {**one, "seconds": None}]}

    def curve(self, user: Any) -> dict[str, Any]:
        points = [{"labels": 25 * i, "value": 0.5 + i / 20, "low": 0.4, "high": 0.9} for i in range(1, 5)]
        return {"metric": "accuracy", "audit": 50, "points": points}

    def model(self, user: Any) -> dict[str, Any]:
        told = {"phase": "failed", "model": 3, "labels": 75, "new": 4, "retrain_every": 25, "worth": "no"}
        return told | dict.fromkeys(("method", "backbone", "message", "advice"), self.text)

    def agreement(self, user: Any) -> dict[str, Any]:
        span = {"value": 0.71, "low": 0.6, "high": 0.8}
        cohen = [{**span, "a": self.text, "b": self.text, "items": 12}]
        return {"items": 12, "fleiss": span, "krippendorff": None, "cohen": cohen}

    def row(self) -> dict[str, Any]:
        row = {"item": 7, "id": self.text, "text": self.text, "pair": self.text, "state": "labelled", "label": 1}
        row |= {"skip": None, "flag": True, "own_flag": True, "note": self.text}
        row["version"] = 3
        answer = {"user": self.text, "label": None, "skip": self.text, "note": self.text, "flag": False}
        return row | {"suggestion": {"label": 2, "confidence": 0.83}, "answers": [answer, {**answer, "label": 0}]}

    def items(self, user: Any, **query: Any) -> dict[str, Any]:
        self.asked = query
        rows = [self.row(), self.row() | {"label": None, "skip": self.text}]
        return {"rows": rows, "total": 120, "page": query["page"], "pages": 3}

    def review(self, user: Any, **query: Any) -> dict[str, Any]:
        self.asked = query
        return {"rows": [self.row()], "total": 1, "page": 1, "pages": 1}

    def people(self, user: Any) -> list[dict[str, Any]]:
        return [{"name": f"other {self.text}", "role": "annotator", "closed": False}]


def browser(source: Any) -> TestClient:
    return TestClient(Starlette(routes=pages.routes(source)), follow_redirects=False)


def page(source: Any, path: str) -> str:
    answer = browser(source).get(path)
    assert answer.status_code == 200
    return str(answer.text)


@pytest.mark.parametrize("path", PATHS)
def test_no_string_becomes_markup(path: str) -> None:
    evil = Outline(page(Some(EVIL), path.replace("QUERY", "%3Cscript%3E%22%27")))
    plain = Outline(page(Some(), path.replace("QUERY", "plain")))
    assert evil.elements == plain.elements
    assert EVIL in evil.words


@pytest.mark.parametrize("make", [pages.login_page, pages.error_page], ids=["login", "error"])
def test_no_string_becomes_markup_before_login(make: Any) -> None:
    def made(text: str) -> Outline:
        if make is pages.login_page:
            return Outline(pages.login_page(title=text, error=text, name=text))
        return Outline(pages.error_page(404, text, text))

    assert made(EVIL).elements == made("plain").elements
    assert EVIL in made(EVIL).words


@pytest.mark.parametrize("path", PATHS)
def test_pages_need_no_exception_from_the_policy(path: str) -> None:
    for tag, attributes in Outline(page(Some(), path)).found:
        assert tag not in ("style", "iframe", "object", "base")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        if tag == "script":
            assert (attributes["src"] or "").startswith("/static/")
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), attributes


def test_scripts_write_no_markup() -> None:
    found = list((HERE / "static").glob("*.js"))
    assert found
    for script in found:
        code = script.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", code), (
            script
        )
        assert not re.search(r"https?://", code), script


def test_the_script_gets_the_settings_as_they_are() -> None:
    body = next(attributes for tag, attributes in Outline(page(Some(EVIL), "/")).found if tag == "body")
    state = json.loads(body["data-state"] or "")
    assert state["classes"] == [f"{i}{EVIL}" for i in range(3)] and state["user"] == EVIL
    assert state["keys"] == ["1", "2", "3"]


def test_who_is_not_logged_in_sees_the_door() -> None:
    for path in PATHS:
        answer = browser(Some(role="")).get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def test_the_project_page_is_the_leads() -> None:
    annotator = browser(Some(role="annotator"))
    refused = annotator.get("/project")
    assert refused.status_code == 403 and "lead" in refused.text
    assert "/project" not in annotator.get("/").text


def test_filters_reach_the_search_and_the_links() -> None:
    source = Some()
    shown = page(source, "/items?query=late+parcel&state=labelled&label=2&flagged=true&page=2")
    assert source.asked == {"query": "late parcel", "state": "labelled", "label": 2, "flagged": True, "page": 2}
    assert "/items?query=late+parcel&amp;state=labelled&amp;label=2&amp;flagged=true&amp;page=3" in shown


def test_nonsense_in_an_address_is_passed_over() -> None:
    source = Some()
    page(source, "/items?state=rotten&label=-1&flagged=maybe&page=x%00")
    assert source.asked == {"page": 1}
    page(source, f"/items?label={'9' * 5000}&page=²")
    assert source.asked == {"page": 1}
    page(source, "/review?kind=none&page=0")
    assert source.asked == {"kind": "model", "page": 1}


def test_the_leads_choice_settles_what_annotators_dispute() -> None:
    assert 'data-decide="adjudicate"' in page(Some(), "/review?kind=annotators")
    assert 'data-decide="answer"' in page(Some(role="annotator"), "/review?kind=annotators")
    assert 'data-decide="answer"' in page(Some(), "/review?kind=model")


def test_the_curve_says_what_it_was_measured_on() -> None:
    shown = page(Some(), "/progress")
    assert "drawn at random" in shown and "no random sample" in shown
    none = Some()
    none.curve = lambda user: {"metric": "accuracy", "audit": 0, "points": []}  # type: ignore[method-assign]
    assert "Not yet" in page(none, "/progress")
    none.changed = {"audit": 0}
    assert "would be biased" in page(none, "/progress")


def test_colours_follow_the_cookie_if_it_is_one_of_ours() -> None:
    visitor = browser(Some())
    visitor.cookies.set("modicum-theme", "dark")
    assert '<html lang="en" data-theme="dark">' in visitor.get("/").text
    visitor.cookies.set("modicum-theme", '"><script>')
    assert '<html lang="en">' in visitor.get("/").text


def test_static_files_are_asked_about_again_and_nothing_else_is_served() -> None:
    visitor = browser(Some())
    for name in ("core.js", "label.js", "lists.js", "modicum.css", "icon.svg"):
        assert visitor.get(f"/static/{name}").headers["cache-control"] == "no-cache"
    for path in ("../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "..%5cpages.py", "%2fetc/passwd", ""):
        assert visitor.get(f"/static/{path}").status_code in (404, 405), path


def test_every_class_has_a_key_while_there_are_any() -> None:
    names = [f"class {i}" for i in range(40)]
    keys = pages.class_keys(names, {"class 3": "Z", "class 4": "u", "class 5": "z", "class 6": "", "class 7": "no"})
    given = [key for key in keys.values() if key]
    assert list(keys.values())[:10] == ["1", "2", "3", "z", "4", "5", "6", "7", "8", "9"]
    assert len(given) == len(set(given)) == len(pages.KEYS) and not set(given) & set(pages.RESERVED)
    assert keys["class 39"] == ""


def test_charts_say_in_words_what_they_show() -> None:
    points = [{"labels": n, "value": v, "low": None, "high": None} for n, v in ((10, 0.25), (1000, 0.875))]
    drawn = str(charts.curve(points))
    assert 'aria-label="Learning curve: from 25.0 % to 87.5 % at 1,000 labels"' in drawn and "nan" not in drawn
    assert drawn.count("<circle") == 2
    single = str(charts.curve([{"labels": 1, "value": 1.0, "low": 1.0, "high": 1.0}]))
    assert single.count("<circle") == 1 and ">100 %<" in single
    assert charts.curve([]) == "" and charts.bars([], "") == ""
    assert 'aria-label="Labels by class: a 3, b 0"' in charts.bars([("a", 3), ("b", 0)], "Labels by class")


def test_sources_may_answer_at_once_or_later() -> None:
    async def later() -> int:
        return 3

    assert asyncio.run(pages._maybe(later())) == asyncio.run(pages._maybe(3)) == 3
