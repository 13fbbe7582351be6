"""Settings, options and policies are spelled out: a checker finds a misspelled name and a value of a wrong type."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_type

from fairactor import Handle, Message, Policy, Priority, Retry, Runtime, actor
from fairactor.settings import RuntimeSettings, Settings


@actor(
    priority="high",
    timeout=timedelta(seconds=30),
    max_retries=3,
    backoff=0.5,
    backoff_cap=timedelta(minutes=1),
    retry_on=(OSError, TimeoutError),
    no_retry_on=ValueError,
    result_ttl=3600,
    expires=60,
    key_window=5,
    durability="replicated",
    queue="gpu",
    version=2,
    trigger_rule="all_done",
    xcom="page",
)
async def render(page: int, scale: float = 1.0) -> str:
    return f"{page} {scale}"


@actor(process=True, name="pack")
def compress(data: bytes) -> bytes:
    return data


@actor()
async def nothing() -> None: ...


def runtimes() -> None:
    Runtime()
    Runtime(
        "redis://localhost",
        actors=[render, compress],
        workers=8,
        threads=16,
        processes=2,
        lease=5,
        fair_by="time",
        queues=["gpu", "default"],
        durability="server",
        tracing="parent",
    )
    Runtime(path=Path("data"), assigned=["acme"], steal=True, shards=None)
    shared: RuntimeSettings = {"namespace": "shop", "workers": 0}
    Runtime(**shared)
    Settings(workers=0, assigned={"acme"}, steal=["globex"])

    Runtime(worker=3)  # flagged
    Runtime(workers="3")  # flagged
    Runtime(threads="3")  # flagged
    Runtime(threads=None)
    Runtime(fair_by="size")  # flagged
    Runtime(durability="perhaps")  # flagged
    Runtime(tracing="children")  # flagged
    Runtime(assigned=True)  # flagged
    Runtime(queues=["gpu", 3])  # flagged
    Runtime(queues=None)
    Runtime(steal=7)  # flagged
    Runtime("redis://localhost", [render])  # flagged
    Runtime(plugins=[object()])  # flagged
    Runtime(actors=3)  # flagged
    wrong: RuntimeSettings = {"worker": 3}  # flagged
    Runtime(**wrong)


def decorators() -> None:
    @actor(max_retry=2)  # flagged
    async def misspelled() -> None: ...

    @actor(timeout="30s")  # flagged
    async def wrong_type() -> None: ...

    @actor(version="2")  # flagged
    async def wrong_version() -> None: ...

    @actor(queue=["gpu"])  # flagged
    async def several_queues() -> None: ...

    @actor(id="1")  # flagged
    async def with_an_id() -> None: ...

    @actor(trigger_rule="all")  # flagged
    async def unknown_rule() -> None: ...

    @actor(process="yes")  # flagged
    def wrong_flag() -> None: ...

    @actor(replace=1)  # flagged
    async def wrong_mode() -> None: ...


def retries() -> None:
    Retry("too many requests", delay=timedelta(seconds=3), count=False)

    Retry(count="no")  # flagged
    Retry(counts=False)  # flagged
    Retry(delay="3 s")  # flagged


def messages() -> None:
    message = render(1, scale=2).options(
        delay=timedelta(minutes=5), priority=Priority.CRITICAL, id="render-1", key="page 1", depends_on=["render-0"]
    )
    assert_type(message, Message[str])
    render(1).options(key="page 1", replace=True, delay=2)
    render(1).options(eta=datetime(2027, 1, 1, tzinfo=UTC), priority=None, retry_on=[OSError], max_retries=0)

    render()  # flagged
    render("1")  # flagged
    render(1, size=2)  # flagged
    render(1, 2, 3)  # flagged
    render(1).options(dealy=1)  # flagged
    render(1).options(timeout="30s")  # flagged
    render(1).options(queue=["gpu"])  # flagged
    render(1).options(version=2)  # flagged
    render(1).options(queue="gpu")
    render(1).options(eta="tomorrow")  # flagged
    render(1).options(priority="urgent")  # flagged
    render(1).options(max_retries=0.5)  # flagged
    render(1).options(retry_on="OSError")  # flagged
    render(1).options(depends_on=[1])  # flagged
    render(1).options(replace="yes")  # flagged
    render(1).options(5)  # flagged


async def sends(runtime: Runtime, handle: Handle[int]) -> None:
    await runtime.send("acme", render(1), delay=5, key="page 1")
    await runtime.send("acme", render(1), depends_on=[handle, "render-0"], xcom_run="nightly")
    await runtime.ask("acme", render(1), timeout=5, priority="low", id="render-1")
    await runtime.tenant("acme").send(render(1), delay=5)
    await runtime.tenant("acme").ask(render(1), timeout=5)

    await runtime.send("acme", render)  # flagged
    await runtime.send("acme", render(1), dealy=5)  # flagged
    await runtime.send(7, render(1))  # flagged
    await runtime.send_many([render(1)])  # flagged
    await runtime.send_many([("acme", render)])  # flagged
    await runtime.ask("acme", render(1), timeout="x")  # flagged
    await runtime.ask("acme", render(1), timeout=timedelta(seconds=5))  # flagged
    await runtime.ask("acme", render(1), dealy=5)  # flagged
    await runtime.tenant("acme").send(render(1), dealy=5)  # flagged
    await runtime.tenant("acme").ask(render(1), timeout="x")  # flagged


async def policies(runtime: Runtime) -> None:
    tenant = runtime.tenant("acme")
    assert_type(await tenant.configure(weight=2, concurrency=4, rate="10/s", burst=20, backlog=100), Policy)
    await tenant.configure(concurrency=math.inf, rate=None, group="free")
    await runtime.policies.configure_defaults(weight=1.5, backlog=None)

    await tenant.configure(wieght=2)  # flagged
    await tenant.configure(concurrency="4")  # flagged
    await tenant.configure(paused=True)  # flagged
    await tenant.configure(group=3)  # flagged
    await runtime.policies.configure_defaults(group="free")  # flagged
    await runtime.policies.configure_defaults(wieght=2)  # flagged
