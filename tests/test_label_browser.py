"""The labelling page in a real browser: one person, a keyboard, and a server that comes and goes."""

from __future__ import annotations

from typing import Any

import pytest
from toy_browser import a_browser, a_server, a_visitor, becomes, heard, label_one, ready, rows, saved  # noqa: F401
from toy_site import CLASSES, LONG, RTL


def test_sixty_labels_undone_and_done_again(serve: Any, visit: Any) -> None:
    page = visit(serve())
    order = [label_one(page) for _ in range(60)]
    saved(page)
    labelled = rows(page, state="labelled")
    assert labelled.keys() == set(order)
    assert all(CLASSES[row["label"]] in row["text"] for row in labelled.values())
    for i in range(55):
        if i == 30:
            page.reload()
            ready(page)
        page.keyboard.press("u")
        becomes(page, order[-1 - i])
    assert rows(page, state="labelled").keys() == set(order[:5])
    page.keyboard.press("u")
    page.keyboard.press("2")  # typed ahead: it means the text that comes back
    heard(page, f"Saved: {CLASSES[1]}")
    assert rows(page, state="labelled")[order[4]]["label"] == 1
    page.locator("#classes .class").nth(2).click()
    heard(page, f"Saved: {CLASSES[2]}")
    assert page.evaluate("document.activeElement.id") == "text"  # so that a space scrolls, and labels nothing


def test_skips_flags_notes_and_help(serve: Any, visit: Any) -> None:
    page = visit(serve())
    first = ready(page)
    page.keyboard.press("f")
    heard(page, "Flagged.")
    page.keyboard.press("n")
    page.keyboard.type("1 u s: typed, not pressed")
    page.keyboard.press("Control+Enter")
    heard(page, "Note saved.")
    page.reload()
    assert ready(page) == first and page.locator("#flag").get_attribute("aria-pressed") == "true"
    assert "typed, not pressed" in str(page.locator("#marks").text_content())
    page.keyboard.press("s")
    page.keyboard.press("2")
    heard(page, "Skipped: several classes fit.")
    second = ready(page)
    page.keyboard.press("s")
    page.locator("#reason").fill("half of it is missing")
    page.keyboard.press("Enter")
    heard(page, "Skipped: half of it is missing.")
    ready(page)
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    found = rows(page)
    assert [found[item]["skip"] for item in (first, second)] == ["several classes fit", "half of it is missing"]
    assert found[first]["flag"] and found[first]["note"] == "1 u s: typed, not pressed"
    assert sum(row["state"] != "open" for row in found.values()) == 2


def test_a_key_that_is_held_down_labels_one_text(serve: Any, visit: Any) -> None:
    page = visit(serve())
    ready(page)
    for _ in range(5):
        page.keyboard.down("1")
    page.keyboard.up("1")
    heard(page, "Saved")
    assert len(rows(page, state="labelled")) == 1


def test_keys_are_ones_own(serve: Any, visit: Any) -> None:
    page = visit(serve())
    ready(page)
    page.locator("#remap").click()
    field = page.locator("#key-fields input")
    field.nth(0).fill("u")
    page.keyboard.press("Enter")
    assert "something else" in str(page.locator("#key-problem").text_content())
    field.nth(0).fill("2")
    page.keyboard.press("Enter")
    assert "two classes" in str(page.locator("#key-problem").text_content())
    field.nth(0).fill("x")
    page.keyboard.press("Enter")
    page.reload()
    item = ready(page)
    page.keyboard.press("1")
    page.keyboard.press("x")
    heard(page, f"Saved: {CLASSES[0]}")
    assert rows(page, state="labelled").keys() == {item}
    assert page.locator("#classes .class kbd").first.text_content() == "x"
    page.locator("#remap").click()
    page.locator("#shortcuts").uncheck()
    page.locator("#keys [value=save]").click()
    page.keyboard.press("x")
    assert len(rows(page, state="labelled")) == 1


def test_a_keyboard_of_another_script_has_the_same_keys(serve: Any, visit: Any) -> None:
    page = visit(serve())
    item = ready(page)
    press = "([key, code]) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, code, bubbles: true}))"
    page.evaluate(press, ["&", "Digit1"])  # as on a French keyboard
    heard(page, f"Saved: {CLASSES[0]}")
    page.evaluate(press, ["г", "KeyU"])
    becomes(page, item)


