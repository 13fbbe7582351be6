"""A class as an actor: state of its own, started and stopped with the runtime; each customer's messages in order."""

import asyncio
from collections import defaultdict

from fairactor import Runtime, actor, current_task


@actor
class Cart:
    """The carts of all customers in this process."""

    async def started(self) -> None:
        """Called once, before the first message."""
        self.items: dict[str, list[str]] = defaultdict(list)

    async def add(self, item: str) -> int:
        """Puts an item into the cart of the customer whose task this is; returns how many it holds."""
        mine = self.items[current_task().tenant]
        await asyncio.sleep(0)  # another message of the same customer could come in between, were it not for the cap
        mine.append(item)
        return len(mine)

    async def stopped(self) -> None:
        """Called when the runtime is left."""
        for customer, items in sorted(self.items.items()):
            print(f"{customer}: {', '.join(items)}")


async def main() -> None:
    """Two customers fill their carts."""
    async with Runtime(actors=[Cart]) as runtime:
        for customer in ("ann", "bob"):
            await runtime.tenant(customer).configure(concurrency=1)
        for item in ("apples", "pears", "plums"):
            await runtime.send("ann", Cart.add(item))
        print("bob has", await runtime.ask("bob", Cart.add("bread")))
        await runtime.drain()


if __name__ == "__main__":
    asyncio.run(main())
