"""Rows of many tenants are inserted in bulk, and documents are embedded a hundred at a time. Every sender sends one.

A batch has one tenant, takes one slot, and is charged for each of its tasks: the large import of "acme" does not keep
"globex" waiting. A row that the database refuses fails alone.

It prints::

    acme: 299 of 300 rows stored, 1 refused: 'row 7 has no price'
    globex: 20 of 20 rows stored, 0 refused
    320 rows in … inserts
    the nearest document is 'how to bake bread'
"""

import asyncio
import logging
from collections import Counter

import attrs

from fairactor import Runtime, TaskFailed, actor, current_batch

logging.basicConfig(level=logging.ERROR)  # a task that fails is a warning


@attrs.frozen
class Row:
    """A row of a table."""

    number: int
    price: float | None


class Database:
    """Stands for a database, where one insert of many rows is as fast as that of one."""

    def __init__(self) -> None:
        self.inserts: Counter[str] = Counter()

    @actor(batch=100, batch_wait=0.02)
    async def insert(self, rows: list[Row]) -> list[int | Exception]:
        """Inserts rows; returns the number of each, or why it was refused."""
        await asyncio.sleep(0.01)
        self.inserts[current_batch()[0].tenant] += 1
        return [ValueError(f"row {row.number} has no price") if row.price is None else row.number for row in rows]


class Model:
    """Stands for a model, which embeds many texts in one pass. It is loaded once for each runtime."""

    def started(self) -> None:
        """Loads it."""
        self.letters = "abcdefghijklmnopqrstuvwxyz"

    @actor(batch=100, batch_wait=0.02)
    def embed(self, texts: list[str]) -> list[list[float]]:  # a plain function runs in a thread
        """Returns a vector for each text."""
        return [[text.count(letter) / len(text) for letter in self.letters] for text in texts]


async def main() -> None:
    """Imports the rows of two tenants, then searches among documents."""
    database = Database()
    async with Runtime(actors=[database, Model], workers=4) as runtime:
        sent = {
            tenant: await runtime.send_many(
                [(tenant, Database.insert(Row(n, None if n == 7 else n / 10))) for n in range(first, first + count)]
            )
            for tenant, first, count in (("acme", 0, 300), ("globex", 1000, 20))
        }
        for tenant, handles in sent.items():
            found = await runtime.results(handles, timeout=30, return_exceptions=True)
            refused = [str(each).rpartition(": ")[2] for each in found if isinstance(each, TaskFailed)]
            why = f": {refused[0]!r}" if refused else ""
            print(f"{tenant}: {len(found) - len(refused)} of {len(found)} rows stored, {len(refused)} refused{why}")
        print(f"{sum(map(len, sent.values()))} rows in {database.inserts.total()} inserts")

        documents = ["how to bake bread", "the law of the sea", "jazz from Zanzibar"]
        question, *vectors = await asyncio.gather(
            *(runtime.ask("acme", Model.embed(text), timeout=30) for text in ["baking a bread", *documents])
        )
        near = [sum(a * b for a, b in zip(question, vector, strict=True)) for vector in vectors]
        print(f"the nearest document is {documents[near.index(max(near))]!r}")


if __name__ == "__main__":
    asyncio.run(main())
