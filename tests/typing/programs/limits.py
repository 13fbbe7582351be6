"""Limits: their settings, and what handlers and messages say about them."""

from __future__ import annotations

import math
from typing import assert_type

from fairactor import LimitPolicy, LimitUsage, Runtime, actor, current_task


@actor(limits={"openai": 1500}, concurrency=2, rate="10/s", burst=20, per="tenant")
async def summarize(text: str) -> int:
    await current_task().charge("openai", 1200)
    return len(text)


@actor(limits="db")
def write(n: int) -> None: ...


@actor(limits=["db", "mail"])
def mail(n: int) -> None: ...


@actor(limits=3)  # flagged
def wrong_limits(n: int) -> None: ...


@actor(concurrency="2")  # flagged
def wrong_concurrency(n: int) -> None: ...


@actor(per="group")  # flagged
def wrong_per(n: int) -> None: ...


async def main(runtime: Runtime) -> None:
    limit = runtime.limit("openai")
    assert_type(await limit.configure(concurrency=20, rate="90000/min", burst=1e4, per=None), LimitPolicy)
    assert_type(await limit.configure(concurrency=math.inf), LimitPolicy)
    assert_type(await limit.usage(tenant="acme"), LimitUsage)
    assert_type(await runtime.limits(), dict[str, LimitPolicy])
    await runtime.limit(summarize).pause(2.5, tenant="acme")
    await runtime.limit("summarize").resume()
    await runtime.send("acme", summarize("x").options(limits={"openai": 12_000}))
    await limit.configure(weight=2)  # flagged
    await limit.pause("2")  # flagged
    runtime.limit(3)  # flagged
