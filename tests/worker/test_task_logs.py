"""Tests what is kept of the logs of a task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
import redis

from fairactor import Runtime, TaskCanceled, TaskFailed, actor, current_task
from fairactor._actors.task_log import TaskLog
from fairactor._model import record
from fairactor._model.task_logs import read_logs, with_logs
from fairactor.errors import ConfigurationError
from tests.support import process_actors
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio

Make = Callable[..., Runtime]
log = logging.getLogger("tests.task_logs")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    log.setLevel(logging.DEBUG)
    yield
    log.setLevel(logging.NOTSET)


@actor(max_retries=1, backoff=0.01)
async def second_time(word: str) -> str:
    log.info("%s %d", word, current_task().attempt)
    log.debug("not kept")
    if current_task().attempt == 1:
        raise ValueError("first")
    return word


@actor
async def fails() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception("wrong")
    raise ValueError("bad")


@actor
def many(count: int) -> None:
    for number in range(count):
        log.warning("line %d", number)


@actor
async def long(text: str) -> None:
    log.info("%s", text)


@actor(batch=10)
async def together(number: list[int]) -> list[None]:
    log.info("%d together", len(number))
    return [None] * len(number)


async def run(runtime: Runtime, message: Any) -> list[tuple[str, int]]:
    handle = await runtime.send("acme", message)
    with suppress(TaskFailed):
        await handle.result(timeout=PATIENCE)
    return [(line.message, line.attempt) for line in await handle.logs()]


async def test_nothing_is_kept_unless_it_is_asked_for(make_runtime: Make, db: redis.Redis) -> None:
    handlers = list(logging.getLogger().handlers)
    async with make_runtime(second_time) as runtime:
        assert await run(runtime, second_time("a")) == []
        assert logging.getLogger().handlers == handlers
        (key,) = db.keys("*:task:*")
        assert b'{"logs"' not in db.get(key)


async def test_all_attempts_are_kept_with_the_task(make_runtime: Make) -> None:
    handlers = list(logging.getLogger().handlers)
    async with make_runtime(second_time, task_logs=1000) as runtime:
        handle = await runtime.send("acme", second_time("word"))
        assert await handle.result(timeout=PATIENCE) == "word"
        lines = await handle.logs()
        assert [(line.message, line.attempt) for line in lines] == [("word 1", 1), ("word 2", 2)]
        assert {(line.level, line.logger) for line in lines} == {("INFO", "tests.task_logs")}
        assert abs((datetime.now(UTC) - lines[0].at).total_seconds()) < PATIENCE
        assert (await runtime.task(handle.id)).logs == tuple(lines)
        info = await handle.info()
        assert [attempt.error for attempt in info.history] == ["ValueError"]
    assert logging.getLogger().handlers == handlers


async def test_a_failed_task_keeps_its_logs_also_when_it_is_redriven(make_runtime: Make) -> None:
    async with make_runtime(fails, task_logs=4000) as runtime:
        handle = await runtime.send("acme", fails())
        for times in (1, 2):
            with pytest.raises(TaskFailed):
                await handle.result(timeout=PATIENCE)
            lines = await handle.logs()
            assert [line.message.splitlines()[0] for line in lines] == ["wrong"] * times
            assert "ZeroDivisionError: division by zero" in lines[0].message
            assert [each.error for each in (await handle.info()).history] == ["ValueError"] * times
            if times == 1:
                await handle.redrive()


async def test_the_last_lines_are_kept(make_runtime: Make) -> None:
    async with make_runtime(many, task_logs=400) as runtime:
        first, *lines = await run(runtime, many(30))
        assert lines == [(f"line {number}", 1) for number in range(30 - len(lines), 30)]
        assert first == (f"({30 - len(lines)} lines before were not kept)", 1)


@pytest.mark.parametrize("text", ["x" * 5000, "é\n" * 5000, "\x00\u202e" * 3000, '"\\' * 3000, "😀" * 3000])
async def test_a_long_line_is_cut_off(make_runtime: Make, db: redis.Redis, text: str) -> None:
    async with make_runtime(long, task_logs=500) as runtime:
        ((kept, _),) = await run(runtime, long(text))
        assert kept.endswith("…")
        assert text.startswith(kept[:-1])
        assert len(kept) > 20
        (key,) = db.keys("*:task:*")
        assert db.strlen(key) < 700


def test_half_a_surrogate_pair_is_escaped() -> None:
    kept = TaskLog(1, 500, logging.INFO)
    kept.add(logging.makeLogRecord({"msg": "a\ud800b", "levelno": logging.INFO, "name": "\ud800"}))
    (line,) = read_logs(kept.added_to(b'["a"]'))
    assert (line.message, line.logger) == ("a\\ud800b", "\\ud800")


async def test_levels_threads_processes_and_batches(make_runtime: Make) -> None:
    async with make_runtime(second_time, many, task_logs=1000, task_logs_level="warning") as runtime:
        assert await run(runtime, second_time("a")) == []
        assert await run(runtime, many(1)) == [("line 0", 1)]
    logging.getLogger("tests.of.processes").setLevel(logging.INFO)
    async with make_runtime(together, process_actors.log, task_logs=1000) as runtime:
        assert await run(runtime, together(1)) == [("1 together", 1)]
        wanted, failed = await run(runtime, process_actors.log())
        assert wanted == ("wanted too", 1)
        assert failed[0].startswith("failed\nTraceback")


async def test_a_canceled_task_keeps_its_logs(make_runtime: Make) -> None:
    began = anyio.Event()

    @actor
    async def stays() -> None:
        log.info("began")
        began.set()
        await anyio.sleep_forever()

    async with make_runtime(stays, task_logs=1000) as runtime:
        handle = await runtime.send("acme", stays())
        await began.wait()
        await handle.cancel()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        assert [line.message for line in await handle.logs()] == ["began"]


async def test_others_logs_are_not_kept(make_runtime: Make) -> None:
    @actor
    async def quiet() -> None:
        logging.getLogger("fairactor.something").warning("of fairactor")

    async with make_runtime(quiet, task_logs=1000) as runtime:
        log.info("of nobody")
        assert await run(runtime, quiet()) == []


@pytest.mark.parametrize("settings", [{"task_logs": -1}, {"task_logs": 1 << 30}, {"task_logs_level": "loud"}])
def test_settings_that_cannot_be(settings: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        Runtime(**settings)


def test_damaged_lines_are_skipped() -> None:
    body = b'["a",[],{}]\n{"logs":[[1,2.0,"INFO","x","ok"],[1],"x",[1,1e300,"INFO","x","late"]],"dropped":0}'
    assert [line.message for line in read_logs(body)] == ["ok"]
    assert read_logs(b'["a"]\n{"logs":nothing}') == []
    assert read_logs(with_logs(b'["a"]\n{"logs":nothing}', [b'[1,2.0,"INFO","x","ok"]'], 0, 99))[0].message == "ok"
    assert record.decode_body(body, live=True)[2] == []


async def test_a_task_without_a_record_has_no_logs(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(many, task_logs=1000) as runtime:
        handle = await runtime.send("acme", many(1).options(result_ttl=0))
        await until(lambda: not db.keys("*:task:*"))
        with pytest.raises(LookupError):
            await handle.logs()
