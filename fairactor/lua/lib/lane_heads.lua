-- The first tasks of a tenant in all lanes that the runtime serves.
--
-- A task of the common lane that belongs in another one, which the runtime does not serve or which has limits, is moved
-- there when a turn meets it. A turn moves only so many. Of lanes with limits only planned tasks count (see plan.lua).

-- @include lib/base.lua
-- @takes lanes, limits from lib/lanes.lua
-- @takes queues, lane_queues from lib/queues.lua
-- @takes read_mailbox, by_place, MOST_MOVED from lib/claim.lua
-- @takes tenants, HEAD, TAKEN, STUCK from lib/ring.lua
-- @takes NONE from lib/policy.lua

local sorting = { moved = {}, looked = 0, stopped = false } -- tasks that leave the common lane; how many were looked at
local lane_of_head = {} -- task -> its lane
local only_lane = {} -- tenant -> the only lane in which it has tasks for the runtime, in order

local function move(name, task, lane)
  local key = mailbox(name, lane)
  sorting.moved[task.id] = name
  sorting.again = sorting.again or lanes.serves(shard.kind, lane) -- it has limits, and they are planned only in the next turn
  lanes.add(name, '', -1)
  lanes.add(name, lane, 1)
  lane_queues[key] = lane_queues[key] or {}
  table.insert(lane_queues[key], exact(task.place))
  table.insert(lane_queues[key], task.id)
end

-- Whether a task was certainly sent when its lane was known, by its place: that is its stamp, less something.
-- Places of other than critical tasks may be below 0, too, if they were due long ago.
local function is_sorted(place)
  return (place < -CRITICAL_JUMP / 4 and place + CRITICAL_JUMP or place) > shard.unsorted
end

-- Returns the first `n` tasks of the common lane that the runtime can run, and the place of the first at which it did not
-- look any more, if there is one.
local function sorted_out(name, n)
  local right, rank, many = {}, 0, nil
  repeat
    local found = {}
    many = read_mailbox(found, QUEUE .. name, rank == 0 and queues[name] or NONE, rank, n, '')
    rank = rank + n
    table.sort(found, by_place)
    for _, task in ipairs(found) do
      local lane = not sorting.moved[task.id] and (is_sorted(task.place) and '' or lanes.of_task(task.id))
      if lane and lane ~= '' and (not lanes.serves(shard.kind, lane) or limits and limits.set_of(lane)) then
        if sorting.looked >= MOST_MOVED then
          sorting.stopped = true
          return right, task.place
        end
        sorting.looked = sorting.looked + 1
        move(name, task, lane)
      elseif lane then
        right[#right + 1] = task
      end
    end
  until #right >= n or not many
  return right
end

-- Returns the first `n` ids, over all lanes. Claimed tasks are still in their mailboxes.
local function read_lane_heads(name, n)
  local all, ids, served, stop = {}, {}, {}, nil
  local arrives, planned = lanes.arrived[name], limits and limits.planned(name) or NONE
  for lane, n_stored in pairs(arrives and lanes.box_of(name) or lanes.stored(name)) do
    if (n_stored > 0 or arrives) and lanes.serves(shard.kind, lane) and not (limits and limits.set_of(lane)) then
      served[#served + 1] = lane
    end
  end
  if #served == 1 and not (served[1] == '' and shard.unsorted) and not arrives and not planned[1] then
    only_lane[name] = served[1]
    return call('ZRANGE', mailbox(name, served[1]), 0, n - 1)
  end
  for _, lane in ipairs(served) do
    local found = {}
    if lane == '' and shard.unsorted then
      found, stop = sorted_out(name, n)
    else
      local key = mailbox(name, lane)
      read_mailbox(found, key, lane == '' and queues[name] or lane_queues[key] or NONE, 0, n, lane)
    end
    for _, task in ipairs(found) do all[#all + 1] = task end
  end
  for _, task in ipairs(planned) do all[#all + 1] = task end
  table.sort(all, by_place)
  for i = 1, math.min(n, #all) do
    if stop and all[i].place >= stop then break end
    ids[i] = all[i].id
    lane_of_head[all[i].id] = all[i].lane
  end
  return ids
end

-- Returns the lane of a task at the head of a tenant's mailboxes.
local function lane_in_head(name, id) return only_lane[name] or lane_of_head[id] end

local function write_lane_heads()
  for name, t in pairs(tenants) do
    if t[TAKEN] > 0 and only_lane[name] and not t[STUCK] then
      call('ZREMRANGEBYRANK', mailbox(name, only_lane[name]), 0, t[TAKEN] - 1)
    elseif t[TAKEN] > 0 then
      local by_lane = {}
      for i = 1, t[TAKEN] do
        local id = t[HEAD][i]
        local lane = lane_in_head(name, id)
        by_lane[lane] = by_lane[lane] or {}
        table.insert(by_lane[lane], id)
      end
      for lane, ids in pairs(by_lane) do write_all('ZREM', mailbox(name, lane), ids) end
    end
  end
  for id, name in pairs(sorting.moved) do call('ZREM', QUEUE .. name, id) end
end
