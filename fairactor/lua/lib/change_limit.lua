-- Changes settings of limits.

-- @include lib/lanes.lua
-- @include lib/counts.lua
-- @include lib/ring.lua

open_lanes()
open_limits()

local new_settings = {} -- limit, or instance of a tenant -> its settings, packed; '' for none

-- Returns the field of LIMIT_SETTINGS of a limit, or of its instance for a tenant, and its settings.
local function read_settings(name, tenant)
  local field = tenant == '' and name or name .. '\31' .. tenant
  local packed = call('HGET', LIMIT_SETTINGS, field)
  return field, packed and cmsgpack.unpack(packed) or {}
end

-- Decides on new settings. Returns them, packed.
local function change_limit(field, tenant, settings)
  limits.change(field, tenant, settings)
  new_settings[field] = next(settings) and cmsgpack.pack(settings) or ''
  return cmsgpack.pack(settings)
end

-- Gives the tasks of an actor a lane of their own. A turn moves those that it meets in the common lane.
local function route_actor(name, is_new)
  local is_actor = false
  for kind in shard.kinds:gmatch('%d+') do is_actor = is_actor or call('HEXISTS', KIND .. kind, name) == 1 end
  if not is_actor or shard.compat then return end
  call('HSET', ROUTES, name, '1')
  if not is_new then return end
  call('HSET', META, 'unsorted', integer(shard.stamp))
  call('HSET', META, 'reopening', '0:0') -- all lines have to look again
end

local function write_settings()
  for field, packed in pairs(new_settings) do
    local is_limit = not field:find('\31', 1, true)
    if packed == '' and is_limit and call('HEXISTS', ROUTES, field) == 1 then
      packed = cmsgpack.pack({}) -- its tasks stay in their lines
    end
    local is_new = packed ~= '' and call('HSET', LIMIT_SETTINGS, field, packed) == 1
    if packed == '' then call('HDEL', LIMIT_SETTINGS, field) end
    if packed ~= '' and is_limit then route_actor(field, is_new) end
  end
  if next(new_settings) then call('HSET', META, 'lanes', '1', 'limited', '1', 'routed', '1') end
end
