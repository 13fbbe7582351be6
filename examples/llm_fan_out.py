"""Many customers share one provider's key: by tokens, fair among them, and without losing anything to a 429.

The provider counts tokens. The limit is a little higher than what the provider allows, so it refuses now and then, and
says for how long. The handler passes that on to the limit, so nobody asks in vain meanwhile. Documents that need no
provider are not held up.

It prints::

    refused, nobody asks for 0.3 s
    …
    24 summaries, … refused
    tokens of the first half: big …, small …, tiny …
    12 documents were indexed meanwhile, after … s
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from fairactor import Retry, Runtime, actor, current_task


class TooManyRequestsError(Exception):
    """The provider answers 429."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("429 Too Many Requests")
        self.retry_after = retry_after


class Provider:
    """Lets callers use so many tokens a second, and refuses more."""

    def __init__(self, tokens: float) -> None:
        self.tokens = tokens
        self.spent: list[tuple[float, int]] = []
        self.refused = 0

    async def complete(self, prompt: str) -> int:
        """Returns the number of tokens that the answer took."""
        now, used = time.monotonic(), 10 * len(prompt)
        if sum(tokens for at, tokens in self.spent if at > now - 1) + used > self.tokens:
            self.refused += 1
            raise TooManyRequestsError(0.3)
        self.spent.append((now, used))
        await asyncio.sleep(0.01)
        return used


provider = Provider(2_500)
order: list[tuple[str, int]] = []


@actor(limits={"provider": 300}, max_retries=0)
async def summarize(prompt: str) -> int:
    """Asks the provider; a refusal is no attempt."""
    task = current_task()
    assert task.runtime is not None
    try:
        used = await provider.complete(prompt)
    except TooManyRequestsError as error:
        print(f"refused, nobody asks for {error.retry_after:g} s")
        await task.charge("provider", 0)  # nothing was used
        await task.runtime.limit("provider").pause(error.retry_after)
        raise Retry("429", delay=error.retry_after, count=False) from error
    await task.charge("provider", used)
    order.append((task.tenant, used))
    return used


@actor
async def index(name: str) -> str:
    """Needs no provider."""
    return name


async def main() -> None:
    """Sends the work of three customers, of whom one pays for a larger share."""
    async with Runtime(actors=[summarize, index], workers=20) as runtime:
        await runtime.limit("provider").configure(concurrency=4, rate="3000/s")
        await runtime.tenant("big").configure(weight=2)
        began = time.monotonic()
        summaries = await runtime.send_many(
            (tenant, summarize(tenant * length))
            for tenant, length in (("big", 10), ("small", 6), ("tiny", 7))
            for _ in range(8)
        )
        documents = await runtime.send_many(("small", index(f"document {n}")) for n in range(12))
        await runtime.results(documents, timeout=30)
        indexed = time.monotonic() - began
        await runtime.results(summaries, timeout=30)
        print(f"{len(order)} summaries, {provider.refused} refused")
        tokens: Counter[str] = Counter()
        for tenant, used in order[:12]:
            tokens[tenant] += used
        print("tokens of the first half:", ", ".join(f"{name} {tokens[name]}" for name in ("big", "small", "tiny")))
        print(f"{len(documents)} documents were indexed meanwhile, after {indexed:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
