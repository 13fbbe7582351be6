-- Changes the settings of a limit, or of its instance for a tenant, for every runtime at once.
--
-- KEYS  1 META of the shard
-- ARGV  1 limit, as JSON text without quotation marks, 2 a tenant, for its instance, or '', 3 settings, packed,
--       4 ms for which to pause it, -1 without an end, or '', 5 names of settings to reset, packed; '' for all,
--       6 then: a cursor, '0' at first, for the tenants whose instances to reset
-- Reply {the new settings, packed, the next cursor, or '' if there are no more tenants whose instances to reset,
--       1 if `reopen` has to follow, else 0}; or the error GONE: the tenant has moved to another shard
--
-- Safe to repeat: it sets the same values; a pause begins anew.

-- @include lib/intact.lua
-- @include lib/change_limit.lua

local LOOK, MOST = 100, 25 -- settings, about; tenants whose instances one call resets
local name, tenant, pause = ARGV[1], ARGV[2], tonumber(ARGV[4])
local cursor, again = '0', false
local reset = ARGV[5] ~= '' and cmsgpack.unpack(ARGV[5])

-- Resets the instances of some tenants. Returns the next cursor: the same if they are too many.
local function reset_instances()
  local found, prefix, names, left = call('HSCAN', LIMIT_SETTINGS, ARGV[6], 'COUNT', LOOK), name .. '\31', {}, false
  for i = 1, #found[2], 2 do
    local is_instance = found[2][i]:sub(1, #prefix) == prefix
    left = left or is_instance and #names == MOST
    if is_instance and #names < MOST then names[#names + 1] = found[2][i]:sub(#prefix + 1) end
  end
  load_tenants(names)
  for _, each in ipairs(names) do change_limit(prefix .. each, each, {}) end
  return left and ARGV[6] or found[1], left
end

if tenant ~= '' then
  load_tenants({ tenant })
  local own = tenants[tenant][LIMITS]
  if own and own.gone then return redis.error_reply('GONE the tenant has moved to another shard') end
end
local field, settings = read_settings(name, tenant)
if not reset then
  settings = { declared = next(settings.declared or {}) and settings.declared or nil }
  if tenant == '' then cursor, again = reset_instances() end
end
for _, setting in ipairs(reset or {}) do settings[setting] = nil end
for setting, value in pairs(cmsgpack.unpack(ARGV[3])) do settings[setting] = value end
if pause then settings.paused = pause < 0 and -1 or shard.ms + pause end
if (settings.paused or 0) > 0 and settings.paused <= shard.ms then settings.paused = nil end
local packed = change_limit(field, tenant, settings)
if tenant ~= '' and call('HEXISTS', LIMIT_SETTINGS, name) == 0 then change_limit(name, '', { declared = {} }) end

begin_writing()
write_settings()
save_counts()
save_shard()
return { packed, (again or cursor ~= '0') and cursor or '', call('HEXISTS', META, 'reopening') }
