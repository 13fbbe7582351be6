"""Methods are actors: on the class a call makes a message, on an instance it runs the method."""

from collections.abc import Mapping
from typing import assert_type

from fairactor import Handle, Message, Runtime, actor


class Cart:
    def __init__(self, prices: Mapping[str, int]) -> None:
        self.prices = prices
        self.items: list[str] = []

    async def started(self) -> None: ...

    @actor
    async def add(self, item: str, count: int = 1) -> int:
        self.items += [item] * count
        return self.total() if self.items else await self.add(item)

    @actor(max_retries=2, timeout=5)
    def total(self) -> int:
        return sum(self.prices[item] for item in self.items)

    @actor(name="Cart.list")
    async def items_of(self, customer: str) -> list[str]:
        return [customer, *self.items]


class BigCart(Cart):
    @actor
    async def add_all(self, items: list[str]) -> None:
        for item in items:
            await self.add(item)


@actor(max_retries=3)
class Shelf:
    @actor
    async def put(self, item: str) -> int:
        return len(item)


async def on_the_class(runtime: Runtime) -> None:
    assert_type(Cart.add("apple"), Message[int])
    assert_type(Cart.add("apple", count=2).options(delay=5), Message[int])
    assert_type(Cart.total(), Message[int])
    assert_type(BigCart.add("apple"), Message[int])
    assert_type(BigCart.add_all(["apple"]), Message[None])
    assert_type(Shelf.put("apple"), Message[int])
    assert_type(await runtime.send("acme", Cart.items_of("ann")), Handle[list[str]])
    assert_type(await runtime.ask("acme", Cart.add("apple"), timeout=5), int)
    print(await runtime.ask("acme", Cart.total()))

    Cart.add(1)  # flagged
    Cart.add()  # flagged
    Cart.add("apple", many=2)  # flagged
    Cart.total("apple")  # flagged
    Cart.ad("apple")  # flagged
    BigCart.add_all("apple", 1)  # flagged
    Shelf.put(1)  # flagged
    await runtime.ask("acme", Cart.add)  # flagged


async def on_an_instance() -> None:
    fake = {"apple": 1}
    cart = Cart(fake)
    assert_type(await cart.add("apple"), int)
    assert_type(cart.total(), int)
    assert_type(await Cart(fake).items_of("ann"), list[str])
    assert_type(await BigCart(fake).add("apple"), int)

    await cart.add(1)  # flagged
    cart.total(1)  # flagged
    await cart.total()  # flagged
    cart.add("apple").options(delay=1)  # flagged
    Cart("apple")  # flagged


def runtimes() -> None:
    Runtime(actors=[Cart({"apple": 1}), Shelf])
