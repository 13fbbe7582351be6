"""Tests graphs with a task for each item of a result, and one that joins them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest
import redis
from fairactor_dependencies import Dependencies, at, each, graph, result, result_of, results

from fairactor import Runtime, TaskCanceled, TaskFailed, TaskState, actor
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@attrs.frozen
class User:
    name: str


@actor
async def users() -> list[User]:
    return [User("ann"), User("bob"), User("cy")]


@actor
async def greet(user: User, word: str, mark: str = "") -> str:
    if user.name == word:
        raise ValueError("no")
    return f"{word} {user.name}{mark}"


@actor
async def a() -> str:
    return "a"


@actor
async def join(parts: list[Any]) -> str:
    return str(parts)


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda *more, **settings: make_runtime(users, greet, a, join, *more, plugins=[Dependencies()], **settings)


async def test_for_each_item_of_a_result_there_is_a_task(make: Make) -> None:
    async with make() as runtime:
        run = await runtime.send("t", users() >> each(greet, None, "hi", mark="!") >> join(results()))
        assert await run.result(PATIENCE) == "[['hi ann!', 'hi bob!', 'hi cy!']]"
        run = await runtime.send("t", graph(each(greet, result_of(users()), "yo")))
        assert await run.result(PATIENCE) == ["yo ann", "yo bob", "yo cy"]
        run = await runtime.send("t", graph(each(greet, [User("dan")], "yo")))
        assert await run.result(PATIENCE) == ["yo dan"]
        run = await runtime.send("t", each(greet, [], "yo"))
        assert await run.result(PATIENCE) == []
        await check_invariants(runtime)


async def test_for_each_works_where_a_tenant_runs_one_at_a_time(make: Make) -> None:
    async with make() as runtime:
        await runtime.tenant("t").configure(concurrency=1)
        run = await runtime.send("t", users() >> each(greet, None, "hi"))
        assert await run.result(PATIENCE) == ["hi ann", "hi bob", "hi cy"]


async def test_where_one_of_each_fails_what_joins_them_does_not_run_and_a_retry_repeats_it(make: Make) -> None:
    words = ["bob"]

    @actor
    async def check(user: User) -> str:
        if user.name in words:
            raise ValueError("no")
        return user.name

    async with make(check) as runtime:
        run = await runtime.send("t", users() >> each(check))
        with pytest.raises(TaskCanceled, match=r"upstream task .*/1 failed"):
            await run.result(PATIENCE)
        words.clear()
        assert await (await run.retry()).result(PATIENCE) == ["ann", "bob", "cy"]


async def test_for_each_of_what_is_no_list_fails_by_name(make: Make) -> None:
    async with make() as runtime:
        run = await runtime.send("t", a() >> each(greet, None, "hi"))
        with pytest.raises(TaskCanceled, match="failed"):
            await run.result(PATIENCE)
        with pytest.raises(TaskFailed, match=r"each\(greet, …\) needs a list of items, and got 'a'"):
            await run.handles["fairactor_dependencies.spread"].result(PATIENCE)
        with pytest.raises(TypeError, match="missing a required argument: 'word'"):
            each(greet)


# What belongs to the run


class Charges:
    """An actor that can fail or wait for one of its items."""

    def __init__(self) -> None:
        self.done: Counter[int] = Counter()
        self.now: Counter[int] = Counter()
        self.broken: set[int] = set()
        self.stuck: set[int] = set()

        @actor
        async def charge(user: int) -> int:
            self.now[user] += 1
            assert self.now[user] == 1, "it runs twice at the same time"
            try:
                if user in self.stuck:
                    await anyio.sleep_forever()
                if user in self.broken:
                    raise ValueError("declined")
                self.done[user] += 1
            finally:
                self.now[user] -= 1
            return 10 * user

        self.charge = charge


@pytest.fixture
def charges() -> Charges:
    return Charges()


async def test_cancel_stops_the_items_and_a_retry_runs_only_what_has_not_finished(make: Make, charges: Charges) -> None:
    charges.stuck.add(3)
    async with make(charges.charge, workers=1) as runtime:
        run: Any = await runtime.send("t", each(charges.charge, list(range(60))) >> join(result()))
        await until(lambda: charges.now[3] == 1)
        await run.cancel()
        states = await run.wait(PATIENCE)
        assert [states[f"charge[{n}]"].value for n in (0, 2, 3, 4, 59)] == ["finished"] * 2 + ["canceled"] * 3
        assert (await run.items())["charge[1]"].id.endswith("/1")
        assert '[["60 charge: 3 finished, 57 canceled"]]' in await run.to_mermaid()
        await runtime.drain(PATIENCE)
        assert sum(charges.done.values()) == 3
        charges.stuck.clear()
        run = await run.retry()
        assert await run.result(PATIENCE) == str([10 * n for n in range(60)])
        assert set(charges.done.values()) == {1}
        assert await run.retry() is run
        await check_invariants(runtime)


async def test_wait_waits_for_items_and_a_retry_repeats_those_that_failed(make: Make, charges: Charges) -> None:
    charges.broken |= {0, 4}
    async with make(charges.charge) as runtime:
        run: Any = await runtime.send("t", a() >> each(charges.charge, list(range(6))) >> join(result()))
        states = await run.wait(PATIENCE)
        assert all(state and state.settled for state in states.values())
        assert states["charge[0]"].value == "failed"
        charges.broken.discard(0)
        run = await run.retry()
        await run.wait(PATIENCE)
        charges.broken.clear()
        run = await run.retry()
        assert await run.result(PATIENCE) == str([10 * n for n in range(6)])
        assert set(charges.done.values()) == {1}
        assert set((await run.items()).keys()) == {f"charge[{n}]" for n in range(6)}


async def test_items_that_come_after_a_cancel_are_refused(make: Make, charges: Charges) -> None:
    async with make(charges.charge) as runtime:
        await runtime.tenant("t").pause()
        run = await runtime.send("t", each(charges.charge, [1, 2, 3]))
        await run.cancel()
        assert set((await run.wait(PATIENCE)).values()) == {TaskState.CANCELED}
        spread, joined = (run.handles[f"fairactor_dependencies.{name}"].id for name in ("spread", "join"))
        item = a().rewritten(
            id=f"{joined}/0",
            script_options={"fairactor_dependencies": {"dependencies": {"item": (joined, 1), "keep": 9e4}}},
        )
        with pytest.raises(TaskCanceled, match="its run was canceled"):
            await (await runtime.send("t", item)).result(PATIENCE)
        assert await runtime.host.call("fairactor_dependencies/map", "t", joined, 3) == [0, 0]
        assert spread != joined


async def test_a_trigger_rule_joins_what_has_finished(make: Make, charges: Charges) -> None:
    charges.broken.add(1)
    async with make(charges.charge) as runtime:
        partly = each(charges.charge, [0, 1, 2]).options(trigger_rule="all_done")
        run: Any = await runtime.send("t", partly >> join(result()))
        assert await run.result(PATIENCE) == "[0, None, 20]"
        charges.broken.clear()
        assert await (await run.retry()).result(PATIENCE) == "[0, 10, 20]"
        assert charges.done[0] == 1


async def test_each_waits_for_room_in_the_mailbox(make: Make, charges: Charges) -> None:
    async with make(charges.charge) as runtime:
        await runtime.tenant("t").configure(backlog=8, concurrency=1)
        run = await runtime.send("t", each(charges.charge, list(range(50))))
        assert await run.result(PATIENCE) == [10 * n for n in range(50)]
        assert set(charges.done.values()) == {1}


async def test_maps_of_maps_and_groups_of_maps(make: Make) -> None:
    @actor
    async def split(n: int) -> list[int]:
        return list(range(n))

    @actor
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    async with make(split, total) as runtime:
        run: Any = await runtime.send("t", split(4) >> each(split) >> each(total) >> total(result()))
        assert await run.result(PATIENCE) == 0 + 0 + 1 + 3
        assert {"split[3]", "total[0]"} <= (await run.states()).keys()
        run = await runtime.send("t", [each(split, [1, 2]), each(split, [3])] >> join(results()))
        assert await run.result(PATIENCE) == "[[[0], [0, 1]], [[0, 1, 2]]]"
        assert {"split[1]", "split.2[0]"} <= (await run.states()).keys()
        assert await runtime.ask("t", split(3) >> each(greet, [User("x")], result_of(a())), timeout=PATIENCE) == ["a x"]


async def test_a_joined_result_of_any_size_reaches_all_that_take_it(make: Make, db: redis.Redis) -> None:
    @actor
    async def page(n: int) -> str:
        return f"{n}{'x' * 800}"

    @actor
    async def count(pages: list[str]) -> int:
        assert [page.rstrip("x") for page in pages] == list(map(str, range(len(pages))))
        return len(pages)

    @actor
    async def counts(lists: list[list[str]]) -> list[int]:
        return list(map(len, lists))

    async with make(page, count, counts, shards=2, max_payload=100_000) as runtime:
        far = next(name for name in "abcdef" if runtime.host.shard_of(name) != runtime.host.shard_of("t"))
        pages = each(page, list(range(1_200)))
        run = await runtime.send("t", pages >> [count(result()), at(far, count(result())), counts(results())] >> a())
        assert await run.handles["count"].result(PATIENCE) == await run.handles["count.2"].result(PATIENCE) == 1_200
        assert await run.handles["counts"].result(PATIENCE) == [1_200]
        assert len(await runtime.ask("t", each(page, list(range(1_200))), timeout=PATIENCE)) == 1_200
        kept = list(db.scan_iter("*:plugin:fairactor_dependencies:got:*"))
        assert len(kept) == 2
        assert all(db.ttl(key) > 86_400 for key in kept)
        assert not list(db.scan_iter("*:plugin:fairactor_dependencies:late"))
        await db_flush_lists(db)
        late = await runtime.send(
            far,
            count(result_of(run.handles["fairactor_dependencies.join"])),
            depends_on=[run.handles["fairactor_dependencies.join"]],
        )
        with pytest.raises(TaskFailed, match="are not kept any more"):
            await late.result(PATIENCE)


async def db_flush_lists(db: redis.Redis) -> None:
    for key in db.scan_iter("*:plugin:fairactor_dependencies:got:*"):
        db.delete(key)


@actor(max_retries=0)
async def odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(number)
    return number


@actor
async def numbers(many: int) -> list[int]:
    return list(range(many))


@pytest.mark.parametrize(
    ("rule", "items", "expected"),
    [
        ("one_success", [0, 1, 2], [None, 1, None]),
        ("one_success", [0, 2], TaskCanceled),
        ("one_success", [], []),
        ("one_failed", [1, 3], []),
        ("one_failed", [0], [None]),
        ("none_failed", [1], [1]),
        ("none_failed", [0], TaskCanceled),
        ("all_done", [0, 2], [None, None]),
    ],
)
async def test_the_rule_of_a_join_counts_the_items_alone(
    make: Make, rule: Any, items: list[int], expected: Any
) -> None:
    async with make(odd, workers=1) as runtime:
        run: Any = await runtime.send("t", each(odd, items).options(trigger_rule=rule))
        if expected is TaskCanceled:
            with pytest.raises(TaskCanceled, match=rf"trigger rule {rule}\)"):
                await run.result(PATIENCE)
        elif rule == "one_failed" and not expected:
            await run.wait(PATIENCE)
            assert await run.result(PATIENCE) == []
        else:
            assert await run.result(PATIENCE) == expected


async def test_each_takes_a_step_or_any_sequence(make: Make) -> None:
    async with make(odd, numbers) as runtime:
        assert await runtime.ask("t", each(odd, range(1, 5, 2)), timeout=PATIENCE) == [1, 3]
        mapped = each(odd, numbers(2)).options(trigger_rule="all_done")
        assert await runtime.ask("t", mapped, timeout=PATIENCE) == [None, 1]


@pytest.mark.parametrize("items", [{"a": 1}, "abc", b"abc", 5, {1, 2}, iter([1])])
def test_each_of_what_is_no_list_is_refused_at_the_call(items: Any) -> None:
    with pytest.raises(TypeError, match=r"each\(odd, …\) needs a list of items, and got .*: give list\(…\)"):
        each(odd, items)
    with pytest.raises(TypeError, match=r"needs an actor: decorate the function with @actor"):
        each(len, [1])  # type: ignore[arg-type]
