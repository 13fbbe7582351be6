"""Tests that importing fairactor is cheap: modules that send, run or convert are imported on first use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fairactor

LATE = (
    "anyio.to_process",
    "cattrs",
    "croniter",
    "fairactor._engine",
    "importlib.metadata",
    "msgspec",
    "opentelemetry",
    "redis",
)


def loaded_by(program: str) -> set[str]:
    printing = f"{program}; import sys; print(*sys.modules, sep='\\n')"
    return set(
        subprocess.run([sys.executable, "-c", printing], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("module", LATE)
def test_import_fairactor_does_not_load(module: str, modules_of_fairactor: set[str]) -> None:
    assert module not in modules_of_fairactor


@pytest.fixture(scope="module")
def modules_of_fairactor() -> set[str]:
    return loaded_by("from fairactor import *")


def test_a_runtime_without_cron_expressions_does_not_load_croniter() -> None:
    loaded = loaded_by("import fairactor; fairactor.Runtime()")
    assert "fairactor_scheduling" in loaded
    assert not loaded & {"croniter", "fairactor._engine", "redis"}


def test_the_command_line_loads_no_more_than_it_runs() -> None:
    program = "from fairactor.cli import main; main(['--version'])"
    assert not loaded_by(program) & {"asyncio", "attr", "fairactor.demo", "fairactor.runtime", "rich", *LATE}


def test_every_public_name_is_found_and_is_what_type_checkers_see() -> None:
    source = Path(fairactor.__file__).read_text(encoding="utf-8")
    seen = {
        alias.name: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert seen == fairactor._MODULES
    assert set(seen) | {"__version__"} == set(fairactor.__all__)
    assert all(getattr(fairactor, name) is not None for name in fairactor.__all__)
    assert set(fairactor.__all__) <= set(dir(fairactor))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        fairactor.nonsense  # noqa: B018 - the attribute is looked up


def test_import_fairactor_loads_nothing_before_a_name_is_used() -> None:
    assert {name for name in loaded_by("import fairactor") if name.startswith("fairactor")} == {"fairactor"}
    assert "fairactor.errors" in loaded_by("import fairactor; fairactor.errors.ServerError")
