-- Lanes: classes of tasks that the same runtimes can run.
--
-- The first string of a call is its route: the actor; if the message says more, then queue, version, limits and costs,
-- separated by U+001F. The first four fields are the name of the lane of the task. What all runtimes of the common lane
-- can run stands in that lane, '': a route with a version, if the kinds that serve its lane are the same, and a route that is
-- only an actor, unless some runtimes lack it: such actors are in ROUTES. A tenant has a mailbox in each lane in which it has
-- queued tasks.
--
-- In a shard with one lane none of this is there, and no script pays for it.

-- @include lib/base.lua

local lanes = false -- the functions below
local limits = false -- see limits.lua
local open_limits, open_lines -- the latter in scripts with lines.lua

local function open_lanes()
  if lanes then return end
  local SEPARATOR = '\\u001f' -- as JSON has it
  local UNKNOWN_TTL = 600000 -- ms, if no runtime has said for how long tasks wait for one that can run them
  local FIRST_HEADS, MORE_HEADS = 2, 50 -- lanes of a tenant that are read at once
  local NO_HEADS = {}
  local boxes = {} -- tenant -> what is known of its mailboxes
  local no_common = {} -- tenants that have no stored task in the common lane
  local written = false -- whether the script has written what it does to mailboxes
  local served = {} -- kind -> lane -> whether it serves the lane; fields of KIND
  local lane_of_route = {}
  local any_default
  local new_routes, unsorted = {}, false
  lanes = {
    changed = {}, -- tenants of whom the rings of other kinds have to know
    only_sends = false, -- whether the script does nothing else
    arrived = {}, -- tenant that gets tasks here -> lane -> true
  }

  -- Returns the keys of kinds, the one for which the script acts first.
  local kinds
  function lanes.use_kinds()
    kinds = { shard.kind }
    for kind in shard.kinds:gmatch('%d+') do
      if kind ~= shard.kind then kinds[#kinds + 1] = kind end
    end
    lanes.kinds, served, lane_of_route, any_default = kinds, {}, {}, nil
  end
  lanes.use_kinds()

  -- Returns the route of a task, as JSON text; '' if it cannot be read. A name may contain quotation marks, which a
  -- backslash precedes.
  local function route_in(record)
    if not readable(record) then return '' end
    local first = (select(7, struct.unpack(HEADER, record))) + 2
    if record:sub(first - 2, first - 1) ~= '["' then return '' end
    local last, backslashes = first - 1, nil
    repeat
      last = record:find('"', last + 1, true)
      backslashes = last and record:sub(first, last - 1):match('\\*$')
    until not last or #backslashes % 2 == 0
    return last and record:sub(first, last - 1) or ''
  end
  lanes.route_in = route_in

  -- Returns the first fields of a route, at most `n`, joined as before.
  local function cut(route, n)
    local from, last = 1, nil
    for _ = 1, n do
      last = route:find(SEPARATOR, from, true)
      if not last then return route end
      from = last + #SEPARATOR
    end
    return route:sub(1, last - 1)
  end

  local function fields_of(lane)
    local fields, from = {}, 1
    repeat
      local at = lane:find(SEPARATOR, from, true)
      fields[#fields + 1] = lane:sub(from, (at or 0) - 1)
      from = at and at + #SEPARATOR
    until not from
    return fields
  end

  lanes.fields_of = fields_of

  -- Returns the lane of tasks with a route.
  function lanes.of_route(route)
    local lane = lane_of_route[route]
    if not lane then
      lane = cut(route, 4)
      local is_common = shard.compat
      if not is_common and route:find(SEPARATOR, 1, true) then
        is_common = lanes.is_common(lane)
      elseif not is_common then
        is_common = not new_routes[route] and call('HEXISTS', ROUTES, route) == 0 and lanes.serves_default()
      end
      if is_common then lane = '' end
      if not limits and not is_common and fields_of(lane)[4] then open_limits() end
      lane_of_route[route] = lane
    end
    return lane
  end

  -- Returns the lane of a task. The record may be cut off behind the actor, or missing: then it is read.
  function lanes.of_task(id, record)
    return lanes.of_route(route_in(record or call('GETRANGE', TASK .. id, 0, 2400)))
  end

  -- Returns the lane for tasks of a route whose arguments do not fit the actor of this kind: others may have another
  -- version of it.
  function lanes.for_others(route)
    local fields = fields_of(cut(route, 4))
    local own = (call('HGET', KIND .. shard.kind, fields[1]) or ''):match(' (%x*)') or ''
    local lane = fields[1] .. SEPARATOR .. (fields[2] or '') .. SEPARATOR
      .. (fields[3] and fields[3] ~= '' and fields[3] or '1') .. '^' .. own
    return fields[4] and lane .. SEPARATOR .. fields[4] or lane
  end

  -- Whether a task may stand in a lane, by its route.
  function lanes.may_have(lane, id)
    local route = route_in(call('GETRANGE', TASK .. id, 0, 2400))
    if lane == '' then return shard.compat or not route:find(SEPARATOR, 1, true) end
    local own, found = fields_of(cut(route, 4)), fields_of(lane)
    local version = (found[3] or ''):match('^(%d+)^')
    return lane == cut(route, 4) or version and found[1] == own[1] and found[2] == (own[2] or '')
      and version == ((own[3] or '') == '' and '1' or own[3]) and found[4] == own[4]
  end

  -- Gives the tasks of an actor a lane of their own, because a runtime lacks it.
  function lanes.add_route(route)
    if shard.compat or route == '' or route:find(SEPARATOR, 1, true) or lanes.of_route(route) ~= '' then return end
    new_routes[route], lane_of_route[route], unsorted = true, nil, true
    shard.unsorted = shard.stamp
  end

  -- Whether runtimes serve a lane, if `get` returns what is stored about their kind, or false.
  function lanes.fits(get, lane)
    local restricted = get('\31')
    if lane == '' then return not restricted or get('\31default') and true end
    local fields = fields_of(lane)
    local queue, version = fields[2] or '', fields[3] or ''
    if restricted and not get('\31' .. (queue == '' and 'default' or queue)) then return false end
    local own, signature = tostring(get(fields[1]) or ''):match('^(%d+) ?(%x*)')
    local wanted, refused_by = version:match('^(%d*)^?(%x*)')
    return own and tonumber(own) >= (tonumber(wanted) or 1) and (refused_by == '' or refused_by ~= signature) or false
  end

  -- Whether the runtimes of a kind serve a lane.
  function lanes.serves(kind, lane)
    served[kind] = served[kind] or { lanes = {}, fields = {} }
    local known, fields = served[kind].lanes, served[kind].fields
    if known[lane] == nil then
      known[lane] = lanes.fits(function(field)
        if fields[field] == nil then fields[field] = call('HGET', KIND .. kind, field) end
        return fields[field]
      end, lane) or false
    end
    return known[lane]
  end

  -- Whether any kind serves the common lane. If none does, each actor has a lane of its own, so its tasks do not wait for
  -- ever.
  function lanes.serves_default()
    if any_default == nil then
      any_default = false
      for _, kind in ipairs(kinds) do any_default = any_default or lanes.serves(kind, '') end
    end
    return any_default
  end

  -- Whether the kinds that serve the common lane serve this one, too, and no others. A lane with a queue or limits is never
  -- common.
  function lanes.is_common(lane)
    local fields = fields_of(lane)
    local found, any = fields[2] == '' and not fields[4] and not (limits and limits.set_of(lane)), false
    for _, kind in ipairs(found and kinds or {}) do
      local serves_common = lanes.serves(kind, '') and true or false
      any = any or serves_common
      found = found and serves_common == lanes.serves(kind, lane)
    end
    return found and any
  end

  -- Whether the runtimes of any other kind serve a lane.
  function lanes.served_elsewhere(lane)
    for i = 2, #kinds do
      if lanes.serves(kinds[i], lane) then return true end
    end
    return false
  end

  -- Returns what is known of a tenant's mailboxes: its lanes in the order of their first tasks, as far as they were read, and
  -- what this script does to each mailbox.
  local function box_of(name)
    local box = boxes[name]
    if not box then
      box = { lanes = {}, heads = NO_HEADS, whole = false }
      boxes[name] = box
    end
    return box
  end

  -- Returns the lane, other than the common one, whose first task is the `i`-th of a tenant's as they are stored, and the
  -- place of that task.
  function lanes.head(name, i)
    local box = box_of(name)
    local heads = box.heads
    while 2 * i > #heads and not box.whole do
      local rank = #heads / 2
      local n = rank == 0 and FIRST_HEADS or MORE_HEADS
      local found = call('ZRANGE', LANES_OF .. name, rank, rank + n - 1, 'WITHSCORES')
      if rank == 0 then box.heads, heads = found, found else
        for j = 1, #found do heads[#heads + 1] = found[j] end
      end
      box.whole = #found < 2 * n
    end
    return heads[2 * i - 1], heads[2 * i]
  end

  -- Returns what this script does to a mailbox: `stored` tasks are in it at least, or exactly, and it will have so many more.
  local function box_in(name, lane)
    local own = box_of(name).lanes
    local known = own[lane]
    if not known then
      known = { key = mailbox(name, lane), stored = 0, exact = false, more = 0, left = false, first = nil, next = nil }
      own[lane] = known
    end
    return known
  end
  lanes.box_in = box_in

  -- From here on, what this script does to mailboxes is written.
  function lanes.have_written() written = true end

  -- Returns how many tasks a mailbox will have, at least; not more than 0 if it will have none.
  local function number_in(known)
    if known.stored + known.more <= 0 and not known.exact then
      known.stored = call('ZCARD', known.key) - (written and known.more or 0)
      known.exact = true
    end
    return known.stored + known.more
  end

  -- Whether a tenant will have tasks in a lane that passes a test.
  local function any_lane(name, passes)
    local own = box_of(name).lanes
    for lane, known in pairs(own) do
      if passes(lane) and number_in(known) > 0 then return true end
    end
    if not own[''] and passes('') and number_in(box_in(name, '')) > 0 then return true end
    local i, lane = 1, lanes.head(name, 1)
    while lane do
      if not own[lane] and passes(lane) then return true end
      i = i + 1
      lane = lanes.head(name, i)
    end
    return false
  end
  lanes.any = any_lane

  -- Returns the lanes of a tenant, and those that this script takes all tasks from: with a number that is above 0 if the
  -- tenant will have tasks there. `but_common`: not the common lane.
  function lanes.box_of(name, but_common)
    local box, numbers, i = box_of(name), {}, 1
    if not but_common then box_in(name, '') end
    local lane = lanes.head(name, 1)
    while lane do
      numbers[lane], i = 1, i + 1
      lane = lanes.head(name, i)
    end
    for lane, known in pairs(box.lanes) do numbers[lane] = not (but_common and lane == '') and number_in(known) or nil end
    return numbers
  end

  -- Adds `n` to the number of a tenant's tasks in a lane; the first of those that come is at a place.
  function lanes.add(name, lane, n, at)
    local known = box_in(name, lane)
    known.more = known.more + n
    if n < 0 then known.left = true elseif n > 0 then known.first = math.min(known.first or math.huge, tonumber(at)) end
    if n > 0 or number_in(known) <= 0 then lanes.changed[name] = true end
  end

  -- Looks, for all of some tenants at once, whether they have tasks in the common lane: often none has.
  function lanes.look_at_common(names)
    local keys = {}
    for i, name in ipairs(names) do keys[i] = QUEUE .. name end
    if #keys == 0 or call_all('EXISTS', keys) > 0 then return end
    for _, name in ipairs(names) do no_common[name] = true end
  end
  function lanes.has_no_common(name) return no_common[name] end

  -- Returns how many tasks a tenant has in all its mailboxes.
  function lanes.queued(name)
    local sum = 0
    for lane in pairs(lanes.box_of(name)) do
      local known = box_in(name, lane)
      if not known.exact then
        known.stored, known.exact = call('ZCARD', known.key) - (written and known.more or 0), true
      end
      sum = sum + math.max(0, known.stored + known.more)
    end
    return sum
  end

  -- Whether a tenant has a queued task.
  function lanes.waits(name)
    return any_lane(name, function() return true end)
  end

  -- Whether a lane is one whose tasks a kind can run, and that no limit may hold back.
  function lanes.is_open(kind, lane) return lanes.serves(kind, lane) and not (limits and limits.set_of(lane)) end

  -- Whether a tenant has a queued task in such a lane.
  function lanes.works(name, kind)
    return any_lane(name, function(lane) return lanes.is_open(kind, lane) end)
  end

  -- Whether what the script does may change whether a tenant has work for a kind. A send only changes some lanes: a kind that
  -- serves none of them is not concerned, so how many others the tenant has does not matter.
  function lanes.concerns(name, kind)
    if not lanes.only_sends then return true end
    for lane, known in pairs(box_of(name).lanes) do
      if (known.first or known.left) and lanes.serves(kind, lane) then return true end
    end
    return false
  end

  local function is_served(lane) return lanes.serves(kinds[1], lane) or lanes.served_elsewhere(lane) end

  -- Notes that a lane is not served, from now on: after a while its tasks end (see expire.lua).
  function lanes.note_unserved()
    local till = shard.ms + (tonumber(call('HGET', META, 'unknown_ttl') or nil) or UNKNOWN_TTL)
    local at = tonumber(call('HGET', META, 'unserved') or nil)
    if not at or at > till then call('HSET', META, 'unserved', integer(till)) end
  end

  -- Writes where the first task of a mailbox stands now. Notes a tenant that has come to the lane, or left it.
  local function save_head(name, lane, known, joined, left)
    local at, lists = known.next, nil
    if not known.left then
      lists = call('ZADD', LANES_OF .. name, 'LT', exact(known.first), lane) == 1 and joined
    else
      if at == nil or known.first then at = call('ZRANGE', known.key, 0, 0, 'WITHSCORES')[2] end
      if at then
        lists = call('ZADD', LANES_OF .. name, at, lane) == 1 and joined
      else
        lists = call('ZREM', LANES_OF .. name, lane) == 1 and left
      end
    end
    if lists then
      lists[lane] = lists[lane] or {}
      table.insert(lists[lane], name)
    end
  end

  -- Writes which lanes the tenants have tasks in. It comes after all that goes into mailboxes or leaves them.
  function lanes.save()
    local in_use = shard.several or shard.routed or unsorted
    if unsorted then call('HSET', META, 'unsorted', integer(shard.stamp)) end
    for route in pairs(new_routes) do call('HSET', ROUTES, route, '1') end
    local joined, left = {}, {} -- lane -> tenants
    for name, box in pairs(boxes) do
      for lane, known in pairs(box.lanes) do
        if lane ~= '' and (known.left or known.first) then save_head(name, lane, known, joined, left) end
      end
    end
    local with_more, new_lanes = {}, {}
    for lane, names in pairs(joined) do
      local times = {}
      in_use, with_more[#with_more + 1] = true, lane
      for i, name in ipairs(names) do times[2 * i - 1], times[2 * i] = integer(shard.ms), name end
      write_all('ZADD', IN_LANE .. lane, times)
    end
    for i, since in ipairs(read_all('HMGET', LANES, with_more)) do
      if not since then
        local serves = is_served(with_more[i])
        new_lanes[#new_lanes + 1], new_lanes[#new_lanes + 2] = with_more[i], serves and 0 or integer(shard.ms)
        if not serves then lanes.note_unserved() end
      end
    end
    write_all('HSET', LANES, new_lanes)
    for lane, names in pairs(left) do
      write_all('ZREM', IN_LANE .. lane, names)
      if call('EXISTS', IN_LANE .. lane) == 0 then call('HDEL', LANES, lane) end
    end
    if in_use and (not shard.lanes or lanes.revised) then call('HSET', META, 'lanes', '1') end
    lanes.changed = {}
  end
end

if shard.lanes then open_lanes() end

-- @include lib/limits.lua

local ROUTED = 128 -- added to the priority of a task that is sent, if its route is more than an actor

-- The script accepts such a task. From now on the shard has lanes.
local function use_routes()
  open_lanes()
  shard.routed = true
end
