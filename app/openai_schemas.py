"""Requests and answers in OpenAI's shapes (`/v1`), and those of the tokenizer routes that evaluation harnesses ask.

Boundary: as `app.schemas`, but under `/v1` fields nobody knows are ignored, null is a field's default, and what OpenAI
or vLLM has and this service has not is refused unless it changes nothing. Limits by the settings are
`app.completions`' to check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from app.schemas import MOST_TEXTS, MOST_TOKENS, Answer, FinishReason, ModelName, Request, Text, whole
from app.session_schemas import MAX_SEED, MAX_STOPS, Stop

MAX_COMPLETION = 4096
"""Most tokens written for a choice."""
MAX_CHOICES = 16
"""Most choices for a prompt."""
MAX_LOGPROBS = 5
MAX_ID = 2**31 - 1

KINDS = {str: "texts", int: "ids", list: "lists"}
"""Kinds of prompts that are lists, by what their first item is."""


def kind_of_prompt(prompt: object) -> str | None:
    """Which of the four forms of a prompt one means to be; the form then says what is wrong with it."""
    if isinstance(prompt, list):
        return KINDS.get(type(prompt[0])) if prompt else None
    return "text"


def neutral(value: object) -> object:
    """Refuse a field that the service cannot honour, unless its value asks for nothing."""
    if value and not isinstance(value, bool):
        raise PydanticCustomError("unsupported", "This service cannot honour it; leave it out")
    return value


def not_set(flag: bool) -> bool:
    """The same of a flag."""
    neutral(int(flag))
    return flag


Id = Annotated[int, Field(ge=0, le=MAX_ID), BeforeValidator(whole)]
# A list ends at its first wrong item: millions of errors would be made, and twenty shown. It is no longer than what any
# settings allow, whose own limits are told more clearly.
IdList = Annotated[list[Id], Field(min_length=1, max_length=MOST_TOKENS, fail_fast=True)]
Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True), Tag("texts")]
    | Annotated[IdList, Tag("ids")]
    | Annotated[list[IdList], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True), Tag("lists")],
    Discriminator(
        kind_of_prompt,
        custom_error_type="prompt",
        custom_error_message="A prompt should be a string, or a list, not empty, of strings, ids or lists of ids",
    ),
]
Penalty = Annotated[Annotated[float, Field(ge=0, le=0), BeforeValidator(neutral)] | None, Field(description="Only 0.")]


class OpenAIRequest(BaseModel):
    """What a client of OpenAI's interface sends."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class StreamOptions(OpenAIRequest):
    """What a stream tells besides."""

    include_usage: Annotated[bool | None, Field(description="End with a chunk without choices that has the usage.")] = (
        None
    )


class CompletionRequest(OpenAIRequest):
    """Let the model write on after each prompt, or score the prompts."""

    model: Annotated[Text | None, Field(description="A model's name, as `GET /v1/models` has it; the default one.")] = (
        None
    )
    prompt: Annotated[
        Prompt | None,
        Field(
            description="Text, or ids of the model's vocabulary; or a list of either. A text is read after an initial "
            "`<eos>`, and a newline or a literal `<eos>` in it is that token. Ids are read literally from the state "
            "before any token, so begin them with the id of `<eos>`, as the service's own routes do."
        ),
    ] = None
    max_tokens: Annotated[
        Annotated[int, Field(ge=0, le=MAX_COMPLETION), BeforeValidator(whole)] | None,
        Field(description="Most tokens written for a choice, 16 unless given. Writing ends with `<eos>`, too."),
    ] = None
    temperature: Annotated[
        Annotated[float, Field(ge=0, le=5)] | None, Field(description="1 unless given; 0 takes the likeliest word.")
    ] = None
    top_p: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="Draw from the likeliest words of this probability."),
    ] = None
    top_k: Annotated[
        Annotated[int, Field(ge=-1), BeforeValidator(whole)] | None,
        Field(description="Draw from this many likeliest words; 0 and -1 are all, as in vLLM."),
    ] = None
    n: Annotated[
        Annotated[int, Field(ge=1, le=MAX_CHOICES), BeforeValidator(whole)] | None,
        Field(description="Choices for each prompt; that number i of prompt j has index j * n + i."),
    ] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED), BeforeValidator(whole)] | None,
        Field(description="The same choices again, for a prompt alone as for one among others."),
    ] = None
    stop: Annotated[
        Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True)] | None,
        Field(description="Texts before which to end; they are not in the answer."),
    ] = None
    echo: Annotated[
        bool | None, Field(description="Begin each choice with its prompt; with `logprobs`, score that as well.")
    ] = None
    logprobs: Annotated[
        Annotated[int, Field(ge=0, le=MAX_LOGPROBS), BeforeValidator(whole)] | None,
        Field(description="Return every token's log-probability, and those of so many likeliest ones in its place."),
    ] = None
    stream: Annotated[bool | None, Field(description="Server-sent events, a chunk for each token, then `[DONE]`.")] = (
        None
    )
    stream_options: Annotated[StreamOptions | None, Field(description="With `stream`.")] = None
    best_of: Annotated[
        Annotated[int, Field(ge=1, le=MAX_CHOICES), BeforeValidator(whole)] | None, Field(description="Only as `n`.")
    ] = None
    logit_bias: Annotated[
        Annotated[dict[str, float], Field(max_length=0), BeforeValidator(neutral)] | None,
        Field(description="Only empty."),
    ] = None
    suffix: Annotated[
        Annotated[str, Field(max_length=0), BeforeValidator(neutral)] | None, Field(description="Only empty.")
    ] = None
    min_tokens: Annotated[
        Annotated[int, Field(ge=0, le=0), BeforeValidator(whole), BeforeValidator(neutral)] | None,
        Field(description="Only 0."),
    ] = None
    ignore_eos: Annotated[
        Annotated[bool, AfterValidator(not_set), Field(json_schema_extra={"const": False})] | None,
        Field(description="Only false."),
    ] = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None

    @property
    def stops(self) -> list[str]:
        """The texts to end before."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


@dataclass(slots=True)
class Logprobs:
    """Columns of a choice's tokens, those of an echoed prompt first."""

    tokens: Annotated[list[str], Field(description="As the model's vocabulary writes them.")]
    token_logprobs: Annotated[
        list[float | None],
        Field(description="Natural logarithm, the model's own at any temperature; null of a first id."),
    ]
    top_logprobs: Annotated[
        list[dict[str, float] | None],
        Field(description="The likeliest tokens in each place, and the token itself."),
    ]
    text_offset: Annotated[list[int], Field(description="Code point of `text` at which each token begins.")]


