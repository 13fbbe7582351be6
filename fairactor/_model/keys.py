"""The key names of the data model, for Python and for Lua.

All keys of a shard start with its hash tag, so a script can use all of them on a cluster. The name of a tenant, a task
or a runtime comes last in a key, complete and unescaped. No code ever parses a name out of a key.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError

# Keys that exist once per shard. The loader makes them available to the scripts under these names.
FIXED: Final = {
    "META": "",  # hash: version, shards, stamp, virtual time, total counts of the shard, …
    "RING": ":ring",  # zset: tenant -> tag (virtual time), for the tenants that can be served now
    "COUNTS": ":counts",  # hash: tenant -> packed counts (lib/counts.lua)
    "POLICY": ":policy",  # hash: tenant, group or '' (the defaults) -> packed policy, if one was configured
    "RATES": ":rates",  # zset: tenant -> when its next task would be due at an even rate (GCRA), unix µs
    "THROTTLED": ":throttled",  # zset: tenant whose rate holds its work back -> until when, unix ms
    "GROUPS": ":groups",  # hash: group with work -> virtual time of its ring
    "HOMES": ":homes",  # hash: runtime dedicated to certain tenants -> virtual time of the tenants assigned to it
    "INDEXED": ":indexed",  # set: dedicated runtimes whose tenants are listed in ASSIGNED_TO and STOLEN_BY
    "DRAINED": ":drained",  # zset: tenant without live tasks -> when its counts expire, unix seconds
    "SCHEDULED": ":scheduled",  # zset: tenant -> when the next of its delayed tasks is due, unix ms
    "WATCHERS": ":watchers",  # hash: task -> packed list of the runtimes that wait for its outcome
    "LEASES": ":leases",  # zset: runtime -> when its lease expires, unix ms
    "SESSIONS": ":sessions",  # hash: runtime -> its last turn, packed, for replay
    "FLEET": ":fleet",  # hash: runtime -> its description of itself, JSON
    "PROGRESS": ":progress",  # hash: started task -> the last progress that its handler reported, JSON
    "IDLE": ":idle",  # set: runtimes that can take more work of any tenant
    "IDLE_HOMES": ":idle-homes",  # set: dedicated runtimes that can take more work of their tenants
    "IDLE_SLOTS": ":idle-slots",  # hash: sleeping runtime with several kinds of slots -> the kinds that are free
    "KIND_NUMBERS": ":kinds",  # hash: digest of what runtimes can run -> the number of their kind (lib/kinds.lua)
    "KIND_OF": ":kind-of",  # hash: runtime -> the number of its kind
    "ROUTES": ":routes",  # hash: actor whose tasks have a lane of their own -> 1 (lib/lanes.lua)
    "LANES": ":lanes",  # hash: lane with queued tasks -> 0 if a runtime serves it, else since when none does, unix ms
    "LIMIT_SETTINGS": ":limits",  # hash: limit, or its instance for a tenant -> its settings, packed (lib/limits.lua)
    "LIMIT_STARTED": ":limit-started",  # hash: limit or instance -> tasks that run and count for it
    "LIMIT_DUES": ":limit-dues",  # zset: limit or instance with a rate -> when what was taken is paid for, unix µs
    "LIMIT_BUSY": ":limit-busy",  # hash: likewise -> since when something has been owed without a break, unix ms
    "LIMIT_CLOCKS": ":limit-clocks",  # hash: limit -> virtual time of its lines, average cost of a start
    "HELD_BACK": ":held-back",  # zset: tenant that limits of its own hold back -> until when, unix ms
    "KEYED": ":keyed",  # hash: live task -> its deduplication key, preceded by the key's window
    "AGAIN": ":again",  # hash: live task with a key -> the deferred task that runs once after it (lib/replace.lua)
    "HELD": ":held",  # hash: deferred task -> the plugin that holds it back, and that plugin's data (lib/plugins.lua)
    "DEAD": ":dead",  # zset: dead letter -> when its record expires, unix µs
    "ENDED_LAST": ":ended",  # list: the tasks that have ended last, without dead letters (lib/ended_tasks.lua); expires
    "MENDING": ":mending",  # hash: how far a repair is, and what it has found (lib/mend_steps.lua); expires
    "MENDED": ":mended",  # list: what the last repair has done, until somebody has read it; expires
    "MOVER": ":mover",  # string: the runtime that moves tenants to other shards (lead.lua); expires
    "SUSPECTED": ":suspected",  # zset: tenant with suspects -> when one was last claimed or passed over, unix µs
}

# Keys that exist once per task, tenant or runtime. Its name follows the prefix.
PREFIXES: Final = {
    "TASK": ":task:",  # string: header and body (record.py)
    "QUEUE": ":queue:",  # zset: task -> place; the mailbox of a tenant
    "LANE_QUEUE": ":lane:",  # zset: task -> place; a mailbox in a lane: length of the lane, the lane, the tenant
    "LANES_OF": ":lanes-of:",  # zset: lane with queued tasks of a tenant, but the common one -> place of the first
    "IN_LANE": ":in-lane:",  # zset: tenant with queued tasks in a lane -> since when, unix ms
    "KIND": ":kind:",  # hash: actor that the runtimes of a kind have -> its version; and their queues
    "KIND_RING": ":ring:",  # zset: as RING, for the kind with that number; RING is that of kind 0; likewise:
    "KIND_GROUPS": ":groups:",  # hash: as GROUPS
    "KIND_GROUP": ":kind-group:",  # zset: as GROUP; the number of the kind, the group
    "KIND_IDLE": ":idle:",  # set: as IDLE
    # A line is named after the number of a kind, U+001F, and its limits with U+001F between.
    "LINES": ":lines:",  # zset: limits of a line of this kind -> before when a turn need not look at it, unix ms
    "LINES_OF": ":lines-of:",  # set: the lines in which tenants wait for a limit
    "LINE": ":line:",  # zset: tenant or group that waits in a line -> tag
    "LINE_GROUPS": ":line-groups:",  # hash: group that waits in a line -> virtual time of its tenants there
    "LINE_GROUP": ":line-group:",  # zset: tenant of a group that waits in a line -> tag; the line, a colon, the group
    "SUSPECTS": ":suspects:",  # zset: task -> place; a tenant's queued tasks whose runtime died while it had them
    "DELAYED": ":delayed:",  # zset: task -> when it is due, unix ms; the delayed tasks of a tenant
    "GROUP": ":group:",  # zset: tenant -> tag; the ring of a group
    "COSTS": ":costs:",  # hash: actor -> average seconds that its tasks run, for a tenant, a group or all; expires
    "CLAIMS": ":claims:",  # hash: task claimed by a runtime -> the mark of the claim (`wire.Mark`)
    "CANCELS": ":cancels:",  # hash: task claimed by a runtime and canceled -> how long to keep its record, its outcome
    "KEY": ":key:",  # string: length of a tenant's name, the name, a deduplication key -> task
    "ASSIGNED": ":assigned:",  # set: the tenants that a runtime serves first
    "STEAL": ":steal:",  # set: the tenants that it serves while the first have nothing to do
    "ASSIGNED_TO": ":assigned-to:",  # set: dedicated runtimes that serve a tenant first; some may be gone
    "STOLEN_BY": ":stolen-by:",  # set: likewise, those that steal from it; of '': those that steal from all
    "RESERVED": ":reserved:",  # hash: reservation -> room that it takes in the mailbox of a tenant; expires
    "LEAVING": ":leaving:",  # set: tasks of a tenant that are on their way to another shard (export.lua)
    "SENT": ":sent:",  # string: the last batch that a runtime sent, packed, for replay; expires
    "MENDING_LIST": ":mending:",  # list: the ends of the names of all keys with a prefix, while a repair runs; expires
    "ENDED_OF": ":ended-of:",  # list: as ENDED_LAST, those of a tenant
    "DEAD_OF": ":dead-of:",  # zset: as DEAD, those of a tenant; expires
    "DEAD_BY": ":dead-by:",  # zset: as DEAD, those of an actor, which is named as JSON text; expires
    "ASIDE": ":aside:",  # any: what the repair could not use, after the time of the repair; nothing reads it
    "PLUGIN": ":plugin:",  # the keys of a plugin: its name, a colon, and whatever the plugin chooses
    "INBOX": ":inbox:",  # channel: wake-ups and outcomes for a runtime
    "EVENTS": ":events",  # channel: events for all runtimes of the shard
}

# The type of each key. The channels have none, and only a plugin knows those of its keys.
TYPES: Final = {
    "META": "hash", "RING": "zset", "COUNTS": "hash", "POLICY": "hash", "RATES": "zset", "THROTTLED": "zset",
    "GROUPS": "hash", "HOMES": "hash", "DRAINED": "zset", "SCHEDULED": "zset", "WATCHERS": "hash", "LEASES": "zset",
    "SESSIONS": "hash", "FLEET": "hash", "PROGRESS": "hash", "IDLE": "set", "IDLE_HOMES": "set",
    "IDLE_SLOTS": "hash", "LIMIT_SETTINGS": "hash", "LIMIT_STARTED": "hash", "LIMIT_DUES": "zset", "LIMIT_BUSY": "hash",
    "LIMIT_CLOCKS": "hash", "HELD_BACK": "zset", "LINES": "zset", "LINES_OF": "set", "LINE": "zset",
    "LINE_GROUP": "zset", "LINE_GROUPS": "hash", "KEYED": "hash", "AGAIN": "hash", "KIND_NUMBERS": "hash",
    "KIND_OF": "hash", "ROUTES": "hash", "LANES": "hash", "HELD": "hash", "DEAD": "zset", "SUSPECTED": "zset",
    "MOVER": "string",
    "TASK": "string", "QUEUE": "zset",
    "LANE_QUEUE": "zset", "LANES_OF": "zset", "IN_LANE": "zset", "KIND": "hash", "KIND_RING": "zset",
    "KIND_GROUPS": "hash", "KIND_GROUP": "zset", "KIND_IDLE": "set", "SUSPECTS": "zset", "DELAYED": "zset",
    "GROUP": "zset", "COSTS": "hash", "CLAIMS": "hash",
    "INDEXED": "set", "CANCELS": "hash", "KEY": "string", "ASSIGNED": "set", "STEAL": "set", "ASSIGNED_TO": "set",
    "STOLEN_BY": "set", "LEAVING": "set", "RESERVED": "hash", "SENT": "string",
    "ENDED_LAST": "list", "ENDED_OF": "list", "DEAD_OF": "zset", "DEAD_BY": "zset",
    "MENDING": "hash", "MENDED": "list", "MENDING_LIST": "list",
}  # fmt: skip

_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Keys:
    """The key names of one shard of a namespace.

    Raises:
        ConfigurationError: the namespace is not 1 to 64 of the characters ``A-Z a-z 0-9 _ . -``.
    """

    def __init__(self, namespace: str, shard: int = 0) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigurationError(
                f"namespace {shown(namespace)} cannot be used: give 1 to 64 letters, digits or the characters '_.-'"
            )
        self.meta = f"{{{namespace}/{shard}}}"
        self.events = self.meta + PREFIXES["EVENTS"]

    def fixed(self, name: str) -> str:
        """Returns the key with this name in `FIXED`."""
        return self.meta + FIXED[name]

    def task(self, task_id: str) -> str:
        """Returns the key of a task's record."""
        return self.meta + PREFIXES["TASK"] + task_id

    def queue(self, tenant: str) -> str:
        """Returns the key of a tenant's mailbox."""
        return self.meta + PREFIXES["QUEUE"] + tenant

    def delayed(self, tenant: str) -> str:
        """Returns the key of a tenant's delayed tasks."""
        return self.meta + PREFIXES["DELAYED"] + tenant

    def claims(self, runtime: str) -> str:
        """Returns the key of a runtime's claims."""
        return self.meta + PREFIXES["CLAIMS"] + runtime

    def inbox(self, runtime: str) -> str:
        """Returns the channel on which a runtime receives wake-ups and outcomes."""
        return self.meta + PREFIXES["INBOX"] + runtime