def test_what_a_dead_network_held_back_is_sent_when_it_lives(serve: Any, visit: Any) -> None:
    page = visit(serve())
    ready(page)
    context = page.context
    context.set_offline(True)
    order = [label_one(page) for _ in range(4)]
    saved(page, "trouble")
    assert "Not saved: 4 waiting" in str(page.locator("#saved").text_content())
    page.close()  # the tab is gone; what it held is not
    context.set_offline(False)
    again = context.new_page()
    again.goto(page.url)
    ready(again)
    saved(again)
    labelled = rows(again, state="labelled")
    assert labelled.keys() == set(order)
    assert again.evaluate("Object.keys(localStorage).filter(key => key.includes(':out:')).length") == 0


def test_a_lost_acknowledgement_is_no_second_label(serve: Any, visit: Any) -> None:
    site = serve()
    page = visit(site)
    item, lost = ready(page), list[str]()

    def lose(route: Any) -> None:
        if lost:
            return route.continue_()
        lost.append(route.request.post_data)
        route.fetch()  # the server has it, the page never hears of it
        return route.abort()

    page.route("**/api/answers", lose)
    page.keyboard.press("f")
    page.keyboard.press("1")  # was written on top of the flag, whose receipt comes late
    saved(page, "trouble")
    saved(page)
    row = rows(page)[item]
    assert row["flag"] and row["label"] == 0 and lost
    assert [event.event.kind for event in site.store.events() if event.item == row["item"]] == ["marked", "labelled"]


def test_two_tabs_and_a_stale_answer(serve: Any, visit: Any) -> None:
    page = visit(serve())
    item = ready(page)
    other = page.context.new_page()
    other.goto(page.url)
    becomes(other, item)
    page.keyboard.press("1")
    heard(page, "Saved")
    other.keyboard.press("2")
    heard(other, "Not saved")
    assert ready(other) != item
    assert rows(page)[item]["label"] == 0


@pytest.mark.parametrize("suggest", ["hidden", "shown", "after"])
def test_what_was_shown_is_sent(serve: Any, visit: Any, suggest: str) -> None:
    site = serve(suggest=suggest, suggestion=(2, 0.83))
    page = visit(site)
    ready(page)
    line = page.locator("#suggestion")
    assert line.is_visible() == (suggest == "shown")
    page.keyboard.press("1")
    heard(page, "The model had" if suggest == "after" else "Saved")
    told = "83 %" in (str(page.locator("#last").text_content()) + str(line.text_content()))
    assert told == (suggest != "hidden")
    page.keyboard.press("u")
    heard(page, "Undone")
    page.keyboard.press("3")
    heard(page, "Saved")
    shown = [event.event.shown for event in site.store.events() if event.event.kind == "labelled"]
    seen = {"hidden": [False, False], "shown": [True, True], "after": [False, True]}[suggest]
    assert [one is not None for one in shown] == seen
    assert all(one is None or (one.label, round(one.confidence, 2)) == (2, 0.83) for one in shown)


def test_long_pairs_from_right_to_left(serve: Any, visit: Any) -> None:
    page = visit(serve([(LONG, RTL)] * 3))
    ready(page)
    first, second = page.locator("#first"), page.locator("#second")
    direction = "node => getComputedStyle(node).direction"
    assert (first.evaluate(direction), second.evaluate(direction)) == ("ltr", "rtl")
    assert page.locator("#text").evaluate("node => node.scrollHeight > node.clientHeight && scrollY === 0")
    page.keyboard.press("PageDown")
    page.wait_for_function("() => document.querySelector('#text').scrollTop > 0")
    page.keyboard.press("1")
    heard(page, "Saved")
    assert page.locator("#text").evaluate("node => node.scrollTop") == 0


def test_many_classes_are_found_by_name(serve: Any, visit: Any) -> None:
    page = visit(serve(["which one"] * 3, classes=tuple(f"class {i:02}" for i in range(40))))
    item = ready(page)
    page.keyboard.press("/")
    page.keyboard.type("37")
    page.keyboard.press("Enter")
    heard(page, "Saved: class 37")
    assert rows(page)[item]["label"] == 37 and page.locator("#classes .class:visible").count() == 40
