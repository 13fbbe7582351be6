"""The table of all commands. A row says where a command is, without importing it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Row(NamedTuple):
    """A command: the heading under which the help lists it, its place in this package, and what it does."""

    heading: str
    place: str
    """``module:name``, the module without ``fairactor._cli``."""
    help: str


LOOK: Final = "Look"
CHANGE: Final = "Change"
RUN: Final = "Run"

COMMANDS: Final[dict[str, Row]] = {
    "config": Row(RUN, "config:config", "check files with settings"),
    "demo": Row(RUN, "demo:demo", "watch one big tenant and many small ones share the workers"),
    "grow": Row(CHANGE, "grow:grow", "add shards to a namespace while it runs"),
    "top": Row(LOOK, "top:top", "watch a namespace on a full screen"),
    "worker": Row(RUN, "worker:worker", "run the actors of an application"),
}
