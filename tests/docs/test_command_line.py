"""Runs the commands of docs/command-line.md one after the other, and compares what they print."""

from __future__ import annotations

import asyncio
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from fairactor_dependencies import result
from fairactor_scheduling import Schedules

from fairactor import Runtime, actor, cli
from tests.cli.conftest import of_plugins

from .test_code_blocks import ROOT, prints

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
NEEDS = {"tenants": "tenants", "queues": "queues", "tasks cancel --tenant": "select"}
"""Methods of the read model that some commands need."""
__all__ = ["of_plugins"]  # a fixture


@actor
async def bill(number: int) -> int:
    if number == 13:
        raise ValueError("no money")
    return number


@actor
async def double(number: int) -> int:
    return number * 2


async def prepare(url: str) -> str:
    """Makes the namespace that the page looks at; returns the id of a run."""
    async with Runtime(url, actors=[bill, double], workers=2) as runtime:
        await runtime.send_many([("acme", bill(1)), ("globex", bill(2))])
        await runtime.send_many([("acme", bill(13).options(id=name)) for name in ("bad", "bad2")])
        run = await runtime.send("acme", bill(1) >> double(result()) >> double(result()))
        await run.wait(5)
        await runtime.drain(5)
        canceled = await runtime.send("globex", bill(1), delay=60)
        await canceled.cancel()
    async with Runtime(url, workers=0) as runtime:
        await runtime.send_many([("acme", bill(1)), ("acme", bill(2))])
        await runtime.send("acme", bill(7), id="late", delay=3600)
        await Schedules(runtime).add("0 9 * * mon-fri", "acme", bill(1), id="report", timezone="Europe/Berlin")
        return run.id


def is_there(command: str) -> bool:
    missing = [
        beginning
        for beginning, method in NEEDS.items()
        if "NotImplementedError" in inspect.getsource(getattr(Runtime, method))
    ]
    return not any(command == f"fairactor {each}" or command.startswith(f"fairactor {each} acme") for each in missing)


@pytest.mark.usefixtures("of_plugins")
def test_commands_print_what_the_page_shows(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FAIRACTOR_URL", url)
    run = asyncio.run(prepare(url))
    capsys.readouterr()
    found: list[Any] = [each for block in BLOCKS for each in COMMAND.findall(block)]
    assert len(found) > 20
    for command, shown in found:
        if not is_there(command):
            continue
        program, *arguments = shlex.split(command.replace("RUN", run))
        assert program == "fairactor"
        cli.main(arguments)
        said = capsys.readouterr()
        printed = (said.err + said.out).replace(run, "RUN")
        assert prints(re.sub(" +", " ", shown), re.sub(" +", " ", printed)), (
            f"$ {command}\nthe page shows:\n{shown}\nit prints:\n{printed}"
        )
