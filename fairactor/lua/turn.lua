-- One turn of a dispatcher: settles what has ended and claims what is next, in one step.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 number of the turn, 4 bytes, 3 lease in ms, 4 how many tasks it would take
--       then for each outcome: id, number of the turn that claimed it,
--       state and ms: 'F' finished, 'X' failed, 'C' canceled, and how long to keep the record,
--       or 'R' and when to try again; record
-- Reply {now in µs, ms until something is due or -1, 1 if `tend` has work,
--        {ids whose outcome was refused}, {id, record, ...} claimed}
--       or {} when the runtime has no lease: its claims belong to others now
--
-- An outcome counts only from the claim that it names: a late one is refused. A turn sent again under the same
-- number changes nothing, and gives the same reply.

-- @include lib/base.lua
-- @include lib/tenants.lua
-- @include lib/outcome.lua
-- @include lib/claim.lua

local FIELDS = 4
local runtime, turn, lease, want = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local claims_key = CLAIMS .. runtime

if not call('ZSCORE', LEASES, runtime) then return {} end

-- Until when a sleeping dispatcher may sleep, and whether `tend` has something to do.
local function outlook()
  local now = math.floor(shard.now / 1000)
  local due = call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]
  local expiry = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2]
  local drained = call('ZRANGE', DRAINED, 0, 0, 'WITHSCORES')[2]
  local next_at = math.min(tonumber(due) or math.huge, tonumber(expiry) or math.huge)
  local tend = next_at <= now or (drained and tonumber(drained) * 1000 <= now)
  return next_at == math.huge and -1 or math.max(0, next_at - now), tend and 1 or 0
end

-- The reply to a turn that was carried out before: what it refused, and what it claimed if it is still claimed.
local function replay(packed)
  local ids, claims = {}, {}
  local held = call('HGETALL', claims_key)
  for i = 1, #held, 2 do
    if held[i + 1]:sub(1, 4) == turn then ids[#ids + 1] = held[i] end
  end
  for i, record in ipairs(#ids > 0 and read_records(ids) or {}) do
    if record then claims[#claims + 1], claims[#claims + 2] = ids[i], record end
  end
  local wait, tend = outlook()
  return { integer(shard.now), wait, tend, cmsgpack.unpack(packed), claims }
end

local session = call('HGET', SESSIONS, runtime)
if session and session:sub(1, 4) == turn then return replay(session:sub(5)) end

-- 1. What has ended: decide which outcomes count.

local ids = {}
for i = 5, #ARGV, FIELDS do ids[#ids + 1] = ARGV[i] end
local held_as = #ids > 0 and read_all('HMGET', claims_key, ids) or {}
local watching = #ids > 0 and call('EXISTS', WATCHERS) == 1 and read_all('HMGET', WATCHERS, ids) or {}

local counted, owners, refused = {}, {}, {} -- where in ARGV the outcomes are that count, and whose they are
for n, id in ipairs(ids) do
  local i, held = 5 + (n - 1) * FIELDS, held_as[n]
  if held and held:sub(1, 4) == ARGV[i + 1] then
    counted[#counted + 1], owners[#owners + 1] = i, held:sub(5)
  else
    refused[#refused + 1] = id
  end
end
load_tenants(owners)

local settled, again, dropped = {}, {}, {}
for n, i in ipairs(counted) do
  local t, id, state, ms = tenants[owners[n]], ARGV[i], ARGV[i + 2]:sub(1, 1), tonumber(ARGV[i + 2]:sub(2))
  settled[n] = id
  add(t, STARTED, -1)
  if state == 'R' then
    add(t, WAITING, 1)
    again[#again + 1], again[#again + 2] = integer(math.floor(shard.now / 1000) + ms), id
  else
    add_ended(t, state, ms)
    if ms == 0 then dropped[#dropped + 1] = TASK .. id end
  end
end

-- 2. What is next: decide what to claim.

local claims, heads = collect(choose(want))
local claimed = {}
for name, mine in pairs(heads) do
  local mark = turn .. name
  for _, id in ipairs(mine) do claimed[#claimed + 1], claimed[#claimed + 2] = id, mark end
end
tag_departures()

-- 3. Write it all.

for _, i in ipairs(counted) do
  local state, ms = ARGV[i + 2]:sub(1, 1), tonumber(ARGV[i + 2]:sub(2))
  if state == 'R' then
    call('SET', TASK .. ARGV[i], ARGV[i + 3])
  elseif ms > 0 then
    keep_record(ARGV[i], ARGV[i + 3], ms)
  end
end
write_all('ZADD', SCHEDULED, again)
write_all('HDEL', claims_key, settled)
if #settled > 0 and call('EXISTS', PROGRESS) == 1 then write_all('HDEL', PROGRESS, settled) end
write_all('HSET', claims_key, claimed)
for name, mine in pairs(heads) do
  if #mine > 0 then call('ZREMRANGEBYRANK', QUEUE .. name, 0, #mine - 1) end
end
for i = 1, #dropped, SLICE do call('DEL', unpack(dropped, i, math.min(i + SLICE - 1, #dropped))) end
call('HSET', SESSIONS, runtime, turn .. cmsgpack.pack(refused))
call('ZADD', LEASES, integer(math.floor(shard.now / 1000) + lease), runtime)
call(#claims / 2 < want and 'SADD' or 'SREM', IDLE, runtime)
save_tenants()
for n, waiting in pairs(watching) do
  local i = 5 + (n - 1) * FIELDS
  if waiting and ARGV[i + 2]:sub(1, 1) ~= 'R' and held_as[n] and held_as[n]:sub(1, 4) == ARGV[i + 1] then
    tell_watchers(ids[n], ARGV[i + 3], waiting)
  end
end

local wait, tend = outlook()
return { integer(shard.now), wait, tend, refused, claims }
