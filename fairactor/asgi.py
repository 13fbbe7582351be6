"""An ASGI application for the probes of Kubernetes and load balancers: ``/healthz`` and ``/readyz``.

It has no dependencies. Mount it into your application, or serve it by itself:

    app.mount("/", health_app(runtime))
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

import anyio

from ._util.checks import check_seconds
from .errors import FairactorError, RuntimeNotRunning

if TYPE_CHECKING:
    from .runtime import Runtime

__all__ = ["HealthApp", "health_app"]

logger: Final = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_OK: Final = 200
_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405
_UNAVAILABLE: Final = 503


def health_app(runtime: Runtime, *, timeout: float = 2.0, max_age: float = 1.0) -> HealthApp:
    """Returns an ASGI 3 application that answers probes about a runtime, with JSON.

    - ``/healthz``: 200, as long as the process lives and its event loop turns. It does not ask the server, so a server
      that is away restarts nothing.
    - ``/readyz``: 200 if the runtime is entered and the server answers in time, and 503 otherwise. However many probes
      come, the server is asked once in ``max_age`` seconds.

    Args:
        runtime: the runtime. It may be entered later; until then, and when it was left, it is not ready.
        timeout: the seconds in which the server has to answer.
        max_age: the seconds for which an answer is used again.

    Raises:
        ConfigurationError: a time is invalid.
    """
    return HealthApp(runtime, check_seconds("timeout", timeout, zero=False), check_seconds("max_age", max_age))


class HealthApp:
    """The application; see `health_app`."""

    def __init__(self, runtime: Runtime, timeout: float, max_age: float) -> None:
        self._runtime = runtime
        self._timeout = timeout
        self._max_age = max_age
        self._asking: anyio.Lock | None = None
        self._answer: dict[str, Any] = {}
        self._until = 0.0  # by the monotonic clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, as ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, send)
        else:
            raise ValueError(f"health_app answers HTTP requests, and no {scope['type']!r}")

    async def _respond(self, scope: Scope, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        probe = {"/healthz": self._healthz, "/readyz": self._readyz}.get(path)
        headers: list[tuple[bytes, bytes]] = []
        if probe is None:
            status, body = _NOT_FOUND, {"error": "there are /healthz and /readyz"}
        elif scope["method"] not in {"GET", "HEAD"}:
            status, body = _NOT_ALLOWED, {"error": "use GET or HEAD"}
            headers.append((b"allow", b"GET, HEAD"))
        else:
            status, body = await probe()
        text = json.dumps(body).encode()
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(text)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})

    async def _healthz(self) -> tuple[int, dict[str, Any]]:
        return _OK, {"status": "ok"}

    async def _readyz(self) -> tuple[int, dict[str, Any]]:
        try:
            self._runtime.check()
        except RuntimeNotRunning as error:
            logger.debug("not ready: %s", error)
            return _UNAVAILABLE, {"ready": False, "problem": "the runtime is not running"}
        if self._asking is None:
            self._asking = anyio.Lock()
        async with self._asking:  # the others wait, and use the answer
            if time.monotonic() >= self._until:
                self._answer = await self._ask()
                self._until = time.monotonic() + self._max_age
        return (_OK if self._answer["ready"] else _UNAVAILABLE), self._answer

    async def _ask(self) -> dict[str, Any]:
        """Asks the server. What it answers goes to the log: probes may come from anywhere."""
        began = time.monotonic()
        try:
            with anyio.fail_after(self._timeout):
                await self._runtime.stats()
        except TimeoutError:
            problem = f"the server has not answered for {self._timeout:g} s"
        except FairactorError as error:
            logger.warning("not ready: %s", error)
            problem = f"the server cannot be used ({type(error).__name__}); see the log"
        else:
            return {"ready": True, "seconds": round(time.monotonic() - began, 6)}
        return {"ready": False, "problem": problem}


async def _live(receive: Receive, send: Send) -> None:
    """Takes part in the start and the end of the application, and does nothing there."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
