"""Tests `fairactor worker`: what it runs, what it refuses, and how it stops."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import redis

from fairactor import Message, Runtime, actor
from tests.support.cluster import free_ports
from tests.support.worker_commands import Commands

pytestmark = pytest.mark.anyio

APP = """
import logging
from fairactor import Runtime, actor

log = logging.getLogger("app")

@actor
async def bill(number: int) -> int:
    log.info("billing %d", number)
    return number

@actor(queue="slow")
async def later(number: int) -> None:
    log.info("later %d", number)

@actor(name="fails")
async def fails() -> None:
    raise ValueError("wrong")
"""

WAITS = """
import anyio, logging
from fairactor import actor

@actor
async def wait(seconds: float) -> None:
    logging.getLogger("app").info("waiting")
    await anyio.sleep(seconds)
    logging.getLogger("app").info("waited")
"""


@actor
async def bill(number: int) -> int: ...


@actor(queue="slow")
async def later(number: int) -> None: ...


@actor
async def fails() -> None: ...


@actor
async def wait(seconds: float) -> None: ...


@pytest.fixture
def commands(tmp_path: Path, url: str) -> Iterator[Commands]:
    made = Commands(tmp_path, url)
    made.write("app.py", APP)
    made.write("waits.py", WAITS)
    with made.closing():
        yield made


async def test_it_runs_the_actors_of_a_file(commands: Commands, url: str) -> None:
    command = commands.start("app.py", "--name", "billing")
    introduced = command.line("worker billing: 1 process on (.*), namespace fairactor, queues: all, actors: (.*)")
    assert introduced[2] == "bill, fails, later"
    command.ready()
    async with Runtime(url, workers=0) as runtime:
        assert [each.name.split(":")[0] for each in (await runtime.stats()).runtimes] == ["billing"]
        handle = await runtime.send("acme", bill(7))
        assert await handle.result(timeout=30) == 7
        line = command.line("billing 7")[0]
        assert line == "billing 7"
        assert f"[task={handle.id} tenant=acme actor=bill attempt=1]" in command.said[-1]
    command.signal(signal.SIGTERM)
    assert command.ended() == 0
    assert "Traceback" not in command.text


async def test_only_some_queues_are_served_and_records_are_json(commands: Commands, url: str) -> None:
    command = commands.start("app", "-q", "slow", "--log-format", "json", "--namespace", "other")
    command.line('"message": "process')
    async with Runtime(url, namespace="other", workers=0) as runtime:
        await runtime.send("acme\u202e\n", bill(1))
        handle = await runtime.send("acme\u202e\n", later(2))
        await handle.result(timeout=30)
        found = command.line('"later 2"').string
        record = json.loads(found)
        assert record["tenant"] == "acme\u202e\n"
        assert "\u202e" not in found
        assert (record["actor"], record["attempt"], record["task_id"]) == ("later", 1, handle.id)
        assert (await runtime.stats()).pending == 1
        command.signal(signal.SIGINT, group=True)
        assert command.ended() == 0
        await runtime.tenant("acme\u202e\n").purge()


@pytest.mark.parametrize(("failing", "code"), [(False, 0), (True, 1)])
async def test_until_drained(commands: Commands, url: str, failing: bool, code: int) -> None:
    async with Runtime(url, workers=0) as runtime:
        handles = [await runtime.send("acme", bill(number)) for number in range(3)]
        if failing:
            await runtime.send("acme", fails())
        command = commands.run("app", "--until-drained", "-p", "2")
        assert not (await runtime.stats()).pending
        assert [await handle.result(timeout=30) for handle in handles] == [0, 1, 2]
    assert command.ended() == code


async def test_a_signal_lets_running_tasks_end(commands: Commands, url: str) -> None:
    command = commands.start("waits", "-p", "2")
    command.ready(2)
    async with Runtime(url, workers=0) as runtime:
        handle = await runtime.send("acme", wait(0.5))
        command.line("waiting")
        command.signal(signal.SIGTERM)
        await handle.result(timeout=30)
    assert command.ended() == 0
    assert "waited" in command.text


async def test_a_second_ctrl_c_stops_at_once(commands: Commands, url: str) -> None:
    command = commands.start("waits")
    command.ready()
    async with Runtime(url, workers=0) as runtime:
        handle = await runtime.send("acme", wait(60))
        command.line("waiting")
        command.signal(signal.SIGINT, group=True)
        command.line("SIGINT: stopping, with 25 s")
        command.signal(signal.SIGINT, group=True)
        assert command.ended() == 130
        assert (await handle.state()) == "queued"
        await handle.cancel()
    assert "Traceback" not in command.text


SLOW = "import time, sys\nprint('importing', flush=True)\ntime.sleep(60)\n"
SLOW_TO_START = """
import anyio
from fairactor import actor

