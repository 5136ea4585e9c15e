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


def single(answer: dict[str, Any]) -> list[str]:
    """Words of one token."""
    return [token for token in tokens(answer) if " " not in token]


def products(*words: str) -> float:
    """Log-probability of all these tokens after "the"."""
    return sum(likelihoods("the", *words[:index])[word] for index, word in enumerate(words))


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
    assert single(predict(client, text="the", prefix="ca", k=9)) == [w for w in after if w in {"captain", "Captain"}]
    assert single(predict(client, text="the", prefix="Ca", k=9)) == ["Captain"]
    assert tokens(predict(client, text="the", prefix="xyz", k=9)) == []


def test_a_prefix_selects_and_never_renormalises(client: TestClient) -> None:
    answer = predict(client, text="the", prefix="le", k=9)
    expected = [(word, value) for word, value in likelihoods("the").items() if word.startswith("le")]
    assert [(p["token"], p["log_probability"]) for p in answer["predictions"] if " " not in p["token"]] == [
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


@pytest.mark.parametrize(
    ("prefix", "word", "read"),
    [
        ("well-", "well-known", ("well", "@-@", "known")),
        ("well-k", "well-known", ("well", "@-@", "known")),
        ("well\u2010k", "well\u2010known", ("well", "@-@", "known")),
        ("don'", "don't", ("don", "'t")),
        ("don’", "don’t", ("don", "'t")),
        ("don’t", "don’t", ("don", "'t")),
        ("captain’", "Captain’s", ("Captain", "'s")),
        ("1,", "1,200", ("1", "@,@", "200")),
        ('"cap', '"captain', ('"', "captain")),
        ("zzz-ca", "zzz-captain", ("<unk>", "@-@", "captain")),
    ],
)
def test_what_is_typed_beyond_one_token_is_read_and_its_last_part_completed(
    client: TestClient, prefix: str, word: str, read: tuple[str, ...]
) -> None:
    answer = predict(client, text="the", prefix=prefix, k=100)
    found = {prediction["word"]: prediction for prediction in answer["predictions"]}
    assert found[word]["token"] == " ".join(read)
    assert found[word]["log_probability"] == pytest.approx(products(*read), abs=1e-5)
    values = [prediction["log_probability"] for prediction in answer["predictions"]]
    assert values == sorted(values, reverse=True)
    assert len(found) == len(values)
    assert all(VOCABULARY.tokenise(shown).ids.tolist() == ids_of(it["token"]) for shown, it in found.items())


def ids_of(written: str) -> list[int]:
    return [VOCABULARY.id_of(word) for word in written.split()]


def test_a_word_that_often_goes_on_is_shown_as_it_goes_on_too() -> None:
    """The engine holds "'t" certain after anything and everywhere: half of all that comes."""

    def contracting(size: int) -> NumpyEngine:
        engine = NumpyEngine(size)
        engine.bias[VOCABULARY.id_of("'t")] += 20
        return engine

    with serving(fake_model(build=contracting)) as client:
        shown = predict(client, text="the", prefix="do", k=4)["predictions"]
    assert [prediction["word"] for prediction in shown] == ["don", "don't"]
    assert shown[1]["log_probability"] == pytest.approx(shown[0]["log_probability"], abs=1e-3)


def test_an_end_that_is_not_begun_is_shown_only_where_it_is_likely(client: TestClient) -> None:
    for word in ("captain", "harbour", "don", "sea"):
        after = likelihoods("the", word)
        joined = {token.split()[1] for token in tokens(predict(client, text="the", prefix=word, k=100)) if " " in token}
        assert joined == {clitic for clitic in ("'s", "'t") if after[clitic] >= np.log(0.05)}


def test_looking_ahead_is_one_call_of_the_engine_and_none_without_a_prefix() -> None:
    engine = NumpyEngine(len(VOCABULARY))
    with serving(fake_model(build=lambda _: engine)) as client:
        predict(client, text="the harbour")
        engine.calls.clear()
        predict(client, text="the harbour")
        assert engine.calls == []
        predict(client, text="the harbour", prefix="ca")
        assert len(engine.calls) == 1
        predict(client, text="the harbour", prefix="xyz")
        assert len(engine.calls) == 1


@pytest.mark.parametrize(
    ("text", "token", "written"),
    [
        ("", "the", "the"),
        ("the", "captain", " captain"),
        ("the\n", "captain", "captain"),
        ("well", "@-@", "-"),
        ("the captain", ",", ","),
        ("well @-@", "known", "known"),
        ('he said , "', "the", "the"),
        ('he said , " the sea', '"', '"'),
        ("he said ,", '"', ' "'),
        ("the captain", "'s", "'s"),
        ("the", "<eos>", "\n"),
    ],
)
def test_a_prediction_says_what_it_adds_to_the_text(client: TestClient, text: str, token: str, written: str) -> None:
    shown = {it["token"]: it for it in predict(client, text=text, k=100, include_special=True)["predictions"]}
    assert shown[token]["text"] == written


def test_a_completion_is_written_in_place_of_its_prefix(client: TestClient) -> None:
    def texts(text: str, prefix: str) -> dict[str, str]:
        return {it["word"]: it["text"] for it in predict(client, text=text, prefix=prefix, k=100)["predictions"]}

    assert texts("the", "well-k")["well-known"] == " well-known"
    assert texts("", "well-k")["well-known"] == "well-known"
    assert texts("the", "ca")["captain"] == " captain"


def test_a_joiner_is_read_again_by_its_token(client: TestClient) -> None:
    joiner = next(it for it in predict(client, text="well", k=100)["predictions"] if it["token"] == "@-@")
    assert predict(client, text=f"well {joiner['token']}", k=3) == predict(client, text="well @-@", k=3)
    as_read = client.post("/perplexity", json={"text": f"well {joiner['token']} known", "return_tokens": True}).json()
    whole = client.post("/perplexity", json={"text": f"well{joiner['text']}known", "return_tokens": True}).json()
    assert as_read["perplexity"] == whole["perplexity"]
