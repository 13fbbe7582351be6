-- Describes limits: all, or one.
--
-- KEYS  1 META of the shard
-- ARGV  1 limit, as JSON text without quotation marks, or '' for all, 2 a tenant, for its instance, or ''
-- Reply {now in ms, {limit, or limit, U+001F and tenant; settings, packed, or ''; tasks that run; µs until what was taken is
--        paid for; tenants that wait, ...}}. The tasks of a limit include those of its instances.
--
-- Reads only.

-- @include lib/intact.lua

local fields = {}
if ARGV[1] == '' then
  for _, field in ipairs(call('HKEYS', LIMIT_SETTINGS)) do
    if not field:find('\31', 1, true) then fields[#fields + 1] = field end
  end
else
  fields[1] = ARGV[2] == '' and ARGV[1] or ARGV[1] .. '\31' .. ARGV[2]
end
local settings, started, running = read_all('HMGET', LIMIT_SETTINGS, fields), call('HGETALL', LIMIT_STARTED), {}
for i = 1, #started, 2 do
  local name = ARGV[2] == '' and started[i]:match('^[^\31]*') or started[i]
  running[name] = (running[name] or 0) + started[i + 1]
end
local dues, found = read_all('ZMSCORE', LIMIT_DUES, fields), {}
for i, field in ipairs(fields) do
  local waiting = 0
  for _, id in ipairs(call('SRANDMEMBER', LINES_OF .. field, 100)) do waiting = waiting + call('ZCARD', LINE .. id) end
  local owed = math.max(0, (tonumber(dues[i] or nil) or 0) - shard.now)
  for _, value in ipairs({ field, settings[i] or '', integer(running[field] or 0), integer(owed), waiting }) do
    found[#found + 1] = value
  end
end
return { integer(shard.ms), found }
