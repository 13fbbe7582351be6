-- Maintenance: queues due tasks, takes claims back from dead runtimes, and deletes what has expired.
--
-- KEYS  1 META of the shard
-- ARGV  1 the most of each to do in this call, 2 deliveries after which a task fails,
--       3 ms to keep its record, 4 its outcome if its runtimes died, 5 if they were silent
-- Reply {tasks queued, runtimes found dead, 1 if there is more to do}
--
-- Safe to repeat: it acts on what is due at that moment, whoever calls it.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua
-- @include lib/release.lua

local limit, deliveries = tonumber(ARGV[1]), tonumber(ARGV[2])
shard.failed_ttl = tonumber(ARGV[3])
local now = integer(shard.ms)

local drained = call('ZRANGEBYSCORE', DRAINED, '-inf', integer(math.floor(shard.now / 1e6)), 'LIMIT', 0, limit)
load_counts(drained) -- to be written again, or dropped
local rates = call('ZRANGEBYSCORE', RATES, '-inf', integer(shard.now - OLD_RATE), 'LIMIT', 0, limit)
local expired = call('ZRANGEBYSCORE', DEAD, '-inf', integer(shard.now), 'LIMIT', 0, limit)

local due = call('ZRANGEBYSCORE', SCHEDULED, '-inf', now, 'LIMIT', 0, limit)
local promoted = {}
for i, record in ipairs(read_records(due)) do
  if record then
    local _, count, priority, _, stamp, name = struct.unpack(HEADER, record)
    load_counts({ name })
    load_tenants({ name })
    enqueue(name, due[i], stamp, priority, count)
    promoted[#promoted + 1] = { name = name, priority = priority }
  end
end
for _, task in ipairs(promoted) do -- only now: `load_tenants` needs the counts as they were
  add(task.name, WAITING, -1)
  add(task.name, task.priority, 1)
end

-- One dead runtime a call: its claims may be many.
local dead = call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. now, 'LIMIT', 0, 1)[1]
local _, assigned_tenants, write_release
if dead then
  -- Its process lives if it is still subscribed: its event loop is blocked, or it is stopped.
  local lives = call('PUBSUB', 'NUMSUB', INBOX .. dead)[2] > 0
  _, assigned_tenants, write_release =
    release(dead, lives and 'silent' or 'died', deliveries, lives and ARGV[5] or ARGV[4])
end
run_ends_hook()
update_ring(arriving)
clamp_tags(assigned_tenants or NONE)

begin_writing()
if dead then write_release() else write_queues() end
write_all('ZREM', SCHEDULED, due)
write_all('ZREM', DRAINED, drained)
write_all('ZREM', DEAD, expired)
write_all('ZREM', RATES, rates)
if dead then forget(dead) end
save_counts()
save_shard()
if dead then wake_all() end
local more = #due == limit or #drained == limit or #expired == limit or #rates == limit or dead
return { #due, dead and 1 or 0, more and 1 or 0 }
