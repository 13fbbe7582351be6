"""Tests what `fairactor top` prints without a terminal, on a real server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from rich.cells import cell_len

from fairactor import Runtime, TaskState
from tests.support.polling import until
from tests.support.screens import ROOT, screen
from tests.support.top import HOSTILE, broken, command, fill, is_in, work

pytestmark = pytest.mark.anyio


def run(url: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS", "LINES")}
    return subprocess.run(
        command(url, *options),
        cwd=ROOT,
        env=plain | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_without_a_terminal_it_prints_once(sender: Runtime, url: str, tmp_path: Path) -> None:
    await fill(sender, **{HOSTILE: 5, "acme": 3})
    done = await anyio.to_thread.run_sync(run, url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("fairactor top  fairactor  unix://") or lines[0].startswith(
        "fairactor top  fairactor  redis"
    )
    assert done.stdout.isascii() or "\x1b" not in done.stdout
    assert any(line.startswith("acme ") for line in lines)
    assert max(map(len, lines)) <= 100
    narrow = await anyio.to_thread.run_sync(
        lambda: run(url, "--svg", str(tmp_path / "top.svg"), COLUMNS="40", LINES="12")
    )
    assert max(map(cell_len, narrow.stdout.splitlines())) <= 40
    assert len(narrow.stdout.splitlines()) <= 12
    picture = (tmp_path / "top.svg").read_text(encoding="utf-8")
    assert "<svg" in picture
    assert "acme" in picture
    assert "http" not in picture.replace("http://www.w3.org", "").replace("https://www.textualize.io", "")


async def test_json_lines(make_runtime: Callable[..., Runtime], url: str) -> None:
    async with make_runtime(work, broken) as runtime:
        await runtime.limit("openai").configure(concurrency=3)
        handle = await runtime.send(HOSTILE, broken(7))
        await until(lambda: is_in(handle, TaskState.FAILED))
        done = await anyio.to_thread.run_sync(run, url, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert {line["kind"] for line in found} == {"namespace", "tenant", "limit", "worker", "failure", "queue"}
        first, *others = found
        assert (first["kind"], first["failed"], first["runtimes"]) == ("namespace", 1, 1)
        (failure,) = [line for line in others if line["kind"] == "failure"]
        assert (failure["tenant"], failure["error"]["message"]) == (HOSTILE, "no order 7")
        only = await anyio.to_thread.run_sync(run, url, "--json", "--view", "tenants", "--order", "name")
        assert [json.loads(line)["kind"] for line in only.stdout.splitlines()] == ["namespace", "tenant"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--order", "newest"], 2, "give one of backlog, oldest, share, running, name"),
        (["--interval", "0"], 2, "0.1 seconds or more"),
        (["--namespace", "nowhere"], 3, "there is no namespace 'nowhere'"),
    ],
)
async def test_what_cannot_be_is_said(options: list[str], code: int, says: str, sender: Runtime, url: str) -> None:
    done = await anyio.to_thread.run_sync(run, url, *options)
    assert done.returncode == code
    assert says in done.stderr
    assert not done.stdout


async def test_a_dumb_terminal_gets_plain_text(sender: Runtime, url: str) -> None:
    await fill(sender, acme=3)
    with screen(*command(url), TERM="dumb") as top:
        assert await top.ends() == 0
        assert b"\x1b" not in top.raw
        assert top.line("acme")
