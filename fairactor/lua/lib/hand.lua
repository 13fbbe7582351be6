-- The fast path of a send: if nothing else waits, a single task is claimed at once for a sleeping runtime, and the
-- message that wakes it brings the task: half the way of a fetch. A runtime gets one such task between two turns. Its
-- next turn says whether the message arrived; if not, the reply brings the task.
--
-- It comes before the general path and uses little of it: creating those functions would take longest here.

-- @takes sender, remember from send.lua
-- @include lib/counts.lua
-- @include lib/policy.lua
-- @include lib/room.lua
-- @include lib/key.lua
-- @include lib/session.lua
-- @include lib/lanes.lua

-- Returns a sleeping runtime of a kind that holds its lease and is subscribed, or nil.
local function find_idle_runtime(idle)
  local runtime = call('SRANDMEMBER', idle)
  local lease = runtime and tonumber(call('ZSCORE', LEASES, runtime) or 0)
  if runtime and lease > shard.ms and call('PUBSUB', 'NUMSUB', INBOX .. runtime)[2] > 0 then return runtime end
end

-- Returns a sleeping runtime of a kind for which nothing waits, and that serves the lane of a task; and the key of the
-- idle ones.
local function find_in_lanes(name, body)
  local lane = lanes.of_route(lanes.route_in(struct.pack(HEADER, LIVE, 0, 1, 1, 0, #name, name) .. body))
  for _, kind in ipairs(lanes.kinds) do
    local suffix = kind == '0' and '' or ':' .. kind
    local runtime = lanes.serves(kind, lane) and call('EXISTS', RING .. suffix) == 0 and find_idle_runtime(IDLE .. suffix)
    if runtime then return runtime, IDLE .. suffix end
  end
end

-- Whether a tenant's limits let one more of its tasks be accepted and start.
local function can_start(name, limits)
  if not limits then return true end
  load_usage({ name }, { limits })
  if limits.queued > 0 or room_in(name, limits, '') < 1 then return false end
  limits.queued = 1
  return eligibility(limits) == true
end

-- Accepts a task and hands it over. Returns whether it did.
local function hand_over(priority, flag, id, name, key, body)
  if priority >= ROUTED then
    priority = priority - ROUTED
    use_routes()
  end
  if shard.by_time then return false end
  local runtime, idle = nil, shard.idle
  if lanes then runtime, idle = find_in_lanes(name, body) else runtime = find_idle_runtime(idle) end
  -- Dedicated runtimes and existing ids are left to the general path.
  if not runtime or call('EXISTS', not lanes and shard.ring or HOMES, HOMES, TASK .. id) > 0 then return false end
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
  if shard.routed then call('HSET', META, 'lanes', '1', 'routed', '1') end
  if flag == 'w' then call('HSET', WATCHERS, id, cmsgpack.pack({ sender })) end
  call('HSET', SESSIONS, runtime, pack_session(turn, id, refused)) -- first: if the message is lost, a turn looks here
  call('HSET', CLAIMS .. runtime, id, pack_mark(mark, priority, 1, name))
  call('SREM', idle, runtime)
  call('SET', TASK .. id, record)
  if limits and limits.due > shard.now then call('ZADD', RATES, integer(limits.due), name) end
  remember(0)
  save_counts()
  save_clock()
  call('HSET', META, 'stamp', integer(shard.stamp), 'total', pack_counts(total), 'torn', '')
  call('PUBLISH', INBOX .. runtime, 'k' .. struct.pack('>c8dHc0', mark, shard.now, #id, id) .. record)
  return true
end

-- @scope
