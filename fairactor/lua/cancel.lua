-- Cancels a task: one that waits ends here and now; the runtime of one that has started is told.
--
-- KEYS  1 META of the shard
-- ARGV  1 id, 2 how long to keep its record in ms, 3 the body of its outcome
-- Reply the state in which it was found: 'queued', 'scheduled', 'deferred', 'started', 'settled', or 'missing'
--
-- Safe to repeat: once canceled it is settled.

-- @include lib/base.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/outcome.lua
-- @include lib/locate.lua

local id, ttl_ms = ARGV[1], tonumber(ARGV[2])
local record = call('GET', TASK .. id)
if not record then return 'missing' end
local state, runtime = locate(id, record)
if state == 'settled' then return state end
if state == 'started' then
  call('PUBLISH', INBOX .. runtime, 'c' .. id)
  return state
end

local _, _, priority, _, name = struct.unpack(HEADER, record)
local watching = call('HGET', WATCHERS, id)
load_counts({ name })
meet({ name })
if state == 'queued' then
  add(name, priority, -1)
  tenants[name][LEAVES] = call('ZCARD', QUEUE .. name) == 1
else
  add(name, state == 'scheduled' and WAITING or DEFERRED, -1)
end
add_ended(name, CANCELED_STATE, ttl_ms)

local ended = ended_record(record, CANCELED_STATE, ARGV[3])
keep_record(id, ended, ttl_ms)
call('ZREM', QUEUE .. name, id)
call('ZREM', SCHEDULED, id)
save_counts()
save_ring()
if watching then tell_watchers(id, ended, watching) end
return state
