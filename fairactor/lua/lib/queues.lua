-- Tasks that this script puts into mailboxes, or among the suspects of their tenants (see suspects.lua).

-- @include lib/ring.lua

local queues = {} -- tenant -> place, id, place, id, ..., in the common lane
local lane_queues = {} -- mailbox in another lane -> likewise
local arriving = {} -- those tenants

local suspects = {} -- tenant -> place, id, place, id, ...
local suspected = {} -- those tenants, in order

-- Returns the list of what arrives in a tenant's mailbox in the lane of a task.
local function list_in_lane(name, id, at, record, lane)
  lane = lane or lanes.of_task(id, record)
  if not (queues[name] or lanes.arrived[name]) then arriving[#arriving + 1] = name end
  lanes.arrived[name] = lanes.arrived[name] or {}
  lanes.arrived[name][lane] = true
  lanes.add(name, lane, 1, at)
  local lists, key = queues, name
  if lane ~= '' then lists, key = lane_queues, mailbox(name, lane) end
  lists[key] = lists[key] or {}
  return lists[key]
end

-- Puts a task at its place. With `deliveries` > 0 it is a suspect. The lane follows from the record, if it is not given;
-- a record that is not stored yet has to be given.
local function enqueue(name, id, stamp, priority, deliveries, record, lane)
  local is_suspect = deliveries and deliveries > 0
  local lists, names, list, at = queues, arriving, nil, place(stamp, priority)
  if is_suspect then
    lists, names = suspects, suspected
  elseif lanes then
    list = list_in_lane(name, id, at, record, lane)
  end
  list = list or lists[name]
  if not list then
    list = {}
    lists[name] = list
    names[#names + 1] = name
  end
  list[#list + 1], list[#list + 2] = at, id
  local t = not is_suspect and has_policies and tenants[name]
  if t and t[LIMITS] then t[LIMITS].queued = t[LIMITS].queued + 1 end
end

local function write_queues()
  for name, queue in pairs(queues) do write_all('ZADD', QUEUE .. name, queue) end
  for key, queue in pairs(lane_queues) do write_all('ZADD', key, queue) end
  for i, name in ipairs(suspected) do
    call('ZADD', SUSPECTED, 'NX', integer(shard.now + i), name)
    write_all('ZADD', SUSPECTS .. name, suspects[name])
  end
end
