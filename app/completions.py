"""Completions in OpenAI's sense: after each prompt so many choices, written, scored or both.

Boundary: requests in, choices out, whole or piece by piece; HTTP is above. `app.prompts` says how prompts are read.

Arrays hold the model's own likelihoods, so they may name `<unk>`; `<unk>` is never written. Writing ends with `<eos>`,
which is the last token of the arrays and no part of the text, before a stop text, or at `max_tokens`. All choices
advance side by side, so that the engine reads them in batches with whatever else there is.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from app.access.caller import caller
from app.admission import Admission
from app.choices import ChoiceWriter, Order, Tell, joined, prompt_columns
from app.errors import FieldError
from app.openai_schemas import Choice, Completion, CompletionRequest, ServedModelEntry, Usage
from app.prompts import Prompt, as_ids, read_prompt, separate
from app.reader import Reader, aside
from app.reading import Reading, Result
from app.schemas import FinishReason, ModelIdentity

T = TypeVar("T")


class Completions:
    """One model's completions. Refuses what is beyond the limits with `FieldError`."""

    def __init__(self, identity: ModelIdentity, reader: Reader, admission: Admission) -> None:
        self.model = ServedModelEntry(id=identity.name, created=int(time.time()))
        self._fingerprint = f"{identity.engine}-{identity.precision}-{identity.sha256[:12]}"
        self._reader = reader
        self._vocabulary = reader.vocabulary
        self._admission = admission

    def head(self) -> dict[str, Any]:
        """What one answer, or every chunk of one stream, says of itself."""
        return {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.model.id,
            "system_fingerprint": self._fingerprint,
        }

    async def answer(self, request: CompletionRequest) -> Completion:
        """All choices, whole."""
        pieces: defaultdict[int, list[Choice]] = defaultdict(list)
        usage = await self.write(request, lambda piece: pieces[piece.index].append(piece))
        choices = [joined(pieces[index]) for index in sorted(pieces)]
        return Completion(**self.head(), choices=choices, usage=usage)

    async def write(self, request: CompletionRequest, tell: Tell) -> Usage:
        """Write every choice, piece by piece as it comes. What is refused is refused before the first piece."""
        async with self._admission.admit() as claim:
            order = Order.of(request, len(self._vocabulary))
            prompts = await self._prompts(request, order)
            count = sum(len(prompt.ids) for prompt in prompts)
            claim(count + len(prompts) * order.choices * order.most)
            writers: list[ChoiceWriter] = []
            try:
                await side_by_side(
                    self._complete(prompt, order, index * order.choices, tell, writers)
                    for index, prompt in enumerate(prompts)
                )
            finally:
                written = sum(writer.count for writer in writers)
                caller().give_back(len(prompts) * order.choices * order.most - written)
            return Usage(prompt_tokens=count, completion_tokens=written, total_tokens=count + written)

    async def tokenise(self, text: str) -> list[int]:
        """Ids of a text as those of a prompt; every newline is an `<eos>`, the last one too."""
        async with self._admission.admit():
            tokens = await self._reader.tokenise(("prompt",), text, 0, goes_on=True, specials=True)
            ids: list[int] = tokens.ids.tolist()
            return ids

    async def detokenise(self, given: Sequence[int]) -> str:
        """Text of ids as people write it."""
        async with self._admission.admit():
            ids = as_ids(self._reader, ("tokens",), given)
            return await aside(len(ids), lambda: self._vocabulary.detokenise(ids.tolist()))

    async def _prompts(self, request: CompletionRequest, order: Order) -> list[Prompt]:
        """The prompts, all within what one request may ask."""
        if request.best_of is not None and request.best_of != order.choices:
            raise FieldError(("best_of",), "every choice that is written is returned: give n alone, or the same number")
        given = separate(request.prompt)
        limits = self._reader.limits
        count = len(given) * order.choices
        if count > limits.texts:
            raise FieldError(
                ("prompt",), f"{count} choices were asked for and one request may have {limits.texts}; ask for fewer"
            )
        prompts: list[Prompt] = []
        tokens = 0
        for path, prompt in given:
            prompts.append(await read_prompt(self._reader, path, prompt, tokens, spelt=order.echo))
            tokens += len(prompts[-1].ids)
        # An echo is in the answer once for each choice.
        tokens *= order.choices if order.echo else 1
        if tokens + count * order.most > limits.tokens:
            raise FieldError(
                ("max_tokens",),
                f"{tokens} tokens of prompts and {count} choices of {order.most} are more than one request may have, "
                f"which is {limits.tokens}; ask for less at a time",
            )
        return prompts

    async def _complete(
        self, prompt: Prompt, order: Order, index: int, tell: Tell, writers: list[ChoiceWriter]
    ) -> None:
        """The choices after one prompt, the first with `index`; those who write them join `writers`."""
        indices = range(index, index + order.choices)
        scored = order.echo and order.top is not None
        result = await self._read(prompt, order, scored=scored) if scored or order.most else None
        if order.echo:
            columns = None
            if scored and result is not None:
                scores, likeliest = result.scores, result.likeliest
                columns = await aside(
                    len(prompt.ids), lambda: prompt_columns(self._vocabulary, prompt, scores, likeliest)
                )
            for place in indices:
                tell(Choice(index=place, text=prompt.text, logprobs=columns, finish_reason=None))
        if result is None or result.likely is None:
            for place in indices:
                tell(order.end(place, FinishReason.LENGTH))
            return
        state, likely = result.state, result.likely
        mine = [ChoiceWriter(self._reader, prompt, order, place, tell) for place in indices]
        writers += mine
        await side_by_side(writer.write(state, likely, seed) for writer, seed in zip(mine, order.seeds(), strict=True))

    async def _read(self, prompt: Prompt, order: Order, *, scored: bool) -> Result:
        """Read a prompt to its end; its tokens are scored, or it is read on from where its beginning is known."""
        ids, start = prompt.ids, self._reader.root
        likely = order.most > 0
        if prompt.literal:
            first, ids = ids[:1], ids[1:]
            if first[0] != self._vocabulary.eos_id:
                start = (await self._reader.read(np.zeros_like(start), first)).state
        if scored:
            reading = Reading(start, ids, ids, top=order.top or 0, likely=likely, urgent=False)
            return await self._reader.scheduler.read(reading)
        if start is self._reader.root:
            return await self._reader.read_from_start(ids, likely=likely)
        return await self._reader.read(start, ids, likely=likely)


async def side_by_side(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What comes of all of it, done at the same time; raises the first error and gives up the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
