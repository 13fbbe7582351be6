"""Runs every Python block of the README and the docs, and every example, as a separate program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(block, id=f"{page.name}:{number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.findall(page.read_text()), 1)
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


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs(block: str, tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(block)
    assert run(program, tmp_path)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    assert run(example, tmp_path)


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
