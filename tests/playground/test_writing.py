"""Typing: suggestions, how they are taken, colours and figures, and that nothing typed is lost or answered too late."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest
from playwright.sync_api import expect

from tests.app.processes import Service
from tests.app.serving import until
from tests.playground.browsing import Watched, ask, scores, suggestions

SENTENCE = "The film was released in the United "

TOLD = (
    "the film was released in the united states and the first of the songs that they had written for it was played "
    "by a small band from the north of england who were known for long and rather quiet pieces about the sea"
)
FAST = "the sea was as big as it is now and no man had yet been to an end of it or so"
WORDS, SHORT_WORDS = TOLD.split(), FAST.split()

RECORD = """
window.seen = new Map();
const look = () => {
  const area = document.getElementById("text");
  const words = [...document.querySelectorAll("#chips button:not([hidden]) .word")].map((word) => word.textContent);
  if (words.length) window.seen.set(JSON.stringify([area.value, words]), [area.value, words]);
};
const all = {attributes: true, childList: true, subtree: true};
new MutationObserver(look).observe(document.getElementById("chips"), all);
const frame = () => { look(); requestAnimationFrame(frame); };
frame();
"""
"""Keeps every pair of text and chips that was ever to be seen."""


def test_the_next_words_are_those_that_predict_answers(watched: Watched, service: Service) -> None:
    watched.expect_suggestions(service, "")
    watched.type(SENTENCE)
    watched.expect_suggestions(service, SENTENCE)
    assert watched.chips.all_inner_texts()[0] == "States"
    share = watched.page.locator("#chips .share").first.inner_text()
    answer = ask(service, "/predict", text=SENTENCE, k=1)
    assert float(share.rstrip("%")) == pytest.approx(100 * answer["predictions"][0]["probability"], rel=0.01)


def test_the_rest_of_a_word_being_typed_is_suggested(watched: Watched, service: Service) -> None:
    watched.type("The film was dir")
    watched.expect_suggestions(service, "The film was dir")
    assert "directed" in watched.chips.all_inner_texts()


def test_tab_takes_the_first_word_and_a_digit_any(watched: Watched, service: Service) -> None:
    watched.type(SENTENCE)
    watched.expect_suggestions(service, SENTENCE)
    watched.press("Tab")
    watched.expect_suggestions(service, f"{SENTENCE}States ")
    second = watched.chips.all_inner_texts()[1]
    watched.press("2")
    watched.expect_suggestions(service, f"{SENTENCE}States {second} ")
    watched.type("wr")
    watched.expect_suggestions(service, f"{SENTENCE}States {second} wr")
    first = watched.chips.all_inner_texts()[0]
    watched.press("1")
    watched.expect_suggestions(service, f"{SENTENCE}States {second} {first} ")
    watched.press("Control+z")
    watched.expect_suggestions(service, f"{SENTENCE}States {second} wr")


def test_a_chip_is_taken_by_the_pointer_too_and_the_caret_is_after_it(watched: Watched, service: Service) -> None:
    watched.type(SENTENCE)
    watched.expect_suggestions(service, SENTENCE)
    watched.chips.first.click()
    watched.page.keyboard.type("of")
    watched.expect_suggestions(service, f"{SENTENCE}States of")


def test_a_word_that_touches_what_is_before_it_takes_the_place_of_the_blank(watched: Watched, service: Service) -> None:
    watched.type("It was the first of Ireland ")
    predictions = ask(service, "/predict", text="It was the first of Ireland", k=5, words_only=True)["predictions"]
    clitic = [prediction["text"] for prediction in predictions].index("'s")
    watched.expect_suggestions(service, "It was the first of Ireland ")
    watched.press(str(clitic + 1))
    expect(watched.text).to_have_value("It was the first of Ireland's ")


def test_a_contraction_is_completed_as_it_is_typed(watched: Watched, service: Service) -> None:
    watched.type("I don’")
    watched.expect_suggestions(service, "I don’")
    watched.press("1")
    expect(watched.text).to_have_value("I don’t ")


def test_words_of_the_users_own_are_suggested_where_they_are_to_be_learnt_and_nowhere_else(
    watched: Watched, service: Service
) -> None:
    text = "Zanzibarra was a harbour . The captain of Zan"
    watched.type(text)
    watched.expect_suggestions(service, text)
    watched.expect_marks(service, text)
    learn = watched.page.get_by_label("Learn my words")
    learn.check()
    expect(watched.chips.first).to_have_text("Zanzibarra")
    scored = len(scores(service, text))
    until(lambda: len(watched.marks()) == scored)
    own = httpx2.post(f"{service.url}/sessions", json={"personal": True}).json()["session_id"]
    read = ask(service, f"/sessions/{own}/append", text=text.rpartition(" ")[0])["tokens"]
    found = [mark["surprisal"] for mark in watched.marks()]
    assert found[: len(read)] == pytest.approx([token["surprisal"] for token in read], abs=1e-3)
    watched.chips.first.click()
    watched.page.keyboard.type("and Za")
    expect(watched.chips.first).to_have_text("Zanzibarra")
    learn.uncheck()
    watched.expect_suggestions(service, "Zanzibarra was a harbour . The captain of Zanzibarra and Za")
    watched.expect_marks(service, "Zanzibarra was a harbour . The captain of Zanzibarra and Za")


def test_digits_are_typed_where_they_are_not_to_take_words(watched: Watched, service: Service) -> None:
    watched.type("In ")
    watched.expect_suggestions(service, "In ")
    watched.press("Escape")
    expect(watched.chips).to_have_count(0)
    watched.type("1")
    watched.expect_suggestions(service, "In 1")
    watched.page.locator("#digits").uncheck()
    watched.type("998 ")
    watched.expect_suggestions(service, "In 1998 ")
    watched.type("2")
    expect(watched.text).to_have_value("In 1998 2")


def test_words_are_coloured_by_their_surprisal_and_figures_are_at_the_caret_and_under_the_pointer(
    watched: Watched, service: Service
) -> None:
    text = "The film was released by a gigantic zeppelin and didn't do well"
    watched.type(text)
    watched.expect_marks(service, text)
    bounds = [2, 4, 6, 9, 12, 15]
    for mark in watched.marks():
        assert mark["colour"] == f"s{sum(mark['surprisal'] >= least for least in bounds)}"
    last = scores(service, text)[-1]
    figures = watched.page.locator("#figures")
    expect(figures).to_contain_text(f"well {last['surprisal']:.2f} bits")
    film = watched.page.locator("#mirror span", has_text="film").bounding_box()
    assert film is not None
    watched.page.mouse.move(film["x"] + film["width"] / 2, film["y"] + film["height"] / 2)
    expect(figures).to_contain_text(f"film {scores(service, text)[1]['surprisal']:.2f} bits")
    watched.page.mouse.move(0, 0)
    watched.press("Home", "ArrowRight")
    expect(figures).to_contain_text(f"The {scores(service, text)[0]['surprisal']:.2f} bits")
    whole = ask(service, "/perplexity", text=text, include_eos=False)["perplexity"]
    summary = watched.page.locator("#summary").inner_text()
    assert float(summary.rpartition(" ")[2]) == pytest.approx(whole, rel=0.01)


def test_every_word_is_in_a_table_for_who_sees_no_colours(watched: Watched, service: Service) -> None:
    watched.type("The film was zeppelinish ")
    watched.page.locator("#every summary").click()
    expect(watched.page.locator("#every-rows tr")).to_have_count(4)
    rows = [row.split("\t") for row in watched.page.locator("#every-rows tr").all_inner_texts()]
    found = scores(service, "The film was zeppelinish")
    assert [row[0] for row in rows] == ["The", "film", "was", "zeppelinish (unknown)"]
    assert [row[1] for row in rows] == [f"{token['surprisal']:.2f}" for token in found]
    assert [row[3].replace(",", "") for row in rows] == [str(token["rank"]) for token in found]


def test_a_new_line_is_read_as_soon_as_it_is_there(watched: Watched, service: Service) -> None:
    watched.type("The film.\n")
    watched.expect_suggestions(service, "The film.\n")
    watched.type("It was ")
    watched.expect_marks(service, "The film.\nIt was ")
    assert [mark["typed"] for mark in watched.marks()] == ["The", "film", ".", "\n", "It", "was"]


def test_an_edit_of_earlier_text_goes_back_in_the_same_session(watched: Watched, service: Service) -> None:
    watched.type("The film was released in the United States ")
    watched.expect_suggestions(service, "The film was released in the United States ")
    session = watched.session_id
    watched.press(*["ArrowLeft"] * len("in the United States "), *["Backspace"] * len("released "))
    watched.page.keyboard.type("shown ")
    text = "The film was shown in the United States "
    expect(watched.text).to_have_value(text)
    expect(watched.chips).to_have_text(suggestions(service, "The film was shown "))
    watched.expect_marks(service, text)
    watched.press("Control+End")
    watched.expect_suggestions(service, text)
    assert watched.session_id == session
    assert len(watched.created) == 1
    assert read_tokens(service, session) == len(scores(service, text))


def test_an_edit_further_back_than_a_session_goes_makes_a_new_one_from_the_text(
    watched: Watched, service: Service
) -> None:
    text = " ".join(WORDS * 5) + " "
    watched.text.focus()
    watched.page.keyboard.insert_text(text)
    watched.expect_suggestions(service, text)
    watched.expect_marks(service, text)
    session = watched.session_id
    watched.press("Control+Home")
    watched.page.keyboard.type("All ")
    expect(watched.chips).to_have_text(suggestions(service, "All "))
    watched.expect_marks(service, "All " + text)
    watched.press("Control+End", "Backspace")
    watched.expect_suggestions(service, "All " + text[:-1])
    assert watched.session_id != session
    assert read_tokens(service, watched.session_id) == len(scores(service, "All " + text.rstrip().rpartition(" ")[0]))


def test_words_after_the_caret_stay_and_taking_one_in_the_middle_leaves_one_blank(
    watched: Watched, service: Service
) -> None:
    watched.type("The film  States")
    watched.press(*["ArrowLeft"] * len(" States"))
    expect(watched.chips).to_have_text(suggestions(service, "The film "))
    first = watched.chips.all_inner_texts()[0]
    watched.press("Tab")
    expect(watched.text).to_have_value(f"The film {first} States")


def test_typing_300_words_fast_loses_none_and_shows_no_suggestion_of_an_older_text(
    watched: Watched, service: Service
) -> None:
    watched.page.evaluate(RECORD)
    text = " ".join((SHORT_WORDS * 30)[:300]) + " "
    watched.type(text)
    watched.expect_suggestions(service, text)
    watched.expect_marks(service, text)
    seen: list[Any] = watched.page.evaluate("[...window.seen.values()]")
    assert seen[-1][0] == text
    for value, words in seen[:: max(1, len(seen) // 60)]:
        # What stays of the last suggestions while a word is typed are the first of those that belong there.
        assert words == suggestions(service, value)[: len(words)], value[-40:]


def test_text_from_elsewhere_is_shown_as_text(watched: Watched, service: Service) -> None:
    text = '<img src=x onerror="alert(1)"> <b>bold</b> &amp; 👩‍👩‍👧 naïve שלום עולם مرحبا \u202eabc '
    watched.text.focus()
    watched.page.keyboard.insert_text(text)
    watched.expect_marks(service, text)
    assert watched.page.locator("#mirror *:not(span)").count() == 0
    assert watched.page.locator("#mirror").text_content() == text + "\u200b"


def test_text_from_right_to_left_runs_from_right_to_left_and_its_colours_with_it(
    watched: Watched, service: Service
) -> None:
    watched.type("שלום the film ")
    watched.expect_marks(service, "שלום the film ")
    styles = watched.page.evaluate(
        "['text', 'mirror'].map((id) => getComputedStyle(document.getElementById(id)).direction)"
    )
    assert styles == ["rtl", "rtl"]
    first, last = (watched.page.locator("#mirror span").nth(index).bounding_box() for index in (0, 2))
    assert first is not None
    assert last is not None
    assert first["x"] > last["x"]


def test_a_word_being_composed_is_not_sent_before_it_is_there(watched: Watched, service: Service) -> None:
    watched.type("The ")
    watched.expect_suggestions(service, "The ")
    client = watched.page.context.new_cdp_session(watched.page)
    sent = len(watched.sent)
    client.send("Input.imeSetComposition", {"text": "fi", "selectionStart": 2, "selectionEnd": 2})
    expect(watched.text).to_have_value("The fi")
    expect(watched.chips).to_have_count(0)
    watched.page.wait_for_timeout(100)
    assert len(watched.sent) == sent
    watched.page.keyboard.insert_text("film ")
    watched.expect_suggestions(service, "The film ")


def test_the_mirror_breaks_its_lines_where_the_text_does(watched: Watched, service: Service) -> None:
    text = (
        "\n".join(" ".join(WORDS[start:] + WORDS[:start]) for start in range(0, 40, 7)) + "\nwww." + "o" * 200 + "\n\n"
    )
    watched.text.focus()
    watched.page.keyboard.insert_text(text)
    watched.expect_suggestions(service, text)
    for width in (900, 700, 500, 360):
        watched.page.set_viewport_size({"width": width, "height": 700})
        heights = watched.page.evaluate("""() => { const area = document.getElementById("text");
            const copy = area.cloneNode(); area.parentElement.append(copy); copy.value = area.value;
            copy.style.cssText = "min-block-size: 0; block-size: 0";
            const heights = [copy.scrollHeight, document.getElementById("mirror").scrollHeight]; copy.remove();
            return heights; }""")
        assert heights[0] == heights[1], width


def test_a_megabyte_is_kept_and_said_to_be_too_long_and_typing_goes_on(watched: Watched, service: Service) -> None:
    megabyte = "the film was released " * 48_000
    watched.type("So ")
    watched.expect_suggestions(service, "So ")
    watched.page.keyboard.insert_text(megabyte)
    expect(watched.page.locator("#long")).to_contain_text("1,056,003 characters are too many to colour")
    window = f"So {megabyte}"[-10_000:].partition(" ")[2]
    expect(watched.chips).to_have_text(suggestions(service, window))
    watched.page.keyboard.type("by the ")
    assert watched.text.input_value() == f"So {megabyte}by the "
    expect(watched.chips).to_have_text(suggestions(service, f"{window}by the "))
    assert max(watched.sent) < 20_000
    watched.press("Control+a", "Delete")
    watched.type("The film ")
    watched.expect_suggestions(service, "The film ")
    watched.expect_marks(service, "The film ")
    expect(watched.page.locator("#long")).to_be_hidden()


def test_a_word_of_a_megabyte_is_kept_and_not_sent(watched: Watched, service: Service) -> None:
    watched.type("The film ")
    watched.page.keyboard.insert_text("a" * 2**20)
    expect(watched.chips).to_have_count(0)
    watched.page.wait_for_timeout(200)
    assert max(watched.sent) < 2_000
    watched.press("Control+z")
    watched.expect_suggestions(service, "The film ")


def test_suggestions_are_told_to_who_listens_once_typing_pauses(watched: Watched, service: Service) -> None:
    watched.type("The film was ")
    watched.expect_suggestions(service, "The film was ")
    told = ", ".join(f"{place} {word}" for place, word in enumerate(suggestions(service, "The film was "), 1))
    expect(watched.page.locator("#announcer")).to_have_text(re.compile(f"^Suggestions: {re.escape(told)}$"))


def read_tokens(service: Service, session_id: str) -> int:
    """How many tokens the session has read."""
    import httpx2

    position: int = httpx2.get(f"{service.url}/sessions/{session_id}").json()["position"]
    return position
