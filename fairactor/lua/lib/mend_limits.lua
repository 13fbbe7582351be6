-- Repairs limits, and what is known of the kinds for which the script does not act: both are made again from nothing, when
-- the tenants are brought onto the rings.

-- @include lib/mend_steps.lua
-- @include lib/lanes.lua
-- @include lib/fleet.lua

local function delete(_, key)
  spend(1)
  call('UNLINK', key)
end

local kinds_there = {}
for kind in shard.kinds:gmatch('%d+') do kinds_there[kind] = true end

local function delete_unless_there(kind, key)
  if not kinds_there[kind] then delete(kind, key) end
end

local function delete_unless_ours(rest, key)
  if key ~= shard.ring and key ~= shard.groups and rest:match('^(%d+):') ~= shard.kind then delete(rest, key) end
end

local function delete_first_kind(rest, key)
  if shard.kind ~= '0' then delete(rest, key) end
end

local function delete_of_limits() call('UNLINK', HELD_BACK, LIMIT_CLOCKS, LIMIT_STARTED) end

local function write_started(names)
  local running, flat = known_of('l', names), {}
  for i, name in ipairs(names) do flat[2 * i - 1], flat[2 * i] = name, running[i] end
  spend(#names)
  call('HSET', LIMIT_STARTED, unpack(flat))
end

-- The next call reads again what META says of lanes and limits.
local function repair_services()
  spend(MOST)
  if not lanes or shard.compat then return end
  local tables = {}
  for kind in pairs(kinds_there) do tables[kind] = read_table(kind) end
  revise_lanes(tables, true)()
end

local function open_again()
  spend(MOST)
  local in_use = call('EXISTS', LIMIT_SETTINGS, LIMIT_STARTED) > 0
  for _, lane in ipairs(lanes and call('HKEYS', LANES) or {}) do in_use = in_use or lanes.fields_of(lane)[4] end
  if in_use then call('HSET', META, 'lanes', '1', 'limited', '1', 'routed', '1') end
end