class Mail:
    async def started(self):
        print("starting", flush=True)
        await anyio.sleep(60)

    @actor
    async def send(self) -> None: ...
"""


@pytest.mark.parametrize(
    ("code", "line"), [(SLOW, "importing"), (SLOW_TO_START, "starting")], ids=["while importing", "while starting"]
)
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_before_it_is_ready(
    commands: Commands, code: str, line: str, number: signal.Signals, expected: int
) -> None:
    commands.write("slow.py", code)
    command = commands.start("slow")
    command.line(line)
    command.signal(number, group=True)
    assert command.ended() == expected
    assert "Traceback" not in command.text


async def test_without_a_server_it_says_where_tasks_are_kept(tmp_path: Path) -> None:
    commands = Commands(tmp_path, None)
    commands.write("app.py", APP)
    with commands.closing():
        command = commands.start("app", "-p", "2", FAIRACTOR_URL="")
        folder = command.line("tasks are kept in a private server of this command.*path='(.*)'")[1]
        command.ready(2)
        async with Runtime(path=folder, workers=0) as runtime:
            assert await (await runtime.send("acme", bill(1))).result(timeout=30) == 1
        command.signal(signal.SIGTERM)
        assert command.ended() == 0
        assert not await anyio.Path(folder).exists()
        refused = commands.run("app", FAIRACTOR_URL="", FAIRACTOR_EMBEDDED="0")
        assert refused.ended() == 2
        assert "FAIRACTOR_EMBEDDED=0 forbids" in refused.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_in_the_process_of_the_command(commands: Commands, url: str, number: signal.Signals) -> None:
    command = commands.start("waits", "--processes", "0")
    command.line("worker .*: 1 process on .*, actors: wait")
    async with Runtime(url, workers=0) as runtime:
        handle = await runtime.send("acme", wait(0.2))
        command.line("waiting")
        command.signal(number, group=True)
        await handle.result(timeout=30)
    assert command.ended() == 0
    assert "Traceback" not in command.text


BAD = {
    "broken": (
        "def f():\n    import nothere\nf()\n",
        "broken cannot be imported: ModuleNotFoundError: No module",
    ),
    "syntax": ("def f(:\n", "syntax cannot be imported: SyntaxError"),
    "leaves": ("import sys\nsys.exit(3)\n", "leaves ended the program while it was imported (SystemExit: 3)"),
    "empty": ("def make(): ...\n", "empty has neither actors nor a Runtime; it has the functions make"),
    "two": (
        "from fairactor import Runtime\na, b = Runtime(), Runtime()\n",
        "two has 2 Runtimes: name one of two:a",
    ),
    "bare": ("from fairactor import Runtime\na = Runtime()\n", "bare:a is a Runtime without actors"),
    "twice": (
        "from fairactor import actor\n@actor\ndef f(): ...\n@actor(name='f')\ndef g(): ...\n",
        "two actors are named 'f'",
    ),
}


@pytest.mark.parametrize("module", BAD)
def test_a_module_that_cannot_be_run(commands: Commands, module: str) -> None:
    code, message = BAD[module]
    commands.write(f"{module}.py", code)
    command = commands.run(module, "-p", "3")
    assert command.ended() == 2
    assert command.text.count(message) == 1
    assert "_worker_command" not in command.text
    if module in ("broken", "syntax"):
        assert f"{module}.py" in command.text


METHODS = """
from fairactor import actor

class Mail:
    @actor
    async def send(self) -> None: ...
"""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ap", "there is no module 'ap', neither in .* nor installed; did you mean app"),
        ("app.p", "there is no module 'app.p'"),
        ("ap.py", "there is no file 'ap.py' in .*; did you mean app.py"),
        ("app:bil", "app has no 'bil'; did you mean app:bill"),
        ("app:log", "actors= got"),
        ("methods:Mail.send", "methods:Mail.send is a method: name its class, methods:Mail"),
        ("app:bill:x", "app has no 'bill:x'"),
        ("a b", "names no module"),
        (":bill", "names no module"),
    ],
)
def test_a_target_that_is_not_there(commands: Commands, target: str, message: str) -> None:
    commands.write("methods.py", METHODS)
    command = commands.start(target)
    command.line(f"fairactor worker: .*{message}")
    assert command.ended() == 2
    assert "Traceback" not in command.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reload", "--until-drained"), "--reload or --until-drained, not both"),
        (("--reload", "-p", "0"), "no supervisor"),
        (("--url", "redis://host", "--path", "x"), "not both"),
        (("--name", "a\nb"), "--name: give"),
        (("--max-tasks", "0"), "whole number, 1 or more"),
        (("--grace", "-1"), "grace"),
        (("-q", ""), "queue"),
    ],
)
def test_options_that_cannot_be(commands: Commands, arguments: tuple[str, ...], message: str) -> None:
    command = commands.run("app", *arguments)
    assert command.ended() == 2
    assert message in command.text


RUNTIMES = """
from fairactor import Runtime, actor

