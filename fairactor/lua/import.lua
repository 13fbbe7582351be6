-- Accepts tasks of a tenant that moves here from another shard: those that wait, and dead letters.
-- They get the places that they had there.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, then for each task, packed: 1 if its route is more than an actor, else 0; id; unix ms at which it is due, or
--       '', of a dead letter unix µs at which it expires; its key as KEYED has it, or ''; its record
-- Reply {ids that a task of another tenant has here}, or the error GONE: the tenant does not arrive here (any more)
--
-- Bounded: its caller gives it 100 tasks, and about 500 kB of records.
-- Safe to repeat: an id that exists is not accepted again.

-- @include lib/intact.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/key.lua
-- @include lib/delayed.lua
-- @include lib/ending.lua

local ARRIVAL = '>BHc0Hc0Hc0'
local name, taken, new_records = ARGV[1], {}, {}
load_counts({ name })
load_tenants({ name })
local policy = call('HGET', POLICY, name)
local arrives = policy and cmsgpack.unpack(policy).moving == 'arriving'
for i = 2, #ARGV do
  local routed, id, due, field, at = struct.unpack(ARRIVAL, ARGV[i])
  local record, here = ARGV[i]:sub(at), call('GETRANGE', TASK .. id, 0, 599) -- records may be large
  if here == '' then
    local state, deliveries, priority, _, stamp = struct.unpack(HEADER, record)
    -- A runtime that led before may bring what has arrived, run and ended long ago.
    if state == LIVE and not arrives then return redis.error_reply('GONE the tenant does not arrive here any more') end
    if routed == 1 then use_routes() end
    if state == DEAD_STATE then
      local ms = math.max(1, (tonumber(due) - shard.now) / 1000)
      end_task(id, name, DEAD_STATE, ms, record)
    elseif due ~= '' then
      delay(name, id, tonumber(due))
      add(name, WAITING, 1)
    else
      enqueue(name, id, stamp, priority, deliveries, record)
      add(name, priority, 1)
    end
    if field ~= '' and not key_owners[field:sub(9)] and not call('GET', KEY .. field:sub(9)) then assign_key(id, field) end
    if state == LIVE then
      note_size(#record)
      new_records[#new_records + 1], new_records[#new_records + 2] = TASK .. id, record
    end
  elseif not readable(here) or tenant_of(here) ~= name then
    taken[#taken + 1] = id
  end
end
update_ring(arriving)

begin_writing()
write_keys()
if shard.routed then call('HSET', META, 'lanes', '1', 'routed', '1') end
call_all('MSET', new_records)
write_delayed()
write_ends()
save_counts()
save_shard()
return taken
