-- One turn of a dispatcher: settles what has ended and claims what is next, in one step.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 number of the turn, 8 bytes, 3 lease in ms, 4 how many tasks it could start at once,
--       5 how many more it could start soon: it gets them only if no other runtime could start them at once,
--       6 1 if it received the task that was handed to it since its last turn, else 0,
--       7 what it permits suspects, packed as wire.py says,
--       8 its slots by kind, packed as wire.py says; '' if it has one kind
--       9 the most bytes of records in the reply, 10 so many outcomes, and so many claims, are taken in any case, 11 for how
--       many µs it may choose what it takes beyond these; then
--       an argument for each outcome, packed: number of the turn that claimed it, 8 bytes; state; ms; seconds that
--       it ran; id; data for plugins by name, packed, or ''; record. The state is 'F' finished, 'X' failed or
--       'C' canceled, with the ms to keep the record; 'R' to retry after ms; 'B': it never started and goes back to
--       its place; a turn with a 'B' claims nothing; 'U': the runtime lacks its actor, so it goes back for others; or
--       'V': its arguments do not fit the actor: likewise, if others have the actor in the task's version, else 'X'
-- Reply {now in µs, ms until something is due or -1, 1 if maintenance is due,
--        {ids of refused outcomes}, {id, record, ...} claimed, {ids to cancel, 200 at most},
--        1 if there is more to claim, 2 if there may be behind the tenants that were passed over,
--        0 if no suspect waits for it, 1 if some do, 2 if one waits until its process runs nothing else,
--        the rank on the ring behind the tenants that were passed over, or 0,
--        the clock of the ring: 4 doubles, see `RingClock` in wire.py; '' if the turn is repeated,
--        {id, bytes of its record, ...} of those claimed tasks of which the reply has only the beginning (pieces.lua),
--        how many outcomes the turn had: the first ones}
--       or 'declare' if the server does not know what the runtime can run: it has to say so (declare.lua), and repeat
--       the turn, or 'lapsed' if the runtime has no lease: its claims belong to others now,
--       or 'behind' if the server does not know the turn before this one: it has lost data
--
-- Safe to repeat: a turn sent again under its number changes only the lease, and gets the same reply, but for the
-- bytes of records: they are at most what this call says. It may have fewer outcomes. An outcome counts only for the claim
-- that it names: a late one is refused.

-- @include lib/intact.lua
-- @include lib/acting.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua
-- @include lib/settle.lua
-- @include lib/sample.lua
-- @include lib/budget.lua
-- @include lib/claim.lua
-- @include lib/suspects.lua
-- @include lib/session.lua
-- @include lib/old_senders.lua

local runtime, turn, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local want, ahead, received = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local FIRST_OUTCOME = 12
local BESIDE = 202 -- claims that are not among those that it wants: what joins batches, a suspect, what was handed over
local TENDING = 100 -- ms that a runtime has for maintenance
local claims_key = CLAIMS .. runtime

-- Lets a turn be large only if nothing but mailboxes has to be looked at for each task, and no record has to be measured.
local function limit_claims()
  local has_more = has_policies or lanes or limits or shard.by_time or shard.plugins or ARGV[8] ~= '' or home_time(runtime)
  local most = has_more and sure or math.max(sure, math.floor(tonumber(ARGV[9]) / shard.largest) - 2)
  want = math.min(want, most)
  ahead = math.min(ahead, most - want)
  return not has_more
end
sure = tonumber(ARGV[10])
local may_be_large = limit_claims()
if want + ahead > sure or #ARGV - FIRST_OUTCOME >= sure then limit_time(tonumber(ARGV[11])) end
limit_bytes(tonumber(ARGV[9]), want + ahead + (ARGV[8] ~= '' and BESIDE or 2))

local lease_end = tonumber(call('ZSCORE', LEASES, runtime))
if not lease_end or lease_end <= NO_LEASE then return 'lapsed' end
if not acts then return 'declare' end

