-- Which kinds of runtimes there are, and which lanes they serve.
--
-- It comes before the parts that read the ring: the script then acts for a kind that there is.

-- @include lib/lanes.lua

-- Returns the kinds of the runtimes that hold a lease, without one of them.
local function living_kinds(except)
  local living, flat = {}, call('HGETALL', KIND_OF)
  for i = 1, #flat, 2 do
    if flat[i] ~= except and tonumber(call('ZSCORE', LEASES, flat[i]) or 0) > NO_LEASE then living[flat[i + 1]] = true end
  end
  return living
end

-- From here on there are these kinds, joined by commas, and the script acts for one of them.
local function use_kinds(kinds, acting)
  shard.kinds, shard.several = kinds, kinds:find(',', 1, true) and true
  act_for(acting)
  if shard.several then open_lanes() end
  if lanes then lanes.use_kinds() end
end

-- Returns the fields of a hash.
local function pairs_of(key)
  local fields, flat = {}, call('HGETALL', key)
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

-- Returns what the runtimes of a kind can run.
local function read_table(kind) return pairs_of(KIND .. kind) end

-- Likewise for some kinds, by kind, added to `tables`.
local function read_tables(kinds, tables)
  for _, kind in ipairs(kinds) do tables[kind] = read_table(kind) end
  return tables
end

