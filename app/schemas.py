"""Requests and answers of the native routes.

Boundary: shapes, limits that do not depend on settings, and the documentation of each field. Strict: a number in a
string is not a number, and a field nobody knows is refused. What an answer may hold by the thousand is a plain
dataclass, several times as fast to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_K = 100
MAX_FIELDS = 100
"""Most fields of a request, unknown ones counted: each of those would be an error of its own."""
MOST_TEXTS = 2**16
"""Texts beyond which a list is refused before one of them is looked at; what settings allow is less, or as many."""
MOST_TOKENS = 10**6
"""The same of ids."""
NO_BLANKS = r"^[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"
"""What `str.isspace` leaves, for JSON Schema, whose own blanks are others."""


def well_formed(text: str) -> str:
    """Refuse lone surrogates: JSON can escape them, but no answer could carry them back as UTF-8."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PydanticCustomError(
                "lone_surrogate",
                "Text should be well-formed Unicode; character {position} is a lone surrogate",
                {"position": error.start},
            ) from None
    return text


def without_blanks(prefix: str) -> str:
    """Refuse blanks in a prefix: it is the part of one word."""
    if any(character.isspace() for character in prefix):
        raise PydanticCustomError("blank_in_prefix", "A prefix should be part of one word and hold no blanks")
    return prefix


def whole(number: object) -> object:
    """Take 5.0 for 5, as JSON Schema does; anything else is left to the type."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Text = Annotated[str, AfterValidator(well_formed)]
Prefix = Annotated[
    str, AfterValidator(well_formed), AfterValidator(without_blanks), Field(json_schema_extra={"pattern": NO_BLANKS})
]


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise PydanticCustomError(
                "too_many_fields", "A request should have at most {most} fields", {"most": MAX_FIELDS}
            )
        return given


class Answer(BaseModel):
    """What the service sends."""

    model_config = ConfigDict(frozen=True)


MOST_OOV_PENALTY = 1000
"""Nats, beyond any that a spelling can cost."""
ModelName = Annotated[Text | None, Field(description="Which model is to answer, by its name; the default one.")]


class Suggesting(Request):
    """Which of the next words a request wants to see."""

    k: Annotated[int, Field(ge=1, le=MAX_K, description="Most predictions returned."), BeforeValidator(whole)] = 5
    prefix: Annotated[
        Prefix, Field(description="The word being typed so far; lower case matches any case. Holds no blanks.")
    ] = ""
    words_only: Annotated[bool, Field(description="Leave out punctuation and joiners.")] = False
    include_special: Annotated[bool, Field(description="Also return <unk>, <eos> and, under PTB, N.")] = False


class PredictRequest(Suggesting):
    """Ask for the most likely next words."""

    text: Annotated[Text, Field(description="What came before: whole words. May be empty.")]
    model: ModelName = None


class PerplexityRequest(Request):
    """Score one text or many; exactly one of `text` and `texts`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["texts"]}]})

    text: Annotated[Text, Field(description="The text to score.")] = ""
    texts: Annotated[
        list[Text],
        Field(
            min_length=1, max_length=MOST_TEXTS, fail_fast=True, description="Texts to score, each from a fresh start."
        ),
    ] = []
    context: Annotated[Text, Field(description="Read before each text, and not scored.")] = ""
    return_tokens: Annotated[bool, Field(description="Also return every token's score.")] = False
    return_words: Annotated[bool, Field(description="Also return every typed word's score.")] = False
    return_entropies: Annotated[
        bool, Field(description="Also return how uncertain the model was in each token's place.")
    ] = False
    include_eos: Annotated[bool, Field(description="Score the <eos> that ends each text.")] = True
    oov_penalty: Annotated[
        float | None,
        Field(
            ge=0,
            le=MOST_OOV_PENALTY,
            description="Nats for each token that is not in the vocabulary. With it, answers have a score.",
        ),
    ] = None
    model: ModelName = None

    @model_validator(mode="after")
    def _text_or_texts(self) -> Self:
        if len(self.model_fields_set & {"text", "texts"}) != 1:
            raise PydanticCustomError("text_or_texts", "Exactly one of text and texts should be given")
        return self

    @property
    def is_one_text(self) -> bool:
        """Whether `text` was given, and not `texts`."""
        return "text" in self.model_fields_set


class FinishReason(StrEnum):
    """Why there are no more words."""

    STOP = "stop"
    """A text to stop before came, or for completions the end of the line."""
    LENGTH = "length"
    """As many as were asked for."""


class ModelIdentity(Answer):
    """Which model answered, and how it was run."""

    name: str
    sha256: Annotated[str, Field(description="Of the bundle's manifest, which holds the sum of every other file.")]
    engine: str
    precision: str


