"""Handlers of batches take lists; a sender passes one of each."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import assert_type

from fairactor import Handle, Message, Retry, Runtime, Task, actor, current_batch


@actor(batch=100, batch_wait=0.05, max_retries=3)
async def embed(texts: list[str]) -> list[list[float]]:
    return [[float(len(text))] for text in texts]


@actor(batch=10, batch_wait=timedelta(seconds=1))
def count(texts: Sequence[str], weights: list[int]) -> Sequence[tuple[str, int]]:
    return list(zip(texts, weights, strict=True))


@actor(batch=10)
async def insert(rows: list[int]) -> None:
    assert_type(current_batch(), list[Task])


@actor(batch=10)
async def some_fail(rows: list[int]) -> list[str | Exception]:
    return [str(row) for row in rows]


@actor(batch=10)
async def some_again(rows: list[int]) -> list[str | Retry | None]:
    return [Retry() if row else None for row in rows]


@actor(batch=10)
async def gathered(rows: list[int]) -> list[int | BaseException]:
    return await asyncio.gather(*(asyncio.sleep(0, row) for row in rows), return_exceptions=True)


class Model:
    @actor(batch=10)
    async def embed(self, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    @actor(batch=10)
    def insert(self, keys: list[str], rows: list[int]) -> None: ...


async def send(runtime: Runtime) -> None:
    assert_type(embed("a text"), Message[list[float]])
    assert_type(count("a text", 3).options(delay=5), Message[tuple[str, int]])
    assert_type(insert(1), Message[None])
    assert_type(some_fail(1), Message[str])
    assert_type(some_again(1), Message[str | None])
    assert_type(gathered(1), Message[int])
    assert_type(Model.embed("a text"), Message[float])
    assert_type(Model.insert("key", 1), Message[None])
    assert_type(await runtime.send("acme", embed("a text")), Handle[list[float]])
    assert_type(await runtime.ask("acme", Model.embed("a text")), float)
    print(await Model().embed(["one", "two"]))

    embed(["a text"])  # flagged
    embed(1)  # flagged
    embed()  # flagged
    embed(texts="a text")  # flagged
    count("a text", "heavy")  # flagged
    Model.embed(1)  # flagged


actor(batch="many")  # flagged
actor(batch_wait=1)  # flagged
actor(batch=10, process=True)  # flagged


@actor(batch=10)  # flagged
async def no_list(text: str) -> list[int]:
    return [len(text)]


@actor(batch=10)  # flagged
async def no_list_returned(texts: list[str]) -> int:
    return len(texts)
