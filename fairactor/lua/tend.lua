-- Does a step of the maintenance: queues due tasks, takes back claims of a dead runtime, deletes what has expired.
--
-- KEYS  1 META of the shard
-- ARGV  1 the most of each to do in this call, 2 deliveries after which a task fails,
--       3 ms to keep its record, 4 its outcome if its runtimes died, 5 if they were silent
-- Reply {tasks queued, runtimes of which claims were taken back, 1 if there is more to do,
--        {ids of the tasks that were given up},
--        {lane whose tasks have waited for too long for a runtime that can run them, since when, ms, ...} (expire.lua);
--        '' is the common lane, from the moment when no runtime serves it (sort.lua)}
--
-- Safe to repeat: it acts on what is due at that moment, whoever calls it.

-- @include lib/intact.lua
-- @include lib/fleet.lua

-- One dead runtime a call, and some of its claims.
local dead = call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. integer(shard.ms), 'LIMIT', 0, 1)[1]
local write_kind = dead and end_kind_of(dead) or close_lanes()

-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua
-- @include lib/release.lua
-- @include lib/undelay.lua

local TENANTS = 40 -- whose due tasks one call queues
local MOST_UNSERVED = 40 -- lanes, twice
local MOST_LANES = 500 -- at which one call looks: if there are more, at some
local BESIDE = 50 -- the most due tasks that it queues if it also takes back claims
local HEADER_START, HEADER_SIZE = '>c1BBHd', 15 -- a record up to its tenant's name
local NO_HEADER = 'L\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

local limit, deliveries = tonumber(ARGV[1]), tonumber(ARGV[2])
shard.failed_ttl = tonumber(ARGV[3])
local now = integer(shard.ms)

local _, assigned_tenants, write_release
if dead then
  -- Its process lives if it is still subscribed: its event loop is blocked, or it is stopped.
  local lives = call('PUBSUB', 'NUMSUB', INBOX .. dead)[2] > 0
  local why = why_ended(dead) or (lives and 'silent' or 'died')
  _, _, assigned_tenants, write_release = release(dead, why, deliveries, why == 'silent' and ARGV[5] or ARGV[4])
  limit = math.min(limit, BESIDE)
end

local drained = call('ZRANGEBYSCORE', DRAINED, '-inf', integer(math.floor(shard.now / 1e6)), 'LIMIT', 0, limit)
load_counts(drained) -- to be written again, or dropped
local rates = call('ZRANGEBYSCORE', RATES, '-inf', integer(shard.now - OLD_RATE), 'LIMIT', 0, limit)
local paid = limits and call('ZRANGEBYSCORE', LIMIT_DUES, '-inf', integer(shard.now), 'LIMIT', 0, limit) or {}
local expired = call('ZRANGEBYSCORE', DEAD, '-inf', integer(shard.now), 'LIMIT', 0, limit)

local due, number_due = {}, 0 -- tenant -> the ids of its tasks that are queued here; how many they are

-- Queues due tasks of a tenant, in the order in which they are due; `most` at most.
local function promote(name, most)
  local found, ids = call('ZRANGEBYSCORE', DELAYED .. name, '-inf', now, 'WITHSCORES', 'LIMIT', 0, most), {}
  for i = 1, #found, 2 do
    local id, header = found[i], call('GETRANGE', TASK .. found[i], 0, HEADER_SIZE - 1) -- records may be large
    local _, count, priority, _, stamp = struct.unpack(HEADER_START, #header == HEADER_SIZE and header or NO_HEADER)
    if priority < 1 or priority > CRITICAL then count, priority = 0, 3 end -- the runtime that claims it fails it
    ids[#ids + 1] = id
    enqueue(name, id, stamp, priority, count)
    add(name, WAITING, -1)
    add(name, priority, 1)
  end
  due[name], number_due = ids, number_due + #ids
end

-- Each tenant gets an equal share, and what those before it have left. One with more due tasks then goes behind the
-- others (`remove_delayed`).
local waiting = call('ZRANGEBYSCORE', SCHEDULED, '-inf', now, 'LIMIT', 0, math.min(limit, TENANTS))
load_counts(waiting)
load_tenants(waiting)
for i, name in ipairs(waiting) do promote(name, math.ceil((limit - number_due) / (#waiting - i + 1))) end

-- Returns the lanes that no runtime has served for too long, and when to look again.
local function find_unserved()
  local at = lanes and tonumber(call('HGET', META, 'unserved') or nil)
  if not at or at > shard.ms then return {} end
  local are_all = call('HLEN', LANES) <= MOST_LANES
  local known = are_all and call('HGETALL', LANES) or call('HRANDFIELD', LANES, MOST_LANES, 'WITHVALUES')
  local ttl, found = tonumber(call('HGET', META, 'unknown_ttl') or 0), {}
  local sorts = call('HEXISTS', META, 'sorting') == 1
  local again = sorts or not are_all
  if sorts then found = { '', '0' } end
  for i = 1, #known, 2 do
    local since = tonumber(known[i + 1])
    again = again or since > 0
    if since > 0 and since + ttl <= shard.ms and #found < MOST_UNSERVED then
      found[#found + 1], found[#found + 2] = known[i], known[i + 1]
    end
  end
  return found, again and integer(shard.ms + math.max(1000, ttl / 20)) or ''
end
local unserved, look_again = find_unserved()

run_ends_hook()
update_ring(arriving)
clamp_tags(not shard.kind_goes and assigned_tenants or NONE)

begin_writing()
if dead then write_release() else write_queues() end
if write_kind then write_kind() end
for name, ids in pairs(due) do remove_delayed(name, ids, shard.ms) end
if look_again == '' then call('HDEL', META, 'unserved') elseif look_again then call('HSET', META, 'unserved', look_again) end
write_all('ZREM', DRAINED, drained)
change_letters('ZREM', expired)
write_all('ZREM', RATES, rates)
write_all('ZREM', LIMIT_DUES, paid)
write_all('HDEL', LIMIT_BUSY, paid)
save_counts()
call('HDEL', META, 'tended') -- the next turn may ask for more at once
save_shard()
if dead then wake_all() end
local next_at = tonumber(call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]) or math.huge
local more = next_at <= shard.ms or #drained == limit or #expired == limit or #rates == limit or #paid == limit or dead
return { number_due, dead and 1 or 0, more and 1 or 0, given_up, unserved }
