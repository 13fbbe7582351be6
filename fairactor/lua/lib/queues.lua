-- Tasks that this script puts into mailboxes.

-- @include lib/ring.lua

local queues = {} -- tenant -> place, id, place, id, ...
local arriving = {} -- those tenants

local function enqueue(name, id, stamp, priority)
  local queue = queues[name]
  if not queue then
    queue = {}
    queues[name] = queue
    arriving[#arriving + 1] = name
  end
  queue[#queue + 1], queue[#queue + 2] = place(stamp, priority), id
  local t = has_policies and tenants[name]
  if t and t[LIMITS] then t[LIMITS].queued = t[LIMITS].queued + 1 end
end

local function write_queues()
  for name, queue in pairs(queues) do write_all('ZADD', QUEUE .. name, queue) end
end
