-- Assigns tenants to runtimes.

-- @include lib/ring.lua

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

-- Changes a runtime's tenants. `packed` is {tenants to serve first, tenants for when these have no work, {''} for all
-- others}, or '' to serve all alike. Only reads. Returns the function that writes.
local function assign(runtime, packed)
  local before, given = call('SMEMBERS', ASSIGNED .. runtime), packed ~= '' and cmsgpack.unpack(packed) or { {}, {} }
  local time = math.max(shard.virtual, dedicated[runtime] or initial_time(given[1]))
  local added, removed, was_assigned = {}, {}, {}
  reassigned, reassigned_tenants = runtime, {}
  for _, name in ipairs(before) do was_assigned[name] = true end
  for _, name in ipairs(given[1]) do
    reassigned_tenants[name] = true
    if not was_assigned[name] then added[#added + 1] = name end
  end
  for _, name in ipairs(before) do
    if not reassigned_tenants[name] then removed[#removed + 1] = name end
  end
  if packed ~= '' or dedicated[runtime] then dedicated[runtime] = time end
  clamp_tags(added, time)
  clamp_tags(removed)
  return function()
    call('DEL', ASSIGNED .. runtime, STEAL .. runtime)
    call('SREM', shard.idle, runtime)
    call('SREM', IDLE_HOMES, runtime)
    if packed == '' then
      call('HDEL', HOMES, runtime)
    else
      call('HSET', HOMES, runtime, exact(time))
      write_all('SADD', ASSIGNED .. runtime, given[1])
      write_all('SADD', STEAL .. runtime, given[2])
    end
  end
end
