-- Accepts sent tasks: decides which to take, and puts them into their mailboxes or among the delayed tasks.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/key.lua
-- @include lib/room.lua
-- @include lib/plugins.lua
-- @include lib/delayed.lua

local ITEM = '>Bc1Bc0Hc0Hc0Hc0I4c0' -- a task, packed as send.lua says

local function with_id(item, id)
  local priority, flag, due, _, name, key, extra, body = struct.unpack(ITEM, item)
  return struct.pack(ITEM, priority, flag, #due, due, #id, id, #name, name, #key, key, #extra, extra) .. item:sub(body)
end

local accept, write_accepted
do
  local ACCEPTED, REPEAT, TAKEN_BY_ANOTHER, FULL, WITH_FULL, GONE = 0, 1, 2, 3, 4, 5

  -- Parallel lists, with one entry for each task.
  local ids, records, names, priorities, flags, dues, keys, extras, bodies = {}, {}, {}, {}, {}, {}, {}, {}, {}
  local packed_items, reservation
  local are_new = false -- whether all ids are new and no task has a key, as nearly always

  local verdicts = {}
  local tenant_of_new = {} -- record key -> the tenant whose task in this batch took the id
  local number_of_new = {} -- likewise: task -> its number in the batch

  local function unpack_items(items)
    packed_items = items
    for n, item in ipairs(items) do
      priorities[n], flags[n], dues[n], ids[n], names[n], keys[n], extras[n], bodies[n] = struct.unpack(ITEM, item)
      if priorities[n] >= ROUTED then
        priorities[n] = priorities[n] - ROUTED
        use_routes()
      end
      records[n] = TASK .. ids[n]
    end
    load_counts(names)
    load_tenants(names)
  end

  local function may_refuse()
    for _, t in pairs(has_policies and tenants or NONE) do
      if t[LIMITS] and (t[LIMITS].backlog < math.huge or t[LIMITS].gone) then return true end
    end
    return false
  end

  local function all_new()
    local seen = {}
    for n, key in ipairs(records) do
      if seen[key] or keys[n] ~= '' then return false end
      seen[key] = true
    end
    return call_all('EXISTS', records) == 0
  end

  -- Returns when a task is due that is not due now, in ms.
  local function due_of(n)
    local due = dues[n]
    return due:sub(1, 1) == '+' and shard.ms + tonumber(due) or tonumber(due) + math.floor(shard.behind / 1000)
  end

  local new_records, watching, write_ended = {}, {}, nil -- to write

  local replacing -- once a task has come with replace=True: what lib/replace.lua does
  local function load_replacing()
    -- @include lib/replace.lua
    replacing = { judge = judge_replacing, end_group = end_group, replace_all = replace_all,
      write = write_replaced, followers = followers_of }
  end

  local function judge(n)
    local limits = tenants[names[n]][LIMITS]
    if limits and limits.gone then return GONE end
    if are_new then return ACCEPTED end
    local key = records[n]
    local record = not tenant_of_new[key] and call('GETRANGE', key, 0, 599) -- records may be large
    if record == '' then record = nil end
    local owner = record and (readable(record) and tenant_of(record) or '') or tenant_of_new[key] -- '': unreadable
    if owner then return owner == names[n] and REPEAT or TAKEN_BY_ANOTHER end
    if not replaces(keys[n]) then return take_key(ids[n], names[n], keys[n]) or ACCEPTED end
    if not replacing then load_replacing() end
    return replacing.judge(n)
  end

  -- Judges tasks that are accepted together, or not at all if one of their mailboxes is full, or has gone.
  local function judge_together(from, to)
    local keys_before, wanted, full, gone = #keyed_fields, {}, {}, false
    for n = from, to do
      local name = names[n]
      verdicts[n] = judge(n)
      gone = gone or verdicts[n] == GONE
      if verdicts[n] == ACCEPTED then
        tenant_of_new[records[n]], number_of_new[ids[n]] = name, n
        wanted[name] = (wanted[name] or 0) + 1
        if wanted[name] > room_in(name, tenants[name][LIMITS], reservation) then full[name] = true end
      end
    end
    local fails = gone or next(full)
    if fails then
      drop_keys(keys_before)
      for n = from, to do
        if verdicts[n] == ACCEPTED then
          tenant_of_new[records[n]], number_of_new[ids[n]] = nil, nil
          verdicts[n] = gone and GONE or full[names[n]] and FULL or WITH_FULL
        end
      end
    else
      for name, many in pairs(wanted) do take_room(name, many) end
    end
    if replacing then replacing.end_group(fails) end
  end

  local function judge_all()
    local from = 1
    for n = 1, #names do
      if flags[n + 1] ~= '+' then
        judge_together(from, n)
        from = n + 1
      end
    end
  end

  -- Runs the `sent` hooks. Returns the plugin that holds the task back, if one does, and what it keeps.
  local function run_sent_hook(id, name, extra)
    local holder, kept
    -- @hook sent
    return holder, kept
  end

  local follows = {} -- task that is accepted -> the task that it follows

  local function accept_one(n, watcher)
    local id, name, priority, at, stamp = ids[n], names[n], priorities[n], dues[n] ~= '' and due_of(n), next_stamp()
    local holder, kept
    if extras[n] ~= '' then holder, kept = run_sent_hook(id, name, cmsgpack.unpack(extras[n])) end
    if replacing and follows[id] then holder, kept = FOLLOWER, keyed_field(name, keys[n]) end
    if at then stamp = at * 1000 end -- a delayed task is ordered by its due time
    local record = struct.pack(HEADER, LIVE, 0, priority, 1, stamp, #name, name) .. packed_items[n]:sub(bodies[n])
    note_size(#record)
    if flags[n] == 'w' then watching[#watching + 1], watching[#watching + 2] = id, cmsgpack.pack({ watcher }) end
    if holder then
      newly_held[id] = { holder = holder, kept = kept, record = record, new_records = new_records,
        hold = { priority, stamp, name } }
      return add(name, DEFERRED, 1)
    end
    if at then
      delay(name, id, at)
      add(name, WAITING, 1)
    else
      enqueue(name, id, stamp, priority, 0, record)
      add(name, priority, 1)
    end
    new_records[#new_records + 1], new_records[#new_records + 2] = records[n], record
  end

  -- Plugins may admit or cancel at once what they hold back. Returns the function that writes such ends.
  local function run_ends_hook_for_new()
    -- @include lib/ending.lua
    for i = 1, #keyed_fields, 2 do keyed[keyed_fields[i]] = keyed_fields[i + 1] end
    for id, owner in pairs(follows) do followers[owner] = id end
    for i = 1, #watching, 2 do watched[watching[i]] = watching[i + 1] end
    run_ends_hook()
    return write_ends
  end

  -- Accepts packed tasks (see send.lua). Only reads. Returns the verdicts, or nil if all were accepted as sent.
  function accept(items, watcher, reserved_as)
    reservation = reserved_as
    unpack_items(items)
    are_new = all_new()
    local plain = are_new and not may_refuse()
    if not plain then judge_all() end
    if replacing then
      for owner, id in pairs(replacing.followers) do
        if id and number_of_new[id] then follows[id] = owner end
      end
    end
    for n = 1, #names do
      if plain or verdicts[n] == ACCEPTED then accept_one(n, watcher) end
    end
    if replacing then replacing.replace_all() end
    if next(newly_held) then write_ended = run_ends_hook_for_new() end
    return not plain and verdicts or nil
  end

  -- Writes the accepted tasks. Returns a function to call after `save_shard`: sleepers must learn of an earlier due
  -- time.
  function write_accepted()
    write_keys()
    if shard.routed then call('HSET', META, 'lanes', '1', 'routed', '1') end
    for id, owner in pairs(follows) do call('HSET', AGAIN, owner, id) end
    if reservation ~= '' then use_reservation(reservation, names) end
    write_all('HSET', WATCHERS, watching)
    local any_delayed = next(delayed)
    write_these(later) -- before the records exist, so that a repeat accepts the tasks
    local held_back = {}
    for id, task in pairs(newly_held) do
      local hold = task.hold
      held_back[#held_back + 1] = id
      held_back[#held_back + 1] = pack_hold(hold[1], hold[2], hold[3], task.holder) .. task.kept
      new_records[#new_records + 1], new_records[#new_records + 2] = TASK .. id, task.record
    end
    write_all('HSET', HELD, held_back)
    call_all('MSET', new_records)
    if replacing then replacing.write() end
    write_delayed()
    if write_ended then write_ended() else write_queues() end
    write_these(last)
    return function()
      if not any_delayed then return end
      wake_idle()
      wake_dedicated(names)
    end
  end
end
