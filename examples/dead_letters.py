"""Retry with back-off, look at a dead letter and its history, and redrive it once the cause is fixed.

It prints::

    sent twice under one key: the same task True, and said so: True
    canceled while it was scheduled
    (log) task … (print_label) failed: __main__.OutOfPaper: no paper for order 7
    task '…' of tenant 'acme' (print_label) failed after 3 attempt(s): __main__.OutOfPaper: no paper for order 7
      attempt 1: __main__.OutOfPaper: no paper for order 7
      attempt 2: __main__.OutOfPaper: no paper for order 7
      attempt 3: __main__.OutOfPaper: no paper for order 7
    sent again: 1
    label of order 7
"""

import asyncio
import logging
import sys

from fairactor import Runtime, TaskFailed, actor

printer = {"paper": 0}


class OutOfPaper(Exception):
    """The printer is empty. Trying again soon may help, if somebody refills it."""


@actor(max_retries=2, backoff=0.05, retry_on=OutOfPaper)
async def print_label(order: int) -> str:
    """Prints a label, if there is paper."""
    if not printer["paper"]:
        raise OutOfPaper(f"no paper for order {order}")
    printer["paper"] -= 1
    return f"label of order {order}"


async def main() -> None:
    """Lets a task fail for good, looks at it, refills the printer, and redrives the task."""
    async with Runtime(actors=[print_label]) as runtime:
        handle = await runtime.send("acme", print_label(7))
        again = await runtime.send("acme", print_label(7), key="order 7", delay=60)
        twice = await runtime.send("acme", print_label(7), key="order 7")
        print(f"sent twice under one key: the same task {twice.id == again.id}, and said so: {twice.duplicate}")
        print(f"canceled while it was {await again.cancel()}")

        try:
            await handle.result(timeout=10)
        except TaskFailed as failure:
            print(failure)
        async for letter in runtime.dead_letters.find(tenant="acme", error="__main__.OutOfPaper"):
            for attempt in letter.history:
                print(f"  attempt {attempt.attempt}: {attempt.error}: {attempt.message}")

        printer["paper"] = 1
        print(f"sent again: {await runtime.dead_letters.redrive(actor='print_label')}")
        print(await handle.result(timeout=10))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="(log) %(message)s")
    asyncio.run(main())
