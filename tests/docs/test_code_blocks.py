"""Runs every Python block of the README and the docs, and every example, as a program, and compares what it prints.

A page shows it in a ``text`` block behind the Python block, an example in its docstring, after ``It prints::``. There,
``…`` stands for anything within a line, and a line of just ``…`` for any number of lines.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(block, shown, id=f"{page.name}:{number}")
    for page in PAGES
    for number, (block, shown) in enumerate(BLOCK.findall(page.read_text()), 1)
]
EXAMPLES = [pytest.param(example, id=example.stem) for example in sorted((ROOT / "examples").glob("*.py"))]


def run(program: Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FAIRACTOR_EMBEDDED": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def prints(shown: str, printed: str) -> bool:
    """Whether a program prints what is shown."""
    patterns = (
        "(?:.*\n)*" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", ".*") + "\n"
        for line in shown.splitlines()
    )
    stripped = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    return re.fullmatch("".join(patterns), stripped) is not None


@pytest.mark.parametrize(("block", "shown"), BLOCKS)
def test_a_block_prints_what_the_page_shows(block: str, shown: str, tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(block)
    printed = run(program, tmp_path)
    assert shown, f"the page does not show what the block prints:\n{printed}"
    assert prints(shown, printed), f"the page shows:\n{shown}\nit prints:\n{printed}"


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_prints_what_its_docstring_shows(example: Path, tmp_path: Path) -> None:
    shown = (ast.get_docstring(ast.parse(example.read_text())) or "").partition("It prints::\n\n")[2]
    printed = run(example, tmp_path)
    assert shown, f"the docstring does not show what the example prints:\n{printed}"
    assert prints(dedent(shown), printed), f"the docstring shows:\n{shown}\nit prints:\n{printed}"


@pytest.mark.parametrize(
    ("shown", "printed", "right"),
    [
        ("a …\n", "a 1\n", True), ("a …\n", "a 1\nb\n", False), ("a\n…\n", "a\n", True), ("a\n…\n", "a\nb\nc\n", True),
        ("…\nb\n", "a\n", False), ("a\n", "", False), ("", "a\n", False), ("(a)\n", "a\n", False),
    ],
)  # fmt: skip
def test_the_comparison_knows_right_from_wrong(shown: str, printed: str, right: bool) -> None:
    assert prints(shown, printed) is right


def test_the_readme_has_two_commands_and_ci_runs_them() -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks[0].endswith("fairactor demo\n")
    assert blocks[1].endswith("pytest\n")
    assert "block 1" in (ROOT / ".ci" / "run").read_text()


def test_links_within_the_docs_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
