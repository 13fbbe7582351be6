"""Tests commands as processes: on a terminal, in pipes, interrupted, and how fast they start."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import redis

from fairactor import Runtime

from .conftest import HOSTILE, ROOT, bill
from .test_changes import fail_some
from .test_looking import send_some

DEADLINE = 20.0  # seconds


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Makes processes that are started receive SIGINT, also if the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def environment(url: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS")}
    return plain | {"FAIRACTOR_URL": url, "TERM": "xterm-256color"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fairactor", *arguments]


@attrs.define
class Terminal:
    """A process on a terminal."""

    process: subprocess.Popen[bytes]
    end: int
    """The other end of the terminal."""
    seen: bytes = b""

    def read_until(self, wanted: bytes) -> None:
        """Reads until something was printed, or to the end."""
        deadline = time.monotonic() + DEADLINE
        while wanted not in self.seen and time.monotonic() < deadline:
            if not select.select([self.end], [], [], 0.1)[0]:
                if self.process.poll() is not None:
                    break
                continue
            try:
                part = os.read(self.end, 65536)
            except OSError:  # the process has ended
                break
            self.seen += part
        assert wanted in self.seen, self.seen

    def write(self, text: bytes) -> None:
        os.write(self.end, text)

    def interrupted(self) -> int:
        """Presses Ctrl-C until the process ends: what is pressed as the terminal changes its mode may get lost."""
        self.write(b"\x03")
        return self.ended(lambda: self.write(b"\x03"))

    def ended(self, when_silent: Callable[[], object] = lambda: None) -> int:
        """Reads to the end; returns the exit code. Each second without output it calls a function."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if not select.select([self.end], [], [], 1.0)[0]:
                when_silent()
                continue
            try:
                part = os.read(self.end, 65536)
            except OSError:
                break
            if not part:
                break
            self.seen += part
        return self.process.wait(DEADLINE)


@contextmanager
def terminal(environment: dict[str, str], *arguments: str, columns: int = 40) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C needs it; no thread runs
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def plain(seen: bytes) -> str:
    """Returns what a terminal has shown, without colours; fails if anything else was done to it."""
    text = seen.decode()
    parts = text.split("\x1b[")
    for part in parts[1:]:
        assert part.lstrip("0123456789;").startswith("m"), part
    return parts[0] + "".join(part.partition("m")[2] for part in parts[1:])


def test_a_table_fits_a_narrow_terminal(environment: dict[str, str], prepare: Callable[..., Any]) -> None:
    prepare(fail_some, bill)
    with terminal(environment, "dead") as shown:
        assert shown.ended() == 0
    lines = plain(shown.seen).splitlines()
    assert lines[0].startswith("ID")
    assert len(lines) == 4
    assert all(len(line.rstrip()) <= 40 for line in lines)
    assert any("…" in line for line in lines)
    assert not any(character in plain(shown.seen) for character in "\u202e\u2066\U000e0041")


def test_a_wide_terminal_shows_more_columns(environment: dict[str, str], prepare: Callable[..., Any]) -> None:
    prepare(fail_some, bill)
    with terminal(environment, "dead", columns=200) as shown:
        assert shown.ended() == 0
    assert "FAILED" in plain(shown.seen).splitlines()[0]
    assert "\\u202e" in plain(shown.seen)


