"""Upgrades fairactor under load, and back: ``python -m tests.chaos.upgrade [--before COMMIT]``. It needs git.

Workers and senders of the release before, taken from the repository's history, and of this one share a namespace. While
both kinds of senders send, workers of either release start, leave and are killed. At the end every accepted task must
have finished, the caps of tenants must have held, and the audit must find nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from fairactor import Runtime, TaskState
from fairactor._model.record import SETTLED
from fairactor.testing import InvariantViolation, check_invariants
from tests.support import servers
from tests.support.polling import until

from .auditor import direct_driver
from .upgrade_sender import CAPPED, send_until

ROOT: Final = Path(__file__).parents[2]
BEFORE: Final = "d037148"
"""The last commit of the release before."""
_SETTINGS: Final[dict[str, Any]] = {"lease": 1.0, "workers": 4, "grace": 2.0, "max_deliveries": 255}
_PAUSE: Final = 0.7  # seconds between two steps of the deployment
_PATIENCE: Final = 40.0
_STEPS: Final = (
    ("start", "new"), ("kill", "old"), ("start", "old"), ("stop", "new"), ("start", "new"), ("kill", "new"),
    ("start", "new"), ("stop", "old"), ("stop", "old"),
)  # fmt: skip
"""A deployment, and some ways back. It begins with two old workers, and ends with new ones only."""


def export(commit: str, folder: Path) -> None:
    """Writes the files of a commit into a folder.

    Raises:
        FileNotFoundError: there is no git, or no repository with this commit.
    """
    if shutil.which("git") is None:
        raise FileNotFoundError("git is not installed")
    command = ["git", "-C", str(ROOT), "archive", commit, "fairactor", "plugins", "tests"]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode:
        raise FileNotFoundError(f"this is no repository with {commit}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


class Process:
    """A process of one of the releases. It says "ready" on a line of its own."""

    def __init__(self, tree: Path, command: Sequence[str], log: Path) -> None:
        path = os.pathsep.join([str(tree), *map(str, (tree / "plugins").glob("*"))])
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=tree,
                env=os.environ | {"PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=file,
            )

    async def line(self) -> str:
        """Returns the next line that it says."""
        assert self._process.stdout is not None
        return (await anyio.to_thread.run_sync(self._process.stdout.readline)).decode().strip()

    async def end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        await anyio.to_thread.run_sync(self._process.wait)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Upgrade:
    """A namespace that both releases use."""

    def __init__(self, url: str, trees: dict[str, Path], folder: Path, stack: ExitStack) -> None:
        self._url = url
        self._trees = trees
        self._folder = folder
        self._stack = stack
        self._workers: dict[str, list[Process]] = {"old": [], "new": []}
        self._logs = 0
        self._killed = 0

    async def run(self) -> list[str]:
        """Runs it, and returns what is wrong."""
        for _ in range(2):
            await self._start("old")
        sender = self._begin("old", [str(Path(__file__).parent / "upgrade_sender.py"), self._url])
        assert await sender.line() == "ready", self._log_of("sender")
        async with Runtime(self._url, **{**_SETTINGS, "workers": 0}) as runtime:
            accepted: list[str] = []
            ends = anyio.Event()
            async with anyio.create_task_group() as group:
                group.start_soon(partial(send_until, runtime, "new", ends, accepted))
                for what, release in _STEPS:
                    await anyio.sleep(_PAUSE)
                    await self._step(what, release)
                await anyio.sleep(_PAUSE)
                ends.set()
            await sender.end(signal.SIGTERM)
            accepted += json.loads(await sender.line())
            return await self._check(runtime, accepted)

    def _begin(self, release: str, command: list[str]) -> Process:
        self._logs += 1
        process = Process(self._trees[release], command, self._folder / f"{self._logs}.log")
        self._stack.callback(process.kill)
        return process

    def _log_of(self, what: str) -> str:
        return f"{what} did not start: " + (self._folder / f"{self._logs}.log").read_text()[-2000:]

    async def _start(self, release: str) -> None:
        process = self._begin(release, ["-m", "tests.support.service", self._url, json.dumps(_SETTINGS)])
        assert await process.line() == "ready", self._log_of("a worker")
        self._workers[release].append(process)

    async def _step(self, what: str, release: str) -> None:
        _say(f"{what} {release}")
        if what == "start":
            await self._start(release)
        else:
            process = self._workers[release].pop(0)
            self._killed += what == "kill"
            await process.end(signal.SIGTERM if what == "stop" else signal.SIGKILL)

    async def _check(self, runtime: Runtime, accepted: list[str]) -> list[str]:
        with anyio.move_on_after(_PATIENCE):
            await runtime.drain()
        found: list[str] = []
        records = direct_driver(self._url).snapshot().records
        states = Counter(SETTLED.get(records[task].state) if task in records else "lost" for task in accepted)
        if states != Counter({TaskState.FINISHED: len(accepted)}):
            found.append(f"{len(accepted)} tasks were accepted, and are {dict(states)}")
        stats = await runtime.stats()
        if stats.finished != len(accepted):
            found.append(f"{stats.finished} tasks are counted as finished, and {len(accepted)} were accepted")
        with servers.client(self._url) as db:
            runs: Any = db.llen("runs")
            most: Any = [int(n) for tenant in CAPPED for n in db.lrange(f"at once {tenant}", 0, -1)]
        _say(f"{len(accepted)} tasks accepted by both releases, {runs} runs of those without a cap")
        try:
            await until(partial(_is_clean, runtime), 5)
        except (InvariantViolation, TimeoutError, AssertionError) as error:
            found.append(f"audit: {error}")
        if max(most) > 1 + self._killed:  # what a killed worker ran counts for ever there
            found.append(f"{max(most)} tasks of a tenant with a cap of 1 ran at once")
        return found


async def _is_clean(runtime: Runtime) -> bool:
    await check_invariants(runtime)
    return True


async def upgrade(binary: str, before: str) -> list[str]:
    """Runs the upgrade and returns what is wrong."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fairactor-test-")))
        old = folder / "before"
        old.mkdir()
        export(before, old)
        server = stack.enter_context(servers.instance(binary, *servers.LASTING))
        return await Upgrade(server.url, {"old": old, "new": ROOT}, folder, stack).run()


def main() -> int:
    """Runs the command line; returns 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.upgrade", description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="the commit of the release before (default: %(default)s)")
    parser.add_argument("--server", choices=servers.SERVERS, default="valkey", help="the server to run on")
    options = parser.parse_args()
    try:
        found = anyio.run(upgrade, servers.binary(options.server), options.before)
    except FileNotFoundError as error:
        _say(f"cannot run: {error}")
        return 2
    for text in found:
        _say(text)
    _say("FAILED" if found else "all as it must be")
    return 1 if found else 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program


if __name__ == "__main__":
    sys.exit(main())
