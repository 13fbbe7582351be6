-- Returns the due schedules to the runtime that leads the shard, and the time to sleep to all others.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 the most to return, 3 the longest sleep in ms
-- Reply {ms to sleep, the server's time in ms, {schedule, version, planned, checked, definition}, ...}; only its name of a
--       schedule whose tenant has gone to another shard
--
-- Bounded: its caller asks for 50 schedules, without their messages.
-- The first runtime to ask leads the shard, until a while after its next wake-up: so nobody has to renew anything, and
-- if it dies, another one takes over soon enough. This only saves work: several may lead, since ticks are compared. It
-- also deletes schedules that finished a while ago. Safe to repeat: it acts on what is due at that moment.

-- @include lib/intact.lua
-- @include own/lib.lua

local runtime, limit, longest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local leader = call('GET', OWN .. 'leader')
if leader and leader ~= runtime then
  return { integer(math.min(math.max(call('PTTL', OWN .. 'leader'), 0) + 1, longest)), integer(shard.wall_ms) }
end

local LOOK_AGAIN = 1000 -- ms until a schedule is looked at again whose tenant moves
local reply, deleted, not_due, postponed = { 0, integer(shard.wall_ms) }, {}, {}, {}
local function postpone(schedule, at) postponed[#postponed + 1], postponed[#postponed + 2] = at, schedule end
local found = call('ZRANGEBYSCORE', OWN .. 'due', '-inf', integer(shard.wall_ms), 'LIMIT', 0, limit)
for _, schedule in ipairs(found) do
  local state, version, planned, checked, definition, kept_until, overlap =
    unpack(call('HMGET', key_of(schedule), 'state', 'version', 'planned', 'checked', 'definition', 'until', 'overlap'))
  local moves = state == 'active' and moving((owner_of(schedule)))
  if moves == 'gone' then
    reply[#reply + 1] = { schedule }
    postpone(schedule, integer(shard.wall_ms + LOOK_AGAIN))
  elseif moves == 'arriving' and overlap ~= 'allow' then -- the run before may still be on its way here
    postpone(schedule, integer(shard.wall_ms + LOOK_AGAIN))
  elseif state == 'active' and definition and tonumber(version) and tonumber(planned) and tonumber(checked) then
    reply[#reply + 1] = { schedule, version, planned, checked, definition }
  elseif state == 'finished' and (tonumber(kept_until) or 0) > shard.wall_ms then -- the script that did so failed halfway
    postpone(schedule, kept_until)
  else
    not_due[#not_due + 1] = schedule
    local stays = definition and (state ~= 'finished' or kept_until == '')
    if not stays then deleted[#deleted + 1] = schedule end -- its time is over, or it was deleted by hand
  end
end

for _, schedule in ipairs(deleted) do call('DEL', key_of(schedule)) end
write_all('ZREM', OWN .. 'all', deleted)
write_all('ZREM', OWN .. 'due', not_due)
write_all('ZADD', OWN .. 'due', postponed)
local wait = longest
if #found > 0 then
  wait = 0
else
  local first = call('ZRANGE', OWN .. 'due', 0, 0, 'WITHSCORES')[2]
  if first then wait = math.min(math.max(tonumber(first) - shard.wall_ms, 1), longest) end
end
if #reply > 2 or call('EXISTS', OWN .. 'due') == 1 then
  call('SET', OWN .. 'leader', runtime, 'PX', integer(wait + MARGIN))
end
reply[1] = integer(wait)
return reply
