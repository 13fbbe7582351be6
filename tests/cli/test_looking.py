"""Tests ``stats``, ``health``, ``audit``, ``queues``, ``workers`` and ``history``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import redis

from fairactor import Runtime

from .conftest import HOSTILE, Run, bill


def needs(method: str) -> Any:
    """Skips a test as long as a method of the read model is not there."""
    return pytest.mark.skipif(
        "NotImplementedError" in inspect.getsource(getattr(Runtime, method)), reason=f"Runtime.{method} is not there"
    )


async def send_some(runtime: Runtime) -> None:
    for number in range(3):
        await runtime.send("acme", bill(number))
    await runtime.send(HOSTILE, bill(1), queue="slow")
    await runtime.send("acme", bill(1), delay=3600)


def test_stats(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    lines = dict(line.rsplit("  ", 1) for line in run("stats").out.splitlines())
    found = {name.strip(): value for name, value in lines.items()}
    assert (found["namespace"], found["queued"], found["scheduled"], found["workers"]) == ("fairactor", "4", "1", "0")
    record = run("stats", "--json").record
    assert (record["queued"], record["by_priority"]["normal"], record["runtimes"]) == (4, 4, 0)


def test_health(run: Run, prepare: Callable[..., Any], beside: Callable[..., Any]) -> None:
    prepare(send_some)
    done = run("health", code=1)
    assert "problem: 4 tasks wait, but no runtime with workers is running" in done.out
    record = run("health", "--json", code=1).record
    assert record["ok"] is False
    assert record["problems"]
    assert beside(lambda: run("health"), bill).out.startswith("ok: the server answers in ")


def test_probes(run: Run, prepare: Callable[..., Any], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("health", "--ready", code=3).err.startswith("fairactor health: there is no namespace")
    prepare(send_some)
    assert run("health", "--ready").out == "ready\n"
    assert run("health", "--ready", "--json").record == {"ready": True}
    assert run("health", "--live", "--url", "redis://nowhere.invalid").out == "live\n"
    assert "not both" in run("health", "--live", "--ready", code=2).err


def test_audit(run: Run, prepare: Callable[..., Any], db: redis.Redis) -> None:
    prepare(send_some)
    assert run("audit").out == "ok: the data of fairactor is consistent\n"
    db.zadd("{fairactor/0}:queue:acme", {"a\x1b[2Jghost": 1})
    done = run("audit", code=1)
    assert "a\\x1b[2Jghost" in done.out
    assert len(done.out.splitlines()) == len(run("audit", "--json", code=1).records)


@needs("queues")
def test_queues(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    found = {record["queue"]: record for record in run("queues", "--json").records}
    assert found["slow"]["backlog"] == 1
    assert found["default"]["backlog"] == 3
    assert "slow" in run("queues").out


@needs("workers")
def test_workers(run: Run, prepare: Callable[..., Any], beside: Callable[..., Any]) -> None:
    prepare(send_some)
    assert run("workers").out == "no runtime runs tasks\n"
    record = beside(lambda: run("workers", "--json"), bill).record
    assert (record["workers"], record["size"], "bill" in record["actors"]) == (10, 10, True)
    assert "RUNTIME" in beside(lambda: run("workers", "--tasks", "5"), bill).out


@needs("history")
def test_history(run: Run, beside: Callable[..., Any], prepare: Callable[..., Any]) -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.send_many([("acme", bill(1)), ("acme", bill(2))])
        await runtime.drain(5)

    prepare(work, bill)
    records = run("history", "--json").records
    assert sum(record["finished"] for record in records) == 2
    by_actor = run("history", "--by", "actor").out.splitlines()
    assert by_actor[0].startswith("ACTOR")
    assert any(line.startswith("bill") for line in by_actor[1:])
    assert "--name needs --by" in run("history", "--name", "bill", code=2).err
