"""Tests classes with actor methods: each runtime has one instance, from the user or made by the runtime."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import attrs
import pytest

from fairactor import Message, Runtime, TaskFailed, actor, current_task
from fairactor.errors import ConfigurationError, DuplicateActor

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@attrs.define
class Prices:
    """Stands for a dependency of a cart: a database in production, a dict in a unit test."""

    of: dict[str, int]


class Cart:
    """Holds actor methods and state; each runtime has one instance."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.events: list[str] = []
        self.total = 0

    async def started(self) -> None:
        self.events.append("started")

    def stopped(self) -> None:
        self.events.append("stopped")

    @actor(max_retries=1)
    async def add(self, item: str, count: int = 1) -> int:
        self.total += count * self.price(item)
        return self.total

    @actor
    def price_of(self, item: str) -> int:
        return self.price(item)

    @actor(name="checkout")
    async def pay(self) -> str:
        return f"{current_task().actor} {await self.add('pen', 0)}"

    def price(self, item: str) -> int:
        """Runs as a plain method: without @actor, a call creates no message."""
        return self.prices.of[item]


class GiftCart(Cart):
    @actor
    async def wrap(self) -> str:
        return "wrapped"


async def test_a_runtime_uses_the_instance_that_it_is_given(make_runtime: Make) -> None:
    cart = Cart(Prices({"pen": 2}))
    async with make_runtime(cart) as runtime:
        assert cart.events == ["started"]
        assert await runtime.ask("acme", Cart.add("pen", count=3)) == 6
        assert await runtime.ask("acme", Cart.price_of("pen")) == 2
        assert await runtime.ask("acme", Cart.pay()) == "checkout 6"
    assert (cart.total, cart.events) == (6, ["started", "stopped"])


async def test_on_an_instance_a_method_is_itself() -> None:
    cart = Cart(Prices({"fake": 5}))
    assert await cart.add("fake") == 5
    assert cart.price_of("fake") == 5
    assert cart.events == []


def test_on_the_class_a_method_makes_messages() -> None:
    message = Cart.add("pen")
    assert isinstance(message, Message)
    assert (message.actor.name, message.task_options.max_retries) == ("Cart.add", 1)
    assert Cart.pay().actor.name == "checkout"
    with pytest.raises(TypeError, match=r"Cart.add\(\): missing a required argument: 'item'; it takes \(item: 'str'"):
        Cart.add()  # type: ignore[call-arg]


async def test_a_subclass_has_the_messages_that_it_inherits_under_its_own_name(make_runtime: Make) -> None:
    assert GiftCart.add("pen").actor.name == "GiftCart.add"
    async with make_runtime(GiftCart(Prices({"pen": 7}))) as runtime:
        assert await runtime.ask("acme", GiftCart.add("pen")) == 7
        assert await runtime.ask("acme", GiftCart.wrap()) == "wrapped"


def test_a_class_that_takes_arguments_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigurationError, match=r"Cart cannot be made without arguments .*\(actors=\[Cart\(…\)\]\)"):
        Runtime(actors=[Cart])


async def test_a_message_of_such_a_class_cannot_run_here_without_an_instance() -> None:
    with pytest.raises(ConfigurationError, match="call the method on one"):
        await Cart.add("pen")


def test_a_runtime_has_one_instance_of_a_class() -> None:
    cart = Cart(Prices({}))
    Runtime(actors=[cart, cart])
    with pytest.raises(DuplicateActor, match="two instances of Cart are given: a runtime takes only one"):
        Runtime(actors=[cart, Cart(Prices({}))])


def test_an_instance_takes_the_place_of_its_class_in_a_module() -> None:
    module = ModuleType("shop")
    vars(module).update(Cart=Cart)
    Runtime(actors=[module, Cart(Prices({}))])
    with pytest.raises(ConfigurationError, match="Cart cannot be made without arguments"):
        Runtime(actors=[module])


def test_an_instance_without_actors_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"actors= got Prices\(of=\{\}\): give functions with @actor"):
        Runtime(actors=[Prices({})])


async def test_an_actor_on_the_class_sets_names_and_defaults_of_its_methods(make_runtime: Make) -> None:
    @actor(name="box", max_retries=3, timeout=9)
    class Box:
        @actor(max_retries=0)
        async def open(self) -> str:
            return "open"

        @actor
        async def close(self) -> str:
            raise ValueError("stuck")

    assert (Box.open().actor.name, Box.open().task_options.max_retries) == ("box.open", 0)
    assert (Box.close().task_options.max_retries, Box.open().task_options.timeout) == (3, 9)
    async with make_runtime(Box) as runtime:
        assert await runtime.ask("acme", Box.open()) == "open"
        with pytest.raises(TaskFailed, match="stuck"):
            await runtime.ask("acme", Box.close().options(max_retries=0))


def test_a_function_that_a_class_only_refers_to_stays_a_function() -> None:
    @actor
    async def job(number: int) -> int:
        return number

    class Holder:
        work = job

    assert Holder.work(1).actor is job
    assert Holder().work(1).actor is job
