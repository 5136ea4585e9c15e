"""The error tree and what it becomes over HTTP."""

from __future__ import annotations

import json

import pytest

import app.cli
import app.main
import app.server  # noqa: F401 - any class of the tree that serving defines
from app.errors import STATUS, TOLD, FieldError
from app.problems import pointer, problem_of
from model.errors import EngineError, PRUError, RequestError


def tree(root: type[PRUError]) -> set[type[PRUError]]:
    return {root}.union(*(tree(child) for child in root.__subclasses__()))


def test_every_error_of_the_tree_has_a_status() -> None:
    served = {kind for kind in tree(PRUError) if kind.__module__.partition(".")[0] in {"app", "model"}}
    assert set(STATUS) == served


def test_an_error_without_a_status_of_its_own_has_that_of_its_base() -> None:
    class LostError(EngineError):
        pass

    assert problem_of(LostError("gone"), "id").status_code == STATUS[EngineError]


def test_what_a_client_is_told_is_a_refusal_and_a_failure_is_not_told() -> None:
    for kind, status in STATUS.items():
        assert 400 <= status <= 599
        assert issubclass(kind, TOLD) or status >= 500, kind


def test_a_failures_message_stays_in_the_log() -> None:
    told = json.loads(bytes(problem_of(RequestError("say it shorter"), "id-1").body))
    assert told["detail"] == "say it shorter"
    kept = json.loads(bytes(problem_of(EngineError("secret path"), "id-2").body))
    assert "secret" not in json.dumps(kept)
    assert kept["request_id"] == "id-2"


def test_a_field_error_points_at_its_field() -> None:
    document = json.loads(bytes(problem_of(FieldError(("texts", 3), "too long"), "id").body))
    assert document["errors"] == [{"pointer": "#/texts/3", "detail": "too long"}]


@pytest.mark.parametrize(("path", "expected"), [((), "#"), (("a", 0), "#/a/0"), (("~/",), "#/~0~1")])
def test_pointers_escape_what_rfc_6901_escapes(path: tuple[str | int, ...], expected: str) -> None:
    assert pointer(path) == expected
