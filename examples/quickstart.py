"""Two tenants: one has a large backlog, and the small one does not wait for it.

It prints::

    page 1
    the corner shop waited 0.… s
    big corp still has … tasks queued
"""

import asyncio
import time

from fairactor import Runtime, actor


@actor
async def render(page: int) -> str:
    """Renders a page: sleeps in place of real I/O."""
    await asyncio.sleep(0.01)
    return f"page {page}"


async def main() -> None:
    """Sends many tasks for one tenant, then one for another."""
    async with Runtime(actors=[render], workers=4) as runtime:
        await runtime.send_many([("big corp", render(page)) for page in range(400)])
        began = time.monotonic()
        print(await runtime.ask("corner shop", render(1)))
        print(f"the corner shop waited {time.monotonic() - began:.2f} s")
        stats = await runtime.tenant("big corp").stats()
        print(f"big corp still has {stats.queued} tasks queued")


if __name__ == "__main__":
    asyncio.run(main())
