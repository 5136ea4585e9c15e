"""Personal sessions over HTTP: what they suggest and score with, what they remember, and that others are as before."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.app.fakes import CORPUS, NumpyEngine, small_vocabulary
from tests.app.memory_store import MemoryStore
from tests.app.personal import THETA, WEIGHT, WINDOW, personal
from tests.app.talking import append, create, post

WORDS = " ".join(CORPUS).split()
VOCABULARY = small_vocabulary()
BLOB = {"Content-Type": "application/octet-stream"}


def by_the_equations(text: str, prefix: str = "") -> tuple[list[tuple[float, int]], dict[str, float]]:
    """Log-probability and rank of each token of a text, and of every word after it, all in float64 from the start.

    Words outside the vocabulary are named as they were typed, those of the vocabulary as it writes them.
    """
    engine = NumpyEngine(len(VOCABULARY))
    tokens = VOCABULARY.tokenise(text, final_newline=True)
    typed = [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]
    vector, state = engine.step(VOCABULARY.eos_id, np.zeros(engine.state_size, np.float32))
    past: list[tuple[np.ndarray, int, str | None]] = []
    scores = []
    for token_id, spelling, unknown in zip(tokens.ids.tolist(), typed, tokens.unknown, strict=True):
        p, _ = mixture(engine, vector, past)
        scores.append((math.log(p[token_id]), 1 + int((p > p[token_id]).sum())))
        past.append((np.rint(vector * 127) / 127, token_id, spelling if unknown else None))
        vector, state = engine.step(token_id, state)
    p, of_cache = mixture(engine, vector, past)
    words = dict(zip(VOCABULARY.words, p.tolist(), strict=True))
    own = [spelling for _, _, spelling in past if spelling is not None]
    share = (1 - WEIGHT) * math.exp(engine.log_probabilities(vector[None])[0][VOCABULARY.unk_id])
    for spelling in dict.fromkeys(own):
        cached = sum(part for part, (_, _, it) in zip(of_cache, past[-WINDOW:], strict=True) if it == spelling)
        words[spelling] = WEIGHT * cached + share * own.count(spelling) / (len(own) + len(set(own)))
        words["<unk>"] -= words[spelling]
    return scores, words


def mixture(
    engine: NumpyEngine, vector: np.ndarray, past: list[tuple[np.ndarray, int, str | None]]
) -> tuple[np.ndarray, list[float]]:
    """Probability of each word after a vector, and what each place of the window has of the cache."""
    p = np.exp(engine.log_probabilities(vector[None])[0].astype(np.float64))
    window = past[-WINDOW:]
    weights = [math.exp(THETA * float(key @ vector)) for key, _, _ in window]
    parts = [weight / sum(weights) for weight in weights]
    if window:
        p *= 1 - WEIGHT
        for part, (_, token_id, _) in zip(parts, window, strict=True):
            p[token_id] += WEIGHT * part
    return p, parts


TEXT = "Zog said , the harbour is small ; Zog did leave the Mirabelle .\nthe Mirabelle and Zog left , said Zog"


def test_what_is_appended_is_scored_and_what_comes_next_suggested_by_the_equations(learning: TestClient) -> None:
    session_id, tokens = personal(learning), []
    for text in TEXT.split(" "):
        answer = append(learning, session_id, text, k=100, include_special=True)
        tokens += answer["tokens"]
    scores, words = by_the_equations(TEXT)
    assert len(tokens) == len(scores)
    assert [token["log_probability"] for token in tokens] == pytest.approx([value for value, _ in scores], abs=1e-4)
    assert [token["rank"] for token in tokens] == [rank for _, rank in scores]
    found = shown(answer)
    assert found == pytest.approx(words, abs=1e-5)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    values = [it["log_probability"] for it in answer["predictions"]]
    assert values == sorted(values, reverse=True)
    assert found["Zog"] > found["Mirabelle"] > 0


def shown(answer: dict[str, Any]) -> dict[str, float]:
    """Probabilities by token, and of the user's own words by how they are written."""
    return {it["word"] if it["token"] == "<unk>" else it["token"]: it["probability"] for it in answer["predictions"]}


