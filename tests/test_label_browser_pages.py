"""The other pages in a real browser: selections, two people, settings, and whether everybody can use them.

``MODICUM_PICTURES=DIR`` makes the pictures of docs/labelling.md, with the shipped data and a model at work (minutes).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from toy_browser import a_browser, a_server, a_visitor, heard, label_one, ready, rows, saved  # noqa: F401
from toy_site import CLASSES, EVIL, PASSWORD, helpdesk

AUDITED = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CONTROLS = {"button", "link", "textbox", "searchbox", "checkbox", "combobox", "spinbutton", "dialog", "region", "image"}
PAGES = ("/", "/items", "/review?kind=annotators", "/review?kind=flagged", "/progress", "/project")


def test_a_selection_is_labelled_after_a_look(serve: Any, visit: Any) -> None:
    page = visit(serve())
    page.goto("/items?query=parcel")
    total = int(str(page.locator("#total").text_content()))
    page.locator("#all").check()
    page.locator("#bulk-label").select_option(CLASSES[3])
    page.locator("#bulk-go").click()
    page.locator("#preview").wait_for()
    assert f"“{CLASSES[3]}”" in str(page.locator("#preview-text").text_content())
    page.locator("#preview [value=cancel]").click()
    before = rows(page)
    page.locator("#bulk-go").click()
    page.locator("#preview [value=go]").click()
    heard(page, f"Labelled {total} texts", "#bulk-said")
    assert {row["label"] for row in rows(page, query="parcel").values()} == {3}
    page.locator("#bulk-undo").click()
    heard(page, f"Undone: {total} texts", "#bulk-said")
    after = rows(page)
    assert {item: row["label"] for item, row in after.items()} == {item: row["label"] for item, row in before.items()}


def test_two_people_disagree_and_the_lead_decides(serve: Any, visit: Any) -> None:
    site = serve([f"text {i} about {CLASSES[i % 4]}" for i in range(4)], per_item=2)
    ana, ben = visit(site), visit(site, "ben")
    assert ben.locator("nav a[href='/project']").count() == 0
    for page, keys in ((ana, "1111"), (ben, "1112")):
        for key in keys:
            item = ready(page)
            page.keyboard.press(key)
            heard(page, "Saved")
            page.wait_for_function("id => !document.querySelector('#place').textContent.startsWith(id + ' ')", arg=item)
    heard(ben, "Every text is done", "#first")
    ana.goto("/review?kind=annotators")
    card = ana.locator(".card")
    assert card.count() == 1 and CLASSES[1] in str(card.text_content())
    ana.keyboard.press("3")
    saved(ana)
    ana.goto("/review?kind=annotators")
    assert ana.locator(".card").count() == 0
    ana.goto("/progress")
    assert "Cohen" in str(ana.locator("#numbers").text_content())
    ana.goto("/project")
    with ana.expect_download() as download:
        ana.locator("a[href='/api/export?format=jsonl']").click()
    exported = [json.loads(line) for line in Path(download.value.path()).read_text(encoding="utf-8").splitlines()]
    assert len(exported) == 4 and CLASSES[2] in json.dumps(exported)


def test_settings_are_changed_by_the_lead(serve: Any, visit: Any) -> None:
    site = serve()
    page = visit(site)
    page.goto("/project")
    page.locator("[name=guidelines]").fill("Two wishes: the last one.\n<b>No markup.</b>")
    page.locator("[name=retrain_every]").fill("40")
    page.locator("#settings input.key").first.fill("x")
    page.locator("#settings button[type=submit]").click()
    heard(page, "Saved.", "#settings .said")
    page.goto("/")
    assert page.locator(".guidelines").text_content() == "Two wishes: the last one.\n<b>No markup.</b>"
    assert site.store.settings.retrain_every == 40
    ready(page)
    page.keyboard.press("x")
    heard(page, f"Saved: {CLASSES[0]}")


def test_in_and_out_by_name_and_password(serve: Any, visit: Any) -> None:
    site = serve()
    page = visit(site)
    page.goto("/progress")
    page.locator("[name=new]").fill(PASSWORD)
    page.keyboard.press("Enter")
    heard(page, "Changed.", "#password .said")
    page.get_by_role("button", name="Log out").click()
    page.locator("[name=name]").fill("ana")
    page.locator("[name=password]").fill("not the password")
    page.keyboard.press("Enter")
    assert "wrong" in str(page.locator("[role=alert]").text_content())
    assert page.locator("[name=name]").input_value() == "ana"
    page.locator("[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    ready(page)


def test_the_lead_adds_someone_who_comes_in_by_a_link(serve: Any, visit: Any) -> None:
    site = serve()
    page = visit(site)
    page.goto("/project")
    page.locator("#person [name=name]").fill("cleo <b>")
    page.locator("#person button").click()
    heard(page, "/link?token=", "#person .said")
    heard(page, "cleo <b>", "table.people")
    link = str(page.locator("#person .said").text_content()).split()[-1]
    visitor = visit(site, "ben")
    visitor.goto(link)
    assert visitor.locator(".who").text_content() == "cleo <b>"


def test_strings_from_outside_stay_strings(serve: Any, visit: Any) -> None:
    site = serve([EVIL] * 4, classes=(EVIL, "other"), title=EVIL, guidelines=EVIL, suggest="after", suggestion=(0, 0.5))
    page = visit(site)
    ready(page)
    page.keyboard.press("n")
    page.keyboard.insert_text(EVIL)
    page.keyboard.press("Control+Enter")
    page.keyboard.press("1")
    heard(page, "Saved: ")
    page.locator("#remap").click()
    page.keyboard.press("Escape")
    for path in PAGES:
        page.goto(path)
        assert page.locator("img, main script, iframe").count() == 0
    page.goto("/items")
    page.locator("#all").check()
    page.locator("#bulk-go").click()
    page.locator("#preview").wait_for()
    assert EVIL in str(page.locator("#preview").text_content())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(serve: Any, visit: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    site = serve(per_item=2, suggest="shown", suggestion=(1, 0.9), guidelines="One class each.")
    page, ben = visit(site, color_scheme=scheme), visit(site, "ben")
    for one, key in ((page, "1"), (ben, "2")):
        ready(one)
        one.keyboard.press("f")
        one.keyboard.press(key)
        heard(one, "Saved")
    for path in PAGES:
        page.goto(path)
        if path == "/":
            ready(page)
        found = axe.run(page, options={"runOnly": AUDITED}).response
        assert len(found["passes"]) > 20
        wrong = [(one["id"], one["impact"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
        assert wrong == [], path
        tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in CONTROLS]
        assert len(shown) > 5
        nameless = [node["role"]["value"] for node in shown if not node.get("name", {}).get("value", "").strip()]
        assert nameless == [], path


def test_focus_is_seen_wherever_it_goes(serve: Any, visit: Any) -> None:
    page = visit(serve())
    for path in ("/", "/items", "/project"):
        page.goto(path)
        page.locator("body").evaluate("node => node.focus()")
        seen = set()
        for _ in range(14):
            page.keyboard.press("Tab")
            place = page.evaluate("document.activeElement.outerHTML.slice(0, 90)")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none" or place.startswith("<body"), place
            seen.add(place)
        assert len(seen) > 10


def test_colours_are_ones_own(serve: Any, visit: Any) -> None:
    page = visit(serve(), color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate(paper) == "rgb(21, 23, 27)"
    page.reload()
    assert page.evaluate(paper) == "rgb(21, 23, 27)"


def test_pictures(serve: Any, visit: Any, tmp_path: Path) -> None:
    folder = os.environ.get("MODICUM_PICTURES")
    if folder:
        with helpdesk(tmp_path / "helpdesk") as (site, gold):
            page = visit(site)
            while (model := page.request.get("/api/model").json())["model"] is None or model["model"] < 4:
                label_one(page, gold)
                wait = 20 if model["phase"] in ("loading", "training", "scoring") or model["new"] >= 25 else 0
                page.wait_for_timeout(1000 * wait)  # a person is slower than this, and a model is seen at work
            take_pictures(page, gold, Path(folder))
    else:
        page = visit(serve(per_item=2, suggest="shown", suggestion=(1, 0.83)))
        take_pictures(page, None, tmp_path)


def take_pictures(page: Any, gold: dict[str, int] | None, folder: Path) -> None:
    """Every page in light, two in dark and on a phone; none is wider than its screen."""
    for _ in range(4):
        label_one(page, gold)
    saved(page)
    page.keyboard.press("f")
    heard(page, "Flagged.")
    wanted = {
        "light": ("/", "/items?query=parcel", "/review?kind=model", "/progress", "/project"),
        "dark": ("/", "/progress"),
    }
    wanted |= {"phone": ("/", "/items?query=parcel", "/review?kind=model")}
    for view, paths in wanted.items():
        page.emulate_media(color_scheme="dark" if view == "dark" else "light")
        page.set_viewport_size({"width": 390, "height": 844} if view == "phone" else {"width": 1200, "height": 750})
        for path in paths:
            if path != "/" or view != "light":
                page.goto(path)
            if path == "/":
                ready(page)
            if path.startswith("/items"):
                for row in (1, 2):
                    page.locator(".pick").nth(row).check()
            file = folder / f"{path.split('?')[0].strip('/') or 'label'}-{view}.png"
            page.screenshot(path=file)
            assert 5_000 < file.stat().st_size < 300_000
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, view)
