-- Letting tasks go that a plugin holds back.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/plugins.lua

local admitted = {}

-- Puts a task into its mailbox, or among the scheduled where it is not due yet; returns whether it was held back. Reads;
-- what it writes is left in `later`.
local function admit(id)
  local record = not admitted[id] and call('HEXISTS', HELD, id) == 1 and call('GET', TASK .. id)
  if not record or not readable(record) then return false end
  admitted[id] = true
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
  later[#later + 1] = function() call('HDEL', HELD, id) end
  return true
end