class Prediction(Answer):
    """One word the model holds likely."""

    word: Annotated[str, Field(description="As a person writes it.")]
    text: Annotated[
        str, Field(description="What it adds to the text, blanks included, in place of the prefix; as `continue` does.")
    ]
    token: Annotated[
        str, Field(description="As the model's vocabulary writes it; of a word of several tokens, a blank between two.")
    ]
    probability: Annotated[float, Field(description="The model's own, over the whole vocabulary.")]
    log_probability: Annotated[float, Field(description="Natural logarithm.")]


class PredictAnswer(Answer):
    """The most likely next words, best first."""

    model: ModelIdentity
    predictions: list[Prediction]
    token_count: Annotated[int, Field(description="Tokens read from the text.")]


@dataclass(slots=True)
class TokenScore:
    """One token the model read. `start` and `end` are code points of the text."""

    token: str
    start: int
    end: int
    log_probability: Annotated[float, Field(description="Natural logarithm.")]
    surprisal: Annotated[float, Field(description="Bits.")]
    rank: Annotated[int, Field(description="1 is best: 1 + the number of tokens strictly likelier.")]
    oov: Annotated[bool, Field(description="Not in the vocabulary, so read as <unk>.")]


@dataclass(slots=True)
class WordScore:
    """One word as typed, summed over its tokens. A scored line or text end is an entry too (a newline, or empty)."""

    word: str
    start: int
    end: int
    token_count: int
    log_probability: Annotated[float, Field(description="Natural logarithm.")]
    surprisal: Annotated[float, Field(description="Bits.")]
    oov: Annotated[bool, Field(description="At least one token is not in the vocabulary.")]


class Score(Answer):
    """Likelihood of some tokens. A perplexity is null where there is no token to score."""

    perplexity: float | None
    perplexity_without_oov: Annotated[float | None, Field(description="Over the tokens that the vocabulary holds.")]
    log_likelihood: Annotated[float, Field(description="Natural logarithm, summed over the tokens.")]
    token_count: Annotated[int, Field(description="Tokens scored.")]
    oov_count: Annotated[int, Field(description="Tokens scored that are not in the vocabulary.")]
    score: Annotated[
        float | None,
        Field(description="With oov_penalty: log_likelihood - oov_penalty * oov_count, to rank by, highest first."),
    ] = None


class TextScore(Score):
    """Likelihood of one text."""

    tokens: Annotated[list[TokenScore], Field(description="With return_tokens.")] = []
    words: Annotated[list[WordScore], Field(description="With return_words.")] = []
    entropies: Annotated[
        list[float],
        Field(description="Bits, one a token: the surprisal that was to be expected there. With return_entropies."),
    ] = []


class PerplexityAnswer(Answer):
    """Likelihood of each text and of all together."""

    model: ModelIdentity
    results: list[TextScore]
    total: Score
    perplexity: Annotated[float | None, Field(description="That of the one text; with text only.")] = None


class Limits(Answer):
    """What one request may ask."""

    body_bytes: int
    texts: int
    tokens: Annotated[int, Field(description="Read in one request, all texts together.")]
    k: int
    waiting_requests: int
    waiting_tokens: Annotated[int, Field(description="Of all requests that wait, together.")]
    deadline_seconds: float


class ModelCard(Answer):
    """What is served, how good it is, and what a request may ask of it."""

    model: ModelIdentity
    models: Annotated[list[str], Field(description="Names of all models that answer, the default first.")]
    trouble: Annotated[
        str | None, Field(description="Why others do not answer, or older ones do; the log has the details.")
    ]
    convention: Annotated[str, Field(description="How the model's corpus writes text.")]
    vocabulary_size: int
    architecture: dict[str, Any]
    metrics: list[dict[str, Any]]
    training: dict[str, Any]
    licence: str | None
    attribution: str | None
    intended_use: Annotated[str | None, Field(description="What the model is for.")] = None
    limitations: Annotated[str | None, Field(description="What it cannot do.")] = None
    limits: Limits


class Live(Answer):
    """The process answers."""

    status: str = "live"


class Ready(Answer):
    """The bundle's sums were checked and the engine is warm."""

    status: str = "ready"
    model: ModelIdentity


class FieldProblem(Answer):
    """One field that is wrong."""

    pointer: Annotated[str, Field(description="JSON pointer to the field, as a URI fragment.")]
    detail: str


class Problem(Answer):
    """RFC 9457 problem document."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
    position: Annotated[int | None, Field(description="Where the session stands, if it was expected elsewhere.")] = None
