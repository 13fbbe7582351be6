"""Tests `fairactor config`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from fairactor import Runtime, cli

pytestmark = pytest.mark.anyio
Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / "fairactor.toml").write_text(dedent(text)) and None


def fairactor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fairactor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


FILE = """
url = "redis://:${PW:-s3cret}@cache/1"
workers = 5
[tenants."acme\\u202e"]
weight = 5
[worker.gpu]
queues = ["gpu"]
"""


def test_check_says_that_all_is_well(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("workers = 5")
    assert cli.main(["config", "check"]) == 0
    assert capsys.readouterr().out == "ok: fairactor.toml\n"


def test_check_names_all_mistakes(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("wokers = 5\nlease = 0")
    assert cli.main(["config", "check"]) == 2
    assert capsys.readouterr().err == (
        "fairactor config: the configuration has 2 mistakes:\n"
        "  fairactor.toml:1: there is no setting 'wokers'; did you mean workers?\n"
        "  fairactor.toml:2: lease=0: give a finite number of seconds, more than 0\n"
    )
    assert cli.main(["config", "check", "none.toml"]) == 2
    assert "there is no file 'none.toml'" in capsys.readouterr().err


def test_check_names_what_nobody_serves(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("assigned = ['a']\n[tenants.b]")
    assert cli.main(["config", "check"]) == 1
    assert capsys.readouterr().out.startswith("error: tenants.b: no worker serves this tenant")
    assert cli.main(["config", "check", "--json"]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["level"], record["about"]) for record in records] == [
        ("error", "tenants.b"),
        ("warning", "tenants"),
    ]
    write(FILE)
    assert cli.main(["config", "check"]) == 0
    assert capsys.readouterr().out.startswith("warning: queues.default")


def test_check_takes_the_actors_into_account(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("queues = ['default']")
    (tmp_path / "shop_tasks.py").write_text(
        "from fairactor import actor\n\n\n@actor(queue='mail')\nasync def deliver() -> None: ...\n"
    )
    assert cli.main(["config", "check", "--actors", "shop_tasks"]) == 1
    assert capsys.readouterr().out.startswith("error: actor deliver: no worker serves its queue 'mail'")
    assert cli.main(["config", "check", "--actors", "no_such"]) == 2
    assert "there is no module 'no_such'" in capsys.readouterr().err


def test_show_says_where_values_come_from_and_hides_secrets(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(FILE)
    monkeypatch.setenv("FAIRACTOR_LEASE", "7")
    assert cli.main(["config", "show", "--worker", "gpu"]) == 0
    said = capsys.readouterr().out
    assert "s3cret" not in said
    assert said.isascii()
    rows = [line.split() for line in said.splitlines()]
    assert ["workers", "5", "fairactor.toml:3"] in rows
    assert ["lease", "7.0", "FAIRACTOR_LEASE"] in rows
    assert ["queues", "['gpu']", "fairactor.toml:7"] in rows
    assert ["tenants.'acme\\u202e'.weight", "5", "fairactor.toml:5"] in rows
    assert cli.main(["config", "show", "--all", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"setting": "grace", "value": 25.0, "from": "default"} in records


async def test_apply_writes_what_differs(
    write: Write, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop_actors.py").write_text(
        "from fairactor import actor\n\n\n@actor\nasync def report() -> None: ...\n"
    )
    write(f"url = '{url}'\n[tenants.a]\nweight = 5\n[schedules.n]\ntenant = 'a'\nactor = 'report'\nevery = 60")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return fairactor("config", "apply", *arguments)

    missing = run("--dry-run")
    assert missing.returncode == 3
    assert "there is no namespace 'fairactor'" in missing.stderr
    done = run("--actors", "shop_actors")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "tenants.a.weight: not set → 5\nschedules.n: added for tenant 'a'\n2 settings changed\n"
    assert run("--actors", "shop_actors").stdout == "nothing to change\n"
    async with Runtime(url) as runtime:
        await runtime.tenant("a").configure(weight=7)
    assert run("--actors", "shop_actors", "--dry-run", "--json").stdout == (
        '{"about": "tenants.a.weight", "change": "7 \\u2192 5"}\n'
    )


def test_apply_needs_a_server(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("workers = 5")
    assert cli.main(["config", "apply"]) == 2
    assert "give the server, as url = … in the file or FAIRACTOR_URL" in capsys.readouterr().err


async def test_other_commands_take_the_file(write: Write, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with Runtime(url, namespace="shop"):
        pass
    write(f"url = '{url}'\nnamespace = 'shop'")
    for arguments in (["stats"], ["stats", "--config", "fairactor.toml"]):
        done = fairactor(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
