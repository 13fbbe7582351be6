-- The first tasks of a tenant in all lanes that the runtime serves: its mailboxes, merged by place as tasks are wanted.
--
-- LANES_OF says in what order the mailboxes come, so those whose turn does not come are not read.
--
-- A task of the common lane that belongs in another one, which the runtime does not serve or which has limits, is moved
-- there when a turn meets it. A turn moves only so many. Of lanes with limits only planned tasks count (see plan.lua).

-- @include lib/base.lua
-- @takes lanes, limits from lib/lanes.lua
-- @takes queues, lane_queues from lib/queues.lua
-- @takes by_place, MOST_MOVED from lib/claim.lua
-- @takes tenants, HEAD, TAKEN, STUCK from lib/ring.lua
-- @takes NONE from lib/policy.lua

local sorting = { moved = {}, looked = 0, stopped = false } -- tasks that leave the common lane; how many were looked at
local lane_of_head = {} -- task -> its lane
local merges = {} -- tenant -> what its next tasks are taken from
local FIRST_READ = 2 -- tasks of a mailbox that are read at once, if others may come between them

local add_lane_heads, has_more, write_lane_heads
local function open_heads()
  local is_open = setmetatable({}, { __index = function(known, lane)
    known[lane] = lanes.is_open(shard.kind, lane) and true or false
    return known[lane]
  end })

  -- A merge and a source are arrays, as the entries of a ring are: a source is a mailbox, or tasks that this script puts there.
  local TENANT, NEXT_LANE, WANTED = 1, 2, 3 -- which of its lanes was not opened yet; about how many tasks are wanted
  local SOURCES = 4 -- the first source; the others follow
  local IDS, AT, PLACE = 1, 2, 3 -- id, place, id, place, ...; where the next id is; its place, or false
  local LANE, BOX, RANK = 4, 5, 6 -- false: planned tasks have lanes of their own; what becomes of the mailbox; how many were read
  local SIZE, REST, STOP = 7, 8, 9 -- how many to read; whether there may be more; whether it had to stop at this place

  local function move(name, id, place, lane)
    local key = mailbox(name, lane)
    sorting.moved[id] = name
    sorting.again = sorting.again or lanes.serves(shard.kind, lane) -- it has limits, and they are planned only in the next turn
    lanes.add(name, '', -1)
    lanes.add(name, lane, 1, place)
    lane_queues[key] = lane_queues[key] or {}
    table.insert(lane_queues[key], place)
    table.insert(lane_queues[key], id)
  end

  -- Whether a task was certainly sent when its lane, and its limits, were known, by its place: that is its stamp, less
  -- something. Places of other than critical tasks may be below 0, too, if they were due long ago.
  function lanes.is_sorted(place)
    return not shard.unsorted or (place < -CRITICAL_JUMP / 4 and place + CRITICAL_JUMP or place) > shard.unsorted
  end

  -- Removes from some tasks of the common lane those that the runtime cannot run. If it has to stop before the last, the source
  -- ends at the place of the first at which it did not look.
  local function sort_out(name, source, found)
    local right = {}
    for i = 1, #found, 2 do
      local id, at = found[i], found[i + 1]
      local lane = not sorting.moved[id] and (lanes.is_sorted(tonumber(at)) and '' or lanes.of_task(id))
      if lane and lane ~= '' and not is_open[lane] then
        if sorting.looked >= MOST_MOVED then
          sorting.stopped, source[STOP], source[REST] = true, tonumber(at), false
          return right
        end
        sorting.looked = sorting.looked + 1
        move(name, id, at, lane)
      elseif lane then
        right[#right + 1], right[#right + 2] = id, at
      end
    end
    return right
  end

  -- Reads more of a source, if it has no next task. Returns the place of the next one, or where it had to stop, or nothing.
  local function place_in(name, source)
    while not source[PLACE] and source[REST] do
      local box, rank, size = source[BOX], source[RANK], source[SIZE]
      local found = call('ZRANGE', box.key, rank, rank + size - 1, 'WITHSCORES')
      source[RANK], source[SIZE], source[REST] = rank + #found / 2, 2 * size, #found == 2 * size
      if not box.exact then box.stored, box.exact = math.max(box.stored, source[RANK]), not source[REST] end
      if source[LANE] == '' and shard.unsorted then found = sort_out(name, source, found) end
      local at = source[AT]
      if at == 1 then
        source[IDS] = found
      else
        for i = 1, #found do source[IDS][at + i - 1] = found[i] end
      end
      source[PLACE] = found[2] and tonumber(found[2]) or false
    end
    return source[PLACE] or source[STOP]
  end

  -- Adds tasks that are known to the sources of a merge.
  local function add_tasks(merge, lane, tasks)
    table.sort(tasks, by_place)
    local ids, source = {}, { false, 1, false, lane, false, 0, 0, false, false }
    for i, task in ipairs(tasks) do
      ids[2 * i - 1], ids[2 * i] = task.id, exact(task.place)
      if not lane then lane_of_head[task.id] = task.lane end
    end
    if lane == '' and shard.unsorted then ids = sort_out(merge[TENANT], source, ids) end
    source[IDS], source[PLACE] = ids, ids[2] and tonumber(ids[2]) or false
    merge[#merge + 1] = source
  end

  local function new_source(name, lane, size)
    return { false, 1, false, lane, lanes.box_in(name, lane), 0, size, true, false }
  end

  -- Starts to merge the mailboxes of a tenant. `n` of its tasks are wanted, about.
  local function merge_of(name, n)
    local merge = { name, 1, n }
    merges[name] = merge
    if is_open[''] and not lanes.has_no_common(name) then
      merge[SOURCES] = new_source(name, '', lanes.head(name, 1) and FIRST_READ or n)
    end
    for lane in pairs(lanes.arrived[name] or NONE) do
      if is_open[lane] then
        local list, tasks = lane == '' and queues[name] or lane_queues[mailbox(name, lane)], {}
        for i = 1, #list, 2 do tasks[#tasks + 1] = { id = list[i + 1], place = tonumber(list[i]) } end
        add_tasks(merge, lane, tasks)
      end
    end
    local planned = limits and limits.planned(name)
    if planned then add_tasks(merge, false, { unpack(planned) }) end
    return merge
  end

  -- Returns the lane of the stored mailbox that comes next, of those that were not opened, and the place of its first task.
  local function next_lane(merge)
    local name = merge[TENANT]
    local lane, at = lanes.head(name, merge[NEXT_LANE])
    while lane and not is_open[lane] do
      merge[NEXT_LANE] = merge[NEXT_LANE] + 1
      lane, at = lanes.head(name, merge[NEXT_LANE])
    end
    return lane, at
  end

  -- Returns which of two sources has the next task: `from`, whose task has the place `least`, or another; and the place. What
  -- had to stop comes first where places are equal.
  local function nearer(name, from, least, source)
    local at = place_in(name, source)
    if not at or from and at > least then return from, least end
    if from and at == least and (from[STOP] or not source[STOP] and source[IDS][source[AT]] > from[IDS][from[AT]]) then
      return from, least
    end
    return source, at
  end

  -- Returns the source of the next task.
  local function nearest(merge)
    local name, from, least = merge[TENANT], nil, nil
    for i = SOURCES, #merge do from, least = nearer(name, from, least, merge[i]) end
    local lane, at = next_lane(merge)
    while lane and (not from or tonumber(at) <= least) do
      merge[NEXT_LANE] = merge[NEXT_LANE] + 1
      local next_one, next_at = next_lane(merge)
      local source = new_source(name, lane, (from or next_one) and FIRST_READ or merge[WANTED])
      merge[#merge + 1] = source
      from, least = nearer(name, from, least, source)
      lane, at = next_one, next_at
    end
    return from
  end

  -- Adds the next ids of a tenant to the first ones, up to `n`. Claimed tasks are still in their mailboxes.
  function add_lane_heads(name, head, n, wanted)
    local merge = merges[name] or merge_of(name, wanted)
    while #head < n do
      local source = nearest(merge)
      if not source or not source[PLACE] then break end
      local at = source[AT]
      local id, place = source[IDS][at], source[IDS][at + 3]
      source[AT], source[PLACE] = at + 2, place and tonumber(place) or false
      head[#head + 1] = id
      lane_of_head[id] = source[LANE] or lane_of_head[id]
    end
    return head
  end

  -- Whether a tenant has a task in the lanes of the runtime that is not among the first ids.
  function has_more(name)
    local merge = merges[name]
    for i = SOURCES, #merge do
      if merge[i][PLACE] or merge[i][STOP] then return true end
    end
    if next_lane(merge) then return true end
    for i = SOURCES, #merge do
      if place_in(name, merge[i]) then return true end
    end
    return false
  end

  -- Notes where the mailboxes begin without what was taken from them in order.
  local function note_firsts(merge)
    for i = SOURCES, #merge do
      local source = merge[i]
      if source[BOX] and source[AT] > 1 and not source[STOP] and (source[PLACE] or not source[REST]) then
        source[BOX].next = source[PLACE] and source[IDS][source[AT] + 1]
      end
    end
  end

  -- Takes the first ids of a tenant, which are claimed, from their mailboxes.
  local function remove_heads(name, t)
    local head, taken = t[HEAD], t[TAKEN]
    if taken == 1 then
      call('ZREM', lanes.box_in(name, lane_of_head[head[1]]).key, head[1])
    else
      local by_lane = {}
      for i = 1, taken do
        local lane = lane_of_head[head[i]]
        by_lane[lane] = by_lane[lane] or {}
        table.insert(by_lane[lane], head[i])
      end
      for lane, ids in pairs(by_lane) do write_all('ZREM', mailbox(name, lane), ids) end
    end
    if not t[STUCK] and taken == #head then note_firsts(merges[name]) end
  end

  function write_lane_heads()
    for name, t in pairs(tenants) do
      if t[TAKEN] > 0 then remove_heads(name, t) end
    end
    for id, name in pairs(sorting.moved) do call('ZREM', QUEUE .. name, id) end
  end
end
