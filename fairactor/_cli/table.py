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
    "audit": Row(LOOK, "health:audit", "check that all data of a namespace is consistent"),
    "completion": Row(RUN, "completion:completion", "print what completes commands in bash, zsh or fish"),
    "config": Row(RUN, "config:config", "check files with settings"),
    "dead": Row(CHANGE, "dead:dead", "list dead letters, send them again, delete them"),
    "demo": Row(RUN, "demo:demo", "watch one big tenant and many small ones share the workers"),
    "grow": Row(CHANGE, "grow:grow", "add shards to a namespace while it runs"),
    "health": Row(LOOK, "health:health", "say whether tasks are being served, for people and probes"),
    "history": Row(LOOK, "stats:history", "show what happened in the last hour or days"),
    "limits": Row(CHANGE, "limits:limits", "list limits that tenants share, and change them"),
    "queues": Row(LOOK, "stats:queues", "list the queues"),
    "send": Row(CHANGE, "send:send", "send a message to a tenant"),
    "server": Row(RUN, "server:server", "run the embedded server by itself"),
    "stats": Row(LOOK, "stats:stats", "count the tasks in each state"),
    "tasks": Row(CHANGE, "tasks:tasks", "list tasks, show, cancel and retry them"),
    "tenants": Row(CHANGE, "tenants:tenants", "list tenants, show, configure, pause and purge them"),
    "top": Row(LOOK, "top:top", "watch a namespace on a full screen"),
    "worker": Row(RUN, "worker:worker", "run the actors of an application"),
    "workers": Row(LOOK, "stats:workers", "list the runtimes that run tasks"),
}
