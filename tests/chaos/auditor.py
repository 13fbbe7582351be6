"""A process that audits the shard repeatedly, over a connection without faults.

An audit takes long on a busy machine. In the workload's process it would hold up the proxy, and so every runtime.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, Final

import redis

from fairactor._audit.audit import audit
from fairactor._model.keys import Keys
from fairactor._plugin_chain import PluginChain
from fairactor.plugins import installed_plugins
from tests.support.shard.driver import ShardDriver

from .actors import NOTES, note
from .checks import over_cap

EACH: Final = 0.1
"""Seconds between two audits."""
SHARE: Final = 3
"""An audit is followed by so many times the time that it took, because it holds up the server."""
_LATEST: Final = 99
"""The epoch of a layout later than any: scripts do not refuse who knows it."""
LONGEST: Final = 3000
"""Characters of a finding, so that a note is written at once."""


def audit_repeatedly(url: str, notes: str, shards: int = 1) -> None:
    """Audits all shards in turn until it is killed, or has found something, and tells the workload."""
    os.environ[NOTES] = notes
    for driver in itertools.cycle([direct_driver(url, shard) for shard in range(shards)]):
        began = time.monotonic()
        try:
            snapshot = driver.snapshot()
        except redis.RedisError:  # the server is down
            pass
        else:
            note("audited")
            if found := [*audit(snapshot), *over_cap(snapshot)]:
                for text in found:
                    note("finds", ascii(text)[:LONGEST])
                return
        time.sleep(max(EACH, SHARE * (time.monotonic() - began)))


def direct_driver(url: str, shard: int = 0) -> ShardDriver:
    """Returns a driver of a shard that the runtimes use."""
    lua = PluginChain(installed_plugins()).lua
    driver = ShardDriver(url, namespace="fairactor", plugins=lua)
    if shard:
        driver.keys = Keys("fairactor", shard)
        driver.load_plugins(lua)
    layout: Any = driver.shard._runner._layout
    layout.epoch = _LATEST
    return driver
