-- Tasks that this script puts into mailboxes, or among the suspects of their tenants (see suspects.lua).

-- @include lib/ring.lua

local queues = {} -- tenant -> place, id, place, id, ...
local arriving = {} -- those tenants

local suspects = {} -- tenant -> place, id, place, id, ...
local suspected = {} -- those tenants, in order

-- Puts a task at its place. With `deliveries` > 0 it is a suspect.
local function enqueue(name, id, stamp, priority, deliveries)
  local is_suspect = deliveries and deliveries > 0
  local lists, names = queues, arriving
  if is_suspect then lists, names = suspects, suspected end
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
    names[#names + 1] = name
  end
  list[#list + 1], list[#list + 2] = place(stamp, priority), id
  local t = not is_suspect and has_policies and tenants[name]
  if t and t[LIMITS] then t[LIMITS].queued = t[LIMITS].queued + 1 end
end

local function write_queues()
  for name, queue in pairs(queues) do write_all('ZADD', QUEUE .. name, queue) end
  for i, name in ipairs(suspected) do
    call('ZADD', SUSPECTED, 'NX', integer(shard.now + i), name)
    write_all('ZADD', SUSPECTS .. name, suspects[name])
  end
end
