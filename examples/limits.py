"""Limits that hold across the whole fleet: a big customer with a full mailbox, and a trial with a rate.

It prints::

    big has enough to do: nothing of the second batch was accepted
    after … s  trial: page 0
    …
    after … s  trial: page 9
    … pages of big meanwhile
"""

from __future__ import annotations

import asyncio
import time

from fairactor import Runtime, actor, current_task
from fairactor.errors import MailboxFull


@actor
async def export(page: int) -> str:
    """Exports a page, which takes a hundredth of a second."""
    await asyncio.sleep(0.01)
    return f"{current_task().tenant}: page {page}"


async def main() -> None:
    """Sends more than the limits allow, and shows what happens."""
    async with Runtime(actors=[export], workers=10) as runtime:
        await runtime.tenant("big").configure(concurrency=8, backlog=500)
        await runtime.tenant("trial").configure(rate="20/s", burst=1)
        await runtime.send_many([("big", export(page)) for page in range(400)])
        try:
            await runtime.send_many([("big", export(page)) for page in range(400)])
        except MailboxFull as full:
            print(f"{full.tenant} has enough to do: nothing of the second batch was accepted")

        began = time.monotonic()
        handles = await runtime.send_many([("trial", export(page)) for page in range(10)])
        for handle in handles:
            result = await handle.result(timeout=30)
            print(f"after {time.monotonic() - began:.2f} s  {result}")
        print(f"{(await runtime.tenant('big').stats()).finished} pages of big meanwhile")
        await runtime.drain(timeout=30)


if __name__ == "__main__":
    asyncio.run(main())
