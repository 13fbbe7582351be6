"""Pages of tenants: exact figures where there are few of them, and the right order where there are many."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import anyio
import pytest
import redis

from fairactor import Runtime, actor
from fairactor._model.counts import INDEXED_FROM, recent_tasks, rounded
from fairactor._model.keys import Keys
from fairactor._operate import tenants as pages
from fairactor.errors import ConfigurationError
from fairactor.testing import check_invariants
from fairactor.views import TENANT_ORDERS, TenantOrder, TenantPage, TenantView
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

HOSTILE: Final = ["a\nb", "\u202etac", "'; DROP", "*?[x]", "é" * 100, "\x00nul", "x" * 512, "1:2:3", "\x1b[31m"]
"""Names that break what trusts them."""


@actor
async def nothing(n: int = 0) -> int:
    return n


@actor
async def fails() -> None:
    raise ValueError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a namespace with more than three tenants one with many."""
    monkeypatch.setattr(pages, "FEW", 3)


async def read_all(runtime: Runtime, order: TenantOrder, limit: int = 50, **more: Any) -> list[TenantView]:
    """Reads all pages."""
    found: list[TenantView] = []
    page: TenantPage | None = None
    while page is None or page.after:
        page = await runtime.tenants(order_by=order, limit=limit, after=page and page.after, **more)
        assert len(page.tenants) <= limit
        found += page.tenants
    return found


async def a_moment(db: redis.Redis) -> None:
    """Waits until the server's clock is some milliseconds later, so that what waits has waited for longer."""
    seconds, micro = db.time()  # type: ignore[misc]
    await until(lambda: db.time() > (seconds, micro + 5000) or db.time()[0] > seconds)  # type: ignore[index, operator]


def by_name(views: list[TenantView]) -> dict[str, TenantView]:
    found = {view.tenant: view for view in views}
    assert len(found) == len(views), "none comes twice"
    return found


# Few tenants


@pytest.mark.parametrize("shards", [1, 3])
async def test_the_figures_of_few_tenants_are_exact(make_runtime: Make, shards: int) -> None:
    async with make_runtime(workers=0, shards=shards) as sender:
        await sender.tenant("heavy").configure(weight=3)
        await sender.tenant("off").pause()
        await sender.policies.configure_group("pair", weight=2)
        for member in ("left", "right"):
            await sender.tenant(member).configure(group="pair")
        sizes = {"heavy": 5, "light": 2, "off": 4, "left": 1, "right": 1}
        for tenant, number in sizes.items():
            await sender.send_many([(tenant, nothing()) for _ in range(number)])
        await sender.send("later", nothing().options(delay=3600))
        views = by_name(await read_all(sender, "backlog", 2))
        assert {name: view.backlog for name, view in views.items()} == {**sizes, "later": 0}
        assert list(views) == ["heavy", "off", "light", "left", "right", "later"]
        assert {name for name, view in views.items() if view.oldest_wait is not None} == sizes.keys()
        assert views["later"].scheduled == 1
        assert (views["heavy"].weight, views["light"].weight, views["left"].group) == (3.0, 1.0, "pair")
        assert [name for name, view in views.items() if view.paused] == ["off"]
        shared = {name: view.fair_share for name, view in views.items()}
        assert shared["off"] == shared["later"] == 0
        assert sum(shared.values()) == pytest.approx(1)
        assert shared["heavy"] == pytest.approx(3 * shared["light"])
        if shards == 1:
            assert shared["heavy"] == pytest.approx(3 / 6)
            assert shared["left"] == pytest.approx(1 / 6)
        page = await sender.tenants()
        assert (page.known, page.looked_at, page.after) == (6, 6, None)


async def test_what_has_ended_makes_the_rate_and_the_share(make_runtime: Make) -> None:
    async with make_runtime(nothing, fails) as runtime:
        await runtime.send_many([("a", nothing()) for _ in range(30)])
        await runtime.send_many([("b", nothing()) for _ in range(10)])
        await runtime.send("c", fails())
        await runtime.drain()
        views = by_name(await read_all(runtime, "share"))
        assert list(views) == ["a", "b", "c"]
        assert sum(view.share for view in views.values()) == pytest.approx(1, abs=0.01)
        assert views["a"].share == pytest.approx(30 / 41, abs=0.01)
        assert views["a"].rate == pytest.approx(0.5, rel=0.3), "30 in a minute, and some seconds may have passed"
        assert [(view.finished, view.failed, view.running) for view in views.values()] == [
            (30, 0, 0), (10, 0, 0), (0, 1, 0),
        ]  # fmt: skip


