-- Tasks that are sent with replace=True, while another one has their key. If that one waits, it gets their call. If it has
-- started, or waits for other tasks, one more task follows it: held back until it ends, and replaced likewise.

-- @takes ids, names, priorities, dues, keys, extras, bodies, packed_items, number_of_new, new_records from lib/accept.lua
-- @takes due_of, ACCEPTED from lib/accept.lua
-- @include lib/key.lua
-- @include lib/queues.lua
-- @include lib/plugins.lua
-- @include lib/delayed.lua
-- @include lib/undelay.lua
-- @include lib/withdraw.lua
-- @include lib/locate.lua

-- Lists with an entry for each task that is replaced: where it stood, its record, and the number of the one whose call it
-- gets.
local replaced, places_of, records_of, replaced_by = {}, {}, {}, {}
local followers_of = {} -- task with a key -> the task that follows it, or false
local lanes_of = {} -- task in a mailbox -> its lane
local undo = {} -- functions that take back what the tasks judged together have replaced

-- Gives the call of task `n` to task `m` of this batch.
local function replace_new(m, n)
  local before = { packed_items[m], bodies[m], priorities[m], dues[m], keys[m] }
  undo[#undo + 1] = function() packed_items[m], bodies[m], priorities[m], dues[m], keys[m] = unpack(before) end
  packed_items[m], bodies[m], priorities[m], dues[m], keys[m] =
    packed_items[n], bodies[n], priorities[n], dues[n], keys[n]
end

local function replace_stored(id, n, where, record)
  local before = replaced_by[id]
  undo[#undo + 1] = function() replaced_by[id] = before end
  if not places_of[id] then
    replaced[#replaced + 1], places_of[id], records_of[id] = id, where, record
  end
  replaced_by[id] = n
end

-- Returns where a task waits; nil if it has started or a plugin holds it back.
local function waits_in(id, name)
  lanes_of[id] = lane_with(name, id)
  if lanes_of[id] then return QUEUE end
  for _, prefix in ipairs({ SUSPECTS, DELAYED }) do
    if call('ZSCORE', prefix .. name, id) then return prefix end
  end
end

local TAIL = 65536 -- bytes of a record that have the history of its task

-- Returns a record without its call, which may be large: the header, and the history.
local function record_without_call(id)
  local header = call('GETRANGE', TASK .. id, 0, 599)
  if not readable(header) then return end
  local body = select(7, struct.unpack(HEADER, header))
  local length = call('STRLEN', TASK .. id)
  local tail = call('GETRANGE', TASK .. id, integer(math.max(body - 1, length - TAIL)), -1)
  return header:sub(1, body - 1) .. (tail:match('\n.*$') or '')
end

-- Returns the record of a live task that has the key, without its call; nil if there is none, or one with its id that was
-- sent later.
local function live_record(id, key)
  local record, field = record_without_call(id), call('HGET', KEYED, id)
  return record and record:sub(1, 1) == LIVE and field and field:sub(9) == key and record or nil
end

local function follower_of(id)
  if followers_of[id] == nil then followers_of[id] = call('HGET', AGAIN, id) end
  return followers_of[id]
end

-- Returns ACCEPTED, or the task that gets the call of task `n`.
local function judge_replacing(n)
  local id, name, field = ids[n], names[n], keyed_field(names[n], keys[n])
  local key = field:sub(9)
  local owner = key_owners[key] or call('GET', KEY .. key)
  local m = owner and number_of_new[owner]
  local record = owner and not m and (records_of[owner] or live_record(owner, key))
  if not m and not record then -- nobody has the key, or one that has ended has it for its window
    assign_key(id, field)
    return ACCEPTED
  end
  local follower = follower_of(owner)
  local follower_record = follower and not number_of_new[follower] and live_record(follower, key)
  if follower and number_of_new[follower] then
    replace_new(number_of_new[follower], n)
  elseif follower_record then
    replace_stored(follower, n, HELD, follower_record)
  elseif m and extras[m] == '' then
    replace_new(m, n)
    return owner
  else
    local where = not m and (places_of[owner] or waits_in(owner, name))
    if where then
      replace_stored(owner, n, where, record)
      return owner
    end
    followers_of[owner] = id
    undo[#undo + 1] = function() followers_of[owner] = false end
    keyed_fields[#keyed_fields + 1], keyed_fields[#keyed_fields + 2] = id, field
    return ACCEPTED
  end
  return follower
end

-- Ends the judgement of tasks that are accepted together.
local function end_group(refused)
  for i = #undo, 1, -1 do
    if refused then undo[i]() end
    undo[i] = nil
  end
end

local withdrawn = {} -- tenant -> lane -> tasks
local from_suspects, from_delayed, new_holds_of = {}, {}, {} -- by tenant; HELD: task, field, ...
local function note(lists, name, id)
  lists[name] = lists[name] or {}
  table.insert(lists[name], id)
end

local function replace_one(id, n)
  local where, old = places_of[id], records_of[id]
  local name, priority, at = names[n], priorities[n], dues[n] ~= '' and due_of(n) or nil
  local _, count, old_priority, _, stamp, _, body = struct.unpack(HEADER, old)
  if at then
    stamp = at * 1000
  elseif where == DELAYED or stamp > shard.stamp then
    stamp = next_stamp()
  end -- else it keeps its place
  local history = old:sub(body):match('\n.*$') or ''
  local record = struct.pack(HEADER, LIVE, count, priority, 1, stamp, #name, name) .. packed_items[n]:sub(bodies[n])
    .. history
  note_size(#record)
  if where == HELD then
    new_holds_of[#new_holds_of + 1], new_holds_of[#new_holds_of + 2] = id,
      pack_hold(priority, stamp, name, FOLLOWER) .. keyed_field(name, keys[n])
  else
    add(name, where == DELAYED and WAITING or old_priority, -1)
    if where == DELAYED then
      note(from_delayed, name, id)
    elseif where == QUEUE then
      withdrawn[name] = withdrawn[name] or {}
      note(withdrawn[name], lanes_of[id], id)
    elseif at then
      note(from_suspects, name, id)
    end
    if at then
      delay(name, id, at)
      add(name, WAITING, 1)
    else
      enqueue(name, id, stamp, priority, count, record)
      add(name, priority, 1)
    end
  end
  new_records[#new_records + 1], new_records[#new_records + 2] = TASK .. id, record
  keyed_fields[#keyed_fields + 1], keyed_fields[#keyed_fields + 2] = id, keyed_field(name, keys[n])
end

-- Decides what becomes of all that is replaced. Only reads.
local function replace_all()
  for i = 1, #keyed_fields, 2 do -- the windows are those of the last calls
    local m = number_of_new[keyed_fields[i]]
    if m then keyed_fields[i + 1] = keyed_field(names[m], keys[m]) end
  end
  for _, id in ipairs(replaced) do
    if replaced_by[id] then replace_one(id, replaced_by[id]) end
  end
  for name, by_lane in pairs(withdrawn) do
    for lane, gone in pairs(by_lane) do count_withdrawn(name, #gone, lane) end
  end
  for name, gone in pairs(from_suspects) do count_suspects_withdrawn(name, #gone) end
end

-- Takes what is replaced from its place, after the records are written and before the new places are.
local function write_replaced()
  write_all('HSET', HELD, new_holds_of)
  for name, by_lane in pairs(withdrawn) do
    for lane, gone in pairs(by_lane) do write_all('ZREM', mailbox(name, lane), gone) end
  end
  for name, gone in pairs(from_suspects) do remove_suspects(name, gone) end
  for name, gone in pairs(from_delayed) do remove_delayed(name, gone, 0) end
end
