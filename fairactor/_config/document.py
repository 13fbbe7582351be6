"""A configuration that was read, and the lines of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from .mistakes import Path


@attrs.frozen
class Document:
    """A configuration that was read."""

    name: str
    """The file's name, for messages; '' if there is none."""
    data: Mapping[str, Any] = attrs.field(repr=False)  # it may contain passwords
    lines: Mapping[Path, int] = attrs.field(factory=dict, repr=False)
    prefix: Path = ()
    """Where in the file the configuration is."""

    def where(self, path: Path) -> str:
        """Returns the file and the line of a key, or of what contains it."""
        whole = (*self.prefix, *path)
        for end in range(len(whole), 0, -1):
            if (line := self.lines.get(whole[:end])) is not None:
                return f"{self.name}:{line}"
        return self.name
