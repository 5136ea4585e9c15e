"""What each request is: its route, body and key, what its answer holds, and whether it may be sent again.

Boundary: values. Sending them is `pru.client.connection`'s, and what comes back is judged by `pru.client.judging`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from app.openai_schemas import DetokenizeAnswer, TokenizeAnswer, TokenizerInfo
from app.schemas import Answer, ModelCard, PerplexityAnswer, PredictAnswer, Ready
from app.session_schemas import MAX_SEED, AppendAnswer, ContinueAnswer, ContinueDone, SessionAnswer
from pru.client.options import PredictOptions, ScoreOptions, SuggestOptions, WriteOptions

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

JSON = "application/json"
BLOB = "application/octet-stream"
EVENTS = "text/event-stream"
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. Sent again it is the same to the byte, its key included, so that it never happens twice."""

    method: str
    path: str
    read: Callable[[bytes], T]
    """The answer's body as what the caller gets; raises `ValueError` where it is something else."""
    content: bytes | None = None
    content_type: str = JSON
    media_type: str | None = JSON
    """Of the answer, if it has a body."""
    key: str | None = None
    """`Idempotency-Key`, which every change of a session has."""
    patient: bool = True
    """Whether it is sent again where that may help."""

    @property
    def headers(self) -> dict[str, str]:
        """The header fields that go with it."""
        headers = {"Accept": f"{self.media_type or JSON}, {PROBLEM}"}
        if self.content is not None:
            headers["Content-Type"] = self.content_type
        if self.key is not None:
            headers["Idempotency-Key"] = self.key
        return headers


def predict(text: str, options: PredictOptions) -> Call[PredictAnswer]:
    """`POST /predict`."""
    return _post("/predict", PredictAnswer, {"text": text, **options})


def perplexity(text: str | Sequence[str], options: ScoreOptions) -> Call[PerplexityAnswer]:
    """`POST /perplexity`, of one text or of several."""
    texts = {"text": text} if isinstance(text, str) else {"texts": list(text)}
    return _post("/perplexity", PerplexityAnswer, {**texts, **options})


def tokenize(text: str, model: str | None) -> Call[list[int]]:
    """`POST /tokenize`."""
    content = _json({"prompt": text, "model": model})
    return Call("POST", "/tokenize", lambda body: TokenizeAnswer.model_validate_json(body).tokens, content)


def detokenize(tokens: Sequence[int], model: str | None) -> Call[str]:
    """`POST /detokenize`."""
    content = _json({"tokens": list(tokens), "model": model})
    return Call("POST", "/detokenize", lambda body: DetokenizeAnswer.model_validate_json(body).prompt, content)


def tokenizer_info(model: str | None) -> Call[TokenizerInfo]:
    """`GET /tokenizer_info`."""
    return _get(_of_model("/tokenizer_info", model), TokenizerInfo)


def card(model: str | None) -> Call[ModelCard]:
    """`GET /model`."""
    return _get(_of_model("/model", model), ModelCard)


def ready() -> Call[Ready]:
    """`GET /health/ready`. It asks how things are now, so it is sent once."""
    return Call("GET", "/health/ready", Ready.model_validate_json, patient=False)


def create(text: str, model: str | None, ttl: float | None, personal: bool) -> Call[SessionAnswer]:
    """`POST /sessions`; a service that knows no personal sessions is not asked about them for nothing."""
    fields = {"text": text, "model": model, "ttl": ttl}
    return _change("/sessions", SessionAnswer, {**fields, "personal": True} if personal else fields)


def import_(blob: bytes) -> Call[SessionAnswer]:
    """`POST /sessions/import`."""
    return Call("POST", "/sessions/import", SessionAnswer.model_validate_json, blob, BLOB, key=_new_key())


def look(session_id: str) -> Call[SessionAnswer]:
    """`GET /sessions/{id}`."""
    return _get(_path(session_id), SessionAnswer)


def delete(session_id: str) -> Call[None]:
    """`DELETE /sessions/{id}`, whose answer is empty."""
    return Call("DELETE", _path(session_id), _nothing, media_type=None)


def append(session_id: str, position: int, text: str, options: SuggestOptions) -> Call[AppendAnswer]:
    """`POST /sessions/{id}/append`, if it stands at `position`."""
    fields = {"text": text, **options, "expected_position": position}
    return _change(_path(session_id, "/append"), AppendAnswer, fields)


def rewind(session_id: str, position: int) -> Call[SessionAnswer]:
    """`POST /sessions/{id}/rewind`."""
    return _change(_path(session_id, "/rewind"), SessionAnswer, {"position": position})


def fork(session_id: str) -> Call[SessionAnswer]:
    """`POST /sessions/{id}/fork`, which has no body."""
    return Call("POST", _path(session_id, "/fork"), SessionAnswer.model_validate_json, key=_new_key())


def export(session_id: str) -> Call[bytes]:
    """`GET /sessions/{id}/export`."""
    return Call("GET", _path(session_id, "/export"), bytes, media_type=BLOB)


def continue_(session_id: str, position: int, options: WriteOptions) -> Call[ContinueAnswer]:
    """`POST /sessions/{id}/continue` with one answer, if the session stands at `position`."""
    fields = {**options, "expected_position": position}
    return _change(_path(session_id, "/continue"), ContinueAnswer, fields)


def stream(session_id: str, position: int, options: WriteOptions) -> Call[ContinueDone]:
    """The same as events, the last of which `read` reads.

    The seed is drawn here where none is given: it makes a stream that breaks the same again.
    """
    seed = options.get("seed")
    fields = {
        **options,
        "seed": secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
        "stream": True,
        "expected_position": position,
    }
    path = _path(session_id, "/continue")
    return Call("POST", path, ContinueDone.model_validate_json, _json(fields), media_type=EVENTS, key=_new_key())


def _get(path: str, kind: type[A]) -> Call[A]:
    return Call("GET", path, kind.model_validate_json)


def _post(path: str, kind: type[A], fields: Mapping[str, Any]) -> Call[A]:
    return Call("POST", path, kind.model_validate_json, _json(fields))


def _change(path: str, kind: type[A], fields: Mapping[str, Any]) -> Call[A]:
    return Call("POST", path, kind.model_validate_json, _json(fields), key=_new_key())


def _nothing(body: bytes) -> None:
    if body:
        raise ValueError("a body where there is none")


def _json(fields: Mapping[str, Any]) -> bytes:
    """JSON in ASCII: a lone surrogate too can be written, for the service to refuse."""
    return json.dumps(fields).encode("ascii")


def _new_key() -> str:
    return secrets.token_urlsafe(16)


def _of_model(path: str, model: str | None) -> str:
    """A path with the model that is asked for; a lone surrogate, which no address holds, is in no model's name."""
    return path if model is None else f"{path}?{urlencode({'model': model}, errors='replace')}"


def _path(session_id: str, rest: str = "") -> str:
    return f"/sessions/{quote(session_id, safe='')}{rest}"
