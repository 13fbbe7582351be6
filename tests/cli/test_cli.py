"""Tests the command line itself; test_demo_runs.py tests `fairactor demo`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fairactor
from fairactor import cli
from fairactor.demo import command

ROOT = Path(fairactor.__file__).parents[1]


def test_python_m_fairactor_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fairactor", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"fairactor {fairactor.__version__}\n"
    assert not done.stderr


def test_without_a_command_it_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_names_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--limit", "-1"], ["--limit", "many"], ["--workers", "0"]])
def test_a_number_that_cannot_be_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", *wrong]) == 2
    assert f"{wrong[1]!r}: give a whole number" in capsys.readouterr().err


def test_ctrl_c_while_a_command_is_loading(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "fairactor: interrupted\n"


def test_without_rich_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    for module in ("screen", "bars", "table"):
        monkeypatch.delitem(sys.modules, f"fairactor.demo.{module}", raising=False)
    assert cli.main(["demo"]) == 1
    said = capsys.readouterr()
    assert 'pip install "fairactor[cli]"' in said.err
    assert not said.out
