-- Where the tasks stand: each place is looked at in turn, and the first in which a task may stand is its place.

-- @include lib/mend_steps.lua
-- @include lib/counts.lua
-- @include lib/ending.lua

-- The places, as MENDING has them: a mailbox in a lane, the suspects, the delayed ones; held back by a plugin; a runtime
-- that has claimed the task; behind the task that it follows; or the task has ended.
local IN_MAILBOX, SUSPECT, IS_DELAYED, IS_HELD, CLAIMED, FOLLOWS, HAS_ENDED = 'q', 's', 'd', 'h', 'c', 'f', 'E'
local SOON = 1e6 -- µs: a stamp further ahead is the due time of a delayed task, not the clock's

local tasks = {} -- id -> state, deliveries, priority, stamp, tenant of its record; false: it cannot be read
local function task_of(id)
  if tasks[id] == nil then
    local header = call('GETRANGE', TASK .. id, 0, 600)
    local letter = header:sub(1, 1)
    tasks[id] = false
    if readable(header) and (letter == LIVE or ENDED[letter]) then
      local _, count, priority, _, stamp, name = struct.unpack(HEADER, header)
      tasks[id] = { state = letter, count = count, priority = priority, stamp = stamp, name = name }
    end
  end
  return tasks[id]
end

local function lives(id)
  local task = task_of(id)
  return task and task.state == LIVE
end

local counted = {} -- tenant -> its counts so far
local function counted_of(name)
  if not counted[name] then
    local packed = known('c', name)
    if not packed then list(TENANTS, name) end
    counted[name] = unpack_counts(packed)
  end
  return counted[name]
end

-- Notes where a task stands, and counts it.
local function note_place(id, where, index)
  local task = task_of(id)
  local c = counted_of(task.name)
  c[index] = c[index] + 1
  note('t', id, where)
  note('c', task.name, pack_counts(c))
end

-- Takes a place for a task that lives and has none. Returns whether the task may stay there, and whether it had none.
local function take_place(id, where, tenant, index)
  local task = task_of(id)
  if not task or task.state ~= LIVE or (tenant and task.name ~= tenant) then return false end
  local stands = known('t', id)
  if stands then return stands == where end
  note_place(id, where, index or task.priority)
  return true, true
end

-- Returns where a queued task belongs: among the suspects of its tenant, in that lane if its route allows it, or in another.
local function place_for(id, lane)
  if task_of(id).count > 0 then return SUSPECT end
  if not lanes then return IN_MAILBOX end
  return IN_MAILBOX .. (lane and lanes.may_have(lane, id) and lane or lanes.of_task(id))
end

