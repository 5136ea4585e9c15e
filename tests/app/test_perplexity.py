"""`POST /perplexity`: what it answers, compared with the same model asked one step at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.app.fakes import CORPUS, NumpyEngine, small_vocabulary
from tests.app.serving import serving

VOCABULARY = small_vocabulary()
ENGINE = NumpyEngine(len(VOCABULARY))


def log_probabilities(tokens: list[str], context: list[str] | None = None) -> list[float]:
    """Of each token after `<eos>`, the context and all tokens before it, read one step at a time."""
    state = np.zeros(ENGINE.state_size, np.float32)
    for token in ("<eos>", *(context or [])):
        hidden, state = ENGINE.step(VOCABULARY.id_of(token), state)
    found = []
    for token in tokens:
        found.append(float(ENGINE.log_probabilities(hidden[None])[0, VOCABULARY.id_of(token)]))
        hidden, state = ENGINE.step(VOCABULARY.id_of(token), state)
    return found


def ask(client: TestClient, **fields: Any) -> dict[str, Any]:
    response = client.post("/perplexity", json=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def one(client: TestClient, **fields: Any) -> dict[str, Any]:
    """The only text's result."""
    [result] = ask(client, **fields)["results"]
    found: dict[str, Any] = result
    return found


def test_a_text_is_scored_from_eos_to_eos(client: TestClient) -> None:
    expected = log_probabilities(["the", "harbour", "is", "small", "<eos>"])
    answer = ask(client, text="the harbour is small")
    result = answer["results"][0]
    assert result["log_likelihood"] == pytest.approx(sum(expected), abs=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(-sum(expected) / 5), rel=1e-6)
    assert result["perplexity_without_oov"] == result["perplexity"]
    assert (result["token_count"], result["oov_count"]) == (5, 0)
    assert answer["perplexity"] == result["perplexity"]
    assert answer["total"] == result


def test_the_eos_of_the_end_can_be_left_out(client: TestClient) -> None:
    expected = log_probabilities(["the", "harbour"])
    result = one(client, text="the harbour", include_eos=False)
    assert result["log_likelihood"] == pytest.approx(sum(expected), abs=1e-5)
    assert result["token_count"] == 2


def test_a_newline_is_eos_and_a_final_one_is_that_of_the_end(client: TestClient) -> None:
    expected = log_probabilities(["the", "boats", "<eos>", "the", "sea", "<eos>"])
    for text in ("the boats\nthe sea", "the boats\nthe sea\n", "the boats \n the sea \n"):
        result = one(client, text=text)
        assert result["log_likelihood"] == pytest.approx(sum(expected), abs=1e-5)
        assert result["token_count"] == 6


def test_context_is_read_and_not_scored(client: TestClient) -> None:
    expected = log_probabilities(["the", "sea", "<eos>"], ["the", "boats", "<eos>"])
    result = one(client, text="the sea", context="the boats\n")
    assert result["log_likelihood"] == pytest.approx(sum(expected), abs=1e-5)
    assert result["token_count"] == 3


def test_each_of_many_texts_starts_afresh_and_results_keep_their_order(client: TestClient) -> None:
    texts = ["the sea", "", "boats", " ".join(CORPUS), "the sea", "a captain"]
    answer = ask(client, texts=texts, context="the harbour", return_tokens=True)
    alone = [one(client, text=text, context="the harbour", return_tokens=True) for text in texts]
    for result, expected in zip(answer["results"], alone, strict=True):
        assert result["log_likelihood"] == pytest.approx(expected["log_likelihood"], rel=1e-6)
        assert [token["rank"] for token in result["tokens"]] == [token["rank"] for token in expected["tokens"]]
    total = answer["total"]
    assert total["log_likelihood"] == pytest.approx(sum(result["log_likelihood"] for result in alone), rel=1e-6)
    assert total["token_count"] == sum(result["token_count"] for result in alone)
    assert total["perplexity"] == pytest.approx(math.exp(-total["log_likelihood"] / total["token_count"]))
    assert "perplexity" not in answer


