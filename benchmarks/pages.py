"""Pages for operators among 1,000,000 tasks of 100,000 tenants: what each costs, whatever the backlog.

The shard is filled directly: tasks that wait, 100,000 dead letters, 100 of them of one tenant, and tasks that are scheduled,
deferred, started and finished. Then `Runtime.tasks` reads pages of 50 tasks, of all tenants and of one, and `Runtime.task`
one task in full.

- a page: the median of the calls, in ms. A search is for a text that no task has, so it looks as far as one page may.
- the longest script: by the slow log of the server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import Any, Final

import msgspec

from fairactor import Runtime
from fairactor._model.keys import Keys

from .bench import Bench
from .crowd import ACTOR, fill
from .figures import Figure, at_most
from .longest import slow_scripts

_CALLS: Final = 20
_PAGE: Final = 50.0
"""Milliseconds that a page may take."""
_LONGEST: Final = 5.0
_AT_ONCE: Final = 1000
_HOUR: Final = 3_600_000

_FILL: Final = """
-- ARGV  1 state, 2 number of the first task, 3 how many, 4 tenants, 5 body
local state, first, many, tenants, body = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local meta, call, time = KEYS[1], redis.call, redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function number(n) return string.format('%.0f', n) end
for n = first, first + many - 1 do
  local of_one = state == 'X' and n % (tenants / 100) == 0
  local name, id = 'tenant:' .. (of_one and 0 or 1 + n % (tenants - 1)), state .. n
  local letter = (state == 'X' or state == 'F') and state or 'L'
  local key = meta .. ':task:' .. id
  call('SET', key, struct.pack('>c1BBHdHc0', letter, 0, 3, 1, now - n, #name, name) .. body)
  if letter ~= 'L' then call('PEXPIRE', key, 36000000) end
  if state == 'X' then
    local score = number(now + 3.6e10 + n)
    call('ZADD', meta .. ':dead', score, id)
    call('ZADD', meta .. ':dead-of:' .. name, score, id)
    call('ZADD', meta .. ':dead-by:work', score, id)
  elseif state == 'F' then
    call('RPUSH', meta .. ':ended-of:' .. name, id)
    call('RPUSH', meta .. ':ended', id)
    call('LTRIM', meta .. ':ended', -1000, -1)
  elseif state == 'd' then
    call('ZADD', meta .. ':delayed:' .. name, number(now / 1000 + 36000000 + n), id)
    call('ZADD', meta .. ':scheduled', number(now / 1000 + 36000000), name)
  elseif state == 'h' then
    call('HSET', meta .. ':held', id, struct.pack('>BdHc0Bc0', 3, now, #name, name, 6, 'plugin'))
  elseif state == 'c' then
    call('HSET', meta .. ':claims:fleet', id,
      struct.pack('>c8dBdBHxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', '12345678', now / 1000, 3, 1, 0, 0) .. name)
  end
  local index = ({ X = 10, F = 9, d = 7, h = 8, c = 3 })[state]
  local format = '>xxxxxI4I4I4I4I4I4I4I4dddI4'
  for _, place in ipairs({ { meta .. ':counts', name }, { meta, 'total' } }) do
    local c = { struct.unpack(format, call('HGET', place[1], place[2]) or string.rep('\\0', 65)) }
    c[index] = c[index] + 1
    call('HSET', place[1], place[2], struct.pack(format, unpack(c, 1, 12)))
  end
end
if state == 'X' then call('HSET', meta, 'letters', call('ZCARD', meta .. ':dead')) end
if state == 'c' then call('ZADD', meta .. ':leases', number(now / 1000 + 36000000), 'fleet') end
"""


async def _fill(admin: Any, keys: Keys, state: str, many: int, tenants: int) -> None:
    call = b'["%b",[%b],{}]' % (ACTOR.encode(), msgspec.json.encode({"customer": 7, "note": "x" * 50}))
    outcome = b'{"actor":"%b","error":{"type":"ValueError","message":"no"},"ended_at":%d.0}\n' % (ACTOR.encode(), _HOUR)
    body = outcome + call if state in {"X", "F"} else call
    for first in range(0, many, _AT_ONCE):
        await admin.eval(_FILL, 1, keys.meta, state, first, min(_AT_ONCE, many - first), tenants, body)


async def run(bench: Bench, *, tenants: int = 100_000, each: int = 10, dead: int = 100_000) -> list[Figure]:
    async with Runtime(bench.url, workers=0) as runtime:
        keys = Keys("fairactor")
        await fill(bench.admin, keys, tenants=tenants, each=each)
        for state, many in (("X", dead), ("F", 20_000), ("d", 20_000), ("h", 20_000), ("c", 10_000)):
            await _fill(bench.admin, keys, state, many, tenants)
        await bench.admin.config_set("slowlog-log-slower-than", 200)
        await bench.admin.config_set("slowlog-max-len", 10_000)
        await bench.admin.slowlog_reset()
        figures = [Figure(name, "ms", [await _median(call)], goal=at_most(_PAGE)) for name, call in _calls(runtime)]
        slow = await slow_scripts(bench.admin)
        figures += [
            Figure(f"longest call of {name}", "ms", [took], goal=at_most(_LONGEST)) for name, took in slow.items()
        ]
        figures.append(Figure("redrive filter, letters of one tenant", "ms", [await _letters(runtime)]))
    await bench.clean()
    return figures


def _calls(runtime: Runtime) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
    states = ("started", "queued", "deferred", "scheduled", "failed", "finished")
    return [
        *((f"a page, {state}", lambda state=state: runtime.tasks(state=state)) for state in states),
        *(
            (f"one tenant, {state}", lambda state=state: runtime.tasks(tenant="tenant:0", state=state))
            for state in states
        ),
        ("a page, all states of one tenant", lambda: runtime.tasks(tenant="tenant:7")),
        ("a page, an actor's dead letters", lambda: runtime.tasks(actor=ACTOR, state="failed")),
        ("a search for a text, one page", lambda: runtime.tasks(text="no such text")),
        ("a search of the dead letters, one page", lambda: runtime.tasks(text="no such text", state="failed")),
        ("one task in full", lambda: runtime.task("7-1")),
    ]


async def _median(call: Callable[[], Awaitable[object]]) -> float:
    await call()
    times: list[float] = []
    for _ in range(_CALLS):
        began = perf_counter()
        await call()
        times.append(1000 * (perf_counter() - began))
    return median(times)


async def _letters(runtime: Runtime) -> float:
    began = perf_counter()
    found = [letter async for letter in runtime.dead_letters.find(tenant="tenant:0")]
    took = 1000 * (perf_counter() - began)
    if not found:
        raise AssertionError("the tenant has dead letters")
    return took