class Choice(Answer):
    """What was written after one prompt, or a piece of it in a chunk."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Annotated[FinishReason | None, Field(description="null in all chunks of a choice but its last.")]


class Usage(Answer):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Answer):
    """The whole answer, or a chunk of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: Annotated[int, Field(description="Seconds since 1970.")]
    model: str
    system_fingerprint: Annotated[
        str, Field(description="Engine, precision and bundle: where it is the same, a seed gives the same words.")
    ]
    choices: list[Choice]
    usage: Usage | None


class ServedModelEntry(Answer):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="Seconds since 1970 when it was loaded.")]
    owned_by: str = "pru"


class ServedModels(Answer):
    """All models that can be asked, the default first."""

    object: Literal["list"] = "list"
    data: list[ServedModelEntry]


class OpenAIError(Answer):
    """What went wrong."""

    message: str
    type: str
    param: Annotated[str | None, Field(description="The field that is wrong.")]
    code: str | None


class OpenAIErrorAnswer(Answer):
    """An error under `/v1`."""

    error: OpenAIError


class TokenizeRequest(Request):
    """Ask for a text's ids."""

    prompt: Annotated[Text, Field(description="Every newline in it is `<eos>`, and so is a literal `<eos>`.")]
    model: ModelName = None
    add_special_tokens: Annotated[bool | None, Field(description="Changes nothing: no token is ever added.")] = None
    return_token_strs: Annotated[bool | None, Field(description="Also return how the vocabulary writes each id.")] = (
        None
    )

    @model_validator(mode="before")
    @classmethod
    def _named_prompt(cls, given: Any) -> Any:
        if isinstance(given, dict) and "prompt" not in given and "text" in given:
            raise PydanticCustomError("prompt", "The text to tokenise should be in the field prompt, as vLLM has it")
        return given


class TokenizeAnswer(Answer):
    """A text's ids."""

    tokens: list[int]
    count: int
    token_strs: Annotated[
        list[str] | None, Field(description="As the model's vocabulary writes them; with return_token_strs.")
    ] = None


class DetokenizeRequest(Request):
    """Ask for the text of ids."""

    tokens: Annotated[
        list[Id], Field(max_length=MOST_TOKENS, fail_fast=True, description="Ids of the model's vocabulary.")
    ]
    model: ModelName = None


class DetokenizeAnswer(Answer):
    """Ids as people write them, `<eos>` as a newline."""

    prompt: str


class TokenizerInfo(Answer):
    """Special tokens. A sequence begins with `eos_token`, and there is no other for its beginning."""

    eos_token: str
    bos_token: None = None
    unk_token: str
    pad_token: None = None
    vocab_size: int
    convention: Annotated[str, Field(description="How the model's corpus writes text.")]