def test_one_text_in_a_list_is_scored_as_that_text(client: TestClient) -> None:
    alone = ask(client, text="the sea")
    listed = ask(client, texts=["the sea"])
    assert listed["results"] == alone["results"]
    assert "perplexity" not in listed


def test_tokens_come_with_offsets_scores_ranks_and_unknown_marks(client: TestClient) -> None:
    text = "the  Zanzibar captain's <unk>"
    result = one(client, text=text, return_tokens=True)
    tokens = result["tokens"]
    assert [token["token"] for token in tokens] == ["the", "<unk>", "captain", "'s", "<unk>", "<eos>"]
    assert [text[token["start"] : token["end"]] for token in tokens] == [
        "the", "Zanzibar", "captain", "'s", "<unk>", "",
    ]  # fmt: skip
    assert [token["oov"] for token in tokens] == [False, True, False, False, False, False]
    expected = log_probabilities([token["token"] for token in tokens])
    assert [token["log_probability"] for token in tokens] == pytest.approx(expected, abs=1e-6)
    assert [token["surprisal"] for token in tokens] == pytest.approx([-p / math.log(2) for p in expected], abs=1e-5)
    assert all(1 <= token["rank"] <= len(VOCABULARY) for token in tokens)
    assert (result["token_count"], result["oov_count"]) == (6, 1)
    known = [p for p, token in zip(expected, tokens, strict=True) if not token["oov"]]
    assert result["perplexity_without_oov"] == pytest.approx(math.exp(-sum(known) / 5), rel=1e-5)


def test_a_rank_counts_the_tokens_strictly_likelier(client: TestClient) -> None:
    best = client.post("/predict", json={"text": "the", "k": 1, "include_special": True}).json()["predictions"][0]
    text = f"the {best['word']}"
    tokens = one(client, text=text, return_tokens=True, include_eos=False)["tokens"]
    assert tokens[1]["rank"] == 1
    assert tokens[1]["log_probability"] == best["log_probability"]


def test_words_are_what_was_typed_and_sum_to_the_whole(client: TestClient) -> None:
    text = "a captain's  boat\nZanzibar"
    result = one(client, text=text, return_words=True, return_tokens=True)
    words = result["words"]
    assert [word["word"] for word in words] == ["a", "captain's", "boat", "\n", "Zanzibar", ""]
    assert all(word["word"] == text[word["start"] : word["end"]] for word in words)
    assert [word["token_count"] for word in words] == [1, 2, 1, 1, 1, 1]
    assert [word["oov"] for word in words] == [False, False, False, False, True, False]
    scores = [token["log_probability"] for token in result["tokens"]]
    assert words[1]["log_probability"] == pytest.approx(scores[1] + scores[2], abs=1e-9)
    assert words[1]["surprisal"] == pytest.approx(-(scores[1] + scores[2]) / math.log(2), abs=1e-9)
    assert sum(word["log_probability"] for word in words) == pytest.approx(result["log_likelihood"], abs=1e-9)


def test_tokens_and_words_come_only_where_asked_for(client: TestClient) -> None:
    assert one(client, text="the sea").keys() == {
        "perplexity", "perplexity_without_oov", "log_likelihood", "token_count", "oov_count",
    }  # fmt: skip
    assert one(client, text="", include_eos=False, return_tokens=True, return_words=True)["tokens"] == []


def test_a_penalty_for_unknown_tokens_gives_each_text_and_all_together_a_score(client: TestClient) -> None:
    texts = ["the Zanzibar sea", "the sea", "Zanzibar Zanzibar", "<unk>"]
    plain = ask(client, texts=texts)
    answer = ask(client, texts=texts, oov_penalty=2.5)
    for result, before, unknown in zip(answer["results"], plain["results"], [1, 0, 2, 0], strict=True):
        assert result.pop("score") == pytest.approx(before["log_likelihood"] - 2.5 * unknown)
    total = answer["total"]
    assert total.pop("score") == pytest.approx(plain["total"]["log_likelihood"] - 2.5 * 3)
    # Nothing else has changed: perplexities stay those that training measures.
    assert answer == plain