-- Returns the actors that one of the kinds that serve the common lane lacks, and another kind has; and those with limits.
local function find_routes(tables)
  local number_with, routes, common = {}, {}, 0 -- actor -> how many kinds with the common lane have it; how many these are
  for _, actors in pairs(tables) do
    local serves = (not actors['\31'] or actors['\31default']) and 1 or 0
    common = common + serves
    for actor in pairs(actors) do number_with[actor] = (number_with[actor] or 0) + serves end
  end
  local all = {}
  for actor, number in pairs(number_with) do
    if actor:byte() ~= 31 then
      all[#all + 1] = actor
      if number < common then routes[actor] = true end
    end
  end
  for i, settings in ipairs(limits and read_all('HMGET', LIMIT_SETTINGS, all) or {}) do
    if settings then routes[all[i]] = true end
  end
  return routes
end

-- Notes whether any kind serves the common lane. If none does, its tasks get lanes of their own (see sort.lua).
local function note_common(is_served)
  if is_served then
    call('HDEL', META, 'sorting')
  elseif call('HSETNX', META, 'sorting', '0') == 1 then
    call('HSET', META, 'unserved', integer(shard.ms))
  end
end

-- Returns the function that writes what was decided about lanes: the actors that get lanes of their own and those that no
-- longer have them, lanes and since when no runtime serves them, whether one is not served, whether any kind serves the
-- common lane, and whether the shard has lanes.
local function lane_writer(decided, moves)
  lanes.revised = true
  return function()
    write_all('HSET', ROUTES, decided.added)
    write_all('HDEL', ROUTES, decided.dropped)
    write_all('HSET', LANES, decided.services)
    if decided.unserved then lanes.note_unserved() end
    note_common(decided.serves_common)
    if moves or #decided.added > 0 then call('HSET', META, 'unsorted', integer(shard.stamp)) end
    if decided.in_use then
      call('HSET', META, 'lanes', '1')
    else
      call('HDEL', META, 'lanes', 'unsorted', 'unserved')
    end
  end
end

-- Notes of each lane with tasks whether it is served now, if that has changed. Returns these lanes.
local function revise_services(decided, is_served_now)
  local has_tasks, waiting, now = {}, call('HGETALL', LANES), integer(shard.ms)
  decided.services, decided.unserved = {}, false
  for i = 1, #waiting, 2 do
    local lane, was_served = waiting[i], waiting[i + 1] == '0'
    local is_served = is_served_now(lane, was_served)
    has_tasks[lane] = true
    if is_served ~= was_served then
      decided.services[#decided.services + 1] = lane
      decided.services[#decided.services + 1] = is_served and 0 or now
    end
    decided.unserved = decided.unserved or not is_served
  end
  return has_tasks
end

-- Whether the shard has lanes already, because tasks need them.
local function has_lanes() return shard.routed or call('HGET', META, 'routed') == '1' or call('EXISTS', LANES) == 1 end

-- Decides again which actors have lanes of their own and which lanes are served, by what the kinds can run. Returns the
-- function that writes. `moves`: what can run the tasks has changed, so some may be in the wrong lane. `went`: what the only
-- kind that has gone could run. Its actors stay in ROUTES: tasks of theirs may come back here.
local function revise_lanes(tables, moves, went)
  open_lanes()
  local routes, decided, getters = find_routes(tables), { added = {}, dropped = {}, in_use = has_lanes() }, {}
  for _, actors in pairs(tables) do
    getters[#getters + 1] = function(field) return actors[field] end
    decided.in_use = decided.in_use or actors['\31'] or #getters > 1
  end
  local function is_served_by_any(lane)
    for _, get in ipairs(getters) do
      if lanes.fits(get, lane) then return true end
    end
    return false
  end
  decided.serves_common = is_served_by_any('')
  local function get_of_gone(field) return went[field] end
  local has_tasks = revise_services(decided, function(lane, was_served) -- often it is enough to look at the kind that went
    if went and not lanes.fits(get_of_gone, lane) then return was_served end
    return is_served_by_any(lane)
  end)
  local before = call('HKEYS', ROUTES)
  local limited = limits and read_all('HMGET', LIMIT_SETTINGS, before) or {}
  for i, actor in ipairs(before) do
    local stays = routes[actor] or has_tasks[actor] or went and went[actor] or limited[i]
    if stays then decided.in_use = true else table.insert(decided.dropped, actor) end
    routes[actor] = nil
  end
  for actor in pairs(routes) do
    table.insert(decided.added, actor)
    table.insert(decided.added, '1')
  end
  decided.in_use = decided.in_use or #decided.added > 0
  return lane_writer(decided, moves)
end

-- Returns the first of some kinds that serves the common lane.
local function first_common(kinds)
  for _, kind in ipairs(kinds) do
    if lanes.serves(kind, '') then return kind end
  end
  return nil
end

-- Decides likewise as a kind comes, given what it can run, and none goes; `others` are the kinds that were there. What it
-- reads does not grow with their number: an actor that is not in ROUTES is one that all of them have that serve the common
-- lane, or none of them.
local function add_kind(actors, others)
  open_lanes()
  local common, own, routes = first_common(others), {}, {}
  local serves = not actors['\31'] or actors['\31default']
  if #others > 0 and serves and not common then -- so far each actor has had a lane of its own
    return revise_lanes(read_tables(others, { came = actors }), true)
  end
  for actor in pairs(actors) do
    if actor:byte() ~= 31 then own[#own + 1] = actor end
  end
  if common then
    for i, version in ipairs(read_all('HMGET', KIND .. common, own)) do
      if not version then routes[own[i]] = true end
    end
    for _, actor in ipairs(serves and call('HKEYS', KIND .. common) or {}) do
      if actor:byte() ~= 31 and not actors[actor] then routes[actor] = true end
    end
  end
  for i, settings in ipairs(limits and read_all('HMGET', LIMIT_SETTINGS, own) or {}) do
    if settings then routes[own[i]] = true end
  end
  local decided, found = { added = {}, dropped = {}, serves_common = (serves or common) and true or false }, {}
  for actor in pairs(routes) do found[#found + 1] = actor end
  for i, known in ipairs(read_all('HMGET', ROUTES, found)) do
    if not known then
      table.insert(decided.added, found[i])
      table.insert(decided.added, '1')
    end
  end
  local function get(field) return actors[field] end
  revise_services(decided, function(lane, was_served) return was_served or lanes.fits(get, lane) or false end)
  decided.in_use = #others > 0 or actors['\31'] or #found > 0 or call('EXISTS', ROUTES) == 1 or has_lanes()
  return lane_writer(decided, true)
end

-- Deletes the lines of a kind.
local function forget_lines(kind)
  for _, set in ipairs(call('ZRANGE', LINES .. kind, 0, -1)) do
    local id = kind .. '\31' .. set
    for _, member in ipairs(call('ZRANGE', LINE .. id, 0, -1)) do
      if member:byte() == 255 then call('UNLINK', LINE_GROUP .. id .. ':' .. member:sub(2)) end
    end
    call('UNLINK', LINE .. id, LINE_GROUPS .. id)
    for name in set:gmatch('[^\31]+') do
      call('SREM', LINES_OF .. name, id)
      if call('EXISTS', LINES_OF .. name) == 0 then call('HDEL', LIMIT_CLOCKS, name) end
    end
  end
  call('UNLINK', LINES .. kind)
end

-- Deletes what is kept about a kind, but its digest.
local function forget_kind(kind)
  if limits then forget_lines(kind) end
  local suffix = kind == '0' and '' or ':' .. kind
  for _, group in ipairs(call('HKEYS', GROUPS .. suffix)) do
    call('UNLINK', (kind == '0' and GROUP or KIND_GROUP .. kind .. ':') .. group)
  end
  call('UNLINK', RING .. suffix, GROUPS .. suffix, IDLE .. suffix, KIND .. kind)
  call('HDEL', META, 'virtual' .. suffix, 'period' .. suffix)
end

local function forget_digests(gone)
  local digests = call('HGETALL', KIND_NUMBERS)
  for i = 1, #digests, 2 do
    if gone[digests[i + 1]] then call('HDEL', KIND_NUMBERS, digests[i]) end
  end
end

-- Lets a shard with one kind do without lanes again, once no task needs them. Returns the function that writes, or nil.
local function close_lanes()
  if not lanes or shard.several or shard.compat or call('EXISTS', LANES) == 1 then return nil end
  return revise_lanes({ [shard.kind] = read_table(shard.kind) }, false)
end

-- Decides what becomes of the kind of a runtime whose lease ends. Returns the function that writes.
local function end_kind_of(runtime)
  local kind, stay = call('HGET', KIND_OF, runtime), {}
  local living = kind and living_kinds(runtime) or {}
  local goes = kind and not living[kind] and next(living) and not shard.compat
  shard.kind_goes = goes
  if not goes then
    if kind and shard.several then use_kinds(shard.kinds, kind) end
    return function() call('HDEL', KIND_OF, runtime) end
  end
  for other in shard.kinds:gmatch('%d+') do
    if other ~= kind then stay[#stay + 1] = other end
  end
  use_kinds(table.concat(stay, ','), stay[1])
  local write_lanes = revise_lanes(read_tables(stay, {}), true, read_table(kind))
  return function()
    call('HDEL', KIND_OF, runtime)
    forget_kind(kind)
    forget_digests({ [kind] = true })
    call('HSET', META, 'kinds', shard.kinds)
    write_lanes()
  end
end
