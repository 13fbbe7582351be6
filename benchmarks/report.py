"""The report: puts figures and pictures between two marks in a page whose other text is written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .figures import Figure, markdown
from .plots import Picture

BEGIN: Final = "<!-- figures -->"
END: Final = "<!-- end of figures -->"


def write(
    page: Path, results: Iterable[tuple[str, Iterable[Figure]]], pictures: Iterable[Picture], conditions: str
) -> None:
    """Replaces the figures and pictures in a page. A page without the marks, or a new one, gets them at its end.

    Args:
        page: a Markdown file. The pictures are in its folder.
        results: the figures of each benchmark.
        pictures: the pictures to show.
        conditions: a sentence about where and how the figures were measured.
    """
    shown = "".join(f"![{picture.caption}]({picture.name}.svg)\n\n" for picture in pictures)
    block = f"{BEGIN}\n\n{conditions}\n\n{shown}{markdown(results)}\n\n{END}"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        before, after = f"{text.rstrip()}\n\n".lstrip(), "\n"
    page.write_text(before + block + after, encoding="utf-8")
