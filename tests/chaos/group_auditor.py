"""Audits the shards of a group of servers, each where it is now."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any, Final

import redis

from fairactor._audit.audit import audit
from tests.support.server_groups import Group, Member
from tests.support.shard.driver import ShardDriver

from .actors import NOTES, note
from .auditor import EACH, LONGEST, SHARE, direct_driver
from .checks import over_cap

_TIMEOUT: Final = 1  # seconds
_ABSENT: Final = ":absent"
"""What a runtime on a cluster adds to the key of a shard: then nodes refuse scripts while the slot moves key by key."""


class _Shard:
    """A shard, and the server on which it was last."""

    def __init__(self, group: Group, number: int) -> None:
        self._group = group
        self._number = number
        self._drivers: dict[int, ShardDriver] = {}
        self._place = 0

    def findings(self) -> list[str] | None:
        """Audits the shard; returns None if its server was not found."""
        for step in range(len(self._group.servers)):
            server = self._group.servers[(self._place + step) % len(self._group.servers)]
            with suppress(redis.RedisError, OSError):
                if server.db.execute_command("ROLE")[0] == b"master":
                    snapshot = self._driver(server).snapshot()
                    self._place = (self._place + step) % len(self._group.servers)
                    return [*audit(snapshot), *over_cap(snapshot)]
        return None

    def _driver(self, server: Member) -> ShardDriver:
        if server.port not in self._drivers:
            made = direct_driver(f"unix://{server.socket}?socket_timeout={_TIMEOUT}", self._number)
            calls: Any = made.shard._server.calls
            if self._group.count > 1:
                calls.keys = lambda key, epoch=0: (2, key, key + _ABSENT)
            self._drivers[server.port] = made
        return self._drivers[server.port]


def audit_group(group: Group, shards: int, notes: str) -> None:
    """Audits all shards until it is killed, or has found something, and tells the workload."""
    os.environ[NOTES] = notes
    found = [_Shard(group, number) for number in range(shards)]
    while True:
        for shard in found:
            began = time.monotonic()
            findings = shard.findings()
            if findings is not None:
                note("audited")
                for text in findings:
                    note("finds", ascii(text)[:LONGEST])
                if findings:
                    return
            time.sleep(max(EACH, SHARE * (time.monotonic() - began)))
