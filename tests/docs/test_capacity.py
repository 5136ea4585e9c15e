"""The plans of docs/scale.md: arithmetic that is checked by hand, and figures that are those of the record."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from app.corpus.plan import MOST_PARTS
from docs.capacity import DAY, GIB, Assumptions, for_corpus, for_sessions
from docs.records import plan_of_sessions, plan_of_texts, ray
from tests.source import ROOT

COSTS = {
    "tokens_per_text": 20,
    "tokens_per_core_second": 5000,
    "worker_bytes": GIB // 2,
    "written_bytes_per_text": 30,
    "planned_texts_per_second": 500_000,
    "appends_per_core_second": 100,
    "appends_per_core_second_without_ray": 400,
    "replica_bytes": GIB // 4,
    "redis_bytes_per_session": 20_000,
    "redis_seconds_per_append": 0.0002,
}


def test_a_corpus_takes_its_tokens_over_the_rate_of_a_core() -> None:
    plan = for_corpus(COSTS, 10**9, DAY, Assumptions())
    assert plan.core_hours == pytest.approx(4e6 / 3600)
    assert plan.machines == 3  # 4,000,000 s of a core are 46.3 days, and a machine has 16.
    assert (plan.part_texts, plan.part_seconds) == (100_000, 400)
    assert plan.worker_bytes == 8 * GIB
    assert plan.written_bytes == 30e9
    assert plan.planning_hours == pytest.approx(2000 / 3600)
    assert plan.dollars == pytest.approx(44.44, abs=0.01)
    assert plan.dollars_a_month == pytest.approx(0.6)


def test_sessions_take_what_their_words_take() -> None:
    plan = for_sessions(COSTS, 10**6, Assumptions())
    assert plan.appends_per_second == 100_000
    assert (plan.machines, plan.machines_without_ray) == (125, 32)  # 2,000 and 500 cores, half of each kept free.
    assert plan.replica_bytes == 4 * GIB
    assert plan.redis_bytes == 20e9
    assert plan.redis_cores == pytest.approx(20)
    assert plan.cells == 40
    assert plan.sessions_of_a_redis == pytest.approx(50_000)
    store = 20e9 / GIB / 0.5 * 0.01 + 40 * 0.04
    assert plan.dollars_an_hour == pytest.approx(125 * 16 * 0.04 + store)
    assert plan.dollars_an_hour_without_ray == pytest.approx(32 * 16 * 0.04 + store)


def test_the_assumptions_that_the_page_states_are_those_of_the_plans() -> None:
    page = " ".join((ROOT / "docs" / "scale.md").read_text(encoding="utf-8").split())
    assumed = Assumptions()
    for stated in (
        f"machines of {assumed.cores} cores with {assumed.bytes_per_core // GIB} GiB each",
        f"at {assumed.core_hour} dollars a core and hour",
        f"files at {assumed.stored_month} dollars a GB and month",
        f"memory at {assumed.memory_hour} dollars a GiB and hour",
    ):
        assert stated in page
    assert (assumed.word_seconds, assumed.full) == (10, 0.5)
    assert assumed.parts == MOST_PARTS
    assert "a word every ten seconds" in page
    assert "half of a machine is kept free" in page


def test_the_plans_fit_into_the_machines_that_they_name() -> None:
    costs: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "ray.json").read_text())["costs"]
    assumed = Assumptions()
    room = assumed.cores * assumed.bytes_per_core
    assert for_corpus(costs, 10**9, DAY, assumed).worker_bytes < room
    assert for_sessions(costs, 10**6, assumed).replica_bytes < room


def test_the_page_shows_the_record() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for marker, table in (("ray", ray), ("plan of texts", plan_of_texts), ("plan of sessions", plan_of_sessions)):
        assert page.count(f"<!-- {marker} -->") == 1
        assert re.search(r"\d", table())
