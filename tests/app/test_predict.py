"""`POST /predict`: what it answers, compared with the same model asked one step at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.app.fakes import NumpyEngine, fake_model, small_vocabulary
from tests.app.serving import serving

VOCABULARY = small_vocabulary()
ENGINE = NumpyEngine(len(VOCABULARY))
SPECIAL = {"<eos>", "<unk>"}


def likelihoods(*words: str) -> dict[str, float]:
    """Log-probability of every token after `<eos>` and these ones, likeliest first, read one step at a time."""
    state = np.zeros(ENGINE.state_size, np.float32)
    for word in ("<eos>", *words):
        assert word in VOCABULARY.words
        hidden, state = ENGINE.step(VOCABULARY.id_of(word), state)
    values = ENGINE.log_probabilities(hidden[None])[0]
    return {VOCABULARY.word_of(i): float(values[i]) for i in np.argsort(-values, kind="stable")}


def predict(client: TestClient, **fields: Any) -> dict[str, Any]:
    response = client.post("/predict", json=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def tokens(answer: dict[str, Any]) -> list[str]:
    return [prediction["token"] for prediction in answer["predictions"]]


def test_the_best_tokens_come_with_the_models_own_probabilities(client: TestClient) -> None:
    answer = predict(client, text="the boats leave the", k=12)
    expected = [(word, value) for word, value in likelihoods("the", "boats", "leave", "the").items()]
    expected = [(word, value) for word, value in expected if word not in SPECIAL][:12]
    assert tokens(answer) == [word for word, _ in expected]
    for prediction, (_, value) in zip(answer["predictions"], expected, strict=True):
        assert prediction["log_probability"] == pytest.approx(value, abs=1e-6)
        assert prediction["probability"] == pytest.approx(np.exp(value), rel=1e-6)
    assert answer["token_count"] == 4


def test_a_whole_number_may_be_written_with_a_fraction_of_zero(client: TestClient) -> None:
    assert predict(client, text="the", k=3.0) == predict(client, text="the", k=3)


def test_every_answer_names_its_model(client: TestClient) -> None:
    identity = {"name": "tiny", "sha256": "0" * 64, "engine": "numpy", "precision": "float32"}
    assert predict(client, text="the")["model"] == identity
    assert client.post("/perplexity", json={"text": "the"}).json()["model"] == identity
    assert client.get("/model").json()["model"] == identity
    assert client.get("/health/ready").json()["model"] == identity


@pytest.mark.parametrize("text", ["", " ", "\t  "])
def test_empty_text_predicts_the_first_word_of_a_text(client: TestClient, text: str) -> None:
    answer = predict(client, text=text)
    assert tokens(answer) == [word for word in likelihoods() if word not in SPECIAL][:5]
    assert answer["token_count"] == 0


def test_blanks_at_the_ends_change_nothing(client: TestClient) -> None:
    assert predict(client, text="  the harbour ") == predict(client, text="the harbour")


def test_a_newline_is_eos_also_at_the_end(client: TestClient) -> None:
    answer = predict(client, text="the harbour\n", k=3)
    assert tokens(answer) == [w for w in likelihoods("the", "harbour", "<eos>") if w not in SPECIAL][:3]
    assert answer["token_count"] == 3


def test_special_tokens_are_shown_only_where_asked_for(client: TestClient) -> None:
    everything = len(VOCABULARY)
    assert everything <= 100
    assert set(tokens(predict(client, text="the", k=100))) == set(VOCABULARY.words) - SPECIAL
    shown = predict(client, text="the", k=100, include_special=True)
    assert tokens(shown) == list(likelihoods("the"))
    assert sum(p["probability"] for p in shown["predictions"]) == pytest.approx(1, abs=1e-6)


def test_words_only_leaves_out_marks_and_joiners(client: TestClient) -> None:
    shown = tokens(predict(client, text="the", k=100, words_only=True))
    kept = [word for word in likelihoods("the") if VOCABULARY.is_word(VOCABULARY.id_of(word))]
    assert shown == kept
    assert not set(shown) & {",", ".", "@-@", "@,@", '"', *SPECIAL}


def test_words_only_keeps_special_tokens_out_whatever_else_is_asked(client: TestClient) -> None:
    assert predict(client, text="the", k=100, words_only=True, include_special=True) == predict(
        client, text="the", k=100, words_only=True
    )


def test_a_prefix_in_lower_case_matches_any_case_and_another_its_own(client: TestClient) -> None:
    after = likelihoods("the")
    assert tokens(predict(client, text="the", prefix="ca", k=9)) == [w for w in after if w in {"captain", "Captain"}]
    assert tokens(predict(client, text="the", prefix="Ca", k=9)) == ["Captain"]
    assert tokens(predict(client, text="the", prefix="xyz", k=9)) == []


def test_a_prefix_selects_and_never_renormalises(client: TestClient) -> None:
    answer = predict(client, text="the", prefix="le", k=2)
    expected = [(word, value) for word, value in likelihoods("the").items() if word.startswith("le")][:2]
    assert [(p["token"], p["log_probability"]) for p in answer["predictions"]] == [
        (word, pytest.approx(value, abs=1e-6)) for word, value in expected
    ]


def test_a_word_is_shown_as_people_write_it(client: TestClient) -> None:
    shown = {p["token"]: p["word"] for p in predict(client, text="the", k=100)["predictions"]}
    assert shown["@-@"] == "-"
    assert shown["harbour"] == "harbour"


def test_filters_look_beyond_the_first_k_tokens() -> None:
    """With one word asked for and special tokens likeliest of all, a word is still found."""

    def eager_to_end(size: int) -> NumpyEngine:
        engine = NumpyEngine(size)
        engine.bias[[VOCABULARY.eos_id, VOCABULARY.unk_id]] = 50
        return engine

    with serving(fake_model(build=eager_to_end)) as client:
        assert len(predict(client, text="the", k=1)["predictions"]) == 1
        assert tokens(predict(client, text="the", k=1, include_special=True))[0] in SPECIAL


def test_a_long_text_is_read_in_chunks_with_carried_state(client: TestClient) -> None:
    text = "the captain left the harbour , and the boats did not . " * 50
    whole = predict(client, text=text)
    assert whole["token_count"] == 600
    assert tokens(whole) == [word for word in likelihoods(*text.split()) if word not in SPECIAL][:5]
