-- Handing a task to a runtime that sleeps. It is claimed in the script that accepts it, and the message that would wake
-- the runtime brings it: half the way of one that is fetched. Only where nothing else waits, so that it is its turn; and
-- one between two turns of the runtime, which says with the next whether it has heard: else it gets the task with that.

-- @include lib/session.lua

-- A runtime that would start a task of that tenant at once; nil where there is none, or the task has to wait its turn.
local function receiver_for(name)
  if shard.by_time or next(homes) or call('EXISTS', RING) == 1 then return nil end
  local limits = tenants[name][LIMITS]
  if limits then
    if limits.queued > 0 then return nil end
    limits.queued = 1
    local place = standing(limits)
    limits.queued = 0
    if place ~= true then return nil end
  end
  local runtime = call('SRANDMEMBER', IDLE)
  local lease = runtime and tonumber(call('ZSCORE', LEASES, runtime) or 0)
  if not runtime or lease <= shard.ms or call('PUBSUB', 'NUMSUB', INBOX .. runtime)[2] == 0 then return nil end
  return runtime
end

local function write_handed(runtime, id, name, priority)
  local turn, _, refused = unpack_session(call('HGET', SESSIONS, runtime) or NO_SESSION)
  call('HSET', SESSIONS, runtime, pack_session(turn, id, refused)) -- first: it looks for the claim if it has not heard
  call('HSET', CLAIMS .. runtime, id, pack_mark(handed_after(turn), priority, 1, name))
  call('SREM', IDLE, runtime)
  return handed_after(turn)
end

local function tell_handed(runtime, mark, id, record)
  call('PUBLISH', INBOX .. runtime, 'k' .. struct.pack('>c8dHc0', mark, shard.now, #id, id) .. record)
end
