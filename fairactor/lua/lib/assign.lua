-- Assigns tenants to runtimes.

-- @include lib/ring.lua

local MOST_REPLACED = 60 -- names that a runtime has, and that one call replaces

-- Returns the virtual time at which a dedicated runtime starts: its tenants' lowest tag, else the latest time of others
-- dedicated to them.
local function initial_time(names)
  local latest, least
  load_tenants(names)
  load_tags(names)
  for _, name in ipairs(names) do
    local tag, time = root_entry(name)[TAG], dedicated_time(name)
    if tag then least = math.min(least or tag, tag) end
    if time then latest = math.max(latest or time, time) end
  end
  return least or latest or 0
end

-- Lists a runtime in the index under tenants ('SADD'), or does so no longer ('SREM').
local function index_names(command, index, names, runtime)
  for _, name in ipairs(names) do call(command, index .. name, runtime) end
end

-- Returns the names of a list that are not in another one.
local function names_without(names, others)
  local left, given = {}, {}
  for _, name in ipairs(others) do given[name] = true end
  for _, name in ipairs(names) do
    if not given[name] then left[#left + 1] = name end
  end
  return left
end

-- Takes some of its tenants from a runtime that has too many to replace them at once. Returns the function that writes.
local function unassign_some(runtime)
  local names, others = call('SRANDMEMBER', ASSIGNED .. runtime, MOST_REPLACED), call('SRANDMEMBER', STEAL .. runtime, MOST_REPLACED)
  reassigned, reassigned_tenants = runtime, {}
  clamp_tags(names)
  return function()
    write_all('SREM', ASSIGNED .. runtime, names)
    write_all('SREM', STEAL .. runtime, others)
    index_names('SREM', ASSIGNED_TO, names, runtime)
    index_names('SREM', STOLEN_BY, others, runtime)
  end
end

local function has_too_many(runtime)
  return call('SCARD', ASSIGNED .. runtime) > MOST_REPLACED or call('SCARD', STEAL .. runtime) > MOST_REPLACED
end

-- Changes a runtime's tenants. `packed` is {tenants to serve first, tenants for when these have no work, {''} for all
-- others}, or '' to serve all alike. They come in addition to those before with `adds`, else in place of them. Only reads.
-- Returns the function that writes.
local function assign(runtime, packed, adds)
  local before, steals, given = {}, {}, packed ~= '' and cmsgpack.unpack(packed) or { {}, {} }
  if not adds then before, steals = call('SMEMBERS', ASSIGNED .. runtime), call('SMEMBERS', STEAL .. runtime) end
  local time = math.max(shard.virtual, home_time(runtime) or initial_time(given[1]))
  local added = adds and given[1] or names_without(given[1], before)
  local removed, not_stolen = names_without(before, given[1]), names_without(steals, given[2])
  local was_dedicated = home_time(runtime)
  reassigned, reassigned_tenants = runtime, {}
  for _, name in ipairs(given[1]) do reassigned_tenants[name] = true end
  if packed ~= '' or was_dedicated then note_home(runtime, time) end
  clamp_tags(added, time)
  clamp_tags(removed)
  return function()
    if not adds then call('DEL', ASSIGNED .. runtime, STEAL .. runtime) end
    call('SREM', shard.idle, runtime)
    call('SREM', IDLE_HOMES, runtime)
    index_names('SREM', ASSIGNED_TO, removed, runtime)
    index_names('SREM', STOLEN_BY, not_stolen, runtime)
    if packed == '' then
      if was_dedicated then note_home(runtime, false) end
      call('HDEL', HOMES, runtime)
      call('SREM', INDEXED, runtime)
    else
      call('HSET', HOMES, runtime, exact(time))
      call('SADD', INDEXED, runtime)
      write_all('SADD', ASSIGNED .. runtime, given[1])
      write_all('SADD', STEAL .. runtime, given[2])
      index_names('SADD', ASSIGNED_TO, given[1], runtime)
      index_names('SADD', STOLEN_BY, given[2], runtime)
    end
  end
end