async def test_the_order_by_running_tasks_and_by_the_longest_wait(make_runtime: Make, db: redis.Redis) -> None:
    started, over = [], anyio.Event()

    @actor
    async def waits() -> None:
        started.append(1)
        await over.wait()

    async with make_runtime(waits, nothing, workers=4) as runtime:
        await runtime.send_many([("one", waits()), ("three", waits()), ("three", waits()), ("three", waits())])
        await until(lambda: len(started) == 4)
        await runtime.tenant("late").pause()
        await runtime.tenant("early").pause()
        await runtime.send("early", nothing())
        await a_moment(db)
        await runtime.send("late", nothing())
        running = await read_all(runtime, "running")
        assert [(view.tenant, view.running) for view in running[:2]] == [("three", 3), ("one", 1)]
        oldest = await read_all(runtime, "oldest")
        assert [view.tenant for view in oldest[:2]] == ["early", "late"]
        first, second = (view.oldest_wait for view in oldest[:2])
        assert first is not None
        assert second is not None
        assert first >= second >= 0
        over.set()
        await runtime.tenant("early").purge()
        await runtime.tenant("late").purge()


@pytest.mark.parametrize("order", TENANT_ORDERS)
@pytest.mark.parametrize("many", [False, True])
async def test_hostile_names_are_found(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, order: TenantOrder, many: bool
) -> None:
    if many:
        monkeypatch.setattr(pages, "FEW", 1)
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([(name, nothing()) for name in HOSTILE])
        # A server that enlarges a hash meanwhile may return a name twice.
        assert {view.tenant for view in await read_all(runtime, order, 2)} == set(HOSTILE)
        for part, found in (("*?[", ["*?[x]"]), ("\u202e", ["\u202etac"]), ("DROP", ["'; DROP"]), ("absent", [])):
            assert [view.tenant for view in await read_all(runtime, order, text=part)] == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"order_by": "size"}, {"order_by": None}, {"limit": 0}, {"limit": 1001}, {"limit": True}, {"text": b"a"},
        {"text": "\ud800"},
        {"after": "name:all:1"}, {"after": "backlog"}, {"after": "backlog:all:x"}, {"after": "backlog:all:-1"},
        {"after": "backlog:rest:1:2"}, {"after": "backlog:index:1:2:3"}, {"after": 7}, {"after": ""},
        {"after": "backlog:all:²"}, {"after": "backlog:all:" + "9" * 5000},
    ],
)  # fmt: skip
async def test_wrong_arguments_are_refused(make_runtime: Make, wrong: dict[str, Any]) -> None:
    async with make_runtime(workers=0) as runtime:
        name = next(iter(wrong))
        with pytest.raises(ConfigurationError, match=rf"^{name}="):
            await runtime.tenants(**wrong)


