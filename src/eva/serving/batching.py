"""Requests that arrive together are answered side by side, by one model in a thread of its own.

What is drawn for a request depends on its own seed, not on the requests beside it.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from eva.backends import hf
from eva.backends.load import load_policy, load_tokenizer
from eva.parts.policies import HfPolicy
from eva.records import Message, Response, Sampling

GATHER = 0.005
"""Seconds that the first request of a batch waits for others: little beside an answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    messages: tuple[Message, ...]
    n: int
    sampling: Sampling
    seed: int
    """An integer of at most 63 bits."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Its answer."""

    prompt: int
    """Tokens of the prompt."""
    responses: list[Response]
    """n of them."""


Outcome: TypeAlias = Answered | str
"""An answer, or why the prompt cannot be answered."""


class Batcher:
    """A model that answers requests in batches, and can be given other weights.

    Raises:
        BackEndError: The folder holds no causal language model with a chat template.
    """

    def __init__(self, config: HfPolicy) -> None:
        self._config = config
        self._model = _opened(config.model, config)
        self._thread = ThreadPoolExecutor(1)
        self._queue: asyncio.Queue[tuple[Asked, asyncio.Future[Outcome]]] = asyncio.Queue()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._work = asyncio.get_running_loop().create_task(self._answer_all())

    async def answer(self, asked: Asked) -> Outcome:
        """The answer to a request."""
        await self._is_open.wait()
        with self._counted():
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._queue.put_nowait((asked, future))
            return await future

    def room(self, messages: Sequence[Message]) -> int | None:
        """New tokens that the model's context holds beside a chat; None if it has no bound."""
        return self._model.room(messages)

    async def reload(self, model: str) -> None:
        """Take other weights, once all requests in flight are answered; new ones wait.

        Raises:
            BackEndError: There is no such model; the old one goes on.
        """
        while not self._is_open.is_set():
            await self._is_open.wait()
        self._is_open.clear()
        try:
            await self._is_idle.wait()
            loop = asyncio.get_running_loop()
            new = await loop.run_in_executor(self._thread, _opened, model, self._config)
            self._model.close()
            self._model = new
        finally:
            self._is_open.set()

    async def close(self) -> None:
        """End; requests in flight are not answered."""
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)
        self._thread.shutdown(cancel_futures=True)
        self._model.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._in_flight += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._is_idle.set()

    async def _answer_all(self) -> None:
        waiting: list[tuple[Asked, asyncio.Future[Outcome]]] = []
        loop = asyncio.get_running_loop()
        while True:
            if not waiting:
                waiting.append(await self._queue.get())
                await asyncio.sleep(GATHER)
            while not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            waiting = [(asked, future) for asked, future in waiting if not future.done()]
            batch = _batch([asked for asked, _ in waiting], self._config.rows)
            chosen = [waiting[i] for i in batch]
            waiting = [one for i, one in enumerate(waiting) if i not in set(batch)]
            try:
                outcomes = await loop.run_in_executor(
                    self._thread, answers, self._model, [asked for asked, _ in chosen]
                )
            except Exception as error:  # noqa: BLE001  # whoever asked is told; the server goes on
                for _, future in chosen:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), outcome in zip(chosen, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)


def _opened(model: str, config: HfPolicy) -> hf.Opened:
    return hf.Opened(
        load_policy(model, config), load_tokenizer(model, config.revision), config.rows
    )


def _batch(waiting: Sequence[Asked], rows: int) -> list[int]:
    """Positions of requests that can be answered beside the first one, in at most `rows` rows."""
    if not waiting:
        return []
    first = waiting[0]
    like = [
        i for i, one in enumerate(waiting) if (one.n, one.sampling) == (first.n, first.sampling)
    ]
    return like[: max(1, rows // first.n)]


def answers(model: hf.Opened, batch: Sequence[Asked]) -> list[Outcome]:
    """The answers to requests with one n and one sampling, in their order."""
    if not batch:
        return []
    n, sampling = batch[0].n, batch[0].sampling
    encoded = [model.encoded(one.messages, sampling.max_tokens) for one in batch]
    fits = [i for i, ids in enumerate(encoded) if not isinstance(ids, str)]
    groups = model.answers(
        [ids for ids in encoded if not isinstance(ids, str)],
        n,
        sampling=sampling,
        draws=[batch[i].seed for i in fits],
    )
    found = {i: Answered(len(encoded[i]), group) for i, group in zip(fits, groups, strict=True)}
    return [found[i] if i in found else str(encoded[i]) for i in range(len(batch))]
