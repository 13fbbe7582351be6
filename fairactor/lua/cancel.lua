-- Cancels a task: one that has not started ends now, and the runtime of one that has started is notified.
--
-- KEYS  1 META of the shard
-- ARGV  1 id, 2 ms to keep its record, 3 its outcome, 4 its tenant, or '' for any
-- Reply the state in which it was found, or 'missing' if the tenant has no such task
--
-- Safe to repeat: a canceled task is settled. For a started task this is stored, so whatever becomes of its runtime and
-- of the message, it does not run again.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/ending.lua
-- @include lib/locate.lua
-- @include lib/undelay.lua
-- @include lib/withdraw.lua

local SETTLED = { [DONE] = 'finished', [DEAD_STATE] = 'failed', [CANCELED_STATE] = 'canceled' }
local id, ttl_ms, outcome, tenant = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local record = call('GET', TASK .. id)
if not readable(record) or not is_owned_by(tenant, record) then return 'missing' end
local state, runtime = locate(id, record)
if state == 'settled' then return SETTLED[record:sub(1, 1)] end
if state == 'started' then
  call('HSET', CANCELS .. runtime, id, pack_cancel(ttl_ms, outcome))
  call('PUBLISH', INBOX .. runtime, 'c' .. id)
  return state
end

local _, _, priority, _, _, name = struct.unpack(HEADER, record)
load_watchers({ id })
load_counts({ name })
load_tenants({ name })
local suspect = state == 'queued' and call('ZSCORE', SUSPECTS .. name, id)
if state == 'queued' then
  add(name, priority, -1)
  if suspect then count_suspects_withdrawn(name, 1) else count_withdrawn(name, 1) end
else
  add(name, state == 'scheduled' and WAITING or DEFERRED, -1)
end
-- Kept for a while at least: if the reply is lost, the repeat finds the record.
cancel_task(id, name, record, pack_cancel(math.max(FETCH, ttl_ms), outcome))
run_ends_hook()
update_ring(arriving)

begin_writing()
write_ends()
call('ZREM', QUEUE .. name, id)
if suspect then remove_suspects(name, { id }) end
if state == 'scheduled' then remove_delayed(name, { id }, 0) end
if state == 'deferred' then call('HDEL', HELD, id) end
save_counts()
save_shard()
return state