async def test_a_namespace_without_tenants_has_an_empty_page(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        for order in TENANT_ORDERS:
            assert await runtime.tenants(order_by=order) == TenantPage((), None, 0, 0)


# Many tenants


async def fill(runtime: Runtime, sizes: dict[str, int]) -> None:
    await runtime.send_many([(name, nothing()) for name, number in sizes.items() for _ in range(number)])


@pytest.mark.parametrize("shards", [1, 2])
async def test_the_largest_of_many_tenants_come_first(make_runtime: Make, shards: int) -> None:
    draw = random.Random(5)
    sizes = {f"t{n}": 1 for n in range(5000)} | {f"large{n}": draw.randrange(2, 150) for n in range(60)}
    async with make_runtime(workers=0, shards=shards) as runtime:
        await fill(runtime, sizes)
        page = await runtime.tenants(limit=20)
        assert page.known == len(sizes)
        assert page.looked_at <= 20
        numbers = [view.backlog for view in page.tenants]
        assert numbers == sorted(numbers, reverse=True)
        assert [rounded(number) for number in numbers] == sorted(map(rounded, sizes.values()), reverse=True)[:20]
        views = by_name(await read_all(runtime, "backlog", 500))
        assert {name: view.backlog for name, view in views.items()} == sizes
        in_index = [view.backlog for view in views.values() if view.backlog >= INDEXED_FROM]
        assert [view.backlog for view in list(views.values())[: len(in_index)]] == in_index, "before all others"
        share = views["t0"].fair_share
        assert share == pytest.approx(1 / len(sizes), rel=0.01)
        for order in ("oldest", "share", "running", "name"):
            assert by_name(await read_all(runtime, order, 700)).keys() == sizes.keys()  # type: ignore[arg-type]
        assert [view.tenant for view in await read_all(runtime, "name", text="large5")] == sorted(
            name for name in sizes if "large5" in name
        )
        await check_invariants(runtime)


async def test_who_runs_or_has_waited_for_long_is_found_among_many(
    make_runtime: Make, few: None, db: redis.Redis
) -> None:
    started, over = [], anyio.Event()

    @actor
    async def waits() -> None:
        started.append(1)
        await over.wait()

    async with make_runtime(waits, nothing, workers=5) as runtime:
        await runtime.send_many([(f"run{n % 2}", waits()) for n in range(5)])
        await until(lambda: len(started) == 5)
        await runtime.tenant("slow").configure(rate="1/h", burst=1)
        await runtime.tenant("off").pause()
        await runtime.send("off", nothing())
        await runtime.send_many([("slow", waits()), ("slow", nothing())])
        await a_moment(db)
        await fill(runtime, {f"t{n}": 1 for n in range(20)})
        assert [(view.tenant, view.running) for view in await read_all(runtime, "running", 4)][:2] == [
            ("run0", 3), ("run1", 2),
        ]  # fmt: skip
        oldest = by_name(await read_all(runtime, "oldest", 4))
        assert list(oldest)[:2] == ["off", "slow"]
        assert len(oldest) == 24
        over.set()
        await runtime.tenant("off").purge()
        await runtime.tenant("slow").purge()
        await runtime.drain()
        shares = by_name(await read_all(runtime, "share", 4))
        assert len(shares) == 24


async def test_a_tenant_that_moves_is_one_tenant(make_runtime: Make, few: None) -> None:
    moving = [f"t{n}" for n in range(12)]
    async with make_runtime(nothing, shards=1) as runtime:
        await fill(runtime, dict.fromkeys(moving, 2))
        await runtime.drain()
        for tenant in moving:
            await runtime.tenant(tenant).pause()
        await fill(runtime, dict.fromkeys(moving, 40))
        with anyio.fail_after(PATIENCE):
            await runtime.grow(3)
        for order in TENANT_ORDERS:
            views = by_name(await read_all(runtime, order, 5))
            assert {name: (view.backlog, view.finished) for name, view in views.items()} == dict.fromkeys(
                moving, (40, 2)
            )
        for tenant in moving:
            await runtime.tenant(tenant).purge()


# The index


async def test_an_index_is_completed_that_the_release_before_did_not_make(
    make_runtime: Make, few: None, db: redis.Redis
) -> None:
    keys = Keys("fairactor")
    async with make_runtime(workers=0) as runtime:
        sizes = {f"t{n}": n for n in range(1, 80, 13)}
        await fill(runtime, sizes)
        db.delete(keys.fixed("BACKLOG"))
        db.hdel(keys.meta, "indexed")
        before = {name: b"\0" * 5 + packed[5:] for name, packed in db.hgetall(keys.fixed("COUNTS")).items()}  # type: ignore[union-attr]
        db.hset(keys.fixed("COUNTS"), mapping=before)  # type: ignore[arg-type]
        views = await read_all(runtime, "backlog", 3)
        assert sorted(view.backlog for view in views) == sorted(sizes.values())
        assert [view.backlog for view in views[:4]] == [79, 66, 53, 40]
        assert db.hget(keys.meta, "indexed") == b"1"
        await check_invariants(runtime)


async def test_counts_of_the_release_before_are_indexed_when_a_task_ends(make_runtime: Make, db: redis.Redis) -> None:
    keys = Keys("fairactor")
    async with make_runtime(nothing, workers=0) as sender:
        await fill(sender, {"a": 300})
        packed: Any = db.hget(keys.fixed("COUNTS"), "a")
        db.hset(keys.fixed("COUNTS"), "a", b"\0" * 5 + packed[5:])
        db.zadd(keys.fixed("BACKLOG"), {"a": 7777})
        await check_invariants(sender)
    async with make_runtime(nothing) as runtime:
        await runtime.drain()
        await check_invariants(runtime)
        assert not db.exists(keys.fixed("BACKLOG"))


def test_how_much_has_ended_of_late_fades() -> None:
    now = 1_800_000_000.0
    units = (now - 1_700_000_000) / 60
    stored = int(units * 65536).to_bytes(5, "big") + bytes(60)
    assert recent_tasks(stored, now) == pytest.approx(1, rel=0.001)
    assert recent_tasks(stored, now + 60) == pytest.approx(0.3679, rel=0.001)
    assert recent_tasks(bytes(65), now) == recent_tasks(b"", now) == 0
    assert recent_tasks(b"\xff" * 65, now) == 0, "damage"


def test_numbers_are_rounded_to_three_binary_digits() -> None:
    assert [rounded(n) for n in (0, 31, 32, 39, 40, 63, 64, 79, 80, 1000)] == [0, 0, 32, 32, 40, 56, 64, 64, 80, 896]
