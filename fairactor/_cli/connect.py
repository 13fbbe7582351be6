"""Opens a runtime that runs no tasks, on a namespace that exists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click

from fairactor.errors import ConfigurationError, NamespaceMismatch, ServerUnavailable

if TYPE_CHECKING:
    from fairactor.runtime import Runtime

T = TypeVar("T")
_VARIABLE: Final = "FAIRACTOR_URL"
_TIMEOUT: Final = 5.0  # seconds to try to reach the server, as in Settings
_LOOK_AGAIN: Final = 0.1  # seconds


@attrs.frozen
class Connection:
    """Where the namespace is: what the options ``--url``, ``--namespace``, ``--config`` and ``--worker`` say."""

    url: str | None = attrs.field(default=None, repr=False)  # it may contain a password
    namespace: str | None = None
    config: Path | None = None
    worker: str | None = None

    def run(self, work: Callable[[Runtime], Awaitable[T]], *, timeout: float | None = None, patient: bool = False) -> T:
        """Runs an async function with an entered runtime, which runs no tasks; returns what it returns.

        Args:
            work: the function.
            timeout: the seconds to try to reach the server; None uses the setting ``connect_timeout``.
            patient: whether to wait as long for a namespace that does not exist: its first runtime may just start.
        """

        async def run() -> T:
            async with self.open(timeout=timeout, patient=patient) as runtime:
                return await work(runtime)

        return asyncio.run(run())

    def ping(self, *, timeout: float) -> None:
        """Checks that the server answers and has the namespace; raises as `open`."""
        asyncio.run(_aging_of(self.settings() | {"connect_timeout": timeout}))

    @asynccontextmanager
    async def open(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it becomes a setting
        patient: bool = False,
    ) -> AsyncIterator[Runtime]:
        """Enters a runtime, which runs no tasks; see `run`.

        Raises:
            click.UsageError: no server is given.
            NamespaceMismatch: the namespace does not exist, so nothing is created by mistake; or as `Runtime`.
            ServerError: as `Runtime`.
        """
        from fairactor.runtime import Runtime

        settings = self.settings()
        if timeout is not None:
            settings["connect_timeout"] = timeout
        until = time.monotonic() + (settings["connect_timeout"] if patient else 0)
        while True:
            try:
                settings |= {"workers": 0, "aging": await _aging_of(settings)}
                break
            except NamespaceMismatch:
                if time.monotonic() >= until:
                    raise
            await asyncio.sleep(_LOOK_AGAIN)
        async with Runtime(**settings) as runtime:
            yield runtime

    def settings(self) -> dict[str, Any]:
        """Returns the settings for a `Runtime` that the options, and the file that they name, give."""
        from fairactor.config import load

        flags = {"url": self.url, "namespace": self.namespace}
        given = {name: value for name, value in flags.items() if value is not None}
        found = load(self.config, worker=self.worker, flags=given).settings
        if not found.url:
            of_path = " (a command cannot use the embedded server of path = …)" if found.path is not None else ""
            raise click.UsageError(f"give the server: --url redis://HOST, or the variable {_VARIABLE}{of_path}")
        return {"url": found.url, "namespace": found.namespace, "connect_timeout": found.connect_timeout}


async def _aging_of(settings: dict[str, Any]) -> float:
    """Returns the setting ``aging`` with which the namespace was created."""
    from fairactor._model.keys import Keys
    from fairactor._server.calls import Away
    from fairactor._server.connection import connect

    namespace = settings["namespace"]
    meta = Keys(namespace).meta
    timeout = settings.get("connect_timeout", _TIMEOUT)
    server = await connect(settings["url"], timeout=timeout, answer=timeout / 2, source="--url or FAIRACTOR_URL")
    try:
        step = await server.calls.execute(meta, "HGET", meta, "step")
    except Away as error:
        raise ServerUnavailable(f"no answer from {server.where}: {error}") from None
    finally:
        await server.close()
    if step is None:
        raise NamespaceMismatch(
            f"there is no namespace {namespace!r} at {server.where}: check --namespace. The first runtime of a service "
            "creates it"
        )
    try:
        return int(step) / 1e6
    except ValueError:
        raise ConfigurationError(f"the namespace {namespace!r} at {server.where} was damaged: repair it") from None
