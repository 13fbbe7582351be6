"""Tests the options that plugins add to messages and actors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from fairactor import Runtime, Task, actor
from fairactor.errors import ConfigurationError
from fairactor.plugins import Option, ProceedExecute
from tests.support.plugins import Named
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
numbers = itertools.count()


@actor
async def double(n: int) -> int:
    return 2 * n


def whole(value: Any) -> int:
    if not isinstance(value, int):
        raise ConfigurationError(f"tries={value!r}: give a whole number")
    return value


def option(convert: Callable[[Any], Any] = lambda value: value, plugin: str = "reading") -> str:
    """Declares an option under a new name and returns the name."""
    return Option(f"tries{next(numbers)}", plugin=plugin, convert=convert).name


class Reading(Named):
    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        self.log.append(dict(task.options))
        return await proceed()


async def test_options_travel_to_the_worker_those_of_a_message_over_those_of_its_actor(make_runtime: Make) -> None:
    mine, other = option(whole), option()
    plugin = Reading()

    @actor(**{mine: 3}, timeout=9)
    async def run() -> None: ...

    async with make_runtime(run, plugins=[plugin]) as runtime:
        await runtime.ask("t", run(), timeout=PATIENCE)
        await runtime.ask("t", run().options(**{mine: 4, other: ["x"]}), timeout=PATIENCE)
        await runtime.ask("t", run(), timeout=PATIENCE, **{other: {"y": 1}, mine: None})
    assert plugin.log == [
        {mine: 3, "timeout": 9}, {mine: 4, other: ["x"], "timeout": 9}, {mine: 3, other: {"y": 1}, "timeout": 9},
    ]  # fmt: skip


def test_an_option_that_is_none_is_refused_with_the_nearest() -> None:
    mine = option()
    with pytest.raises(ConfigurationError, match=f"no option '{mine}x'; did you mean '{mine}'"):
        double(1).options(**{f"{mine}x": 1})
    with pytest.raises(ConfigurationError, match="no option 'timeuot'; did you mean 'timeout'"):
        actor(timeuot=3)
    with pytest.raises(ConfigurationError, match="no option 'plugin_options'"):
        double(1).options(plugin_options={})


def test_a_value_that_cannot_be_is_refused_where_it_is_given() -> None:
    mine = option(whole)
    with pytest.raises(ConfigurationError, match="tries='x': give a whole number"):
        double(1).options(**{mine: "x"})


async def test_an_option_of_a_plugin_that_is_not_here_is_refused(make_runtime: Make) -> None:
    mine = option()
    async with make_runtime(workers=0, without_plugins=True) as runtime:
        with pytest.raises(
            ConfigurationError, match=f"'{mine}' belongs to the plugin 'reading', which this Runtime does not use"
        ):
            await runtime.send("t", double(1), **{mine: 1})
        assert (await runtime.stats()).pending == 0
    with pytest.raises(ConfigurationError, match="belongs to the plugin 'reading'"):
        make_runtime(actor(name="x", **{mine: 1})(lambda: None), without_plugins=True)


def test_two_plugins_cannot_add_one_option_and_one_may_make_it_again() -> None:
    mine = option()
    Option(mine, plugin="reading")
    with pytest.raises(ConfigurationError, match=f"'{mine}': plugins 'reading' and 'other' both add it"):
        Option(mine, plugin="other")
