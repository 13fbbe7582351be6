-- Does what time asks for: queues what is due, takes claims back from dead runtimes, forgets old counts.
--
-- KEYS  1 META of the shard
-- ARGV  1 the most of each to do in this call, 2 deliveries after which a task is given up,
--       3 how long its record is kept, ms, 4 the body of its outcome
-- Reply {tasks queued, runtimes found dead, 1 if there is more to do}
--
-- Safe to repeat: it acts on what is due at the moment, whoever calls it.

-- @include lib/base.lua
-- @include lib/tenants.lua
-- @include lib/outcome.lua
-- @include lib/release.lua

local limit, deliveries, body = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4]
shard.failed_ttl = tonumber(ARGV[3])
local now = integer(math.floor(shard.now / 1000))

local due = call('ZRANGEBYSCORE', SCHEDULED, '-inf', now, 'LIMIT', 0, limit)
local records, names = read_records(due), {}
for _, record in ipairs(records) do
  if record then names[#names + 1] = select(5, struct.unpack(HEADER, record)) end
end
load_tenants(names)
local queues = {}
for i, id in ipairs(due) do
  if records[i] then
    local _, _, priority, stamp, name = struct.unpack(HEADER, records[i])
    local queue = queues[name] or {}
    queue[#queue + 1], queue[#queue + 2] = place(stamp, priority), id
    queues[name] = queue
    add(tenants[name], WAITING, -1)
    add_queued(tenants[name], priority, 1)
  end
end

-- One dead runtime a call: its claims may be many.
local dead = call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. now, 'LIMIT', 0, 1)[1]
local write_release = dead and release(call('HKEYS', CLAIMS .. dead), deliveries, body)

local old = call('ZRANGEBYSCORE', DRAINED, '-inf', integer(shard.now / 1e6), 'LIMIT', 0, limit)
load_tenants(old)
for _, name in ipairs(old) do tenants[name][CHANGED] = true end -- so that it is saved, or dropped

tag_arrivals()

for name, queue in pairs(queues) do write_all('ZADD', QUEUE .. name, queue) end
write_all('ZREM', SCHEDULED, due)
if dead then
  write_release()
  forget(dead)
end
write_all('ZREM', DRAINED, old)
save_tenants()
local more = #due == limit or #old == limit or dead
return { #due, dead and 1 or 0, more and 1 or 0 }
