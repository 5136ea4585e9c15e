"""`POST /v1/completions`: scores compared with the model asked one step at a time, writing with a session's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.app.fakes import CORPUS, NumpyEngine, small_vocabulary
from tests.app.numbers import number
from tests.app.serving import serving
from tests.app.talking import create, post

VOCABULARY = small_vocabulary()
ENGINE = NumpyEngine(len(VOCABULARY))
EOS = VOCABULARY.eos_id
PATH = "/v1/completions"


def ids_of(*words: str) -> list[int]:
    return [VOCABULARY.id_of(word) for word in words]


def likely_after(ids: list[int]) -> dict[str, float]:
    """Log-probability of every word after ids, read one at a time from the state before any."""
    state = np.zeros(ENGINE.state_size, np.float32)
    for token_id in ids:
        hidden, state = ENGINE.step(token_id, state)
    values = ENGINE.log_probabilities(hidden[None])[0].tolist()
    return dict(zip(VOCABULARY.words, values, strict=True))


def ask(client: TestClient, **fields: Any) -> dict[str, Any]:
    response = client.post(PATH, json=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def one(client: TestClient, **fields: Any) -> dict[str, Any]:
    [choice] = ask(client, **fields)["choices"]
    found: dict[str, Any] = choice
    return found


def scored(client: TestClient, prompt: Any, **fields: Any) -> dict[str, Any]:
    """The arrays of an echoed prompt."""
    logprobs: dict[str, Any] = one(client, prompt=prompt, echo=True, **{"max_tokens": 0, "logprobs": 2} | fields)[
        "logprobs"
    ]
    return logprobs


def close(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found == pytest.approx({word: expected[word] for word in found}, abs=1e-5)


def test_ids_are_read_literally_and_the_first_has_no_score(client: TestClient) -> None:
    for first in ("<eos>", "boats"):
        words = [first, "the", "harbour", "is"]
        columns = scored(client, ids_of(*words))
        assert columns["tokens"] == words
        assert columns["token_logprobs"][0] is columns["top_logprobs"][0] is None
        for place in range(1, 4):
            likely = likely_after(ids_of(*words[:place]))
            assert columns["token_logprobs"][place] == pytest.approx(likely[words[place]], abs=1e-5)
            close(columns["top_logprobs"][place], likely)
            assert columns["top_logprobs"][place][words[place]] == columns["token_logprobs"][place]
            assert set(sorted(likely, key=lambda word: -likely[word])[:2]) <= columns["top_logprobs"][place].keys()


def test_a_text_is_read_after_eos_and_scored_as_ids_that_begin_with_it(client: TestClient) -> None:
    text = "the  harbour\nZanzibar <eos> don't"
    columns = scored(client, text)
    words = ["the", "harbour", "<eos>", "<unk>", "<eos>", "don", "'t"]
    assert columns["tokens"] == words
    assert columns["text_offset"] == [0, 5, 12, 13, 22, 28, 31]
    ids = scored(client, [EOS, *ids_of(*words)])
    assert columns["token_logprobs"] == pytest.approx(ids["token_logprobs"][1:], abs=1e-6)
    for found, expected in zip(columns["top_logprobs"], ids["top_logprobs"][1:], strict=True):
        close(found, expected)


def test_scores_are_those_of_the_perplexity_route(client: TestClient) -> None:
    text = "\n".join(CORPUS) + "\n"
    columns = scored(client, text)
    native = client.post("/perplexity", json={"text": text, "return_tokens": True}).json()["results"][0]
    expected = [token["log_probability"] for token in native["tokens"]]
    assert columns["token_logprobs"] == pytest.approx(expected, abs=1e-5)
    assert sum(columns["token_logprobs"]) == pytest.approx(native["log_likelihood"], rel=1e-6)


def test_what_is_likeliest_is_the_same_float_as_where_it_is_the_token(client: TestClient) -> None:
    columns = scored(client, [EOS, *(VOCABULARY.id_of(word) for line in CORPUS for word in line.split())], logprobs=1)
    pairs = list(zip(columns["token_logprobs"], columns["top_logprobs"], strict=True))[1:]
    greedy = [max(top.values()) == value for value, top in pairs]
    assert all(len(top) == 1 if is_best else len(top) == 2 for (_, top), is_best in zip(pairs, greedy, strict=True))
    written = one(client, prompt="the", max_tokens=12, temperature=0, logprobs=1, echo=True)["logprobs"]
    again = scored(client, [EOS, *ids_of(*written["tokens"])], logprobs=1)
    banned = {place for place, top in enumerate(again["top_logprobs"]) if top and "<unk>" in top}
    for place in set(range(2, len(again["tokens"]))) - banned:
        assert max(again["top_logprobs"][place].values()) == again["token_logprobs"][place]


def test_one_token_follows_an_echo_even_if_it_is_eos(client: TestClient) -> None:
    found = set()
    for seed in range(20):
        fields: dict[str, Any] = {"echo": True, "max_tokens": 1, "logprobs": 1, "n": 16, "seed": seed, "temperature": 5}
        for choice in ask(client, prompt=[EOS, *ids_of("boats")], **fields)["choices"]:
            columns = choice["logprobs"]
            assert [len(column) for column in columns.values()] == [3, 3, 3, 3]
            last = columns["tokens"][-1]
            assert choice["finish_reason"] == ("stop" if last == "<eos>" else "length")
            assert choice["text"] == VOCABULARY.detokenise([EOS, *ids_of("boats", last)]).removesuffix("\n")
            found.add(last == "<eos>")
    assert found == {False, True}


def test_temperature_zero_writes_the_likeliest_word_but_unk(client: TestClient) -> None:
    for word in VOCABULARY.words:
        ids = [EOS, VOCABULARY.id_of(word)]
        likely = likely_after(ids)
        del likely["<unk>"]
        columns = one(client, prompt=ids, max_tokens=1, logprobs=0, temperature=0)["logprobs"]
        assert columns["tokens"] == [max(likely, key=lambda word: likely[word])]
        close(columns["top_logprobs"][0], likely)


def test_without_likeliest_tokens_each_place_names_its_own(client: TestClient) -> None:
    columns = one(client, prompt="the sea", echo=True, logprobs=0, max_tokens=2, seed=1)["logprobs"]
    assert [list(top) for top in columns["top_logprobs"]] == [[token] for token in columns["tokens"]]


@pytest.mark.parametrize("narrowing", [{}, {"top_p": 0.8}, {"top_k": 4}, {"top_k": 9, "top_p": 0.7}, {"top_k": 9999}])
def test_writing_is_that_of_a_session_with_the_same_seed(client: TestClient, narrowing: dict[str, Any]) -> None:
    session_id = create(client, "the harbour")
    settings = {"max_tokens": 30, "seed": 7, "temperature": 0.9} | narrowing
    expected = post(client, f"/sessions/{session_id}/continue", **settings)
    tokens = [token["token"] for token in expected["tokens"]]
    until = tokens.index("<eos>") if "<eos>" in tokens else len(tokens)
    choice = one(client, prompt="the harbour", logprobs=1, **settings)
    assert choice["logprobs"]["tokens"] == tokens[: until + 1]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(
        [token["log_probability"] for token in expected["tokens"][: until + 1]], abs=1e-5
    )
    assert choice["text"] == "".join(token["text"] for token in expected["tokens"][:until])


def test_the_likeliest_word_is_drawn_where_it_is_the_only_one(client: TestClient) -> None:
    greedy = one(client, prompt="the harbour", max_tokens=20, temperature=0)
    assert one(client, prompt="the harbour", max_tokens=20, temperature=5, top_k=1) == greedy


def test_eos_ends_a_choice_and_is_in_the_arrays_but_not_in_the_text(client: TestClient) -> None:
    choice = next(
        choice
        for seed in range(50)
        if (choice := one(client, prompt="the boats", max_tokens=40, seed=seed, logprobs=1))["finish_reason"] == "stop"
    )
    assert choice["logprobs"]["tokens"].count("<eos>") == 1
    assert choice["logprobs"]["tokens"][-1] == "<eos>"
    assert choice["logprobs"]["text_offset"][-1] == len(choice["text"])
    assert "\n" not in choice["text"]


def test_unk_is_scored_and_never_written(client: TestClient) -> None:
    answer = ask(client, prompt=["the"] * 20, n=16, max_tokens=20, seed=3, temperature=5, logprobs=5)
    tokens = [token for choice in answer["choices"] for token in choice["logprobs"]["tokens"]]
    assert "<unk>" not in tokens
    assert any("<unk>" in top for choice in answer["choices"] for top in choice["logprobs"]["top_logprobs"])


def test_offsets_say_where_tokens_begin_in_the_text(client: TestClient) -> None:
    for prompt in ("the 🚢 harbour", [EOS, *ids_of("a", "well", "@-@", "known", "captain")]):
        choice = one(client, prompt=prompt, echo=True, max_tokens=20, seed=2, logprobs=0)
        columns, text = choice["logprobs"], choice["text"]
        ends = [*columns["text_offset"][1:], len(text)]
        for token, start, end in zip(columns["tokens"], columns["text_offset"], ends, strict=True):
            shown = text[start:end].rstrip(" ")
            assert shown == {"<eos>": shown, "<unk>": shown}.get(token, VOCABULARY.surface(VOCABULARY.id_of(token)))


def test_a_prompt_that_ends_with_a_blank_is_not_given_another(client: TestClient) -> None:
    fields: dict[str, Any] = {"max_tokens": 5, "temperature": 0}
    plain = one(client, prompt="the harbour", **fields)["text"]
    assert plain.startswith(" ")
    assert one(client, prompt="the harbour ", **fields)["text"] == plain[1:]


@pytest.mark.parametrize("stop", [None, [], "\n", ["<eos>"]])
def test_stops_that_cannot_come_change_nothing(client: TestClient, stop: Any) -> None:
    fields: dict[str, Any] = {"prompt": "the harbour", "max_tokens": 20, "seed": 5}
    assert one(client, stop=stop, **fields) == one(client, **fields)


def test_text_ends_before_a_stop_text_wherever_it_begins(client: TestClient) -> None:
    fields: dict[str, Any] = {"prompt": "the harbour", "max_tokens": 12, "seed": 5, "logprobs": 0}
    free = one(client, **fields)
    text, starts = free["text"], free["logprobs"]["text_offset"]
    assert len(text) > 20
    for start in range(0, len(text) - 4):
        cut = text.find(text[start : start + 4])
        for stop in (text[start : start + 4], ["unheard of", text[start : start + 4]]):
            choice = one(client, stop=stop, **fields)
            assert (choice["text"], choice["finish_reason"]) == (text[:cut], "stop")
            assert choice["logprobs"]["text_offset"] == [begin for begin in starts if begin < cut]


def test_choices_are_the_same_for_a_seed_alone_or_among_others(client: TestClient) -> None:
    fields: dict[str, Any] = {"max_tokens": 8, "seed": 11}
    prompts = ["the harbour", "a captain", "the harbour"]
    answer = ask(client, prompt=prompts, n=3, **fields)
    assert [choice["index"] for choice in answer["choices"]] == list(range(9))
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(texts[:3])) == 3
    assert texts[6:] == texts[:3]
    assert texts[3:6] == [choice["text"] for choice in ask(client, prompt=prompts[1], n=3, **fields)["choices"]]
    assert texts[::3] == [one(client, prompt=prompt, **fields)["text"] for prompt in prompts]
    unseeded = ask(client, prompt="the", n=8, max_tokens=8)["choices"]
    assert len({choice["text"] for choice in unseeded}) > 1


def test_every_form_of_prompt_gives_what_its_parts_give(client: TestClient) -> None:
    fields: dict[str, Any] = {"max_tokens": 4, "temperature": 0, "logprobs": 1, "echo": True}
    texts, lists = ["the harbour", "", "the sea\n"], [ids_of("<eos>", "the"), ids_of("boats"), [EOS]]
    for prompts in (texts, lists):
        choices = ask(client, prompt=prompts, **fields)["choices"]
        alone = [one(client, prompt=prompt, **fields) for prompt in prompts]
        for found, expected in zip(choices, alone, strict=True):
            assert (found["text"], found["logprobs"]["tokens"]) == (expected["text"], expected["logprobs"]["tokens"])
    assert one(client, max_tokens=4, temperature=0) == one(client, prompt="", max_tokens=4, temperature=0)
    assert (
        one(client, prompt=None, max_tokens=4, temperature=0)["text"]
        == one(client, prompt=[EOS], max_tokens=4, temperature=0)["text"]
    )


def test_echo_begins_with_the_prompt_and_without_tokens_is_the_prompt(client: TestClient) -> None:
    text = "the  harbour , Zanzibar"
    assert one(client, prompt=text, echo=True, max_tokens=0) == {
        "index": 0, "text": text, "logprobs": None, "finish_reason": "length",
    }  # fmt: skip
    plain = one(client, prompt=text, max_tokens=5, temperature=0)["text"]
    assert one(client, prompt=text, echo=True, max_tokens=5, temperature=0)["text"] == text + plain
    assert one(client, prompt=text, max_tokens=0, logprobs=1)["logprobs"] == {
        "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
    }  # fmt: skip


def test_an_answer_says_what_was_read_and_written(client: TestClient) -> None:
    answer = ask(client, model="tiny", prompt=["the harbour", "a"], n=2, max_tokens=3, temperature=0, user="someone")
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert (answer["model"], answer["system_fingerprint"]) == ("tiny", "numpy-float32-000000000000")
    written = answer["usage"]["completion_tokens"]
    assert 4 <= written <= 12
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": written, "total_tokens": 3 + written}
    assert len(one(client, prompt="the", seed=4, logprobs=0)["logprobs"]["tokens"]) <= 16


def test_fields_unknown_or_asking_for_nothing_are_ignored(client: TestClient) -> None:
    plain = one(client, prompt="the", seed=1)
    nothing: dict[str, Any] = {
        "best_of": 1, "logit_bias": {}, "suffix": "", "presence_penalty": 0, "frequency_penalty": 0.0, "unheard_of": 1,
        "top_k": -1, "min_tokens": 0, "ignore_eos": False,
    }  # fmt: skip
    assert one(client, prompt="the", seed=1, **nothing) == plain
    assert one(client, prompt="the", seed=1, **nothing | {"top_k": 0}) == plain
    nulls = dict.fromkeys([*nothing, "model", "max_tokens", "temperature", "top_p", "n", "stop", "echo", "logprobs"])
    nulls |= dict.fromkeys(["stream", "stream_options"])
    assert one(client, prompt="the", seed=1, **nulls) == plain


def test_long_prompts_are_done_beside_the_event_loop_and_are_the_same(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"echo": True, "logprobs": 2, "max_tokens": 3, "temperature": 0}
    prompts: list[Any] = ["\n".join(CORPUS), [EOS, *ids_of("the", "harbour", "is", "small")]]
    short = [one(client, prompt=prompt, **fields) for prompt in prompts]
    monkeypatch.setattr("app.reader.LONG", 3)
    again = [one(client, prompt=prompt, **fields) for prompt in prompts]
    assert [(it["text"], it["logprobs"]["tokens"]) for it in again] == [
        (it["text"], it["logprobs"]["tokens"]) for it in short
    ]


def test_what_is_not_asked_for_is_not_computed() -> None:
    with serving() as client:
        calls = number(client, "pru_engine_seconds_count", model="tiny")
        one(client, prompt="the harbour", echo=True, max_tokens=0)
        assert number(client, "pru_engine_seconds_count", model="tiny") == calls
        one(client, prompt="the harbour is small", max_tokens=1)
        assert number(client, "pru_engine_seconds_count", model="tiny") == calls + 1


def test_the_model_is_found_by_its_name_alone(client: TestClient) -> None:
    models = client.get("/v1/models").json()
    assert models["object"] == "list"
    [entry] = models["data"]
    assert (entry["id"], entry["object"], entry["owned_by"]) == ("tiny", "model", "pru")
    assert client.get("/v1/models/tiny").json() == entry
    for response in (client.get("/v1/models/gpt-4"), client.post(PATH, json={"model": "gpt-4", "prompt": "the"})):
        assert response.status_code == 404
        error = json.loads(response.text)["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "tiny" in error["message"]
