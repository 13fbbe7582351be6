"""A class as an actor: it gets what it needs in its constructor, and keeps state while the runtime runs.

The last lines of `main` are a unit test of it: with a fake in place of the database, and without a server.

It prints::

    the shop opens
    bob's cart costs 480
    ann pays 9.80
    bob pays 4.80
"""

import asyncio

from fairactor import Runtime, actor


class Prices:
    """Stands for a database of prices, in cents."""

    async def of(self, item: str) -> int:
        """Looks a price up."""
        await asyncio.sleep(0.001)
        return {"apples": 250, "pears": 320, "plums": 410, "bread": 480}[item]


class FakePrices(Prices):
    """What a unit test uses instead."""

    async def of(self, item: str) -> int:
        """Looks a price up, without a database."""
        return {"apples": 1, "pears": 2}[item]


class Cart:
    """The carts of all customers of a shop."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.totals: dict[str, int] = {}

    async def started(self) -> None:
        """Called once, before the first message: a place to open connections."""
        print("the shop opens")

    @actor
    async def add(self, customer: str, item: str) -> int:
        """Puts an item into a customer's cart; returns what all items in it cost."""
        before = self.totals.get(customer, 0)
        price = await self.prices.of(item)  # meanwhile no other message can add to this cart: see main()
        self.totals[customer] = before + price
        return self.totals[customer]

    async def stopped(self) -> None:
        """Called when the runtime is left."""
        for customer, total in sorted(self.totals.items()):
            print(f"{customer} pays {total / 100:.2f}")


async def main() -> None:
    """Two customers of a shop fill their carts."""
    async with Runtime(actors=[Cart(Prices())]) as runtime:
        await runtime.tenant("corner shop").configure(concurrency=1)  # one message at a time, in order
        for item in ("apples", "pears", "plums"):
            await runtime.send("corner shop", Cart.add("ann", item))
        print("bob's cart costs", await runtime.ask("corner shop", Cart.add("bob", "bread"), timeout=10))

    cart = Cart(FakePrices())
    await cart.add("eve", "apples")
    assert await cart.add("eve", "pears") == 3


if __name__ == "__main__":
    asyncio.run(main())
