"""Sessions on real engines: any cuts, rewinds, forks and moves, alone or among others, lead to the same bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from app.served_model import open_model
from app.settings import Settings
from tests.app.bundles import export_small_bundle
from tests.app.fakes import CORPUS
from tests.app.memory_store import MemoryStore
from tests.app.serving import serving
from tests.app.talking import append, create, post

WORDS = " ".join(CORPUS).split()
STORE = MemoryStore()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module", params=["int8", "float32"])
def sessions(
    request: pytest.FixtureRequest, bundle: Path, _default_settings: None
) -> Iterator[tuple[TestClient, bool]]:
    """A client of a service on a real engine, and whether that is exact."""
    chosen: dict[str, Any] = {"bundle": bundle, "precision": request.param, "threads": 1}
    with serving(open_model(Settings(**chosen)), store=STORE, **chosen) as client:
        yield client, request.param == "int8"


def same(found: bytes, expected: bytes, exact: bool) -> None:
    """Two packed rows are equal: to the bit, or within 1e-5."""
    if exact:
        assert found == expected
    else:
        np.testing.assert_allclose(np.frombuffer(found, "<f4"), np.frombuffer(expected, "<f4"), atol=1e-5)


def read_in_parts(client: TestClient, words: list[str], cuts: list[int]) -> tuple[str, list[dict[str, Any]]]:
    """A session that reads words part by part, retypes the last one of each part, and moves once; its tokens."""
    session_id, tokens = create(client), []
    edges = sorted({0, len(words), *(min(cut, len(words)) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        answer = append(client, session_id, " ".join(words[start:stop]))
        last = answer["tokens"][-1:]
        post(client, f"/sessions/{session_id}/rewind", position=answer["position"] - len(last))
        text = "\n" if last and last[0]["token"] == "<eos>" else (last[0]["token"] if last else "")
        again = append(client, session_id, text)
        assert again["position"] == answer["position"]
        tokens += answer["tokens"]
    session_id = client.post(f"/sessions/{session_id}/fork").json()["session_id"]
    blob = client.get(f"/sessions/{session_id}/export").content
    headers = {"Content-Type": "application/octet-stream"}
    return client.post("/sessions/import", content=blob, headers=headers).json()["session_id"], tokens


@settings(max_examples=12, deadline=None)
@given(
    texts=st.lists(
        st.tuples(
            st.lists(st.sampled_from([*WORDS, "\n"]), min_size=1, max_size=90),
            st.lists(st.integers(0, 90), max_size=4),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_texts_read_in_parts_among_others_lead_to_the_state_and_scores_of_each_read_at_once(
    sessions: tuple[TestClient, bool], texts: list[tuple[list[str], list[int]]]
) -> None:
    client, exact = sessions
    with ThreadPoolExecutor(len(texts)) as pool:
        found = list(pool.map(lambda text: read_in_parts(client, *text), texts))
    for (words, _), (session_id, tokens) in zip(texts, found, strict=True):
        at_once = create(client)
        whole = append(client, at_once, " ".join(words))
        same(STORE.records[session_id].state, STORE.records[at_once].state, exact)
        same(STORE.records[create(client, " ".join(words))].state, STORE.records[at_once].state, exact)
        scores = [token["log_probability"] for token in tokens]
        expected = [token["log_probability"] for token in whole["tokens"]]
        if exact:
            assert scores == expected
            assert [token["rank"] for token in tokens] == [token["rank"] for token in whole["tokens"]]
        else:
            assert scores == pytest.approx(expected, abs=1e-5)


def test_a_seed_writes_the_same_words_alone_and_among_others(sessions: tuple[TestClient, bool]) -> None:
    client, exact = sessions
    ids = [create(client, "the harbour is small") for _ in range(6)]
    ask = {"max_tokens": 30, "seed": 9, "temperature": 0.8}
    alone = client.post(f"/sessions/{ids[0]}/continue", json=ask).json()
    with ThreadPoolExecutor(5) as pool:
        others = list(pool.map(lambda session_id: client.post(f"/sessions/{session_id}/continue", json=ask), ids[1:]))
    if exact:
        assert {answer.json()["text"] for answer in others} == {alone["text"]}
        assert len({STORE.records[session_id].state for session_id in ids}) == 1
    else:
        assert {answer.json()["position"] for answer in others} == {alone["position"]}
