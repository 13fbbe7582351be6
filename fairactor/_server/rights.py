"""The rights that a user of the server needs (its ACL), which of them are missing, and how to grant them.

Scripts run their commands with the rights of the user who calls them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs

IN_SCRIPTS: Final = (
    "append", "del", "exists", "get", "getrange", "hdel", "hexists", "hget", "hgetall", "hincrby", "hkeys", "hlen",
    "hmget", "hrandfield", "hscan", "hset", "hsetnx", "llen", "lpos", "lrange", "ltrim", "mget", "mset", "persist",
    "pexpire", "pttl", "publish", "pubsub|numsub", "rename", "rpush", "sadd", "scan", "scard", "set", "setrange",
    "sinter", "sismember", "smembers", "smismember", "spop", "srandmember", "srem", "sscan", "strlen", "time", "type",
    "unlink", "zadd", "zcard", "zcount", "zmscore", "zrange", "zrangebylex", "zrangebyscore", "zrank", "zrem",
    "zremrangebyrank", "zscan", "zscore",
)  # fmt: skip
"""The commands of the scripts, those of the plugins that ship with fairactor included."""
ALONE: Final = ("eval", "evalsha", "ping", "subscribe", "unsubscribe")
"""The commands that a runtime sends outside scripts. It also sends INFO, but can do without the answer."""
REPLICATED: Final = "wait"
"""The command for ``durability="replicated"``."""
IN_CLUSTERS: Final = ("cluster|slots",)
"""The commands that a cluster needs besides."""

PROBE: Final = """#!lua flags=no-writes
if not redis.acl_check_cmd then return {} end
local missing, of_keys, refused = {}, 0, {}
local channel = KEYS[1] .. ':events'
local arguments = {
  eval = { '', '0' }, evalsha = { '', '0' }, ping = {}, time = {}, wait = { '0', '0' }, unsubscribe = {},
  publish = { channel, '' }, subscribe = { channel }, ['pubsub|numsub'] = { 'numsub' },
  scan = { '0' }, ['cluster|slots'] = { 'slots' },
}
for _, name in ipairs(ARGV) do
  local given = arguments[name]
  local exists, allowed = pcall(redis.acl_check_cmd, name:match('^[^|]+'), unpack(given or { KEYS[1], KEYS[1] }))
  if not exists then missing[#missing + 1] = '-' .. name end
  if exists and not allowed then
    refused[#refused + 1] = name
    refused[name] = true
  end
  if not given then of_keys = of_keys + 1 end
end
local without_keys = 0
for _, name in ipairs(refused) do
  if not arguments[name] then without_keys = without_keys + 1 end
end
for _, name in ipairs(refused) do
  local keys = not arguments[name] and without_keys == of_keys
  local channels = refused.publish and refused.subscribe and (name == 'publish' or name == 'subscribe')
  local right = keys and '~' or channels and '&' or '+' .. name
  if not missing[right] then
    missing[right] = true
    missing[#missing + 1] = right
  end
end
if #missing == 0 then
  local tried = redis.pcall('EXISTS', KEYS[1] .. ':leases')
  if type(tried) == 'table' and tried.err then missing[1] = '!' .. tried.err end
end
return { unpack(missing) }
"""
"""A script that returns the rights that its user lacks: KEYS 1 META of a shard, ARGV commands. It needs Redis 7.

``-`` and a name stands for a command that the server does not have. If nothing is missing, but another key than META
may not be used, the script returns ``!`` and the error. It asks about complete commands only: the server may crash if
the arguments that it looks for keys in are missing. If all commands with keys are refused, the pattern of the keys is
missing; likewise with channels."""

_TELLTALE: Final = 3  # characters: a shorter password would be found in any text

# What Redis 6.2, Redis 7 and Valkey say. Within scripts, Redis before 7.2 does not name the command.
_COMMAND: Final = re.compile(r"no permissions to run the '([\w|-]+)' command")
_SOME_COMMAND: Final = re.compile(r"can't run this command or subcommand")
_KEY: Final = re.compile(r"access (?:a key|(?:at least )?one of the keys)")
_CHANNEL: Final = re.compile(r"access (?:a channel|one of the channels)|publish to the channel")


def missing_right(error: BaseException) -> str | None:
    """Returns the right that a refused command needs: ``+command`` (``+`` if unknown), ``~`` or ``&``."""
    text = str(error)
    if found := _COMMAND.search(text):
        return f"+{found[1].lower()}"
    for right, pattern in (("+", _SOME_COMMAND), ("~", _KEY), ("&", _CHANNEL)):
        if pattern.search(text):
            return right
    return None


@attrs.frozen
class User:
    """A user of the server, for messages."""

    name: str
    """Its name; ``default`` if the URL names none."""
    where: str
    """The server."""
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    """Its passwords."""

    def hide(self, text: str) -> str:
        """Removes the passwords from what a server or its client says."""
        for secret in self.secrets:
            text = text.replace(secret, "…") if len(secret) >= _TELLTALE else text
        return text

    def lacks(self, rights: Iterable[str], namespace: str = "") -> str:
        """Says which rights the user lacks, and which command grants them.

        Args:
            rights: the rights, from `missing_right` or `PROBE`.
            namespace: the namespace; '' if it does not matter.
        """
        whats: list[str] = []
        grants: list[str] = []
        for right in rights:
            what, granted = _describe(right, namespace)
            whats.append(what)
            grants.append(granted)
        return (
            f"{self.where}: the user {self.name!r} has no permission to {', '.join(whats)}. Let somebody who may do so "
            f"run: ACL SETUSER {self.name} {' '.join(grants)}"
        )


def _describe(right: str, namespace: str) -> tuple[str, str]:
    """Returns what one may not do without a right, and the rule that grants it."""
    pattern = f"{{{namespace}/*}}*"
    match right:
        case "+":
            return "run a command of fairactor's scripts", " ".join(f"+{name}" for name in (*ALONE, *IN_SCRIPTS))
        case "~":
            return f"use the keys {pattern}", f"~{pattern}"
        case "&":
            return f"use the channels {pattern}", f"&{pattern}"
        case _:
            return f"run {right[1:].upper().replace('|', ' ')}", right