def test_a_word_outside_the_vocabulary_comes_back_by_its_beginning_and_without_it(learning: TestClient) -> None:
    session_id = personal(learning, "Zanzibarra is small , and 1984 §§ unheard-of\nthe lights of")
    plain = create(learning, "Zanzibarra is small , and 1984 §§ unheard-of\nthe lights of")

    def words(prefix: str, **fields: Any) -> list[str]:
        return [it["word"] for it in append(learning, session_id, prefix=prefix, k=100, **fields)["predictions"]]

    assert {"Zanzibarra", "unheard-of", "1984"} <= set(words(""))
    assert "§§" not in words("")
    assert words("zan") == words("Zanz") == words("Zanzibarra", words_only=True) == ["Zanzibarra"]
    assert words("zanx") == words("ZAN") == []
    assert set(words("19")) == {"1984"}
    assert "<unk>" in words("", include_special=True)
    assert [it["word"] for it in append(learning, plain, prefix="zan")["predictions"]] == []


def test_a_word_of_several_tokens_comes_back_whole_however_much_of_it_is_typed(learning: TestClient) -> None:
    session_id = personal(learning, "Mr O’Neillzy and Zog-Zanzibarra, foo-boat. Mr")

    def words(prefix: str) -> list[str]:
        return [it["word"] for it in append(learning, session_id, prefix=prefix, k=100)["predictions"]]

    for prefix in ("f", "foo", "foo-", "foo-b", "foo-boat"):
        assert "foo-boat" in words(prefix)
    for prefix in ("zo", "Zog-", "zog-z", "Zog-Zanz"):
        assert "Zog-Zanzibarra" in words(prefix)
    for prefix in ("O’", "O’N", "O'Neill"):
        assert "O’Neillzy" in words(prefix)
    assert not {"foo", "Zog"} & set(words(""))


def test_every_answer_of_a_personal_session_says_so_and_what_it_remembers(learning: TestClient) -> None:
    started = post(learning, "/sessions", 201, text="the Zog is small", personal=True)
    path = f"/sessions/{started['session_id']}"
    told = {"tokens": 4, "own_words": 1}
    assert started["personal"] == learning.get(path).json()["personal"] == told
    more = {"tokens": 6, "own_words": 2}
    assert append(learning, started["session_id"], "but Mirabelle")["personal"] == more
    assert learning.post(f"{path}/fork").json()["personal"] == more
    assert post(learning, f"{path}/continue", max_tokens=2)["personal"] == more
    stream = learning.post(f"{path}/continue", json={"max_tokens": 2, "stream": True}).text
    done = json.loads(stream.rpartition("event: done\ndata: ")[2])
    assert done["personal"] == more
    assert post(learning, f"{path}/rewind", position=4)["personal"] == told
    with learning.websocket_connect(f"{path}/stream") as socket:
        for frame in ({"type": "append", "text": "Marlowe"}, {"type": "continue", "stream": True, "max_tokens": 1}):
            socket.send_json({"id": 1, **frame})
            while (answer := socket.receive_json())["type"] == "token":
                pass
            assert answer["personal"] == {"tokens": 5, "own_words": 2}
        socket.send_json({"id": 1, "type": "rewind", "position": 0})
        assert socket.receive_json()["personal"] == {"tokens": 0, "own_words": 0}


def test_a_session_that_is_not_personal_is_to_the_byte_what_it_was(learning: TestClient, store: MemoryStore) -> None:
    for fields in ({}, {"personal": False}):
        session_id = create(learning, "the Zog is", **fields)
        path = f"/sessions/{session_id}"
        standing = ["model", "session_id", "position", "earliest_position", "expires_at"]
        assert list(learning.get(path).json()) == standing
        assert list(append(learning, session_id, "Zog")) == [*standing, "tokens", "predictions"]
        written = ["text", "tokens", "finish_reason", "seed", "committed"]
        assert list(post(learning, f"{path}/continue", max_tokens=1)) == [*standing, *written]
        assert store.records[session_id].personal == b""
        exported = learning.get(f"{path}/export").content
        assert exported[8:10] == b"\1\0"
        assert b"personal" not in exported
    before = post(learning, "/predict", text="the Zog is Zog")
    personal(learning, "the Zog is Zog")
    assert post(learning, "/predict", text="the Zog is Zog") == before


typing = st.lists(st.sampled_from([*WORDS, "\n", "Zog", "unheard-of", "Mirabelle"]), max_size=90)