def namespace_of(meta: str) -> str:
    """Returns the namespace of a shard from its META key."""
    return meta[1:].rpartition("/")[0]


def shard_of(tenant: str, shards: int) -> int:
    """Returns the number of a tenant's first shard, in a namespace that begins with so many. It is always the same."""
    return crc32(tenant.encode()) % shards if shards > 1 else 0


def plugin_prefix(plugin: str) -> str:
    """Returns a Lua expression for the prefix of all keys of a plugin.

    Raises:
        ConfigurationError: the name is not 1 to 64 of the characters ``A-Z a-z 0-9 _ . -``.
    """
    if not _NAMESPACE.fullmatch(plugin):
        raise ConfigurationError(
            f"plugin {plugin!r} has Lua, so its name must be 1 to 64 letters, digits or the characters '_.-'"
        )
    return f"(meta .. '{PREFIXES['PLUGIN']}{plugin}:')"


def lua_names() -> dict[str, str]:
    """Returns Lua expressions for all keys and prefixes, and for tables of their types.

    ``meta`` in them is the META key, ``KEYS[1]`` of a script.
    """
    names = {name: f"meta .. '{suffix}'" if suffix else "meta" for name, suffix in (FIXED | PREFIXES).items()}
    fixed = ", ".join(f"[{names[name]}] = '{TYPES[name]}'" for name in FIXED)
    prefixes = ", ".join(f"{{ {names[name]}, '{TYPES[name]}' }}" for name in PREFIXES if name in TYPES)
    return {**names, "TYPES_OF_FIXED": f"{{ {fixed} }}", "TYPES_OF_PREFIXES": f"{{ {prefixes} }}"}
