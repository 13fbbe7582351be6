"""Type checkers accept the code of the docs and the examples, and flag the mistakes in ``programs``.

All of it is checked in a folder of its own, as a project is that has installed fairactor as the README says.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python(?: (?P<name>\S+))?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "# flagged"
CONFIG = """
[tool.mypy]
strict = true
warn_unreachable = false  # after a flagged line

[tool.pyright]
typeCheckingMode = "strict"
reportDeprecated = false
reportUnnecessaryIsInstance = false
reportUnusedExpression = false  # as in `a() >> b()`
reportUnusedCoroutine = false
reportUnusedFunction = false
"""

Lines = dict[str, set[int]]
"""Lines by file."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with all programs."""
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    for program in [*(ROOT / "tests" / "typing" / "programs").glob("*.py"), *(ROOT / "examples").glob("*.py")]:
        (tmp_path / f"{program.parent.name}_{program.name}").write_text(program.read_text())
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for number, block in enumerate(BLOCK.finditer(page.read_text()), 1):
            name = block["name"] or f"{page.stem.replace('-', '_')}_{number}.py"
            (tmp_path / name).write_text(block["code"])
    return tmp_path


def check(project: Path, found: Iterable[tuple[str, int, str]]) -> None:
    """Compares the errors of a checker with the marks: the file, the line and the message of each."""
    expected: Lines = defaultdict(set)
    for program in project.glob("*.py"):
        for number, line in enumerate(program.read_text().splitlines(), 1):
            if line.endswith(MARK):
                expected[program.name].add(number)
    assert sum(map(len, expected.values())) > 50  # the marks were found
    flagged: Lines = defaultdict(set)
    wrong: list[str] = []
    for name, number, message in found:
        flagged[name].add(number)
        if number not in expected[name]:
            wrong.append(f"{name}:{number}: {message}")
    for name, numbers in expected.items():
        lines = (project / name).read_text().splitlines()
        wrong += [f"{name}:{number}: not flagged: {lines[number - 1].strip()}" for number in numbers - flagged[name]]
    assert not wrong, "\n".join(sorted(wrong))


def run(project: Path, *command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1, done.stdout + done.stderr  # there are errors to report; 2: it could not work
    return done.stdout


def test_mypy_flags_the_mistakes_and_nothing_else(project: Path) -> None:
    cache = ROOT / ".mypy_cache" / "programs"
    lines = run(project, "mypy", "--output", "json", "--cache-dir", cache, ".").splitlines()
    errors = [error for error in map(json.loads, lines) if error["severity"] == "error"]
    check(project, [(error["file"], error["line"], error["message"]) for error in errors])


def test_pyright_flags_the_mistakes_and_nothing_else(project: Path) -> None:
    report = json.loads(run(project, "pyright", "--outputjson", "--pythonpath", sys.executable))
    errors = [error for error in report["generalDiagnostics"] if error["severity"] == "error"]
    check(project, [(Path(e["file"]).name, e["range"]["start"]["line"] + 1, e["message"]) for e in errors])
