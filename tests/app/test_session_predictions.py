"""What a session suggests: words as its continuation writes them, and completions as for a text read at once."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from tests.app.talking import append, close_to, create, post


def test_predictions_of_a_session_say_what_they_add_as_its_continuation_does(sessions: TestClient) -> None:
    for text in ("", "the harbour", "well", "the\n", 'a well-known captain said, "', "the captain's boat, which"):
        session_id = create(sessions, text)
        predictions = append(sessions, session_id, k=100, include_special=True)["predictions"]
        texts = {prediction["token"]: prediction["text"] for prediction in predictions}
        for seed in range(8):
            fields: dict[str, Any] = {
                "max_tokens": 1,
                "seed": seed,
                "commit": False,
                "temperature": 3,
                "include_unk": True,
            }
            written = post(sessions, f"/sessions/{session_id}/continue", **fields)["tokens"][0]
            assert texts[written["token"]] == written["text"]


def test_where_a_session_went_back_as_far_as_it_can_the_next_word_has_its_blank(sessions: TestClient) -> None:
    session_id = create(sessions, "the boats leave the harbour " * 40)
    earliest = sessions.get(f"/sessions/{session_id}").json()["earliest_position"]
    assert earliest > 0
    post(sessions, f"/sessions/{session_id}/rewind", position=earliest)
    texts = {it["token"]: it["text"] for it in append(sessions, session_id, k=100)["predictions"]}
    assert (texts["captain"], texts[","]) == (" captain", ",")


def test_words_of_several_tokens_are_completed_in_a_session_as_in_a_text(sessions: TestClient) -> None:
    for prefix in ("well-k", "don’", "harbour", "1,"):
        told = append(sessions, create(sessions, "the"), prefix=prefix, k=100)["predictions"]
        asked = sessions.post("/predict", json={"text": "the", "prefix": prefix, "k": 100}).json()["predictions"]
        assert any(" " in prediction["token"] for prediction in told) or prefix == "harbour"
        close_to(told, asked)
