"""The commands ``health`` and ``audit``: is everything all right?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .connect import Connection
from .exits import OK, PROBLEM
from .options import connection_options, duration, output_options
from .output import Output, Text
from .text import count
from .text import duration as shown_duration

if TYPE_CHECKING:
    from fairactor.runtime import Runtime


@click.command()
@connection_options
@output_options
@click.option("--live", is_flag=True, help="Only say that this container can run a program; do not ask the server.")
@click.option("--ready", is_flag=True, help="Only check that the server answers and the namespace can be used.")
@click.option("--timeout", type=duration, default=5.0, show_default="5s", help="How long to try to reach the server.")
def health(connection: Connection, output: Output, live: bool, ready: bool, timeout: float) -> int:  # noqa: FBT001 - click gives options by name
    """Say whether the tasks are being served, and the problems if not.

    The exit code is 0 if all is well, 1 if there are problems, and 3 if the server is away or refuses.

    Use --live for liveness probes: a probe that asks the server would restart all containers when the server is away
    for a while, which makes nothing better. Use --ready for readiness probes.
    """
    if live and ready:
        raise click.UsageError("give --live or --ready, not both")
    if live:
        output.say("live", record={"live": True})
        return OK
    if ready:
        connection.ping(timeout=timeout)
        output.say("ready", record={"ready": True})
        return OK
    return connection.run(lambda runtime: _health(runtime, output), timeout=timeout)


async def _health(runtime: Runtime, output: Output) -> int:
    found = await runtime.health()
    if output.json:
        output.write([{"ok": found.ok, "problems": found.problems, "notes": found.notes, "latency": found.latency}])
        return OK if found.ok else PROBLEM
    parts = [Text(f"problem: {problem}", "red") for problem in found.problems]
    parts += [Text(f"note: {note}", "dim") for note in found.notes]
    answered = f"the server answers in {shown_duration(found.latency)}"
    if found.ok:
        assert found.stats is not None  # noqa: S101 - otherwise there is a problem
        parts.append(Text(f"ok: {answered}, {count(len(found.stats.runtimes), 'runtime')}", "green"))
    output.show(*parts)
    return OK if found.ok else PROBLEM


@click.command()
@connection_options
@output_options
def audit(connection: Connection, output: Output) -> int:
    """Check that all data of a namespace is consistent. It reads the whole namespace.

    The server answers nobody else while it reads a shard, so use this on a copy, or where little is stored. Anything it
    finds is a bug of fairactor, or keys that were changed by hand: `await runtime.repair()` repairs them.
    """

    async def check(runtime: Runtime) -> int:
        from fairactor.testing import InvariantViolation, check_invariants

        try:
            await check_invariants(runtime)
        except InvariantViolation as violation:
            if output.json:
                output.write({"finding": each} for each in violation.violations)
            else:
                output.show(*(Text(each, "red") for each in violation.violations))
            return PROBLEM
        output.say(f"ok: the data of {runtime.settings.namespace} is consistent")
        return OK

    return connection.run(check)