@actor
async def bill(number: int) -> int:
    return number

@actor
async def other() -> None: ...

class Mail:
    @actor
    async def send(self) -> None: ...

runtime = Runtime(namespace="of-module")
some = [bill, Mail]

def make() -> Runtime:
    return Runtime(actors=[other], namespace="made")
"""


@pytest.mark.parametrize(
    ("target", "namespace", "actors"),
    [
        ("runtimes", "of-module", "Mail.send, bill, other"),
        ("runtimes:bill", "fairactor", "bill"),
        ("runtimes:Mail", "fairactor", "Mail.send"),
        ("runtimes:some", "fairactor", "Mail.send, bill"),
        ("runtimes:make", "made", "other"),
    ],
)
def test_what_a_name_stands_for(commands: Commands, target: str, namespace: str, actors: str) -> None:
    commands.write("runtimes.py", RUNTIMES)
    command = commands.run(target, "--until-drained")
    assert command.ended() == 0
    assert f"namespace {namespace}, queues: all, actors: {actors}\n" in command.text + "\n"


def test_modules_in_a_package_and_several_modules(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "inner" / "service").mkdir(parents=True)
    commands.write("inner/service/__init__.py", "")
    commands.write("inner/service/mail.py", "from fairactor import actor\n@actor\nasync def mail() -> None: ...\n")
    command = commands.run("inner/service/mail.py", "app:bill", "--until-drained")
    assert command.ended() == 0
    assert "actors: bill, mail" in command.text


def test_a_server_that_is_away_refuses_or_has_another_data_model(commands: Commands, db: redis.Redis) -> None:
    away = commands.start("app", "--url", "redis://:secret@localhost:1", FAIRACTOR_CONNECT_TIMEOUT="0.1")
    away.line("fairactor worker: no answer from redis://localhost:1")
    assert away.ended() == 3
    assert away.text.count("before it was ready") == 5
    assert "secret" not in away.text
    commands.run("app", "--until-drained")
    db.hset("{fairactor/0}", "version", "999")
    other = commands.run("app", "-p", "2")
    assert other.ended() == 3
    assert other.text.count("fairactor worker: ") == 1


def test_a_user_without_rights(commands: Commands, db: redis.Redis, url: str) -> None:
    db.acl_setuser("weak", enabled=True, passwords=["+secret"], commands=["+ping", "+info"], keys=["*"])
    try:
        command = commands.run("app", "--url", url.replace("://", "://weak:secret@", 1))
        assert command.ended() == 3
        assert "secret" not in command.text
        assert "Traceback" not in command.text
    finally:
        db.acl_deluser("weak")


async def test_each_process_serves_its_metrics(commands: Commands, url: str) -> None:
    (first,) = free_ports(1)
    command = commands.start("app.py", "--processes", "2", "--metrics-port", str(first))
    ports = {int(command.line(r"metrics of this process: port (\d+)")[1]) for _ in range(2)}
    assert ports <= set(range(first, first + 4))
    assert len(ports) == 2
    command.ready()
    async with Runtime(url, workers=0) as runtime:
        assert await runtime.ask("acme", Message.for_actor("bill", 3), timeout=20) == 3
    texts = [metrics_at(port) for port in ports]
    assert any("messaging_process_duration_seconds" in text for text in texts)
    command.signal(signal.SIGTERM)
    assert command.ended() == 0


async def test_a_port_for_metrics_that_is_taken_is_said(commands: Commands) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken, socket.socket() as other:
        port = taken.getsockname()[1]
        with contextlib.suppress(OSError):  # it is taken by others, which is as good
            other.bind(("0.0.0.0", port + 1))
            other.listen()
        command = commands.start("app.py", "--metrics-port", str(port))
        command.line(r"cannot be used .*: give another port= or host=, or port=0 for any")
        assert command.ended() == 2


def metrics_at(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text
