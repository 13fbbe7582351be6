-- Repairs a shard that a script left half written, as if that script had run, or had not.
--
-- KEYS  1 META of the shard
-- ARGV  1 'torn': only if a script did fail halfway, or 'all'; 2 and on: version, shards, step and what is shared, as
--       in the reply of open.lua, if they are known
-- Reply {1, or 0 if there was nothing to do, {what was repaired}, {what was set aside},
--        {id, its cancellation as CANCELS keeps it, ...} of tasks to cancel again, since they are no longer claimed}
--
-- Safe to repeat: it starts from what is stored. If a task stands in two places, the mailbox counts before the suspects
-- and the delayed tasks, these before the held ones, and these before the claims: no runtime was told of such a
-- claim. Every other key follows from the records and from where the tasks stand. No other script walks over all keys
-- of the shard.

if ARGV[1] == 'torn' and redis.pcall('HGET', META, 'torn') ~= '1' then return { 0, {}, {}, {} } end

local shard_keys = {}
do
  local cursor, seen = '0', {}
  repeat
    local reply = redis.call('SCAN', cursor, 'MATCH', META .. ':*', 'COUNT', 1000)
    cursor = reply[1]
    for _, key in ipairs(reply[2]) do
      if not seen[key] then shard_keys[#shard_keys + 1] = key end
      seen[key] = true
    end
  until cursor == '0'
end

-- @include lib/damage.lua

remove_damage()
for _, key in ipairs(shard_keys) do -- lanes that nothing says are in use
  if key:sub(1, #(LANE_QUEUE)) == LANE_QUEUE then redis.call('HSET', META, 'lanes', '1') end
end

-- @include lib/base.lua
-- @include lib/mend_kinds.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

local REPAIRED = 'm' -- an event, as in subscriber.py
local SOON = 1e6 -- µs: a stamp further ahead is the due time of a delayed task, not the clock's

local found = {} -- prefix -> the rest of each key
for _, prefix in ipairs({ TASK, QUEUE, SUSPECTS, DELAYED, CLAIMS, CANCELS, KEY, GROUP, ASSIGNED, STEAL, ASSIGNED_TO,
  STOLEN_BY, LANE_QUEUE, LANES_OF, IN_LANE, KIND, KIND_RING, KIND_GROUPS, KIND_GROUP, KIND_IDLE, LINES, LINES_OF, LINE, LINE_GROUP, LINE_GROUPS }) do
  found[prefix] = {}
end
for _, key in ipairs(shard_keys) do
  for prefix, names in pairs(found) do
    if key:sub(1, #prefix) == prefix then names[#names + 1] = key:sub(#prefix + 1) end
  end
end

-- @include lib/mend_homes.lua

local tasks = {} -- id -> state, deliveries, priority, stamp, tenant of each readable record
for _, id in ipairs(found[TASK]) do
  local header = call('GETRANGE', TASK .. id, 0, 600)
  local state = header:sub(1, 1)
  if readable(header) and (state == LIVE or ENDED[state]) then
    local _, count, priority, _, stamp, name = struct.unpack(HEADER, header)
    tasks[id] = { state = state, count = count, priority = priority, stamp = stamp, name = name }
    if state == LIVE then call('PERSIST', TASK .. id) end
  end
end

-- Takes a place for a task that lives and has none. Returns whether the task may stay there.
local function take_place(id, where, tenant)
  local task = tasks[id]
  local stays = task and task.state == LIVE and not task.where and (not tenant or task.name == tenant)
  if stays then task.where = where end
  return stays
end

local canceled = {} -- id, its cancellation, ... of tasks that are no longer claimed

local places = {} -- mailbox -> place, id, ...: to write

-- Puts a task into its mailbox, in that lane if its route allows it, or among the suspects of its tenant. Returns whether
-- it is in that lane.
local function put_back(id, lane)
  local task = tasks[id]
  if task.count > 0 or not lanes then
    enqueue(task.name, id, task.stamp, task.priority, task.count)
    return task.count == 0
  end
  local stays = lane and lanes.may_have(lane, id)
  local key = mailbox(task.name, stays and lane or lanes.of_task(id))
  places[key] = places[key] or {}
  table.insert(places[key], place(task.stamp, task.priority))
  table.insert(places[key], id)
  return stays
end

-- @include lib/mend_followers.lua
-- @include lib/mend_lanes.lua

local function repair_places()
  repair_lanes()
  for _, prefix in ipairs({ QUEUE, SUSPECTS }) do
    for _, name in ipairs(found[prefix]) do
      for _, id in ipairs(call('ZRANGE', prefix .. name, 0, -1)) do
        local stays = take_place(id, 'queued', name)
        if stays and prefix == SUSPECTS and tasks[id].count == 0 then -- the script broke off before it wrote the count
          tasks[id].count = 1
          call('SETRANGE', TASK .. id, 1, string.char(1))
        end
        if stays then stays = put_back(id, '') == (prefix == QUEUE) end
        if not stays then call('ZREM', prefix .. name, id) end
      end
    end
  end
  for _, name in ipairs(found[DELAYED]) do
    for _, id in ipairs(call('ZRANGE', DELAYED .. name, 0, -1)) do
      if not take_place(id, 'scheduled', name) then call('ZREM', DELAYED .. name, id) end
    end
  end
  local held_back = call('HGETALL', HELD)
  for i = 1, #held_back, 2 do
    local id = held_back[i]
    local stays = follows[id] or (pcall(struct.unpack, HOLD, held_back[i + 1]) and take_place(id, 'deferred'))
    if not stays then call('HDEL', HELD, id) end
  end
  for _, runtime in ipairs(found[CLAIMS]) do
    local leased = call('ZSCORE', LEASES, runtime)
    local claims = call('HGETALL', CLAIMS .. runtime)
    for i = 1, #claims, 2 do
      local id = claims[i]
      if not (leased and take_place(id, runtime, tenant_in(claims[i + 1]))) then
        call('HDEL', CLAIMS .. runtime, id)
        local cancel = call('HGET', CANCELS .. runtime, id)
        if cancel then canceled[#canceled + 1], canceled[#canceled + 2] = id, cancel end
      end
    end
  end
  for id, task in pairs(tasks) do
    if task.state == LIVE and not task.where then
      if task.stamp > shard.stamp + SOON then
        task.where = 'scheduled'
        call('ZADD', DELAYED .. task.name, integer(math.floor(task.stamp / 1000)), id)
        table.insert(found[DELAYED], task.name)
      else
        task.where = 'queued'
        put_back(id)
      end
    end
  end
  write_queues()
  note_lanes()
  for _, name in ipairs(call('ZRANGE', SUSPECTED, 0, -1)) do
    if call('EXISTS', SUSPECTS .. name) == 0 then call('ZREM', SUSPECTED, name) end
  end
end

local function repair_due_times()
  local first = {}
  for _, name in ipairs(found[DELAYED]) do
    first[name] = tonumber(call('ZRANGE', DELAYED .. name, 0, 0, 'WITHSCORES')[2])
    local at = tonumber(call('ZSCORE', SCHEDULED, name) or -1)
    if first[name] and (at < first[name] or at > math.max(first[name], shard.ms)) then
      call('ZADD', SCHEDULED, integer(first[name]), name)
    end
  end
  for _, name in ipairs(call('ZRANGE', SCHEDULED, 0, -1)) do
    if not first[name] then call('ZREM', SCHEDULED, name) end
  end
end

-- Returns the runtime that has claimed a task, or where else it stands; false if that is unknown.
local function claimed_by(id) return tasks[id] and tasks[id].state == LIVE and tasks[id].where end

local function repair_runtimes()
  for _, key in ipairs({ SESSIONS, FLEET, HOMES, IDLE_SLOTS, KIND_OF }) do
    for _, runtime in ipairs(call('HKEYS', key)) do
      if not call('ZSCORE', LEASES, runtime) then call('HDEL', key, runtime) end
    end
  end
  local idle = { IDLE, IDLE_HOMES }
  for _, kind in ipairs(found[KIND_IDLE]) do idle[#idle + 1] = KIND_IDLE .. kind end
  for _, key in ipairs(idle) do
    for _, runtime in ipairs(call('SMEMBERS', key)) do
      if not call('ZSCORE', LEASES, runtime) then call('SREM', key, runtime) end
    end
  end
  for _, prefix in ipairs({ ASSIGNED, STEAL }) do
    for _, runtime in ipairs(found[prefix]) do
      if call('HEXISTS', HOMES, runtime) == 0 then call('DEL', prefix .. runtime) end
    end
  end
  for _, runtime in ipairs(call('ZRANGE', LEASES, 0, -1)) do call('HSETNX', FLEET, runtime, '{}') end
  for _, runtime in ipairs(found[CANCELS]) do
    for _, id in ipairs(call('HKEYS', CANCELS .. runtime)) do
      if claimed_by(id) ~= runtime then call('HDEL', CANCELS .. runtime, id) end
    end
  end
  for _, id in ipairs(call('HKEYS', PROGRESS)) do
    local where = claimed_by(id)
    if not where or where == 'queued' or where == 'scheduled' or where == 'deferred' then call('HDEL', PROGRESS, id) end
  end
end

-- Returns the window of a key, in ms, if a live task owns it; else nil. Nowhere else do scripts parse JSON.
local function window_of(id, key)
  local task = tasks[id]
  if not task or task.state ~= LIVE or not is_key_of(task, key) then return nil end
  local record = call('GET', TASK .. id)
  local read, sent = pcall(cjson.decode, record:match('^[^\n]*', (select(7, struct.unpack(HEADER, record)))))
  local options = read and type(sent) == 'table' and type(sent[4]) == 'table' and sent[4] or {}
  local own = key:sub(#(#task.name .. ':' .. task.name) + 1)
  if options.key ~= nil and options.key ~= own then return nil end
  return math.floor((tonumber(options.key_window) or 0) * 1000 + 0.5)
end

local function repair_keys()
  local owners = {} -- key -> task
  local keyed_tasks = call('HGETALL', KEYED)
  for i = 1, #keyed_tasks, 2 do
    local id, task = keyed_tasks[i], tasks[keyed_tasks[i]]
    keyed[id] = keyed_tasks[i + 1]
    local name = select(2, unpack_key(keyed[id]))
    local key = KEY .. name
    if follows[id] then -- its key is that of the task before it
    elseif task and task.state == LIVE and (owners[name] or not is_key_of(task, name)) then
      call('HDEL', KEYED, id)
      repaired[#repaired + 1] = KEYED .. ': the key of ' .. id .. ' is not its own'
    elseif task and task.state == LIVE then
      owners[name] = id
      call('SET', key, id)
    elseif call('GET', key) == id then
      free_key(id, task and task.state)
    else
      call('HDEL', KEYED, id)
    end
  end
  for _, key in ipairs(found[KEY]) do
    local id = call('GET', KEY .. key)
    if id and call('PTTL', KEY .. key) == -1 and call('HEXISTS', KEYED, id) == 0 then
      local window = window_of(id, key)
      if window then
        call('HSET', KEYED, id, struct.pack('>d', window) .. key)
        repaired[#repaired + 1] = KEYED .. ': ' .. id .. ' has its key again'
      else
        call('DEL', KEY .. key)
      end
    end
  end
end

-- Notifies those who wait for ended tasks, perhaps again.
local function notify()
  local watchers = call('HGETALL', WATCHERS)
  for i = 1, #watchers, 2 do
    local id, task = watchers[i], tasks[watchers[i]]
    if not task then
      call('HDEL', WATCHERS, id)
    elseif task.state ~= LIVE then
      notify_watchers(id, call('GET', TASK .. id), watchers[i + 1])
    end
  end
end

local function repair_dead_letters()
  for _, id in ipairs(call('ZRANGEBYSCORE', DEAD, integer(shard.now), '+inf')) do
    if not tasks[id] or tasks[id].state ~= DEAD_STATE then call('ZREM', DEAD, id) end
  end
  for id, task in pairs(tasks) do
    if task.state == DEAD_STATE and not call('ZSCORE', DEAD, id) then list_dead_letter(id, call('PTTL', TASK .. id)) end
  end
  write_dead_letters()
end

-- Counts what there is. Of ended tasks only the records are left, so their totals never become less.
local function recount()
  local kept = {}
  load_counts(call('HKEYS', COUNTS))
  load_counts(found[QUEUE])
  for _, name in ipairs(found[LANES_OF]) do load_counts({ name }) end
  for _, task in pairs(tasks) do load_counts({ task.name }) end
  for _, c in pairs(counts) do
    for i = 1, DEFERRED do c[i] = 0 end
  end
  for id, task in pairs(tasks) do
    local c = counts[task.name]
    local index = task.where == 'scheduled' and WAITING or task.where == 'deferred' and DEFERRED or task.priority
    if task.state ~= LIVE then
      index = ENDED[task.state]
      kept[task.name] = kept[task.name] or {}
      kept[task.name][index] = (kept[task.name][index] or 0) + 1
      keep_totals(c, call('PTTL', TASK .. id))
    else
      c[index] = c[index] + 1
    end
  end
  for name, c in pairs(counts) do
    for index, n in pairs(kept[name] or {}) do c[index] = math.max(c[index], n) end
  end
  for i = 1, CANCELED do
    local sum = 0
    for _, c in pairs(counts) do sum = sum + c[i] end
    total[i] = i <= DEFERRED and sum or math.max(total[i], sum)
  end
end

-- Removes the entries that do not belong on a ring at all. Whether the others do now is decided later.
local function clear_ring(ring)
  for _, member in ipairs(call('ZRANGE', ring.key, 0, -1)) do
    local t = tenants[member] or (member:byte() == GROUP_BYTE and groups[member:sub(2)])
    if not t or t[OUTER] ~= ring then call('ZREM', ring.key, member) end
  end
end

local function rebuild_rings()
  local names, waiting = {}, {}
  for name in pairs(counts) do names[#names + 1] = name end
  load_tenants(names)
  for _, rest in ipairs(found[KIND_GROUP]) do
    local kind, name = rest:match('^(%d+):(.*)$')
    if kind == shard.kind then group_of(name) end
  end
  for _, name in ipairs(found[GROUP]) do group_of(name) end
  clear_ring(root)
  for _, group in pairs(groups) do clear_ring(group[INNER]) end
  call('DEL', THROTTLED)
  load_tags(names)
  for _, name in ipairs(names) do
    local t = tenants[name]
    if lanes then lanes.changed[name] = true end
    local works = t[LIMITS] == false and (lanes and lanes.works(name, shard.kind) or not lanes and call('EXISTS', QUEUE .. name) == 1)
    if works then
      waiting[#waiting + 1] = name
    elseif t[LIMITS] == false then
      t[LEAVES] = t[STORED] and true
    end
  end
  update_ring(waiting)
  for _, group in pairs(groups) do
    if not group[TAG] and call('ZCARD', group[INNER].key) > 0 then join_ring(group, '') end
  end
  for _, name in ipairs(call('HKEYS', shard.groups)) do
    if not groups[name] then call('HDEL', shard.groups, name) end
  end
end

begin_writing()
repair_followers()
repair_places()
repair_due_times()
repair_runtimes()
repair_index()
repair_keys()
notify()
repair_dead_letters()
recount()
repair_kinds()
repair_limits()
rebuild_rings()
for _, name in ipairs(call('ZRANGEBYSCORE', DRAINED, integer(shard.now / 1e6), '+inf')) do -- others: tend.lua
  local c = counts[name]
  if not c or (c[KEEP_UNTIL] * 1e6 <= shard.now and live(c) + c[WAITING] + c[DEFERRED] == 0) then
    call('ZREM', DRAINED, name)
  end
end
save_counts()
save_shard(true)
call('PUBLISH', EVENTS, REPAIRED) -- who waits asks again
return { 1, repaired, set_aside, canceled }
