-- Letting tasks go that a plugin holds back.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/plugins.lua

local released = {} -- what was held back until now

-- The record of a task that is held back; nil where none is.
local function held_record(id)
  if held_here[id] then return held_here[id].record end
  local record = not released[id] and call('HEXISTS', HELD, id) == 1 and call('GET', TASK .. id)
  return readable(record) and record or nil
end

-- Puts a task into its mailbox, or among the scheduled where it is not due yet; `with` is its record, where that is to be
-- another. Returns whether it was held back. Reads; what it writes is left in `later`.
local function admit(id, with)
  local record = held_record(id)
  if not record then return false end
  local _, _, priority, _, stamp, name = struct.unpack(HEADER, record)
  load_counts({ name })
  meet({ name })
  add(name, DEFERRED, -1)
  local due = math.floor(stamp / 1000)
  if due > shard.ms + 1 then -- a stamp may be ahead of the clock by a little
    add(name, WAITING, 1)
    later[#later + 1] = function() call('ZADD', SCHEDULED, integer(due), id) end
  else
    add(name, priority, 1)
    enqueue(name, id, stamp, priority)
  end
  local here = held_here[id]
  if here then
    local fresh = here.fresh
    fresh[#fresh + 1], fresh[#fresh + 2] = TASK .. id, with or record
    held_here[id] = nil
    return true
  end
  released[id], rewritten[id] = true, with
  later[#later + 1] = function()
    if with then call('SET', TASK .. id, with) end
    call('HDEL', HELD, id)
  end
  return true
end
