"""The command ``send``: sends a message to a tenant, for an actor that is known by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import click

from .connect import Connection
from .exits import PROBLEM
from .group import meant
from .options import connection_options, duration, output_options
from .output import Output
from .text import visible

if TYPE_CHECKING:
    from fairactor import Handle, Message
    from fairactor.runtime import Runtime


@attrs.frozen
class _Wanted:
    tenant: str
    message: Message[Any]
    wait: bool
    timeout: float | None


@click.command()
@click.argument("tenant")
@click.argument("actor")
@click.argument("arguments", metavar="JSON", default="[]")
@connection_options
@output_options
@click.option("--id", "task_id", metavar="ID", help="The id of the task; sending it again has no effect.")
@click.option("--delay", type=duration, help="Run it after this time, such as 30s or 2h.")
@click.option("--priority", metavar="NAME", help="very_low, low, normal, high, very_high or critical.")
@click.option("--queue", metavar="NAME", help="The queue; what @actor says of it is not known here.")
@click.option("--key", metavar="KEY", help="Of tasks with the same key only one waits or runs.")
@click.option("--retries", type=int, help="How many more attempts it gets if it fails.")
@click.option("--expires", type=duration, help="Do not run it later than this after the send.")
@click.option("--wait", is_flag=True, help="Wait for the result, and print it.")
@click.option("--timeout", type=duration, help="How long to wait for the result.")
def send(
    tenant: str,
    actor: str,
    arguments: str,
    connection: Connection,
    output: Output,
    wait: bool,  # noqa: FBT001 - click gives options by name
    timeout: float | None,
    **options: Any,
) -> int | None:
    r"""Send a message to a tenant.

    JSON is a list of positional arguments, or an object of arguments by name; - reads it from the standard input.
    The actor's code is not here, so what @actor says of queue=, priority=, limits= and key= does not apply.

    \b
    fairactor send acme bill '[7, "EUR"]' --wait
    fairactor send acme bill '{"order": 7}' --delay 10m --id order-7
    """
    args, kwargs = _arguments(arguments)
    names = {"task_id": "id", "retries": "max_retries"}
    given = {names.get(name, name): value for name, value in options.items() if value is not None}
    from fairactor import Message

    message = Message.for_actor(actor, *args, **kwargs).options(**given)
    return connection.run(
        partial(_send, _Wanted(tenant, message, wait or timeout is not None, timeout), output), patient=True
    )


async def _send(wanted: _Wanted, output: Output, runtime: Runtime) -> int | None:
    _warn_if_unknown(output, wanted.message.actor.name, runtime, (await runtime.stats()).runtimes)
    handle = await runtime.send(wanted.tenant, wanted.message)
    record = {"id": handle.id, "tenant": wanted.tenant, "duplicate": handle.duplicate}
    if wanted.wait:
        return await _print_result(handle, wanted.timeout, output, record)
    output.say(handle.id + (" (an earlier task with this key)" if handle.duplicate else ""), record=record)
    return None


async def _print_result(
    handle: Handle[Any], seconds: float | None, output: Output, record: dict[str, Any]
) -> int | None:
    if not output.json:
        output.note(f"sent {handle.id}, waiting for its result")
    try:
        result = await handle.result(seconds)
    except TimeoutError:
        output.note(f"no result of {handle.id} after {seconds:g} s; the task goes on: fairactor tasks show {handle.id}")
        return PROBLEM
    if output.json:
        output.write([{**record, "result": result}])
    else:
        click.echo(json.dumps(result))
    return None


def _warn_if_unknown(output: Output, actor: str, runtime: Runtime, runtimes: Iterable[Any]) -> None:
    known = {name for each in runtimes for name in each.actors}
    if actor in known:
        return
    nobody = "no runtime has" if known else "no runtime runs here, so none has"
    kept = f"the task waits {runtime.settings.unknown_ttl:g} s for one that does, unless the runtimes say otherwise"
    output.note(f"warning: {nobody} an actor {visible(actor)!r}{meant(actor, known)}; {kept}")


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Reads the arguments.

    Raises:
        click.UsageError: they are neither a list nor an object of JSON.
    """
    given = sys.stdin.read() if text == "-" else text
    try:
        found = json.loads(given, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(
            f"the arguments are not JSON ({error}): give a list such as '[7, \"EUR\"]', or an object such as "
            "'{\"order\": 7}', in quotes"
        ) from None
    match found:
        case list():
            return found, {}
        case dict():
            return [], found
        case _:
            raise click.UsageError(
                f"the arguments are a {type(found).__name__}: give a list, as in '[7]', or an object of named arguments"
            )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
