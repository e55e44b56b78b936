"""A browser with the labelling application in it, and what tests do there. Skips where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_site import CLASSES, Site, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'modicum[dev]'")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")


@pytest.fixture(name="browser", scope="module")
def a_browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path)
        yield running
        running.close()


@pytest.fixture(name="serve")
def a_server(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts the real application on a port of its own."""
    running: list[Any] = []

    def start(texts: list[str] | None = None, **settings: Any) -> Site:
        running.append(serving(tmp_path / f"project-{len(running)}", texts, **settings))
        return running[-1].__enter__()

    yield start
    for one in running:
        one.__exit__(None, None, None)


@pytest.fixture(name="visit")
def a_visitor(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the labelling page as someone, in a browser of their own; nothing may go wrong in its console."""
    contexts, wrong = [], list[str]()

    def come(site: Site, name: str = "ana", **options: Any) -> Any:
        context = browser.new_context(base_url=site.url, **({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        context.set_default_timeout(8000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None)
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        site.enter(page, name)
        return page

    yield come
    for context in contexts:
        context.close()
    assert wrong == []


def ready(page: Any) -> str:
    """Waits for a text; its id."""
    page.wait_for_function("() => document.querySelector('#place')?.textContent.includes(' · ')")
    return str(page.locator("#place").text_content()).split(" · ")[0]


def becomes(page: Any, item: str) -> None:
    page.wait_for_function("id => document.querySelector('#place')?.textContent.startsWith(id + ' ')", arg=item)


def saved(page: Any, state: str = "saved") -> None:
    page.wait_for_function("state => document.querySelector('#saved').dataset.state === state", arg=state)


def heard(page: Any, words: str, where: str = "#last") -> None:
    page.wait_for_function(
        "([at, words]) => document.querySelector(at)?.textContent.includes(words)", arg=[where, words]
    )


def label_one(page: Any, gold: dict[str, int] | None = None) -> str:
    """Gives a text the right class, which is the one that it names, by its key; the text's id."""
    item = ready(page)
    text = str(page.locator("#first").text_content())
    label = gold[item] if gold else next(i for i, name in enumerate(CLASSES) if name in text)
    page.keyboard.press(str(label + 1))
    page.wait_for_function("id => !document.querySelector('#place').textContent.startsWith(id + ' ')", arg=item)
    return item


def rows(page: Any, **query: Any) -> dict[str, dict[str, Any]]:
    """The items as the API has them for this person, by id."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(1, 100):
        answer = page.request.get("/api/items", params={**query, "page": number}).json()
        found |= {row["id"]: row for row in answer["rows"]}
        if number >= answer["pages"]:
            return found
    raise AssertionError("a hundred pages")
