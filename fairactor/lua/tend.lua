-- Does what time asks for: queues what is due, takes claims back from dead runtimes, forgets old counts.
--
-- KEYS  1 META of the shard
-- ARGV  1 the most of each to do in this call, 2 deliveries after which a task is given up,
--       3 how long its record is kept, ms, 4 the body of its outcome
-- Reply {tasks queued, runtimes found dead, 1 if there is more to do}
--
-- Safe to repeat: it acts on what is due at the moment, whoever calls it.

-- @include lib/base.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/outcome.lua
-- @include lib/release.lua

local limit, deliveries, body = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4]
shard.failed_ttl = tonumber(ARGV[3])
local now = integer(math.floor(shard.now / 1000))

local old = call('ZRANGEBYSCORE', DRAINED, '-inf', integer(math.floor(shard.now / 1e6)), 'LIMIT', 0, limit)
load_counts(old) -- to be written again, or dropped

local due = call('ZRANGEBYSCORE', SCHEDULED, '-inf', now, 'LIMIT', 0, limit)
local queues, arriving = {}, {}
for i, record in ipairs(read_records(due)) do
  if record then
    local _, _, priority, stamp, name = struct.unpack(HEADER, record)
    load_counts({ name })
    meet({ name })
    local queue = queues[name]
    if not queue then
      queue = {}
      queues[name] = queue
      arriving[#arriving + 1] = name
    end
    queue[#queue + 1], queue[#queue + 2] = place(stamp, priority), due[i]
  end
end
for i, record in ipairs(read_records(due)) do
  if record then
    local _, _, priority, _, name = struct.unpack(HEADER, record)
    add(name, WAITING, -1)
    add(name, priority, 1)
  end
end

-- One dead runtime a call: its claims may be many.
local dead = call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. now, 'LIMIT', 0, 1)[1]
local back, write_release = {}, nil
if dead then back, write_release = release(call('HGETALL', CLAIMS .. dead), deliveries, body) end
arrive(arriving)
arrive(back)
arrive(with_room())

for name, queue in pairs(queues) do write_all('ZADD', QUEUE .. name, queue) end
write_all('ZREM', SCHEDULED, due)
if dead then
  write_release()
  forget(dead)
end
write_all('ZREM', DRAINED, old)
save_counts()
save_ring()
local more = #due == limit or #old == limit or dead
return { #due, dead and 1 or 0, more and 1 or 0 }