-- Puts a task where it belongs.
local function put(id, where)
  local task, key = task_of(id), nil
  if where == SUSPECT then
    list(SUSPECTS, task.name)
    key = SUSPECTS .. task.name
  else
    local prefix = where == IN_MAILBOX and QUEUE or LANE_QUEUE
    key = mailbox(task.name, where:sub(2))
    list(prefix, key:sub(#prefix + 1))
  end
  call('ZADD', key, place(task.stamp, task.priority), id)
end

-- Looks at tasks in a mailbox, or among the suspects. `lane` is nil if the name of the mailbox makes no sense.
local function repair_queued(key, here, lane, name, flat)
  local places, gone, has_moved = {}, {}, false
  for i = 1, #flat, 2 do
    local id, stays = flat[i], false
    local task = lane and task_of(id)
    spend(4)
    if task and task.state == LIVE and task.name == name then
      local where = known('t', id)
      if not where then
        if here == SUSPECT and task.count == 0 then -- the script broke off before it wrote the count
          task.count = 1
          call('SETRANGE', TASK .. id, 1, string.char(1))
        end
        where = place_for(id, lane)
        note_place(id, where, task.priority)
        if where ~= here then
          put(id, where)
          has_moved = true
        end
      end
      stays = where == here
      local at = place(task.stamp, task.priority)
      if stays and tonumber(flat[i + 1]) ~= at then places[#places + 1], places[#places + 2] = at, id end
    end
    if not stays then gone[#gone + 1] = id end
  end
  write_all('ZADD', key, places)
  if has_moved then save_step() end -- before a task leaves the place where it was
  write_all('ZREM', key, gone)
end

-- Returns the lane and the tenant in the key of a mailbox, or nil.
local function parse_mailbox(rest)
  local length, from = rest:match('^(%d+):()')
  if not length then return nil end
  local to = from + tonumber(length)
  return rest:sub(from, to - 1), rest:sub(to + 1)
end

local function repair_lane(rest, flat, key)
  local lane, name = parse_mailbox(rest)
  if lane == '' then lane = nil end
  repair_queued(key, IN_MAILBOX .. (lane or ''), lane, name, flat)
end

local function repair_queue(name, flat, key) repair_queued(key, IN_MAILBOX, '', name, flat) end
local function repair_suspects(name, flat, key) repair_queued(key, SUSPECT, '', name, flat) end

local function repair_delayed(name, flat, key)
  local gone = {}
  for i = 1, #flat, 2 do
    spend(4)
    if not take_place(flat[i], IS_DELAYED, name, WAITING) then gone[#gone + 1] = flat[i] end
  end
  write_all('ZREM', key, gone)
end

local function repair_held(_, flat, key)
  local gone = {}
  for i = 1, #flat, 2 do
    local id = flat[i]
    spend(5)
    local follows = (known('t', id) or ''):sub(1, 1) == FOLLOWS
    local stays = follows or (pcall(struct.unpack, HOLD, flat[i + 1]) and take_place(id, IS_HELD, nil, DEFERRED))
    if not stays then gone[#gone + 1] = id end
  end
  write_all('HDEL', key, gone)
end

-- Counts what a claim has taken of limits.
local function count_taken(mark)
  local taken = taken_in(mark)
  for i = 1, #taken, 2 do
    local running = tonumber(known('l', taken[i]) or 0)
    if running == 0 then list(LIMITS_FOUND, taken[i]) end
    note('l', taken[i], string.format('%d', running + 1))
  end
end

local function repair_claims(runtime, flat, key)
  local leased, gone = call('ZSCORE', LEASES, runtime), {}
  for i = 1, #flat, 2 do
    local id, mark = flat[i], flat[i + 1]
    spend(5)
    local stays, is_new = nil, nil
    if leased then stays, is_new = take_place(id, CLAIMED .. runtime, tenant_in(mark)) end
    if is_new then count_taken(mark) end
    if not stays then
      local cancel = call('HGET', CANCELS .. runtime, id)
      if cancel then report('c', struct.pack('>Hc0', #id, id) .. cancel) end
      gone[#gone + 1] = id
    end
  end
  save_report()
  write_all('HDEL', key, gone)
end

-- Finds a place for tasks that have none, and counts those that have ended.
local function repair_records(ids)
  local places = known_of('t', ids)
  for i, id in ipairs(ids) do
    local task = task_of(id)
    spend(4)
    if not task or places[i] then -- it was set aside, or is done
    elseif task.state ~= LIVE then
      local ttl = call('PTTL', TASK .. id)
      keep_totals(counted_of(task.name), ttl)
      note_place(id, HAS_ENDED, ENDED[task.state])
      if task.state == DEAD_STATE and not call('ZSCORE', DEAD, id) then list_dead_letter(id, ttl) end
    elseif task.stamp > shard.stamp + SOON then
      list(DELAYED, task.name)
      call('ZADD', DELAYED .. task.name, integer(math.floor(task.stamp / 1000)), id)
      note_place(id, IS_DELAYED, WAITING)
    else
      local where = place_for(id)
      put(id, where)
      note_place(id, where, task.priority)
    end
  end
  write_dead_letters()
end

-- Makes the list of tenants with suspects complete; another phase removes others.
local function note_suspects(name)
  spend(2)
  if call('EXISTS', SUSPECTS .. name) == 1 then call('ZADD', SUSPECTED, 'NX', integer(shard.now + state.at), name) end
end
