"""Every key name of the data model is built here, for Python and for Lua alike.

All keys of a shard start with its hash tag, so that one script may touch them all on a cluster. The names of
tenants, tasks and runtimes stand last in a key, whole and unescaped: no name is ever split out of a key.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

from fairactor.errors import ConfigurationError

# Keys that exist once in a shard. The loader puts them into the scripts by these names.
FIXED: Final = {
    "META": "",  # hash: version, shards, stamp, virtual (time), total (counts of the whole shard)
    "RING": ":ring",  # zset: tenant -> tag, of the tenants that could be served now
    "COUNTS": ":counts",  # hash: tenant -> packed counts (lib/counts.lua)
    "POLICY": ":policy",  # hash: tenant, '' (the defaults) or group -> packed policy, where one was configured
    "RATES": ":rates",  # zset: tenant -> when its next task would be due at an even rate (GCRA), in µs
    "THROTTLED": ":throttled",  # zset: tenant with work that its rate holds back -> until when
    "GROUPS": ":groups",  # hash: group with work -> virtual time of its ring
    "HOMES": ":homes",  # hash: runtime that serves certain tenants only -> virtual time of those assigned to it
    "DRAINED": ":drained",  # zset: tenant with no live task -> when its counts are forgotten
    "SCHEDULED": ":scheduled",  # zset: task -> when it is due
    "WATCHERS": ":watchers",  # hash: task -> packed list of the runtimes that wait for its outcome
    "LEASES": ":leases",  # zset: runtime -> when its lease ends
    "SESSIONS": ":sessions",  # hash: runtime -> its last turn, packed, for replay
    "FLEET": ":fleet",  # hash: runtime -> what it says of itself, JSON
    "PROGRESS": ":progress",  # hash: started task -> what its handler said last, JSON
    "IDLE": ":idle",  # set: runtimes that would take more work, of any tenant
    "IDLE_HOMES": ":idle-homes",  # set: those that would take more, of their own tenants
    "KEYED": ":keyed",  # hash: live task -> its deduplication key, with the window after it
    "HELD": ":held",  # hash: deferred task -> which plugin holds it back, and what that keeps of it (lib/plugins.lua)
    "DEAD": ":dead",  # zset: dead letter -> when its record expires
}

# Keys that exist once for each task, tenant or runtime; the name follows the prefix.
PREFIXES: Final = {
    "TASK": ":task:",  # string: header and body (record.py)
    "QUEUE": ":queue:",  # zset: task -> place, the mailbox of a tenant
    "GROUP": ":group:",  # zset: tenant -> tag, the ring of a group
    "COSTS": ":costs:",  # hash: actor -> seconds that its tasks run on average, of a tenant, a group or all; expires
    "CLAIMS": ":claims:",  # hash: task -> its mark: by which turn it was claimed, when, at what cost, and whose it is
    "CANCELS": ":cancels:",  # hash: task claimed by a runtime -> the outcome that it has if it is to be canceled
    "KEY": ":key:",  # string: length of a tenant's name, the name, a deduplication key -> task
    "ASSIGNED": ":assigned:",  # set: the tenants that a runtime serves first
    "STEAL": ":steal:",  # set: those that it serves when the first have nothing
    "RESERVED": ":reserved:",  # hash: send -> room that it has taken in the mailbox of a tenant; expires
    "SENT": ":sent:",  # string: the last batch that a runtime sent, packed, for replay; expires
    "PLUGIN": ":plugin:",  # all keys of a plugin: its name follows, then a colon and what it likes
    "INBOX": ":inbox:",  # channel: wake-ups and outcomes for a runtime
    "EVENTS": ":events",  # channel: what concerns every runtime of the shard
}

_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Keys:
    """The key names of one shard of a namespace.

    Raises:
        ConfigurationError: the namespace is not 1 to 64 of ``A-Z a-z 0-9 _ . -``.
    """

    def __init__(self, namespace: str, shard: int = 0) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigurationError(
                f"namespace {namespace!r} cannot be used: give 1 to 64 letters, digits or the characters '_.-'"
            )
        self.meta = f"{{{namespace}/{shard}}}"
        self.events = self.meta + PREFIXES["EVENTS"]

    def fixed(self, name: str) -> str:
        """The key that exists once in the shard, by its name in `FIXED`."""
        return self.meta + FIXED[name]

    def task(self, task_id: str) -> str:
        """The record of a task."""
        return self.meta + PREFIXES["TASK"] + task_id

    def queue(self, tenant: str) -> str:
        """The mailbox of a tenant."""
        return self.meta + PREFIXES["QUEUE"] + tenant

    def claims(self, runtime: str) -> str:
        """The tasks claimed by a runtime."""
        return self.meta + PREFIXES["CLAIMS"] + runtime

    def inbox(self, runtime: str) -> str:
        """The channel on which a runtime hears of work and of outcomes."""
        return self.meta + PREFIXES["INBOX"] + runtime


def shard_of(tenant: str, shards: int) -> int:
    """The shard that keeps a tenant: the same in every process and version."""
    return crc32(tenant.encode()) % shards if shards > 1 else 0


def plugin_prefix(plugin: str) -> str:
    """In Lua, what all keys of a plugin begin with.

    Raises:
        ConfigurationError: the name is not 1 to 64 of ``A-Z a-z 0-9 _ . -``.
    """
    if not _NAMESPACE.fullmatch(plugin):
        raise ConfigurationError(
            f"plugin {plugin!r}: one with Lua has a name of 1 to 64 letters, digits or the characters '_.-'"
        )
    return f"(meta .. '{PREFIXES['PLUGIN']}{plugin}:')"


def lua_names() -> dict[str, str]:
    """All of the above in Lua, where ``meta`` is the shard's META key, which is the ``KEYS[1]`` of every script."""
    return {name: f"meta .. '{suffix}'" if suffix else "meta" for name, suffix in (FIXED | PREFIXES).items()}
