"""Tests that importing fairactor is cheap: modules that send, run or convert are imported on first use."""

import subprocess
import sys

import pytest

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
    return loaded_by("import fairactor")


def test_a_runtime_without_cron_expressions_does_not_load_croniter() -> None:
    loaded = loaded_by("import fairactor; fairactor.Runtime()")
    assert "fairactor_scheduling" in loaded
    assert not loaded & {"croniter", "fairactor._engine", "redis"}


def test_the_command_line_loads_no_more_than_it_runs() -> None:
    assert not loaded_by("import fairactor.cli") & {"fairactor.demo", "importlib.metadata", "rich", *LATE}
