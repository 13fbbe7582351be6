"""Tests stored records, outcomes and values that cannot be decoded, and payloads that could not be read back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import anyio
import pytest
import redis
from fairactor_xcom import Values, xcom

from fairactor import Runtime, TaskFailed, TaskInfo, TaskState, actor, current_task
from fairactor._model.record import DEEPEST, too_deep
from fairactor.errors import InvalidPayload, NotSerializable, TaskNotFound
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

HEAD: Final = 16  # bytes of the header of a task whose tenant has one letter
DEEP: Final = b"[" * 3000 + b"]" * 3000
BODIES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "garbage": lambda body: b"garbage",
    "nothing": lambda body: b"",
    "another type": lambda body: b"[1]",
    "deep": lambda body: b'{"actor":"ok","result":' + DEEP + b"}",
    "bad UTF-8": lambda body: b'{"actor":"ok","result":"\xff"}',
    "cut off": lambda body: body[: len(body) // 2],
}
HEADERS: Final = {"no priority": b"X\0\0", "another state": b"Z\0\3", "cut off": b"X"}


@actor
async def ok(n: Any) -> Any:
    return n


@actor
async def fail(n: Any) -> None:
    raise ValueError(n)


def key(task_id: str) -> str:
    return f"{{fairactor/0}}:task:{task_id}"


def change_body(db: redis.Redis, task_id: str, change: Callable[[bytes], bytes]) -> None:
    packed = db.get(key(task_id))
    assert isinstance(packed, bytes)
    db.set(key(task_id), packed[:HEAD] + change(packed[HEAD:]), keepttl=True)


async def found(runtime: Runtime, **wanted: Any) -> list[TaskInfo]:
    return [letter async for letter in runtime.dead_letters.find(**wanted)]


# Outcomes


@pytest.mark.parametrize("damage", BODIES)
async def test_a_broken_outcome_fails_those_who_wait_for_it_only(
    make_runtime: Make, db: redis.Redis, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = anyio.Event()

    @actor
    async def wait() -> str:
        await release.wait()
        return "done"

    async with make_runtime(ok, wait) as runtime:
        broken = await runtime.send("t", ok(1))
        await broken.result(PATIENCE)
        change_body(db, broken.id, BODIES[damage])
        other = asyncio.ensure_future((await runtime.send("t", wait())).result(PATIENCE))
        for handle in [runtime.handle(broken.id, "t"), runtime.handle(broken.id)] * 4:
            with pytest.raises(InvalidPayload, match="cannot be decoded"):
                await handle.result(PATIENCE)
        with pytest.raises(TaskNotFound):
            await runtime.handle(broken.id, "mallory").result(PATIENCE)
        release.set()
        assert await other == "done"
        info = await broken.info()
        assert (info.id, info.tenant, info.state) == (broken.id, "t", TaskState.FINISHED)
    assert not [entry for entry in caplog.records if "restarting" in entry.message]


@pytest.mark.parametrize("where", ["inbox", "events", "worker's inbox"])
async def test_malformed_messages_are_dropped(
    make_runtime: Make, db: redis.Redis, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = b"kwcoxzm\0\xffdp"
    bodies = (b"", b"\xff", b"\0\1", b"\0\0" + b"L" * 40, b"\xff\xff" + bytes(30), bytes(17), bytes(18), b"\xff" * 300)
    messages = [b"", *(bytes([kind]) + body for kind in kinds for body in bodies)]
    async with make_runtime(ok) as runtime:
        (channel,) = [
            name
            for name in db.pubsub_channels("{fairactor/0}:*")
            if {"events": b":events" in name, "inbox": name.endswith(runtime.name.encode())}.get(
                where, b":inbox:" in name and b"/1" in name[-3:]
            )
        ]
        for message in messages:
            assert db.publish(channel, message) == 1
        assert [await runtime.ask("t", ok(n), timeout=PATIENCE) for n in range(3)] == [0, 1, 2]
    levels = [entry.levelno for entry in caplog.records if "is dropped" in entry.message]
    assert levels.count(logging.WARNING) <= len(kinds) + 1, "once for each kind"
    assert not [entry for entry in caplog.records if "restarting" in entry.message]
    if where != "events":
        assert logging.WARNING in levels


async def test_a_malformed_message_about_a_task_does_not_keep_its_outcome_away(
    make_runtime: Make, db: redis.Redis
) -> None:
    release = anyio.Event()

    @actor
    async def wait() -> str:
        await release.wait()
        return "done"

    async with make_runtime(wait) as runtime:
        handle = await runtime.send("t", wait())
        waiting = asyncio.ensure_future(handle.result(PATIENCE))
        await until(lambda: db.hlen("{fairactor/0}:watchers"))
        name = handle.id.encode()
        for packed in (b"", b"garbage", b"X" + bytes(30), b"F\0\3\0\1" + bytes(8) + b"\0\1t{broken"):
            db.publish(f"{{fairactor/0}}:inbox:{runtime.name}", b"o" + len(name).to_bytes(2, "big") + name + packed)
        await anyio.sleep(0.05)  # a fixed time: the messages have no visible effect
        assert not waiting.done()
        release.set()
        assert await waiting == "done"


# Dead letters


async def bury(runtime: Runtime, *tenants: str) -> list[str]:
    handles = []
    for n, tenant in enumerate(tenants):
        handles.append(handle := await runtime.send(tenant, fail(n)))
        with pytest.raises(TaskFailed):
            await handle.result(PATIENCE)
    return [handle.id for handle in handles]


@pytest.mark.parametrize("damage", BODIES)
async def test_an_unreadable_dead_letter_is_listed_redriven_and_deleted_like_others(
    make_runtime: Make, db: redis.Redis, damage: str
) -> None:
    async with make_runtime(fail) as runtime:
        before, broken, after, other = ids = await bury(runtime, "t", "t", "t", "u")
        change_body(db, broken, BODIES[damage])
        assert [letter.id for letter in await found(runtime)] == ids
        assert [letter.id for letter in await found(runtime, tenant="u")] == [other]
        assert [letter.id for letter in await found(runtime, tenant="t")] == [before, broken, after]
        assert [letter.id for letter in await found(runtime, actor="fail", error="ValueError")] == [
            before,
            after,
            other,
        ]
        info = await runtime.handle(broken, "t").info()
        assert info == (await found(runtime))[1]
        assert (info.id, info.tenant, info.state, info.attempt) == (broken, "t", TaskState.FAILED, 1)
        if damage not in {"deep", "bad UTF-8"}:  # an outcome's result is decoded when somebody wants it
            assert info.error is not None
            assert info.error.type == "fairactor.errors.InvalidPayload"
            assert "cannot be decoded" in info.error.message
            (same,) = await found(runtime, error="fairactor.errors.InvalidPayload")
            assert same == info
        await runtime.handle(broken, "t").redrive()
        with pytest.raises(TaskFailed, match="InvalidPayload"):
            await runtime.handle(broken, "t").result(PATIENCE)
        change_body(db, broken, BODIES[damage])
        assert await runtime.dead_letters.purge(tenant="u") == 1
        assert await runtime.dead_letters.redrive() == 3
        await until(partial(has_letters, runtime, 3))
        change_body(db, broken, BODIES[damage])
        assert await runtime.dead_letters.purge(tenant="t") == 3
        assert await runtime.dead_letters.count() == 0


async def has_letters(runtime: Runtime, number: int) -> bool:
    return await runtime.dead_letters.count() == number


@pytest.mark.parametrize("damage", HEADERS)
async def test_a_dead_letter_without_a_readable_header_can_be_deleted(
    make_runtime: Make, db: redis.Redis, damage: str
) -> None:
    async with make_runtime(fail) as runtime:
        before, broken = await bury(runtime, "t", "t")
        packed = db.get(key(broken))
        assert isinstance(packed, bytes)
        start = HEADERS[damage]
        db.set(key(broken), start + (packed[len(start) :] if len(start) > 1 else b""), keepttl=True)
        letters = await found(runtime)
        assert letters[0].id == before
        if damage != "another state":  # no dead letter at all
            assert letters[1].id == broken
            assert letters[1].error is not None
            assert letters[1].error.type == "fairactor.errors.InvalidPayload" or letters[1].tenant == "t"
        assert await runtime.dead_letters.redrive(tenant="nobody") == 0
        assert await runtime.dead_letters.purge() == len(letters)
        assert db.exists(key(before)) == 0
        assert await found(runtime) == []


# Nesting


def nested(levels: int, inside: Any = 1) -> Any:
    value = inside
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("levels", [DEEPEST + 1, 990, 3000, 100_000])
async def test_what_is_nested_too_deep_is_refused(make_runtime: Make, levels: int) -> None:
    @actor
    async def deep(levels: int) -> Any:
        return nested(levels)

    @actor
    async def push(levels: int) -> None:
        await xcom.push("k", nested(levels))

    async with make_runtime(ok, deep, push) as runtime:
        for send in (runtime.send, runtime.ask):
            with pytest.raises(NotSerializable, match="more than 200 levels"):
                await send("t", ok(nested(levels)))
        with pytest.raises(NotSerializable, match="more than 200 levels"):
            await runtime.send_many([("t", ok(1)), ("t", ok(nested(levels)))])
        for message in (deep(levels), push(levels)):
            with pytest.raises(TaskFailed, match=r"NotSerializable.*more than 200 levels"):
                await runtime.ask("t", message, timeout=PATIENCE)
        assert len(await found(runtime)) == 2
        assert (await runtime.stats()).queued == 0


async def test_what_is_accepted_can_be_read_back_wherever_the_stack_is_high(make_runtime: Make) -> None:
    value = nested(DEEPEST - 4, inside=["[{" * 500, '\\"[' * 300, {"[": "]"}])

    @actor
    async def push(value: Any) -> Any:
        await xcom.push("k", value, ttl=60)
        assert current_task().runtime is not None
        return value

    async def high(runtime: Runtime, levels: int) -> Any:
        if levels:
            return await high(runtime, levels - 1)
        handle = await runtime.send("t", push(value), xcom_run="r")
        assert await handle.result(PATIENCE) == value
        assert await Values(runtime, "t", "r").pull("k") == value
        broken = await runtime.send("t", fail(value))
        with pytest.raises(TaskFailed):
            await broken.result(PATIENCE)
        (letter,) = await found(runtime)
        return letter.args[0]

    async with make_runtime(push, fail) as runtime:
        assert await high(runtime, 300) == value


@pytest.mark.parametrize(
    ("encoded", "deep"),
    [
        (b"[" * DEEPEST + b"]" * DEEPEST, False),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), True),
        (b"[" + b",".join([b'{"a":[]}'] * 1000) + b"]", False),
        (b'"' + b"[" * 1000 + b'"', False),
        (b'["' + b'\\"[' * 1000 + b'"]', False),
        (b'["\\\\",' + b"[" * DEEPEST + b"]" * DEEPEST + b"]", True),
        (b'["' + b"]" * 1000 + b'",' + b"[" * DEEPEST + b"]" * DEEPEST + b"]", True),
        (b"", False),
    ],
)
def test_levels_are_counted_outside_of_strings(encoded: bytes, deep: Sequence[bool]) -> None:
    assert too_deep(encoded) is deep
