"""An option of a plugin that does not ship with fairactor is a value, which knows its type."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, assert_type

from fairactor import Handle, Message, Runtime, Task, actor
from fairactor.plugins import Addressed, Host, Option, OptionValue, Placeholder, ProceedExecute, ProceedSend

NAME = "mail"


def _addresses(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


cc = Option("cc", plugin=NAME, convert=_addresses)
note = Option[str]("note", plugin=NAME)


@actor(cc("ops@example.org"), note("monthly"), timeout=3)
async def report(month: int) -> str:
    return str(month)


class Mail:
    name = NAME
    only_with = ("cc",)

    @property
    def scripts(self) -> Mapping[str, str]:
        return {}

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        assert_type(await host.runtime.ask("acme", report(1)), str)
        yield

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        return await proceed([(tenant, message.rewritten(plugin_options={"cc": []})) for tenant, message in messages])

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        return await proceed() if "cc" in task.options else None

    def dead(self, task: Task, error: BaseException) -> None: ...


class Today(Placeholder):
    def __init__(self) -> None:
        self.token = "today"


def decorators() -> None:
    @actor(cc(3))  # flagged
    async def wrong_value() -> None: ...

    @actor(cc="ops@example.org")  # flagged
    async def as_a_keyword() -> None: ...


async def options(runtime: Runtime) -> None:
    Runtime(actors=[report], plugins=[Mail()])
    assert_type(cc("ops@example.org"), OptionValue)
    assert_type(report(1).options(cc(["a@example.org"]), delay=5), Message[str])
    assert_type(await runtime.send("acme", report(1), cc("ops@example.org"), delay=5), Handle[str])
    assert_type(await runtime.ask("acme", report(1), cc("ops@example.org"), timeout=5), str)
    await runtime.tenant("acme").send(report(1), cc("ops@example.org"))

    cc(3)  # flagged
    note(["monthly"])  # flagged
    report(1).options(cc)  # flagged
    report(1).options(cc("a@example.org"), dealy=1)  # flagged
    await runtime.send("acme", report(1), "ops@example.org")  # flagged
