"""The `openai` package as it is, against a serving process with the bundled model."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pytest

from tests.app.processes import Service, served

PROMPT = "The film was released in the United"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with served("-m", "app", max_tokens="2000") as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as ready:
        yield ready


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    [entry] = client.models.list().data
    assert entry.id == "wikitext-2"
    assert client.models.retrieve("wikitext-2") == entry
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_a_completion_has_the_likeliest_words_of_the_native_route(client: openai.OpenAI, service: Service) -> None:
    answer = client.completions.create(
        model="wikitext-2", prompt=PROMPT, max_tokens=1, temperature=0, logprobs=2, n=1, user="someone"
    )
    predictions = service.ask("/predict", text=PROMPT, k=2).json()["predictions"]
    assert [item["word"] for item in predictions] == ["States", "Kingdom"]
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason, choice.index) == (" States", "length", 0)
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["States"]
    expected = {item["token"]: item["log_probability"] for item in predictions}
    assert choice.logprobs.top_logprobs is not None
    assert choice.logprobs.top_logprobs[0] == pytest.approx(expected, rel=1e-6)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 1)
    assert answer.model == "wikitext-2"


def test_a_stream_is_the_completion_in_pieces(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="wikitext-2", prompt=PROMPT, max_tokens=12, seed=3, stop=["\n"])
    stream = client.completions.create(
        model="wikitext-2",
        prompt=PROMPT,
        max_tokens=12,
        seed=3,
        stop=["\n"],
        stream=True,
        stream_options={"include_usage": True},
    )
    *pieces, last = list(stream)
    assert len(pieces) > 2
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (last.choices, last.usage) == ([], whole.usage)


def test_an_echo_scores_the_prompt_as_the_native_route_does(client: openai.OpenAI, service: Service) -> None:
    answer = client.completions.create(model="wikitext-2", prompt=PROMPT, max_tokens=0, echo=True, logprobs=0)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    native = service.ask("/perplexity", text=PROMPT, return_tokens=True, include_eos=False).json()["results"][0]
    assert logprobs.token_logprobs == pytest.approx([token["log_probability"] for token in native["tokens"]])
    assert logprobs.text_offset == [token["start"] for token in native["tokens"]]


def test_errors_are_the_clients_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="wikitext-2", prompt=PROMPT, logit_bias={"5": -100})
    assert (caught.value.param, caught.value.type) == ("logit_bias", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="2000"):
        client.completions.create(model="wikitext-2", prompt="the " * 2001)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-4", prompt=PROMPT, stream=True)


@pytest.mark.anyio
async def test_the_asynchronous_client_works_too(service: Service) -> None:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
        stream = await client.completions.create(
            model="wikitext-2", prompt=["The", "A"], n=2, max_tokens=3, temperature=0, stream=True
        )
        texts = dict.fromkeys(range(4), "")
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts[0] == texts[1] != texts[2] == texts[3]


def test_no_text_is_logged(service: Service) -> None:
    answered = httpx2.post(f"{service.url}/v1/completions", json={"prompt": "Xylophagous", "max_tokens": 1})
    assert answered.status_code == 200
    assert "Xylophagous" not in str(service.lines) + str(service.said)