def test_a_penalty_of_nothing_is_a_penalty(client: TestClient) -> None:
    result = one(client, text="the Zanzibar sea", oov_penalty=0)
    assert result["score"] == result["log_likelihood"]


@pytest.mark.parametrize("times", [1, 40])
def test_an_entropy_is_the_surprisal_that_was_to_be_expected_in_a_tokens_place(client: TestClient, times: int) -> None:
    state = np.zeros(ENGINE.state_size, np.float32)
    expected = []
    for token in ("<eos>", *["the", "harbour", "<unk>"] * times):
        hidden, state = ENGINE.step(VOCABULARY.id_of(token), state)
        probabilities = np.exp(ENGINE.log_probabilities(hidden[None])[0].astype(np.float64))
        expected.append(float((probabilities * -np.log2(probabilities)).sum()))
    text = " ".join(["the harbour Zanzibar"] * times)
    plain = ask(client, texts=[text, "the sea"], return_tokens=True)
    answer = ask(client, texts=[text, "the sea"], return_tokens=True, return_entropies=True)
    assert answer["results"][0]["entropies"] == pytest.approx(expected, rel=1e-5)
    assert len(answer["results"][1]["entropies"]) == 3
    for result, before in zip(answer["results"], plain["results"], strict=True):
        del result["entropies"]
        assert result["log_likelihood"] == pytest.approx(before["log_likelihood"], rel=1e-6)
        assert [token["rank"] for token in result["tokens"]] == [token["rank"] for token in before["tokens"]]


@pytest.mark.parametrize("penalty", [-0.1, 1001, "5", True])
def test_a_penalty_that_is_no_number_of_nats_is_refused(client: TestClient, penalty: object) -> None:
    response = client.post("/perplexity", json={"text": "the sea", "oov_penalty": penalty})
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/oov_penalty"]


def test_nothing_to_score_has_no_perplexity(client: TestClient) -> None:
    answer = ask(client, text=" ", include_eos=False)
    nothing = {
        "perplexity": None, "perplexity_without_oov": None, "log_likelihood": 0, "token_count": 0, "oov_count": 0,
    }  # fmt: skip
    assert answer["results"] == [nothing]
    assert answer["total"] == nothing
    assert answer["perplexity"] is None
    assert ask(client, text="")["results"][0]["token_count"] == 1


def test_a_text_without_a_known_word_has_a_perplexity_but_none_without_oov(client: TestClient) -> None:
    result = one(client, text="Zanzibar Tanganyika", include_eos=False)
    assert (result["token_count"], result["oov_count"]) == (2, 2)
    assert result["perplexity"] > 1
    assert result["perplexity_without_oov"] is None


def test_offsets_count_code_points(client: TestClient) -> None:
    text = "🚢🚢 the e\u0301t\u00e9 harbour"
    tokens = one(client, text=text, return_tokens=True, include_eos=False)["tokens"]
    assert text[tokens[-1]["start"] : tokens[-1]["end"]] == "harbour"
    assert "".join(text[token["start"] : token["end"]] for token in tokens) == text.replace(" ", "")


def test_one_text_too_many_is_named_and_refuses_all(client: TestClient) -> None:
    with serving(max_tokens=10) as strict:
        ask(strict, texts=["the sea"] * 5)
        response = strict.post("/perplexity", json={"texts": ["the sea"] * 8})
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == "#/texts/5"
        response = strict.post("/perplexity", json={"text": "a", "context": "the sea " * 6})
        assert response.json()["errors"][0]["pointer"] == "#/context"
        response = strict.post("/predict", json={"text": "the sea " * 6})
        assert response.json()["errors"][0]["pointer"] == "#/text"
        assert "more than 10 tokens" in response.json()["detail"]


def test_long_answers_are_made_beside_the_event_loop_and_are_the_same(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"text": "\n".join(CORPUS), "return_tokens": True, "return_words": True}
    short = ask(client, **fields)
    monkeypatch.setattr("app.reader.LONG", 3)
    assert ask(client, **fields) == short