-- Returns the ms that a dispatcher may sleep, or -1, and 1 if it has to do maintenance (tend.lua): one runtime at a time
-- is asked to. If it does not in time, another is.
local function next_due()
  local due = call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]
  local expiry = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2]
  local drained = want > 0 and call('ZRANGE', DRAINED, 0, 0, 'WITHSCORES')[2]
  local freed = has_policies and call('ZRANGE', THROTTLED, 0, 0, 'WITHSCORES')[2]
  local old = has_policies and call('ZRANGE', RATES, 0, 0, 'WITHSCORES')[2]
  local paid = limits and call('ZRANGE', LIMIT_DUES, 0, 0, 'WITHSCORES')[2] -- of tenants that may never come again
  local next_at = math.min(tonumber(due) or math.huge, tonumber(expiry) or math.huge)
  local unserved = lanes and tonumber(call('HGET', META, 'unserved') or nil)
  next_at = math.min(next_at, unserved or math.huge)
  local maintenance = next_at <= shard.ms or (drained and tonumber(drained) * 1000 <= shard.ms)
    or (old and tonumber(old) <= shard.now - OLD_RATE) or (paid and tonumber(paid) <= shard.now - OLD_RATE)
  if maintenance then
    local asked_until = tonumber(call('HGET', META, 'tended') or 0)
    maintenance = asked_until <= shard.ms or asked_until > shard.ms + TENDING -- or the clock was set back
    if maintenance then
      call('HSET', META, 'tended', integer(shard.ms + TENDING))
    else
      next_at = next_at <= shard.ms and asked_until or math.min(next_at, asked_until)
    end
  end
  next_at = math.min(next_at, tonumber(freed) or math.huge)
  if limits then
    local line = call('ZRANGEBYSCORE', LINES .. shard.kind, '(' .. integer(shard.ms), '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    local held = call('ZRANGEBYSCORE', HELD_BACK, '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    next_at = math.min(next_at, tonumber(line) or math.huge, tonumber(held) or math.huge)
  end
  return next_at == math.huge and -1 or math.max(0, next_at - shard.ms), maintenance and 1 or 0
end

-- Renews the lease, from time to time: returns whether it did. If no turn was taken since it ran out, the server was away, and all leases are renewed.
local function renew_leases()
  local outage = lease_end < shard.ms and shard.turned and shard.turned < lease_end
  for _, other in ipairs(outage and call('ZRANGEBYSCORE', LEASES, '(' .. NO_LEASE, integer(shard.ms)) or {}) do
    call('ZADD', LEASES, integer(shard.ms + lease), other)
  end
  local renews = lease_end - shard.ms < 0.9 * lease
  if renews then call('ZADD', LEASES, integer(shard.ms + lease), runtime) end
  call('HSET', META, 'turned', integer(shard.ms))
  return renews
end

-- Repeats the reply to an earlier turn: what it refused, what it claimed and still holds.
local function replay(packed)
  local ids, claims = {}, {}
  local held = call('HGETALL', claims_key)
  for i = 1, #held, 2 do
    if turn_in(held[i + 1]) == turn then ids[#ids + 1] = held[i] end
  end
  limit_bytes(most_bytes, math.huge)
  for i, record in ipairs(read_for_reply(ids, SHORT_BEGINNING)) do
    if record then claims[#claims + 1], claims[#claims + 2] = ids[i], record end
  end
  renew_leases() -- a runtime that asks again is alive
  local wait, maintenance = next_due()
  local had, refused = unpack(cmsgpack.unpack(packed))
  return { integer(shard.now), wait, maintenance, refused, claims,
    some_cancels(runtime), 1, 0, 0, '', cut, had }
end

local last_turn, handed, refused_then = unpack_session(call('HGET', SESSIONS, runtime) or NO_SESSION)
local last_number, number = struct.unpack('>I8', last_turn), struct.unpack('>I8', turn)
if number == last_number then return replay(refused_then) end
if number < last_number then return { integer(shard.now), 0, 0, {}, {}, {}, 0, 0, 0, '', {}, 0 } end -- a late copy
if number > last_number + 1 then return 'behind' end

-- Returns the mark of a claim that was handed over, if the runtime has not received the task; else nil.
local function missed_claim()
  local mark = handed ~= '' and not received and call('HGET', claims_key, handed)
  local by = mark and turn_in(mark)
  if by == handed_after(last_turn) or by == turn then return mark end -- its own: this turn failed halfway before
end

local outcomes = settle(runtime, FIRST_OUTCOME, may_be_large)
limit_claims() -- there may be lanes now
if outcomes.returns_tasks then want, ahead = 0, 0 end
run_ends_hook()
release_throttled()
local missed = missed_claim()
if missed then
  want = math.max(0, want - 1) -- it takes a worker
  weigh(handed)
end
local may_claim_ahead = true
if choose_suspect then
  want, may_claim_ahead = choose_suspect(runtime, want, ARGV[7], outcomes.returns_tasks)
  if not may_claim_ahead then ahead = 0 end
end
update_ring(arriving)
if charge_suspect then charge_suspect() end
if ahead > 0 and call('SCARD', shard.idle) > call('SISMEMBER', shard.idle, runtime) then ahead = 0 end
local period, began_at, own_time = shard.period, root.virtual, home_time(runtime)
if own_time then own_time = math.max(own_time, began_at) end -- where `choose` begins
local claims =
  choose(runtime, want + ahead, ARGV[8], ahead, may_claim_ahead and not outcomes.returns_tasks, missed and handed)
local advance = root.virtual - began_at + (own_time and (claims.dedicated_time or own_time) - own_time or 0)
local rests, has_all = claims.seated < want and not claims.full, claims.seated == want + ahead or claims.full
if add_suspect then add_suspect(claims) end
if missed then -- the reply brings it
  table.insert(claims.reply, handed)
  table.insert(claims.reply, read_for_reply({ handed }, BEGINNING)[1] or substitute_record(tenant_in(missed)))
end

begin_writing()
write_retries(outcomes)
write_ends()
if missed then call('HSET', claims_key, handed, turn .. missed:sub(9)) end
call('HSET', SESSIONS, runtime, pack_session(turn, '', cmsgpack.pack({ outcomes.had, outcomes.refused })))
forget_claims(runtime, outcomes)
write_claims(runtime, turn, claims)
if write_suspect then write_suspect(runtime) end
if renew_leases() then sample_counts() end
if #outcomes.retried > 0 then -- others must learn when to look: this runtime may not have the tasks' actors
  call('SREM', shard.idle, runtime)
  call('SREM', IDLE_HOMES, runtime)
  wake_idle()
  wake_dedicated(outcomes.retried)
end
call(rests and 'SADD' or 'SREM', serves_all(runtime) and shard.idle or IDLE_HOMES, runtime)
if ARGV[8] ~= '' then write_slots(runtime, rests) end
if write_old_ring then write_old_ring() end
if shard.old_senders then call(rests and 'SADD' or 'SREM', IDLE, runtime) end
save_counts()
shard.reports_throttled = true -- the reply says when a rate lets tasks start
local more = save_shard(has_all)
if limits and has_all and limits.waits() then
  more = true
  wake_kind(shard.idle)
end

local wait, maintenance = next_due()
local head = more and not own_time and call('ZRANGE', root.key, 0, 0, 'WITHSCORES')[2]
local start = own_time or began_at
return { integer(shard.now), wait, maintenance, outcomes.refused, claims.reply, outcomes.to_cancel,
  (more or claims.again) and 1 or claims.stopped and 2 or 0, suspects_left and suspects_left() or 0, claims.behind,
  struct.pack('>dddd', period, start, start + advance, head and tonumber(head) or 0), cut, outcomes.had }
