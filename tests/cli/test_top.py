"""Tests `fairactor top` in a terminal, on a real server."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from fairactor import Runtime, TaskState
from tests.support import servers
from tests.support.polling import until
from tests.support.screens import ROOT, Screen, screen
from tests.support.top import HOSTILE, broken, command, fill, is_in, work

pytestmark = pytest.mark.anyio


@pytest.fixture
def open_top(url: str, nothing_left_behind: None) -> Iterator[Callable[..., Screen]]:
    """Returns a function that starts `fairactor top` in a terminal."""
    with ExitStack() as stack:

        def start(*options: str, columns: int = 100, lines: int = 24) -> Screen:
            return stack.enter_context(screen(*command(url, *options), columns=columns, lines=lines))

        yield start


def names(text: str) -> list[str]:
    """Returns the first words of the rows of a table."""
    lines = text.splitlines()
    title = next((number for number, line in enumerate(lines) if line.startswith(("tenant ", "tenant▾"))), len(lines))
    return [line.split()[0] for line in lines[title + 1 : -1] if line.strip()]


async def test_it_shows_tenants_sorts_filters_and_quits(sender: Runtime, open_top: Callable[..., Screen]) -> None:
    await fill(sender, acme=30, bolt=20, core=40)
    top = open_top()
    shown = await top.shows("core", "acme", "90 queued", "no runtime with workers")
    assert names(shown) == ["core", "acme", "bolt"]
    assert "3 tenants" in shown
    top.type("n")
    await top.sees(lambda text: names(text) == ["acme", "bolt", "core"])
    top.type("/o")
    await top.shows("filter: o")
    top.type("lt\x7f\x7fl\r")
    await top.sees(lambda text: names(text) == ["bolt"])
    top.type("\x1b")
    await top.sees(lambda text: names(text) == ["acme", "bolt", "core"])
    top.type("q")
    assert await top.ends() == 0
    assert top.is_restored()


async def test_every_view_and_the_help(make_runtime: Callable[..., Runtime], open_top: Callable[..., Screen]) -> None:
    async with make_runtime(work, broken) as runtime:
        await runtime.limit("openai").configure(concurrency=3)
        await runtime.send("acme", broken(7))
        await fill(runtime, acme=1)
        top = open_top()
        await top.shows("acme", "1 failed")
        top.type("2")
        await top.shows("runtimes", "default")
        top.type("3")
        await top.shows("openai")
        top.type("4")
        await top.shows("lease", runtime.name[:8])
        top.type("5")
        await top.shows("ValueError: no order 7")
        top.type("\r")
        await top.shows("timeline", "traceback", "arguments", "acme")
        top.type("\x1b")
        await top.sees(lambda text: "timeline" not in text and "ValueError: no order 7" in text)
        top.type("1")
        await top.sees(lambda text: names(text) == ["acme"])
        top.type("\r")
        await top.sees(lambda text: "finished" in text and "broken" in text)
        top.type("?")
        await top.shows("These change something")
        top.type("?q")
        assert await top.ends() == 0


async def test_a_frozen_screen_stays_and_still_goes_where_one_leads_it(
    sender: Runtime, open_top: Callable[..., Screen]
) -> None:
    await fill(sender, acme=3)
    top = open_top()
    await top.shows("3 queued")
    top.type(" ")
    await top.shows("FROZEN")
    await fill(sender, bolt=4)
    top.type("2")
    await top.shows("default")  # another view is read all the same, with what is true now
    await top.shows("7 queued")
    await fill(sender, core=1)
    top.type("p")
    await top.shows("8 queued")
    assert "FROZEN" not in top.text


async def test_pausing_resuming_and_purging_a_tenant(sender: Runtime, open_top: Callable[..., Screen]) -> None:
    await fill(sender, acme=12, bolt=3)
    top = open_top()
    await top.shows("acme", "bolt")
    top.type("P")
    await top.shows("Pause acme? 12 waiting tasks will not start; 0 that run go on. Type y")
    top.type("n")
    await top.shows("nothing was changed")
    assert not (await sender.tenant("acme").policy()).paused
    top.type("P")
    await top.shows("Type y")
    top.type("y")
    await top.shows("paused acme")
    assert (await sender.tenant("acme").policy()).paused
    await top.sees(lambda text: " paused " in top.line("acme"))
    top.type("R")
    await top.shows("Resume acme?")
    top.type("y")
    await top.shows("resumed acme")
    assert not (await sender.tenant("acme").policy()).paused
    top.type("X")
    await top.shows("CANCEL 12 waiting tasks of acme (12 queued, 0 scheduled, 0 deferred) for good?")
    top.type("y")
    await top.shows("canceled 12 tasks of acme")
    assert (await sender.tenant("acme").stats()).canceled == 12
    assert (await sender.tenant("bolt").stats()).queued == 3


async def test_small_letters_and_pastes_change_nothing(sender: Runtime, open_top: Callable[..., Screen]) -> None:
    await fill(sender, acme=2)
    top = open_top()
    await top.shows("acme")
    top.type("xcd\x1b[200~Xy\nPy\x1b[201~y")
    top.type("/")
    await top.shows("filter:")
    top.type("\x1b")
    await top.sees(lambda text: "filter:" not in text)
    assert (await sender.tenant("acme").stats()).queued == 2


async def test_a_dead_letter_is_sent_again_and_a_task_canceled(
    make_runtime: Callable[..., Runtime], open_top: Callable[..., Screen]
) -> None:
    async with make_runtime(broken) as runtime:
        handle = await runtime.send("acme", broken(7))
        await until(lambda: is_in(handle, TaskState.FAILED))
        await runtime.tenant("acme").pause()
        top = open_top("--view", "failures")
        await top.shows("ValueError: no order 7")
        top.type("D")
        await top.shows("Send 1 dead letter again, broken of acme")
        top.type("y")
        await top.shows("sent task")
        assert await handle.state() is TaskState.QUEUED
        top.type("1")
        await top.sees(lambda text: names(text) == ["acme"])
        top.type("\r")
        await top.shows(handle.id[:12])
        top.type("C")
        await top.shows("CANCEL 1 task for good")
        top.type("y")
        await top.shows("canceled task")
        assert await handle.state() is TaskState.CANCELED


async def test_hostile_names_on_a_screen_of_40_by_10(sender: Runtime, open_top: Callable[..., Screen]) -> None:
    await fill(sender, **{HOSTILE: 5, "👩‍👩‍👧": 4, "日本商事株式会社": 3, "x" * 200: 2, "plain": 1})
    top = open_top(columns=40, lines=10)
    shown = await top.shows(r"evil\x1b[2J", "日本商事", "👩\\u200d")
    assert "backlog" in shown
    assert all(len(line) <= 40 for line in top.lines)
    assert top.lines[0].startswith("top  fairactor")
    assert "\u202e" not in top.raw.decode()
    assert b"\x1b[2Jgnp" not in top.raw
    top.resize(120, 30)
    await top.shows("tasks/s", "plain")
    top.resize(20, 4)
    await top.sees(lambda text: text.startswith("top  fair") and "plain" not in text)
    top.resize(3, 1)
    top.resize(80, 24)
    await top.shows("plain", "oldest")


async def test_the_server_goes_away_and_comes_back(server: servers.Instance, nothing_left_behind: None) -> None:
    async with Runtime(server.url, workers=0) as runtime:
        await fill(runtime, acme=3)
    with screen(*command(server.url)) as top:
        await top.shows("acme", "3 queued")
        server.kill()
        await top.shows("AWAY", "! ", "acme")  # what was read last is still there
        top.type("X")
        await top.sees(lambda text: "answer" in text.splitlines()[-1] or "reach" in text or "refused" in text)
        server.start()
        await top.sees(lambda text: "AWAY" not in text and "0 queued" in text)
        server.kill()
        await top.shows("AWAY")
        top.type("q")
        assert await top.ends() == 0


@pytest.mark.parametrize(
    ("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (b"\x03", 130)]
)
async def test_signals_restore_the_terminal(
    ending: signal.Signals | bytes, code: int, sender: Runtime, open_top: Callable[..., Screen]
) -> None:
    await fill(sender, acme=3)
    top = open_top()
    await top.shows("acme")
    if isinstance(ending, bytes):
        top.type(ending)
    else:
        top.signal(ending)
    assert await top.ends() == code
    assert top.is_restored()
    assert "Traceback" not in top.raw.decode()


async def test_ctrl_c_at_any_moment_of_the_start(sender: Runtime, url: str) -> None:
    await fill(sender, acme=3)
    for number in range(8):
        with screen(*command(url)) as top:
            await until(top.has_program)
            await anyio.sleep(0.15 * number)  # the moment is what is tested
            code = None
            while code is None:  # Python may swallow it while it imports, as it swallows any error there
                top.type(b"\x03")
                with anyio.move_on_after(5):
                    code = await top.ends()
            assert code in (130, -signal.SIGINT) or "fairactor/" not in top.text  # Python itself has just started
            assert top.is_restored()


async def test_ctrl_z_gives_the_terminal_back_until_fg(sender: Runtime, url: str, nothing_left_behind: None) -> None:
    await fill(sender, acme=3)
    with screen("bash", "--norc", "-i", PS1="ready> ") as shell:
        await shell.shows("ready>")
        shell.type(f"{shlex.join(command(url))}\n")
        await shell.shows("acme", "3 queued")
        shell.type(b"\x1a")
        await shell.shows("Stopped")
        assert shell.raw.rfind(b"\x1b[?1049l") > shell.raw.rfind(b"\x1b[?1049h")
        await fill(sender, bolt=1)
        shell.type("fg\n")
        await shell.shows("bolt", "4 queued")
        shell.type("q")
        await shell.sees(lambda text: "ready>" in text.splitlines()[-1] or text.rstrip().endswith("ready>"))
        shell.type("exit\n")
        await shell.ends()


async def test_a_failure_at_the_start_is_said_on_the_restored_terminal(tmp_path: Path) -> None:
    with screen(*command(f"redis://user:secret@localhost:1/0?x={tmp_path.name}")) as top:
        assert await top.ends() in (2, 3)
        assert top.is_restored()
        assert "fairactor top: " in top.text
        assert "secret" not in top.raw.decode()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed; the other tests use another terminal")
async def test_in_tmux(sender: Runtime, url: str, tmp_path: Path) -> None:
    await fill(sender, acme=3, bolt=9)

    def tmux(*arguments: str) -> str:
        tool = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
        return subprocess.run([*tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout

    tmux("new-session", "-d", "-x", "80", "-y", "20", f"{shlex.join(command(url))}; cat")
    try:
        await until(lambda: "12 queued" in tmux("capture-pane", "-p"))
        assert names(tmux("capture-pane", "-p")) == ["bolt", "acme"]
        tmux("send-keys", "n")
        await until(lambda: names(tmux("capture-pane", "-p")) == ["acme", "bolt"])
        tmux("send-keys", "Down", "P")
        await until(lambda: "Pause bolt?" in tmux("capture-pane", "-p"))
        tmux("send-keys", "y")
        await until(lambda: "paused bolt" in tmux("capture-pane", "-p"))
        assert (await sender.tenant("bolt").policy()).paused
        tmux("resize-window", "-x", "40", "-y", "10")
        await until(lambda: "12 queued" in tmux("capture-pane", "-p"))
        tmux("send-keys", "C-c")
        await until(lambda: "fairactor top" not in tmux("capture-pane", "-p"))
    finally:
        tmux("kill-server")


BROKEN = """
import asyncio, contextlib, sys
from fairactor._top.command import TopOptions, run

@contextlib.asynccontextmanager
async def connect():
    await asyncio.sleep(0.1)
    raise ZeroDivisionError("a bug")
    yield

run(TopOptions(), connect)
"""


async def test_a_bug_leaves_the_terminal_restored() -> None:
    with screen(sys.executable, "-c", BROKEN) as top:
        assert await top.ends() == 1
        assert top.is_restored()
        assert b"connecting" in top.raw
        assert "ZeroDivisionError: a bug" in top.text
