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
local limits, open_limits = false, nil -- see limits.lua

local function open_lanes()
  if lanes then return end
  local SEPARATOR = '\\u001f' -- as JSON has it
  local UNKNOWN_TTL = 600000 -- ms, if no runtime has said for how long tasks wait for one that can run them
  local boxes = {} -- tenant -> lane -> how many tasks its mailbox will have
  local before = {} -- likewise, as it is stored
  local served = {} -- kind -> lane -> whether it serves the lane
  local lane_of_route = {}
  local any_default
  local new_routes, unsorted = {}, false
  lanes = {
    changed = {}, -- tenants of whom the rings of other kinds have to know
    arrived = {}, -- tenants that get tasks here
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
    local known = served[kind]
    if not known then
      known = {}
      served[kind] = known
    end
    if known[lane] == nil then
      known[lane] = lanes.fits(function(field) return call('HGET', KIND .. kind, field) end, lane) or false
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

  -- Returns how many tasks a tenant has in each lane. To be called before any of them moves.
  local function box_of(name)
    local box = boxes[name]
    if not box then
      box = { [''] = call('ZCARD', QUEUE .. name) }
      local stored = { [''] = box[''] }
      for _, lane in ipairs(call('SMEMBERS', LANES_OF .. name)) do
        box[lane] = call('ZCARD', mailbox(name, lane))
        stored[lane] = box[lane]
      end
      boxes[name], before[name] = box, stored
    end
    return box
  end
  lanes.box_of = box_of

  -- Returns how many tasks are stored in each mailbox of a tenant.
  function lanes.stored(name)
    box_of(name)
    return before[name]
  end

  -- Adds `n` to the number of a tenant's tasks in a lane.
  function lanes.add(name, lane, n)
    local box = box_of(name)
    box[lane] = (box[lane] or 0) + n
    if n > 0 or box[lane] <= 0 then lanes.changed[name] = true end
  end

  -- Returns how many tasks a tenant has in all its mailboxes.
  function lanes.queued(name)
    local sum = 0
    for _, n in pairs(box_of(name)) do sum = sum + n end
    return sum
  end

  -- Whether a tenant has a queued task in a lane that a kind serves, and that no limit may hold back.
  function lanes.works(name, kind)
    for lane, n in pairs(box_of(name)) do
      if n > 0 and lanes.serves(kind, lane) and not (limits and limits.set_of(lane)) then return true end
    end
    return false
  end

  local function is_served(lane)
    for _, kind in ipairs(kinds) do
      if lanes.serves(kind, lane) then return true end
    end
    return false
  end

  -- Notes that a lane is not served, from now on: after a while its tasks end (see expire.lua).
  function lanes.note_unserved()
    local till = shard.ms + (tonumber(call('HGET', META, 'unknown_ttl') or nil) or UNKNOWN_TTL)
    local at = tonumber(call('HGET', META, 'unserved') or nil)
    if not at or at > till then call('HSET', META, 'unserved', integer(till)) end
  end

  -- Writes which lanes the tenants have tasks in.
  function lanes.save()
    local in_use = shard.several or shard.routed or unsorted
    if unsorted then call('HSET', META, 'unsorted', integer(shard.stamp)) end
    for route in pairs(new_routes) do call('HSET', ROUTES, route, '1') end
    for name, box in pairs(boxes) do
      local stored = before[name]
      for lane, n in pairs(box) do
        local was = stored[lane] or 0
        if lane ~= '' and n > 0 and was <= 0 then
          in_use = true
          call('SADD', LANES_OF .. name, lane)
          call('ZADD', IN_LANE .. lane, integer(shard.ms), name)
          local is_new = call('HSETNX', LANES, lane, is_served(lane) and 0 or integer(shard.ms)) == 1
          if is_new and not is_served(lane) then lanes.note_unserved() end
        elseif lane ~= '' and n <= 0 and was > 0 then
          call('SREM', LANES_OF .. name, lane)
          call('ZREM', IN_LANE .. lane, name)
          if call('EXISTS', IN_LANE .. lane) == 0 then call('HDEL', LANES, lane) end
        end
        stored[lane] = n
      end
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
