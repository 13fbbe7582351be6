"""Tests the plugin of docs/write-a-plugin.md as an installed package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "write-a-plugin.md").read_text()
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SHOWN = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]


def run(command: Sequence[str | Path], folder: Path, *places: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, [*places, ROOT]))
    environment = {**os.environ, "PYTHONPATH": path, "FAIRACTOR_EMBEDDED": "1"}
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installs the package into a folder and returns the folder."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("fairactor_slow.py", "pyproject.toml"):
        (source / name).write_text(FILES[name])
    pip = ["-W", "ignore", "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = run([*pip, "--target", target, source], source)
    assert done.returncode == 0, done.stderr
    return target


def test_a_plugin_that_is_installed_is_found_and_its_options_are_known(site: Path, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(FILES["service.py"])
    done = run(["service.py"], tmp_path, site)
    assert done.returncode == 0, done.stderr
    assert done.stderr == SHOWN


def test_without_it_its_option_is_unknown(tmp_path: Path) -> None:
    done = run(["-c", "from fairactor import actor\nactor(slow_after=1)"], tmp_path)
    assert "ConfigurationError: there is no option 'slow_after'" in done.stderr


def test_one_that_cannot_be_imported_is_named_with_its_package(site: Path, tmp_path: Path) -> None:
    (tmp_path / "fairactor_slow.py").write_text("raise ImportError('half of it is missing')")
    program = "from fairactor import Runtime\nRuntime('redis://nowhere')"
    done = run(["-c", program], tmp_path, tmp_path, site)
    assert "plugin 'fairactor_slow' of fairactor-slow cannot be imported" in done.stderr
    assert "half of it is missing" in done.stderr
    assert "leave it out: Runtime(without_plugins=['fairactor_slow'])" in done.stderr
    for without in ("['fairactor_slow']", "True"):
        given = program.replace("')", f"', without_plugins={without})")
        assert run(["-c", given], tmp_path, tmp_path, site).returncode == 0
