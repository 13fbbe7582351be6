"""Fixtures for the tests of the command line."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Awaitable, Callable, Coroutine
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import attrs
import pytest

from fairactor import Runtime, actor, cli
from fairactor._cli.group import ENTRY_POINTS, main

TREE = {"big": 12, "middle": 3, "small": 1}
"""The tenants of `tree` and the number of files of each."""
HOSTILE = "e\u202evil\x1b[2J\n\u2066x\ud7ff\U000e0041"
"""A name that would clear a terminal and turn the text around."""
ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Makes a folder for each tenant with its Python files."""
    for tenant, files in TREE.items():
        for number in range(files):
            file = tmp_path / "tree" / tenant / "inner" / f"m{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"class A{number}:\n    def f(self): ...\n")
    (tmp_path / "tree" / "big" / "notes.txt").write_text("no Python")
    (tmp_path / "tree" / ".hidden").mkdir()
    (tmp_path / "tree" / ".hidden" / "m.py").touch()
    (tmp_path / "tree" / "empty").mkdir()
    (tmp_path / "tree" / "loose.py").touch()
    return tmp_path / "tree"


@attrs.frozen
class Done:
    """What a command has printed."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[Any]:
        """The JSON lines, which are ASCII."""
        assert self.out.isascii()
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self) -> Any:
        """The only JSON line."""
        [record] = self.records
        return record


class Run(Protocol):
    """Runs a command in this process."""

    def __call__(self, *arguments: str, code: int = 0) -> Done: ...


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Returns a function that runs a command on the server at ``url``, and checks its exit code."""
    monkeypatch.setenv("FAIRACTOR_URL", url)

    def run(*arguments: str, code: int = 0) -> Done:
        capsys.readouterr()
        found = cli.main(list(arguments))
        done = Done(found, *capsys.readouterr())
        assert found == code, done
        assert "Traceback" not in done.err
        return done

    return run


@actor
async def bill(number: int) -> int:
    if number == 13:
        raise ValueError(f"no money for {HOSTILE}")
    return number * 2


@pytest.fixture
def prepare(make_runtime: Callable[..., Runtime]) -> Callable[..., Any]:
    """Returns a function that calls an async function with a runtime; without actors it runs no tasks."""

    def prepare(work: Callable[[Runtime], Awaitable[Any]], *actors: Any, **settings: Any) -> Any:
        async def enter() -> Any:
            async with make_runtime(*actors, **settings) as runtime:
                return await work(runtime)

        return asyncio.run(enter())

    return prepare


@pytest.fixture
def beside(make_runtime: Callable[..., Runtime]) -> Callable[..., Any]:
    """Returns a function that runs a command in a thread while a runtime runs here, which calls a function before."""

    def beside(
        command: Callable[[], Any], *actors: Any, before: Callable[[Runtime], Coroutine[Any, Any, Any]] | None = None
    ) -> Any:
        async def enter() -> Any:
            async with make_runtime(*actors) as runtime:
                if before is not None:
                    await before(runtime)
                return await asyncio.to_thread(command)

        return asyncio.run(enter())

    return beside


@pytest.fixture
def of_plugins(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the commands of the plugins known, also if an older fairactor is installed here."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["entry-points"][ENTRY_POINTS]
    if not wanted.keys() <= {entry.name for entry in entry_points(group=ENTRY_POINTS)}:
        folder = tmp_path_factory.mktemp("site") / "fairactor_commands-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: fairactor-commands\nVersion: 1.0\n")
        lines = [f"{name} = {place}" for name, place in wanted.items()]
        (folder / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines]))
        monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(main, "_plugins", None)
