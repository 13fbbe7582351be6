"""What commands print: tables for people, JSON lines for programs."""

from __future__ import annotations

import attrs


@attrs.frozen
class Output:
    """How a command prints."""

    json: bool = False
