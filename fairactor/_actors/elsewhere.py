"""Running handlers in worker processes."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from fairactor.errors import ConfigurationError, RemoteError

from .codec import Codec
from .retry import exception_names


class _Function(Protocol):
    """The part of an actor that is needed to run its function in a worker process."""

    name: str
    codec: Codec
    function: Callable[..., Any]
    process: bool
    __module__: str
    __qualname__: str


async def run_in_process(actor: _Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Runs a handler in a worker process, which imports it by name. Arguments and the result travel as JSON."""
    import anyio.to_process

    arguments = actor.codec.arguments_to_json(args, kwargs)
    try:
        reply = await anyio.to_process.run_sync(
            _process_main, actor.__module__, actor.__qualname__, arguments, cancellable=True
        )
    except anyio.BrokenWorkerProcess:
        message = f"{actor.name}(): its process ended before it returned: it crashed, exited, or was killed"
        raise anyio.BrokenWorkerProcess(message) from None
    return actor.codec.result_from_json(reply)


def _process_main(module: str, qualname: str, arguments: tuple[list[Any], dict[str, Any]]) -> bytes:
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group; the runtime decides when to stop
        signal.signal(number, signal.SIG_IGN)
    found: Any = __import__(module, fromlist=["_"])
    for part in qualname.split("."):
        found = getattr(found, part)
    if not getattr(found, "process", False):
        raise ConfigurationError(
            f"{module}.{qualname} is not an actor there, so it cannot run in a worker process: decorate it where it is "
            "defined"
        )
    try:
        args, kwargs = found.codec.arguments_from_json(*arguments)
        result: bytes = found.codec.result_to_json(found.function(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - any error is reported to the runtime
        raise _portable(error) from None
    return result


def _portable(error: Exception) -> Exception:
    """Returns the error, or a `RemoteError` if it cannot be pickled, with the traceback as a note."""
    import pickle

    trace = "".join(traceback.format_tb(error.__traceback__))
    try:
        carried: Exception = pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled in this line
    except Exception:  # noqa: BLE001 - many exceptions cannot be rebuilt from their arguments
        carried = RemoteError(str(error), exception_names(error))
    carried.add_note(f"In the process of the handler:\n{trace}")
    return carried
