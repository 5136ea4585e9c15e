"""Continuing, comparing, and the panels."""

from __future__ import annotations

import math
import re

import httpx2
import pytest
from playwright.sync_api import expect

from tests.app.processes import Service
from tests.playground.browsing import Watched, ask

START = "The film was released in the United"


def written(service: Service, text: str, **fields: object) -> str:
    """What a session writes after a text."""
    session = ask_201(service, text)
    answer: str = ask(service, f"/sessions/{session}/continue", **fields)["text"]
    return answer


def ask_201(service: Service, text: str) -> str:
    session: str = httpx2.post(f"{service.url}/sessions", json={"text": text}).json()["session_id"]
    return session


def fill(watched: Watched, **fields: object) -> None:
    for name, value in fields.items():
        watched.page.locator(f"#{name}").fill(str(value))


@pytest.mark.parametrize(
    "text", [START, START + " ", START + " States .\n", ""], ids=["word", "blank", "line", "nothing"]
)
def test_the_same_seed_writes_the_same_words_as_the_route(watched: Watched, service: Service, text: str) -> None:
    watched.type(text)
    fields = {"max_tokens": 12, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "seed": 7}
    fill(watched, **fields)
    watched.page.locator("#continue-button").click()
    expect(watched.page.locator("#continue-told")).to_have_text("12 tokens, seed 7")
    words = written(service, text, **fields)
    whole = text.rstrip(" ") + (words if text.strip() and not text.endswith("\n") else words.lstrip())
    expect(watched.text).to_have_value(whole)
    watched.expect_marks(service, whole)
    watched.text.focus()
    watched.press("Control+z")
    expect(watched.text).to_have_value(text)


def test_words_that_are_drawn_tell_their_seed_and_come_again_with_it(watched: Watched) -> None:
    watched.type(START)
    fill(watched, max_tokens=8)
    told = watched.page.locator("#continue-told")
    watched.page.locator("#continue-button").click()
    expect(told).to_have_text(re.compile(r"8 tokens, seed \d+"))
    first = watched.text.input_value()
    seed = told.inner_text().rpartition(" ")[2]
    watched.text.focus()
    watched.press("Control+z")
    expect(watched.text).to_have_value(START)
    fill(watched, seed=seed)
    watched.page.locator("#continue-button").click()
    expect(told).to_have_text(f"8 tokens, seed {seed}")
    expect(watched.text).to_have_value(first)


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_writing_is_stopped_and_what_was_written_stays(watched: Watched, service: Service, by: str) -> None:
    watched.type(START)
    fields = {"max_tokens": 400, "temperature": 0.8, "seed": 3}
    fill(watched, **fields, top_p=1)
    button = watched.page.locator("#continue-button")
    button.click()
    expect(button).to_have_text("Stop")
    expect(watched.page.locator("#mirror ins")).to_contain_text(re.compile(r"\w+ \w+ \w+"))
    if by == "button":
        button.click()
    else:
        watched.press("Escape")
    expect(button).to_have_text("Continue")
    told = watched.page.locator("#continue-told").inner_text()
    [count] = re.findall(r"^Stopped after (\d+) tokens$", told)
    assert int(count) < 400
    text = watched.text.input_value()
    assert len(text) > len(START)
    assert (START + written(service, START, **fields)).startswith(text)
    watched.text.focus()
    watched.press("Control+End")
    watched.page.keyboard.type(" and ")
    watched.expect_suggestions(service, f"{text} and ")


def test_fields_out_of_their_range_are_not_sent(watched: Watched) -> None:
    watched.type(START)
    fill(watched, temperature=9)
    watched.page.locator("#continue-button").click()
    expect(watched.page.locator("#continue-button")).to_have_text("Continue")
    assert watched.page.evaluate("document.getElementById('temperature').validity.rangeOverflow")
    assert watched.page.evaluate("document.activeElement.id") == "temperature"
    expect(watched.text).to_have_value(START)


def test_sentences_are_compared_by_their_perplexity_in_which_an_unknown_word_costs_more(
    watched: Watched, service: Service
) -> None:
    texts = ["The film was released in the United States .", "The film was released in the United banana .", "Zzyzx"]
    watched.page.locator("#sentences").fill("\n".join([*texts[:2], "  ", texts[2]]))
    watched.page.locator("#compare-button").click()
    rows = watched.page.locator("#bars-rows tr")
    expect(rows).to_have_count(3)
    results = ask(service, "/perplexity", texts=texts, oov_penalty=6)["results"]
    found = rows.evaluate_all("(rows) => rows.map((row) => Number(row.dataset.perplexity))")
    assert found == pytest.approx([math.exp(-result["score"] / result["token_count"]) for result in results])
    assert found[:2] == pytest.approx([result["perplexity"] for result in results[:2]])
    assert rows.locator("th span:first-child").all_inner_texts() == texts
    shown = [float(text.replace(",", "")) for text in rows.locator("td b").all_inner_texts()]
    assert shown == pytest.approx(found, rel=0.01)
    widths = rows.locator(".bar").evaluate_all("(bars) => bars.map((bar) => bar.getBoundingClientRect().width)")
    assert [width / max(widths) for width in widths] == pytest.approx([it / max(found) for it in found], abs=0.01)
    expect(watched.page.locator("#bars-rows .best th span:first-child")).to_have_text([texts[found.index(min(found))]])
    expect(rows.nth(2).locator("small")).to_contain_text("1 unknown")


def test_a_misspelt_sentence_is_not_the_likeliest_though_its_own_perplexity_is_lower(
    watched: Watched, service: Service
) -> None:
    texts = ["He lives in Paris.", "He lives in Parjs."]
    right, misspelt = ask(service, "/perplexity", texts=texts)["results"]
    assert misspelt["perplexity"] < right["perplexity"]
    watched.page.locator("#sentences").fill("\n".join(texts))
    watched.page.locator("#compare-button").click()
    expect(watched.page.locator("#bars-rows .best th span:first-child")).to_have_text(texts[:1])


def test_the_model_card_and_the_last_requests_are_shown(watched: Watched, service: Service) -> None:
    card = httpx2.get(f"{service.url}/model").json()
    model = watched.page.locator("#model")
    for told in (card["model"]["name"], f"{card['vocabulary_size']:,} words", card["model"]["sha256"][:12]):
        expect(model).to_contain_text(told)
    for field in ("intended_use", "limitations", "licence", "attribution"):
        name = field.replace("_", " ").capitalize()
        expect(model.locator("dt", has_text=name).locator("+ dd")).to_have_text(card[field])
    expect(model).to_contain_text(f"{card['limits']['tokens']:,} tokens")
    watched.type("The film was ")
    watched.expect_suggestions(service, "The film was ")
    expect(watched.page.locator("#latency-told")).to_contain_text(re.compile(r"half within [\d.]+ ms"))
    expect(watched.page.locator("#latency-rows th", has_text="WS append").first).to_be_visible()
