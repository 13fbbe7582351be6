"""An ETL pipeline across tenants: every source of every customer is loaded in parallel, and one summary waits for all.

One source is broken at first. Its part of the pipeline fails, and the summary is canceled because of it. Once the
source works again, a retry sends only what failed or was canceled.

It prints::

    task '…:summary' of tenant 'us' was canceled: cannot run (trigger rule all_success): upstream task …
    {'acme': 36.0, 'globex': 18.0, 'initech': 36.0}
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import attrs
from fairactor_dependencies import at, each, group, result_of, results

from fairactor import Runtime, TaskCanceled, actor

SOURCES: Final = {"acme": ["orders", "returns"], "globex": ["orders"], "initech": ["orders", "visits"]}
broken = {("globex", "orders")}
logging.basicConfig(level=logging.ERROR)  # main() reports what fails


@attrs.frozen
class Row:
    """A row of a source."""

    source: str
    amount: int


@actor(max_retries=1, backoff=0.01)
async def extract(customer: str, source: str) -> list[Row]:
    """Reads the rows of a source."""
    if (customer, source) in broken:
        raise ConnectionError(f"{source} of {customer} cannot be reached")
    return [Row(source, amount) for amount in (3, 4, 5)]


@actor
async def convert(row: Row, rate: float) -> float:
    """Converts one row."""
    return row.amount * rate


@actor
async def load(customer: str, amounts: list[float]) -> tuple[str, float]:
    """Loads the converted amounts of a customer."""
    return customer, sum(amounts)


@actor
async def summary(loaded: list[tuple[str, float]]) -> dict[str, float]:
    """Sums up the loaded amounts by customer."""
    totals: dict[str, float] = {}
    for customer, amount in loaded:
        totals[customer] = totals.get(customer, 0.0) + amount
    return totals


async def main() -> None:
    """Runs the pipeline, repairs the broken source, and retries what failed."""
    loads = [
        at(customer, group(load(customer, result_of(each(convert, result_of(extract(customer, source)), rate=1.5)))))
        for customer, sources in SOURCES.items()
        for source in sources
    ]
    async with Runtime(actors=[extract, convert, load, summary]) as runtime:
        run = await runtime.send("us", group(*loads) >> summary(results()))
        try:
            print(await run.result(timeout=10))
        except TaskCanceled as error:
            print(error)
        await run.wait(timeout=10)  # other parts of the run still go on
        broken.clear()
        again = await run.retry()
        print(await again.result(timeout=10))


asyncio.run(main())
