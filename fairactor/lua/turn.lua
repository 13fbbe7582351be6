-- One turn of a dispatcher: settles what has ended and claims what is next, in one step.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 number of the turn, 4 bytes, 3 lease in ms, 4 how many tasks it would take
--       then an argument for each outcome, packed: number of the turn that claimed it, 4 bytes; verdict; id; record.
--       The verdict is a state and ms: 'F' finished, 'X' failed, 'C' canceled, and how long to keep the record;
--       'R' and when to try again; or 'B': it never started, and goes back to its place. Who gives back claims nothing
-- Reply {now in µs, ms until something is due or -1, 1 if `tend` has work,
--        {ids whose outcome was refused}, {id, record, ...} claimed, {ids it holds that are to be canceled}}
--       or 'lapsed' when the runtime has no lease: its claims belong to others now,
--       or 'behind' when the server does not know the turn before this one: it has lost what it had said
--
-- An outcome counts only from the claim that it names: a late one is refused. A turn sent again under the same
-- number changes nothing but the lease, and gives the same reply.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua
-- @include lib/claim.lua

local OUTCOME = '>c4Bc0Hc0'
local runtime, turn, lease, want = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local claims_key = CLAIMS .. runtime

local lease_end = tonumber(call('ZSCORE', LEASES, runtime))
if not lease_end then return 'lapsed' end

-- Until when a sleeping dispatcher may sleep, and whether `tend` has something to do.
local function outlook()
  local due = call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]
  local expiry = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2]
  local drained = want > 0 and call('ZRANGE', DRAINED, 0, 0, 'WITHSCORES')[2]
  local next_at = math.min(tonumber(due) or math.huge, tonumber(expiry) or math.huge)
  local tend = next_at <= shard.ms or (drained and tonumber(drained) * 1000 <= shard.ms)
  return next_at == math.huge and -1 or math.max(0, next_at - shard.ms), tend and 1 or 0
end

-- Renews the lease. Where no turn was taken since it ran out, it was the server that was away, and nobody's fault: then
-- all who hold a lease get a new one.
local function renew()
  local outage = lease_end < shard.ms and shard.turned and shard.turned < lease_end
  for _, other in ipairs(outage and call('ZRANGEBYSCORE', LEASES, '-inf', integer(shard.ms)) or {}) do
    call('ZADD', LEASES, integer(shard.ms + lease), other)
  end
  if lease_end - shard.ms < 0.9 * lease then call('ZADD', LEASES, integer(shard.ms + lease), runtime) end
  call('HSET', META, 'turned', integer(shard.ms))
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
  renew() -- who asks again is alive
  local wait, tend = outlook()
  return { integer(shard.now), wait, tend, cmsgpack.unpack(packed), claims, call('HKEYS', CANCELS .. runtime) }
end

local session = call('HGET', SESSIONS, runtime)
local last, this = session and struct.unpack('>I4', session) or 0, struct.unpack('>I4', turn)
if this == last then return replay(session:sub(5)) end
if this < last then return { integer(shard.now), 0, 0, {}, {}, {} } end -- a copy that was long under way: too late
if this > last + 1 then return 'behind' end

-- 1. What has ended: decide which outcomes count.

-- Of each outcome, in lists beside each other: id, claiming turn, verdict, and where in its argument the record is.
local ids, turns, verdicts, bodies = {}, {}, {}, {}
for i = 5, #ARGV do
  local n = i - 4
  turns[n], verdicts[n], ids[n], bodies[n] = struct.unpack(OUTCOME, ARGV[i])
end
local function record_of(n) return ARGV[n + 4]:sub(bodies[n]) end

local marks = read_all('HMGET', claims_key, ids)
local cancels = {}
local canceling = call('HGETALL', CANCELS .. runtime)
for i = 1, #canceling, 2 do cancels[canceling[i]] = canceling[i + 1] end
local counted, owners, refused, seen = {}, {}, {}, {} -- which outcomes count, and whose they are
for n, id in ipairs(ids) do
  if marks[n] and marks[n]:sub(1, 4) == turns[n] and not seen[id] then
    seen[id] = true
    counted[#counted + 1], owners[#owners + 1] = n, marks[n]:sub(6)
  else
    refused[#refused + 1] = id
  end
end
load_counts(owners)
if has_policies then meet(owners) end
learn(ids)

local settled, again = {}, {}
for c, n in ipairs(counted) do
  local name, id, state, ms = owners[c], ids[n], verdicts[n]:sub(1, 1), tonumber(verdicts[n]:sub(2))
  local priority = marks[n]:byte(5)
  settled[c] = id
  add_started(name, -1)
  if cancels[id] and (state == 'R' or state == 'B') and readable(record_of(n)) then
    -- It was to be canceled, and its runtime had not heard.
    add(name, priority, -1)
    cancel_task(id, name, record_of(n), cancels[id])
  elseif state == 'R' then
    add(name, priority, -1)
    add(name, WAITING, 1)
    again[#again + 1] = { id = id, at = integer(shard.ms + ms), record = record_of(n) }
  elseif state == 'B' then
    local record, stamp = record_of(n), shard.now
    if readable(record) then stamp = select(5, struct.unpack(HEADER, record)) end
    meet({ name })
    enqueue(name, id, stamp, priority)
    want = 0
  else
    add(name, priority, -1)
    ms = time_to_keep(id, state, ms)
    end_task(id, name, state, ms, ms > 0 and record_of(n))
  end
end

-- 2. What is next: decide what to claim.

arrive(arriving)
local chosen, whose = choose(want, arrive(with_room()))
local claims, held = {}, {}
for i, record in ipairs(read_records(chosen)) do
  local id, name = chosen[i], whose[i][NAME]
  record = record or stand_for_lost(name)
  claims[#claims + 1], claims[#claims + 2] = id, record
  held[#held + 1], held[#held + 2] = id, turn .. record:sub(3, 3) .. name
end

-- 3. Write it all.

begin_writing()
for _, task in ipairs(again) do
  call('SET', TASK .. task.id, task.record)
  call('ZADD', SCHEDULED, task.at, task.id)
end
write_queues()
write_ends()
call('HSET', SESSIONS, runtime, turn .. cmsgpack.pack(refused))
write_all('HDEL', claims_key, settled)
if #settled > 0 and call('EXISTS', PROGRESS) == 1 then write_all('HDEL', PROGRESS, settled) end
if #canceling > 0 then write_all('HDEL', CANCELS .. runtime, settled) end
write_all('HSET', claims_key, held)
for name, t in pairs(tenants) do
  if t[TAKEN] > 0 then call('ZREMRANGEBYRANK', QUEUE .. name, 0, t[TAKEN] - 1) end
end
renew()
call(#chosen < want and 'SADD' or 'SREM', IDLE, runtime)
save_counts()
save_shard(#chosen == want)

local to_cancel = {}
for id in pairs(cancels) do
  if not seen[id] then to_cancel[#to_cancel + 1] = id end
end
local wait, tend = outlook()
return { integer(shard.now), wait, tend, refused, claims, to_cancel }
