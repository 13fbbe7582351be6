"""The growth of a namespace: adds shards, tells them what they have to know, and waits until tenants have moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio

from fairactor._model.limit import LimitPolicy, PackedLimit, limit_changes, parts_of
from fairactor._model.wire import GROUP_MARK
from fairactor._store.shard import Shard
from fairactor._store.shards import Shards
from fairactor._util.checks import check_whole_number
from fairactor.errors import ConfigurationError
from fairactor.settings import MOST_SHARDS

_LOOKS_AGAIN: Final = 0.1  # seconds
_GROUP: Final = GROUP_MARK.encode(errors="surrogateescape")


async def grow(shards: Shards, count: int) -> None:
    """Adds shards to a namespace, and waits until all tenants have moved that should; see `Runtime.grow`."""
    check_whole_number("shards", count, 1, MOST_SHARDS)
    await shards.renew()
    if count < shards.layout.shards:
        raise ConfigurationError(
            f"shards={count}: the namespace has {shards.layout.shards}, and can only get more; to have fewer, drain it "
            "and use another namespace"
        )
    if shards.layout.growing and count != shards.layout.shards:
        raise ConfigurationError(
            f"shards={count}: the namespace still grows to {shards.layout.shards} shards: wait until it has them"
        )
    old = len(shards)
    if not shards.layout.growing:
        await _divide_limits(shards[0], count)  # raises before anything has changed
    await shards.begin_growth(count, lambda all_shards: _prepare(all_shards, old))
    if shards.layout.shards != count:
        raise ConfigurationError(
            f"shards={count}: another call has made the namespace grow to {shards.layout.shards} shards meanwhile"
        )
    while shards.layout.growing:
        await anyio.sleep(_LOOKS_AGAIN)
        await shards.renew()


async def _prepare(shards: Sequence[Shard], old: int) -> None:
    """Gives new shards the defaults, the weights of groups, and their parts of the limits that the first shard knows.

    Args:
        shards: all shards. The limits are divided among them, and first those that had parts before get less.
        old: how many of them there were.

    Raises:
        ConfigurationError: a limit is too small for so many. Nothing has changed.
    """
    divided = await _divide_limits(shards[0], len(shards))
    for number, shard in enumerate(shards):
        for name, (parts, pause) in divided.items():
            await shard.change_limit(name, parts[number], pause=pause if number >= old else "")
    policies = await shards[0].policies()
    for of, policy in policies.items():
        if of[:1] in {b"", _GROUP}:
            for shard in shards[old:]:
                await shard.configure(of, policy)


async def _divide_limits(first: Shard, count: int) -> dict[str, tuple[list[PackedLimit], str]]:
    """Returns for each limit its settings for each of so many shards, and its pause; raises as `_prepare`."""
    now, found = await first.limits()
    return {
        name.decode(): (_parts(packed, count), _pause(packed, now))
        for name, (packed, *_) in found.items()
        if b"\x1f" not in name
    }


def _parts(packed: PackedLimit, shards: int) -> list[PackedLimit]:
    """Returns the settings of a limit for each shard, but for what the code of an actor declares.

    Raises:
        ConfigurationError: it is too small for so many, be it declared or not.
    """

    def divided(of: PackedLimit) -> list[PackedLimit]:
        whole = LimitPolicy.read(of)
        given = {"concurrency": whole.concurrency, "rate": whole.rate, "burst": whole.burst, "per": whole.per}
        changes = limit_changes({setting: value for setting, value in given.items() if value is not None})
        return parts_of(changes, shards, per=whole.per)

    divided(packed)
    return divided(packed | {"declared": {}})


def _pause(packed: PackedLimit, now: float) -> str:
    until = packed.get("paused") or 0
    return "-1" if until < 0 else str(round(until - now)) if until > now else ""
