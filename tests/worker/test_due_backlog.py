"""A backlog of due tasks holds up neither turns nor leases nor other tenants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from fairactor import Runtime, actor
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

BACKLOG = 5000


async def test_a_runtime_takes_a_turn_after_each_step_of_the_maintenance(make_runtime: Make, db: redis.Redis) -> None:
    calls: list[str] = []
    seen_by_other: list[int] = []

    @actor(result_ttl=0)
    async def flood() -> None: ...

    @actor
    async def other() -> None:
        seen_by_other.append(calls.count("maintain"))

    async with make_runtime(workers=0) as sender:
        await sender.send_many(("flood", flood().options(delay=3600)) for _ in range(BACKLOG))
        for key in ("{fairactor/0}:delayed:flood", "{fairactor/0}:scheduled"):
            stored: Any = db.zrange(key, 0, -1)
            db.zadd(key, dict.fromkeys(stored, 1))
        runtime = make_runtime(flood, other)
        (shard,) = sender._shards()
        taken, maintained = type(shard).turn, type(shard).maintain

        async def turn(self: Any, *arguments: Any, **options: Any) -> Any:
            calls.append("turn")
            return await taken(self, *arguments, **options)

        async def maintain(self: Any, **options: Any) -> bool:
            calls.append("maintain")
            more = await maintained(self, **options)
            if calls.count("maintain") == 3:
                await sender.send("other", other())
            return more

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(shard), "turn", turn)
            patch.setattr(type(shard), "maintain", maintain)
            async with runtime:
                await runtime.drain(timeout=PATIENCE)
                assert (await runtime.stats()).finished == BACKLOG + 1
                await check_invariants(runtime)
    assert "maintain maintain" not in " ".join(calls)
    assert calls.count("maintain") >= BACKLOG / 150
    (steps,) = seen_by_other
    assert steps <= 10, "the other tenant waited for the backlog"
