-- The short way of a send: one task that finds a runtime asleep, and nothing else that waits, is claimed for that runtime
-- by the script that accepts it, and the message that would wake the runtime brings it. That is half the way of one that
-- is fetched. One between two turns of the runtime, which says with the next whether it has heard: else it gets the task
-- with that.
--
-- It stands before the general way, and needs little of what that needs: to make its functions would take longest here.

-- @takes sender, remember from send.lua
-- @include lib/counts.lua
-- @include lib/policy.lua
-- @include lib/room.lua
-- @include lib/key.lua
-- @include lib/session.lua

-- A runtime that sleeps, holds its lease and would hear; nil where there is none.
local function find_idle_runtime()
  local runtime = call('SRANDMEMBER', IDLE)
  local lease = runtime and tonumber(call('ZSCORE', LEASES, runtime) or 0)
  if runtime and lease > shard.ms and call('PUBSUB', 'NUMSUB', INBOX .. runtime)[2] > 0 then return runtime end
end

-- Whether what limits a tenant, if anything does, lets one more of its tasks be accepted and start.
local function can_start(name, limits)
  if not limits then return true end
  load_usage({ name }, { limits })
  if limits.queued > 0 or room_in(name, limits, '') < 1 then return false end
  limits.queued = 1
  return eligibility(limits) == true
end

-- Accepts a task and hands it over; returns whether it did.
local function hand_over(priority, flag, id, name, key, body)
  local runtime = not shard.by_time and find_idle_runtime()
  -- Who serves certain tenants only is not looked for here, nor what was sent before.
  if not runtime or call('EXISTS', RING, HOMES, TASK .. id) > 0 then return false end
  load_counts({ name })
  local limits = limits_in(policy_of(name))
  if not can_start(name, limits) or take_key(id, name, key) then return false end

  local turn, _, refused = unpack_session(call('HGET', SESSIONS, runtime) or NO_SESSION)
  local mark = handed_after(turn)
  local record = struct.pack(HEADER, LIVE, 0, priority, 1, next_stamp(), #name, name) .. body
  add(name, priority, 1)
  if limits then count_start(limits) end

  begin_writing()
  write_keys()
  if flag == 'w' then call('HSET', WATCHERS, id, cmsgpack.pack({ sender })) end
  call('HSET', SESSIONS, runtime, pack_session(turn, id, refused)) -- first: it looks for the claim if it has not heard
  call('HSET', CLAIMS .. runtime, id, pack_mark(mark, priority, 1, name))
  call('SREM', IDLE, runtime)
  call('SET', TASK .. id, record)
  if limits and limits.due > shard.now then call('ZADD', RATES, integer(limits.due), name) end
  remember(0)
  save_counts()
  call('HSET', META, 'stamp', integer(shard.stamp), 'total', pack_counts(total), 'torn', '')
  call('PUBLISH', INBOX .. runtime, 'k' .. struct.pack('>c8dHc0', mark, shard.now, #id, id) .. record)
  return true
end

-- @scope
