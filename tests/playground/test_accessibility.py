"""The page for everyone: without a pointer, without colours, in the dark, on a phone, by ear."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.app.processes import Service
from tests.playground.browsing import Watched
from tests.playground.conftest import OpenPage

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
}
READABLE = 4.5
"""Contrast that WCAG's level AA asks of text."""

COLOURS = """() => [...document.querySelectorAll("#legend li")].map((item) => getComputedStyle(item).backgroundColor)
  .concat(getComputedStyle(document.getElementById("text")).color)"""


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(part * value for part, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def fill_page(watched: Watched, service: Service) -> None:
    """Everything that the page can show at once."""
    watched.type("The film was released by a gigantic zeppelinish ")
    watched.expect_suggestions(service, "The film was released by a gigantic zeppelinish ")
    watched.page.locator("#every summary").click()
    watched.page.locator("#compare-button").click()
    expect(watched.page.locator("#bars-rows tr")).to_have_count(2)
    expect(watched.page.locator("#model dd").first).to_be_visible()


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_wrong(open_page: OpenPage, service: Service, look: str) -> None:
    watched = open_page(service.url, **LOOKS[look])
    fill_page(watched, service)
    results = Axe().run(watched.page)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("look", ["light", "dark"])
def test_text_on_every_colour_is_readable_and_more_surprising_is_always_further_from_the_sheet(
    open_page: OpenPage, service: Service, look: str
) -> None:
    watched = open_page(service.url, **LOOKS[look])
    *colours, ink = map(luminance, watched.page.evaluate(COLOURS))
    assert len(colours) == 7
    for colour in colours:
        assert (max(colour, ink) + 0.05) / (min(colour, ink) + 0.05) >= READABLE
    # By lightness alone, which every kind of colour blindness leaves.
    assert colours == sorted(colours, reverse=look == "light")
    assert len(set(colours)) == 7


def test_on_a_phone_nothing_is_wider_than_the_page_and_chips_are_as_high_as_a_finger(
    open_page: OpenPage, service: Service
) -> None:
    watched = open_page(service.url, **LOOKS["phone"])
    fill_page(watched, service)
    assert watched.page.evaluate("document.documentElement.scrollWidth") == 360
    for box in watched.page.locator("#chips button:visible").all():
        place = box.bounding_box()
        assert place is not None
        assert place["height"] >= 44
    watched.page.locator("#chips button").first.tap()
    expect(watched.chips).not_to_have_count(0)
    assert watched.text.input_value().count(" ") == 9


def test_who_wants_little_motion_sees_none(open_page: OpenPage, service: Service) -> None:
    durations = {}
    for motion in ("reduce", "no-preference"):
        watched = open_page(service.url, reduced_motion=motion)
        found = "getComputedStyle(document.querySelector('.sheet')).transitionDuration"
        durations[motion] = watched.page.evaluate(found)
    assert durations == {"reduce": "0s", "no-preference": "0.15s"}


def test_tab_goes_through_the_whole_page_where_nothing_was_typed_and_back(watched: Watched, service: Service) -> None:
    watched.expect_suggestions(service, "")
    expect(watched.page.locator("#model dd").first).to_be_visible()
    focused = "document.activeElement.id || document.activeElement.dataset.word || document.activeElement.textContent"
    order = []
    for _ in range(40):
        watched.press("Tab")
        order.append(watched.page.evaluate(focused).strip())
        if order[-1] == "compare-button":
            break
    chips = watched.chips.all_inner_texts()
    assert order == [
        "API", "example", "text", *chips, "digits", "learn", "Every word in figures", "continue-button", "max_tokens",
        "temperature", "top_k", "top_p", "seed", "sentences", "compare-button",
    ]  # fmt: skip
    expect(watched.text).to_have_value("")
    for name in reversed(order[:-1]):
        watched.press("Shift+Tab")
        assert watched.page.evaluate(focused).strip() == name


def test_everything_is_done_without_a_pointer(watched: Watched, service: Service) -> None:
    watched.press("Tab", "Tab", "Tab")
    watched.page.keyboard.type("The film was released in the United ")
    watched.expect_suggestions(service, "The film was released in the United ")
    watched.press("Tab")
    watched.expect_suggestions(service, "The film was released in the United States ")
    # Once suggestions are let pass, Tab leaves the text, to the place of the chips.
    watched.press("Escape", "Tab")
    assert watched.page.evaluate("document.activeElement.id") == "digits"
    watched.press("Tab", "Tab", "Tab", "Enter")
    expect(watched.page.locator("#continue-told")).to_contain_text("tokens, seed")
    assert watched.page.evaluate("document.activeElement.id") == "continue-button"
    watched.press("Shift+Tab", "Enter")
    expect(watched.page.locator("#every-rows tr").first).to_be_visible()


def test_every_field_has_a_name_and_news_are_told(watched: Watched) -> None:
    for name in ("Write", "Sentences, one a line: which is likeliest?"):
        expect(watched.page.get_by_role("textbox", name=name, exact=True)).to_have_count(1)
    for name in ("Words", "Temperature", "Top-k", "Top-p", "Seed"):
        expect(watched.page.get_by_role("spinbutton", name=name, exact=True)).to_have_count(1)
    expect(watched.page.get_by_role("group", name="Suggestions")).to_have_count(1)
    expect(watched.page.get_by_role("heading")).to_have_text(["PRU", "Write", "Compare", "Model", "Latency"])
    for told in ("notice", "announcer", "continue-told", "compare-told", "long"):
        assert watched.page.locator(f"#{told}").get_attribute("role") == "status"


def test_an_example_takes_the_place_of_the_text_and_is_undone(watched: Watched, service: Service) -> None:
    watched.type("Mine ")
    watched.page.locator("#example").click()
    text = watched.text.input_value()
    assert len(text.split()) > 5
    watched.expect_marks(service, text)
    watched.text.focus()
    watched.press("Control+z")
    expect(watched.text).to_have_value("Mine ")
