"""100,000 claims, each of them checked: does its tenant run more tasks than its cap allows, or start too many?

Four claimers without workers take turns in random order. A turn settles some of the tasks that its claimer holds,
oldest first, and claims up to 50. Five tenants have a ``concurrency=`` of 1 to 5, three have a ``rate=``, and one has
both. Their mailboxes never run out. After every turn, the benchmark checks that all claimers together hold no more
tasks of a tenant than its concurrency, and that no tenant has started more than burst + rate * W tasks in any W
seconds, by the server's time in the replies. The first excess claim ends the benchmark with an error that names it.

`--claims` is the number of claims of all rounds together.

- claims checked: how many claims were made, all of them allowed.
- caps reached: the most tasks of a tenant that ran at once / its cap. The smallest value of all tenants.
- rates used: claims of a tenant / (burst + rate * seconds in all). The smallest value of all tenants.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs

from fairactor import Runtime

from .bench import Bench
from .claiming import claimer
from .figures import Figure, at_least
from .handlers import nothing

_CLAIMERS: Final = 4
_LARGEST: Final = 50  # tasks in a turn
_LOW: Final = 100  # a mailbox with fewer tasks is filled up
_FILL: Final = 500
_CAPS: Final[dict[str, dict[str, Any]]] = {f"cap {n}": {"concurrency": n} for n in range(1, 6)}
_RATES: Final[dict[str, dict[str, Any]]] = {
    "rate 100": {"rate": "100/s", "burst": 20},
    "rate 300": {"rate": "300/s", "burst": 1},
    "rate 1000": {"rate": "1000/s", "burst": 50},
    "rate and cap": {"rate": "500/s", "burst": 5, "concurrency": 3},
}
_POLICIES: Final = {**_CAPS, **_RATES}
_ROUNDED: Final = 2e-6  # seconds of rounding error between the times of two turns


@attrs.define
class _Audit:
    """Compares what one tenant has started with what it may start."""

    tenant: str
    cap: int | None
    rate: float | None
    burst: int
    began: float
    """The server's time when claiming began."""
    running: int = 0
    most: int = 0
    claims: int = 0
    _level: float = 0.0
    """The largest excess of starts over ``rate`` * seconds in any interval that ends now."""
    _last: float = 0.0

    def start(self, tasks: int, now: float) -> None:
        """Counts tasks that were claimed.

        Raises:
            RuntimeError: the tenant exceeds its cap or its rate.
        """
        self.running += tasks
        self.most = max(self.most, self.running)
        self.claims += tasks
        if self.cap is not None and self.running > self.cap:
            raise RuntimeError(f"{self.tenant!r}: {self.running} tasks run, but its concurrency is {self.cap}")
        if self.rate is not None:
            self._level = max(0.0, self._level - self.rate * (now - self._last)) + tasks
            self._last = now
            if self._level > self.burst + self.rate * _ROUNDED:
                over = self._level - self.burst
                raise RuntimeError(
                    f"{self.tenant!r}: claim {self.claims} at {now:.6f} exceeds its rate by {over:.3f} claims"
                )

    def used(self, now: float) -> float:
        """Returns how much of its rate the tenant has used, from 0 to 1."""
        assert self.rate is not None
        return self.claims / (self.burst + self.rate * (now - self.began))


async def run(bench: Bench, *, claims: int = 100_000) -> list[Figure]:
    made: list[float] = []
    reached: list[float] = []
    used: list[float] = []
    for number in bench.each_round():
        audits, now = await _claim(bench, claims // bench.rounds, random.Random(number))
        made.append(sum(audit.claims for audit in audits.values()))
        reached.append(min(audit.most / audit.cap for audit in audits.values() if audit.cap and not audit.rate))
        used.append(min(audit.used(now) for audit in audits.values() if audit.rate and not audit.cap))
    return [
        Figure("claims checked", "claims", [sum(made)], goal=at_least(claims)),
        Figure("caps reached", "fraction", reached, goal=at_least(1)),
        Figure("rates used", "fraction", used),
    ]


async def _claim(bench: Bench, claims: int, chance: random.Random) -> tuple[dict[str, _Audit], float]:
    """Claims that many tasks; returns the counts, and the server's time at the end."""
    await bench.clean()
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(Runtime(bench.url, workers=0))
        left: Counter[str] = Counter()
        await _fill(runtime, left, 0)
        audits = await _configure(bench, runtime)
        claimers = [await stack.enter_async_context(claimer(bench.url, f"claimer {n}")) for n in range(_CLAIMERS)]
        made = 0
        while made < claims:
            claiming = chance.choice(claimers)
            held = [*claiming.held]
            settle = chance.randint(0, len(held))
            ids = await claiming.claim(chance.randint(1, _LARGEST), settle)
            for settled in held[:settle]:
                audits[_tenant(settled.id)].running -= 1
            started = Counter(map(_tenant, ids))
            for tenant, tasks in started.items():
                audits[tenant].start(tasks, claiming.now)
            left -= started
            made += len(ids)
            await _fill(runtime, left, made)
        return audits, claiming.now


async def _configure(bench: Bench, runtime: Runtime) -> dict[str, _Audit]:
    seconds, microseconds = await bench.admin.time()
    began = seconds + microseconds / 1e6
    audits: dict[str, _Audit] = {}
    for tenant, policy in _POLICIES.items():
        await runtime.tenant(tenant).configure(**policy)
        rate = float(policy["rate"].removesuffix("/s")) if "rate" in policy else None
        audits[tenant] = _Audit(tenant, policy.get("concurrency"), rate, policy.get("burst", 1), began)
    return audits


async def _fill(runtime: Runtime, left: Counter[str], made: int) -> None:
    """Fills up mailboxes that are running low."""
    for tenant in _POLICIES:
        if left[tenant] < _LOW:
            await runtime.send_many((tenant, nothing(n).options(id=f"{tenant}/{made}/{n}")) for n in range(_FILL))
            left[tenant] += _FILL


def _tenant(task: str) -> str:
    return task.partition("/")[0]
