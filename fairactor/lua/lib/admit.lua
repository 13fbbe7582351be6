-- Releases tasks that a plugin holds back.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/plugins.lua
-- @include lib/delayed.lua

local held = {} -- task -> its field of HELD; false if it has none
local released, new_holds, replaced = {}, {}, {} -- to write: deleted and changed fields, and records

-- Reads fields of HELD that are not known yet.
local function read_held(ids)
  local unknown = {}
  for _, id in ipairs(ids) do
    if held[id] == nil then unknown[#unknown + 1], held[id] = id, false end
  end
  for i, packed in ipairs(read_all('HMGET', HELD, unknown)) do
    held[unknown[i]] = packed and pcall(struct.unpack, HOLD, packed) and packed -- somebody may have damaged it
  end
end

-- Returns what a plugin keeps with a task, and from which byte on; nil if it does not hold the task.
local function kept_of(id, plugin)
  if newly_held[id] then return newly_held[id].kept, 1 end
  if held[id] == nil then read_held({ id }) end
  if not held[id] then return nil end
  local _, _, _, holder, at = struct.unpack(HOLD, held[id])
  if holder == plugin then return held[id], at end
end

-- Changes of HELD are written before the records, deletions after them.
local function write_holds_later()
  if #released + #new_holds > 0 then return end
  later[#later + 1] = function()
    write_all('HSET', HELD, new_holds)
    call_all('MSET', replaced)
  end
  last[#last + 1] = function() write_all('HDEL', HELD, released) end
end

-- Replaces what a plugin keeps with a task.
local function keep_of(id, kept)
  if newly_held[id] then
    newly_held[id].kept = kept
  else
    local priority, stamp, name, holder = struct.unpack(HOLD, held[id])
    write_holds_later()
    held[id] = pack_hold(priority, stamp, name, holder) .. kept
    new_holds[#new_holds + 1], new_holds[#new_holds + 2] = id, held[id]
  end
end

-- Returns the record of a task that is held back, or nil.
local function held_record(id)
  if newly_held[id] then return newly_held[id].record end
  if held[id] == nil then read_held({ id }) end
  local record = held[id] and call('GET', TASK .. id)
  return readable(record) and record or nil
end

local function release_hold(id)
  write_holds_later()
  released[#released + 1], held[id] = id, false
end

-- Puts a held task into its mailbox, or among the delayed tasks. `with` replaces its record. Returns whether it was
-- held. Only reads: its writes go into `later` and `last`.
local function admit(id, with)
  local new, priority, stamp, name = newly_held[id], nil, nil, nil
  if new then
    priority, stamp, name = unpack(new.hold)
  else
    if held[id] == nil then read_held({ id }) end
    if not held[id] then return false end
    priority, stamp, name = struct.unpack(HOLD, held[id])
  end
  if not (counts[name] and tenants[name]) then
    load_counts({ name })
    load_tenants({ name })
  end
  add(name, DEFERRED, -1)
  if not new then release_hold(id) end
  if with then note_size(#with) end
  if not new and with then -- a record must exist before the task has its place
    rewritten[id] = with
    replaced[#replaced + 1], replaced[#replaced + 2] = TASK .. id, with
  end
  local due = math.floor(stamp / 1000)
  if due > shard.ms + 1 then -- stamps may be slightly ahead of the clock
    add(name, WAITING, 1)
    later[#later + 1] = function() -- not before: `write_retries` also writes what is delayed, and comes first
      delay(name, id, due)
      write_delayed()
    end
  else
    add(name, priority, 1)
    enqueue(name, id, stamp, priority, 0, with or new and new.record)
  end
  if new then
    local new_records = new.new_records
    new_records[#new_records + 1], new_records[#new_records + 2] = TASK .. id, with or new.record
    newly_held[id] = nil
  end
  return true
end
