"""Fills a shard with very many tenants and tasks, as the scripts would have stored them, in a few seconds."""

from __future__ import annotations

from typing import Any, Final

from fairactor._model.keys import Keys

ACTOR: Final = "work"
"""The actor of the tasks."""

_FILL: Final = """
-- ARGV  1 number of the first tenant, 2 how many, 3 tasks of each, 4 the last stamp, in us, 5 aging step, 6 body
local first, many, each, stamp, step, body = unpack(ARGV)
first, many, each, stamp, step = tonumber(first), tonumber(many), tonumber(each), tonumber(stamp), tonumber(step)
local meta, ring, counts, policies, groups = KEYS[1], {}, {}, {}, {}
local function packed(n) return struct.pack('>xxxxxI4I4I4I4I4I4I4I4dddI4', 0, 0, n, 0, 0, 0, 0, 0, 0, 0, 0, 0) end
local function add(list, a, b) list[#list + 1], list[#list + 2] = a, b end
for t = first, first + many - 1 do
  local name, records, places = 'tenant:' .. t, {}, {}
  for n = 1, each do
    local id, at = t .. '-' .. n, stamp - (t * each + n)
    add(records, meta .. ':task:' .. id, struct.pack('>c1BBHdHc0', 'L', 0, 3, 1, at, #name, name) .. body)
    add(places, string.format('%.0f', at - 3 * step), id)
  end
  redis.call('MSET', unpack(records))
  redis.call('ZADD', meta .. ':queue:' .. name, unpack(places))
  add(counts, name, packed(each))
  local sort, group = t % 20, 'g' .. t % 97
  local policy = sort == 1 and { concurrency = 1000 } or sort == 2 and { weight = 3 }
    or sort == 3 and { backlog = 100000 } or sort == 4 and { paused = true } or sort == 5 and { group = group }
    or sort == 6 and { rate = { '1000/s', 1000, 1000 } }
  if policy then add(policies, name, cmsgpack.pack(policy)) end
  if sort == 5 then
    groups[group] = groups[group] or {}
    add(groups[group], 1 + (t % 100) / 1000, name)
  elseif sort ~= 4 then
    add(ring, 1 + (t % 1000) / 1000, name)
  end
end
for group, tags in pairs(groups) do
  redis.call('ZADD', meta .. ':group:' .. group, unpack(tags))
  redis.call('HSET', meta .. ':groups', group, 0)
  add(ring, 1, string.char(255) .. group)
end
redis.call('ZADD', meta .. ':ring', unpack(ring))
redis.call('HSET', meta .. ':counts', unpack(counts))
if #policies > 0 then redis.call('HSET', meta .. ':policy', unpack(policies)) end
local before = redis.call('HGET', meta, 'total')
local n = many * each + (before and select(3, struct.unpack('>xxxxxI4I4I4', before)) or 0)
redis.call('HSET', meta, 'total', packed(n), 'stamp', string.format('%.0f', stamp))
"""
_AT_ONCE: Final = 500


async def fill(admin: Any, keys: Keys, *, tenants: int, each: int, step: int = 60_000_000) -> None:
    """Adds tenants with waiting tasks of `ACTOR` to an open shard in which nothing waits.

    Of 20 tenants, one each has a concurrency, a weight, a backlog, a group, a rate, and a pause.

    Args:
        admin: an asynchronous client of the server.
        keys: the keys of the shard.
        tenants: how many tenants. Their names are ``tenant:0`` and so on.
        each: the tasks of each tenant.
        step: the aging step of the shard, in µs.
    """
    seconds, micro = await admin.time()
    stamp = seconds * 1_000_000 + micro
    body = b'["%b",[],{}]' % ACTOR.encode()
    for first in range(0, tenants, _AT_ONCE):
        many = min(_AT_ONCE, tenants - first)
        await admin.eval(_FILL, 1, keys.meta, first, many, each, stamp, step, body)
