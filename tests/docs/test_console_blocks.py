"""Runs the commands in the ``console`` blocks of a page in one shell, and compares what they print.

The files that the page shows, in blocks such as ``python app.py``, are there before. ``…`` stands for what differs, as
in the other blocks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .shell import FILE, shell, steps_in
from .test_code_blocks import PAGES, prints

ELSEWHERE = {"shards.md", "command-line.md"}
"""Pages whose commands need servers of their own; other tests run those."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name)
        for page in PAGES
        if page.name not in ELSEWHERE and any(steps_in(page.read_text()))
    ],
)
def test_the_commands_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    for name, content in FILE.findall(text):
        (tmp_path / name).write_text(content)
    with shell(tmp_path) as run:
        for step in steps_in(text):
            printed = run.run(step.command)
            assert prints(step.shown, printed), (
                f"$ {step.command}\n{page.name} shows:\n{step.shown}\nit prints:\n{printed}"
            )