def test_without_a_terminal_there_are_no_colours(environment: dict[str, str], prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    done = subprocess.run(command("health"), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout + done.stderr


def test_it_asks_before_it_changes_many(
    environment: dict[str, str], prepare: Callable[..., Any], db: redis.Redis
) -> None:
    prepare(send_some)
    with terminal(environment, "tenants", "purge", "acme", columns=100) as shown:
        shown.read_until(b"cancel 4 waiting tasks? [y/N]")
        shown.write(b"n\n")
        assert shown.ended() == 1
    assert b"nothing was changed" in shown.seen
    with terminal(environment, "tenants", "purge", HOSTILE, columns=100) as shown:
        shown.read_until(b"[y/N]")
        assert shown.interrupted() == 130
    assert b"Traceback" not in shown.seen
    assert db.zcard("{fairactor/0}:queue:acme") == 3
    with terminal(environment, "tenants", "purge", "acme", columns=100) as shown:
        shown.read_until(b"[y/N]")
        shown.write(b"y\n")
        assert shown.ended() == 0
    assert b"4 waiting tasks canceled" in shown.seen
    assert db.zcard("{fairactor/0}:queue:acme") == 0


def test_a_watched_listing_is_repeated_until_ctrl_c(
    environment: dict[str, str], prepare: Callable[..., Any], make_runtime: Callable[..., Runtime]
) -> None:
    prepare(send_some)
    with terminal(environment, "stats", "--watch", "0.1") as shown:
        shown.read_until(b"queued")
        prepare(send_some)
        shown.read_until(b"8")
        assert shown.interrupted() == 130
    assert b"Traceback" not in shown.seen
    assert b"interrupted" in shown.seen


@pytest.mark.parametrize("delay", [0.03, 0.06, 0.1, 0.15, 0.25, 0.4])
def test_ctrl_c_at_any_moment(delay: float, environment: dict[str, str], prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    with subprocess.Popen(
        command("stats", "--watch", "10", "--json"),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        time.sleep(delay)  # any moment will do
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=DEADLINE)[1]
    if process.returncode != 130:  # Python itself had not started yet, or was about to load the program
        assert "_cli" not in said, said
        assert "in main" not in said, said
        assert "fairactor:" not in said
        assert process.returncode in (1, -signal.SIGINT)
    else:
        assert said == "fairactor: interrupted\n"


def test_a_reader_that_goes_away(environment: dict[str, str], prepare: Callable[..., Any]) -> None:
    prepare(send_some)
    with subprocess.Popen(
        command("stats", "--watch", "0.1", "--json"),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("{")
        process.stdout.close()
        assert process.wait(DEADLINE) == 1
        assert not process.stderr.read()


def test_the_server_runs_until_it_is_stopped(environment: dict[str, str], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("s")
    arguments = command("server", "--path", str(folder / "data"), "--port", "0", "--json")
    with subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split('"')[3]
        assert url.startswith("redis://127.0.0.1:")
        with redis.Redis.from_url(url) as client:
            client.set("key", b"x" * 1_000_000)
            assert len(client.get("key")) == 1_000_000  # type: ignore[arg-type] - it is there
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    with subprocess.Popen(
        command("server", "--path", str(folder / "data"), "--socket", str(folder / "s.sock")),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"unix://{folder / 's.sock'}\n"
        with redis.Redis(unix_socket_path=str(folder / "s.sock")) as client:
            assert client.exists("key")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
    assert not (folder / "s.sock").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, environment: dict[str, str]) -> None:
    script = subprocess.run(command("completion", shell), cwd=ROOT, env=environment, capture_output=True, check=True)
    assert b"_FAIRACTOR_COMPLETE" in script.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script.stdout, check=True)
    asked = {"_FAIRACTOR_COMPLETE": f"{shell}_complete", "COMP_WORDS": "fairactor tenants pu", "COMP_CWORD": "2"}
    if shell == "fish":
        asked["COMP_CWORD"] = "pu"
    done = subprocess.run(command(), cwd=ROOT, env=environment | asked, capture_output=True, text=True, check=True)
    assert "purge" in done.stdout
    assert "pause" not in done.stdout


def test_it_starts_quickly(environment: dict[str, str]) -> None:
    for arguments, most in ((["--version"], 0.15), (["health", "--live"], 0.2)):
        times = []
        for _ in range(5):
            before = os.times()
            subprocess.run(command(*arguments), cwd=ROOT, env=environment, capture_output=True, check=True)
            after = os.times()
            times.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert min(times) < most, arguments