@settings(max_examples=15, deadline=None)
@given(words=typing, cuts=st.lists(st.integers(0, 90), max_size=5), data=st.data())
def test_any_cuts_retyping_forks_and_moves_leave_what_the_text_typed_at_once_leaves(
    learning: TestClient, store: MemoryStore, words: list[str], cuts: list[int], data: st.DataObject
) -> None:
    whole = personal(learning)
    at_once = append(learning, whole, " ".join(words), k=100)
    session_id = personal(learning)
    tokens: list[Any] = []
    edges = sorted({0, len(words), *(min(cut, len(words)) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        answer = append(learning, session_id, " ".join(words[start:stop]))
        back = data.draw(st.integers(answer["earliest_position"], answer["position"]))
        # Of what was typed astray nothing stays.
        append(learning, session_id, "Astray lights")
        post(learning, f"/sessions/{session_id}/rewind", position=answer["position"])
        session_id = learning.post(f"/sessions/{session_id}/fork").json()["session_id"]
        post(learning, f"/sessions/{session_id}/rewind", position=back)
        tokens = [*tokens, *answer["tokens"]][:back]
        again = retyped(words[:stop], back)
        tokens += append(learning, session_id, again)["tokens"]
        blob = learning.get(f"/sessions/{session_id}/export").content
        session_id = learning.post("/sessions/import", content=blob, headers=BLOB).json()["session_id"]
    for other in (session_id, personal(learning, " ".join(words))):
        end = append(learning, other, k=100)
        assert shown(end) == pytest.approx(shown(at_once), abs=1e-5)
        assert end["personal"] == at_once["personal"]
    assert [(it["token"], it["rank"]) for it in tokens] == [(it["token"], it["rank"]) for it in at_once["tokens"]]
    values, expected = ([it["log_probability"] for it in those] for those in (tokens, at_once["tokens"]))
    assert values == pytest.approx(expected, abs=1e-5)


def retyped(words: list[str], position: int) -> str:
    """What follows the first tokens of words: each word of one token but "unheard-of", which is read token by token."""
    text = " ".join(words)
    tokens = VOCABULARY.tokenise(text, final_newline=True)
    return text[tokens.starts[position] :] if position < len(tokens) else ""


def test_going_back_forgets_what_was_typed_since(learning: TestClient, store: MemoryStore) -> None:
    session_id = personal(learning, "the harbour")
    before = append(learning, session_id, k=50)
    append(learning, session_id, "Zog Zog is Zog")
    assert post(learning, f"/sessions/{session_id}/rewind", position=2)["personal"] == {"tokens": 2, "own_words": 0}
    assert append(learning, session_id, k=50)["predictions"] == before["predictions"]
    assert b"Zog" not in store.records[session_id].personal


def test_a_fork_learns_for_itself(learning: TestClient) -> None:
    session_id = personal(learning, "the Zog")
    fork = learning.post(f"/sessions/{session_id}/fork").json()["session_id"]
    append(learning, fork, "Mirabelle")
    assert append(learning, session_id, prefix="mir")["predictions"] == []
    assert [it["word"] for it in append(learning, fork, prefix="zo")["predictions"]] == ["Zog"]


def test_words_are_drawn_by_the_same_probabilities_and_what_the_model_wrote_is_not_learnt(
    learning: TestClient, store: MemoryStore
) -> None:
    text = "Zog is small , the boats leave the harbour"
    session_id = personal(learning, text)
    fork = learning.post(f"/sessions/{session_id}/fork").json()["session_id"]
    written = post(learning, f"/sessions/{session_id}/continue", max_tokens=1, seed=3)
    [token] = written["tokens"]
    _, words = by_the_equations(text)
    assert token["log_probability"] == pytest.approx(math.log(words[token["token"]]), abs=1e-4)
    best = post(learning, f"/sessions/{fork}/continue", max_tokens=1, temperature=0, commit=False)["tokens"][0]["token"]
    vocabulary = {word: value for word, value in words.items() if word in VOCABULARY.words and word != "<unk>"}
    assert best == max(vocabulary, key=lambda word: vocabulary[word])
    longer = post(learning, f"/sessions/{session_id}/continue", max_tokens=90, seed=4)
    assert longer["position"] == written["position"] + 90
    assert longer["personal"] == written["personal"] == {"tokens": 9, "own_words": 1}
    assert store.records[session_id].personal == store.records[fork].personal
    back = post(learning, f"/sessions/{session_id}/rewind", position=9)
    assert back["personal"] == longer["personal"]
